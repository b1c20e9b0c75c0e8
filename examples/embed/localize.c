/* Findings of one film: localize BUNDLE FILM.pgm [PROFILE]
 *
 * The film is a binary PGM (Netpbm P5) of 8 or 16 bits, brighter = whiter, shown over its full range. Output:
 *
 *     film ABNORMAL THRESHOLD                   probability that it shows anything; nan: the bundle does not say
 *     finding LABEL SCORE PEAK_X PEAK_Y         positive classes, in the order of the bundle
 *     box LABEL SCORE X Y WIDTH HEIGHT          pixels of the film, strongest first
 *
 * Exit status: 0 localized, 1 refused or failed (the reason is on stderr), 2 usage. */
#include <msloc_edge.h>
#include <stdio.h>
#include <stdlib.h>

#define MAX_BOXES 16 /* kept for each class by msloc_options.max_boxes = 0 */

static int fail(const char *what, msloc_status status, const char *sentence) {
    fprintf(stderr, "%s: %s: %s\n", what, msloc_status_text(status), sentence);
    return 1;
}

/* Reads a PGM; the samples are the caller's to free, NULL where the file is none. */
static void *read_pgm(const char *path, msloc_pixels *film) {
    unsigned width = 0, height = 0, largest = 0;
    unsigned char *bytes = NULL;
    FILE *file = fopen(path, "rb");
    if (file == NULL) return NULL;
    if (fscanf(file, "P5 %u %u %u", &width, &height, &largest) == 3 && fgetc(file) != EOF && width > 0 &&
        width < 65536 && height > 0 && height < 65536 && largest > 0 && largest < 65536) {
        film->width = width, film->height = height;
        film->bits_allocated = largest > 255 ? 16 : 8;
        for (film->bits_stored = 1; largest >> film->bits_stored != 0;) film->bits_stored++;
        film->data_size = (uint64_t)width * height * (film->bits_allocated / 8);
        bytes = malloc(film->data_size);
        if (bytes != NULL && fread(bytes, 1, film->data_size, file) != film->data_size) free(bytes), bytes = NULL;
    }
    fclose(file);
    if (bytes != NULL && film->bits_allocated == 16) { /* PGM is big-endian; the library takes the machine's order */
        uint16_t *samples = (uint16_t *)bytes;
        for (uint64_t i = 0; i < film->data_size / 2; i++)
            samples[i] = (uint16_t)(bytes[2 * i] << 8 | bytes[2 * i + 1]);
    }
    film->data = bytes;
    return bytes;
}

static void print_finding(msloc_localizer *localizer, uint32_t k, const msloc_finding *finding) {
    msloc_box boxes[MAX_BOXES];
    printf("finding %s %.6f %.3f %.3f\n", finding->label, finding->score, finding->peak_x, finding->peak_y);
    if (msloc_get_boxes(localizer, k, boxes, MAX_BOXES) != MSLOC_OK) return;
    for (uint32_t i = 0; i < finding->boxes; i++)
        printf("box %s %.6f %.3f %.3f %.3f %.3f\n", finding->label, boxes[i].score, boxes[i].x, boxes[i].y, boxes[i].w,
               boxes[i].h);
}

static void print_film(msloc_localizer *localizer) {
    msloc_model model = MSLOC_MODEL_INIT;
    msloc_summary film = MSLOC_SUMMARY_INIT;
    msloc_finding finding = MSLOC_FINDING_INIT;
    if (msloc_get_model(localizer, &model) != MSLOC_OK || msloc_get_summary(localizer, &film) != MSLOC_OK) return;
    printf("film %.6f %.6f\n", (double)film.abnormal, (double)film.abnormal_threshold);
    for (uint32_t k = 0; k < model.classes; k++)
        if (msloc_get_finding(localizer, k, &finding) == MSLOC_OK && finding.positive)
            print_finding(localizer, k, &finding);
}

int main(int argc, char **argv) {
    if (argc != 3 && argc != 4) return fprintf(stderr, "usage: %s BUNDLE FILM.pgm [PROFILE]\n", argv[0]), 2;

    char error[512] = "";
    msloc_options options = MSLOC_OPTIONS_INIT;
    options.bundle = argv[1];
    options.profile = argc == 4 ? argv[3] : NULL;
    options.error = error;
    options.error_size = sizeof error;
    msloc_localizer *localizer = NULL;
    msloc_status status = msloc_open(&options, &localizer);
    if (status != MSLOC_OK) return fail(argv[1], status, error);

    int result = 1;
    msloc_pixels film = MSLOC_PIXELS_INIT;
    msloc_request request = MSLOC_REQUEST_INIT;
    request.deadline_ms = 10000;
    void *samples = read_pgm(argv[2], &film);
    if (samples == NULL) {
        fprintf(stderr, "%s: no binary PGM of 8 or 16 bits can be read from it\n", argv[2]);
    } else if ((status = msloc_self_test(localizer, NULL)) != MSLOC_OK) { /* once, when a device starts */
        fail("self-test", status, msloc_last_error(localizer));
    } else if ((status = msloc_localize(localizer, &film, &request)) != MSLOC_OK) {
        fail(argv[2], status, msloc_last_error(localizer));
    } else {
        print_film(localizer);
        result = 0;
    }
    free(samples);
    msloc_close(localizer);
    return result;
}
