/* libmsloc_edge: weakly supervised localization on chest radiographs, in a process without Python.
 *
 * Stored pixels in, findings out: a calibrated score for every class, and for the positive ones a peak and boxes in
 * pixels of the stored image. A bundle (a folder with manifest.json and model.onnx) is all that it needs.
 *
 * Not a medical device by itself: the intended use stands in the bundle's manifest.
 *
 * Example
 * -------
 *     msloc_options options = MSLOC_OPTIONS_INIT;
 *     msloc_localizer *localizer = NULL;
 *     char error[256];
 *     options.bundle = "/opt/models/cxr-edge";
 *     options.error = error;
 *     options.error_size = sizeof error;
 *     if (msloc_open(&options, &localizer) != MSLOC_OK) { puts(error); return 1; }
 *
 *     msloc_pixels film = MSLOC_PIXELS_INIT;
 *     film.data = samples, film.data_size = 2 * 2500 * 3000;
 *     film.width = 2500, film.height = 3000, film.bits_allocated = 16, film.bits_stored = 12;
 *     film.voi = MSLOC_VOI_LINEAR, film.window_center = 2048, film.window_width = 4096;
 *     if (msloc_localize(localizer, &film, NULL) != MSLOC_OK) { puts(msloc_last_error(localizer)); return 1; }
 *
 *     msloc_model model = MSLOC_MODEL_INIT;
 *     msloc_get_model(localizer, &model);
 *     msloc_finding finding = MSLOC_FINDING_INIT;
 *     msloc_box boxes[16];
 *     for (uint32_t k = 0; k < model.classes; k++)
 *         if (msloc_get_finding(localizer, k, &finding) == MSLOC_OK && finding.positive) {
 *             printf("%s %.2f\n", finding.label, finding.score);
 *             msloc_get_boxes(localizer, k, boxes, 16);
 *         }
 *     msloc_close(localizer);
 *
 * Coordinates
 * -----------
 * Pixels of the stored image: x to the right, y down, origin at the top-left corner of the top-left pixel. Pixel
 * (row i, column j) covers [j, j + 1) x [i, i + 1). Scores are probabilities; maps, peaks and
 * their thresholds are logits.
 *
 * Ownership
 * ---------
 * What the caller passes stays the caller's and is read during the call alone, except the callbacks and their `user`,
 * which are kept until msloc_close. Text that the library returns belongs to the localizer (or is constant) and lives
 * until the next msloc_localize, msloc_localize_dicom, msloc_self_test (for msloc_last_error: any call) or msloc_close.
 *
 * Memory and time
 * ---------------
 * msloc_open allocates everything; it also runs the network once. From then on a film that succeeds costs no heap
 * allocation beyond the engine's own (DICOM files excepted). Working memory depends on the model's input, not on the
 * film, but for an engine with films on the device: it keeps page-locked memory of the largest so far. `max_pixels`
 * bounds the work of a film. A deadline and a cancellation take effect between stages: window and letterbox, network,
 * and each class's map. The network itself is not interrupted.
 *
 * Threads
 * -------
 * Any number of localizers work at once, each in a thread of its own. One localizer serves one call at a time: a second
 * one returns MSLOC_BUSY at once and changes nothing. msloc_cancel may be called from any thread at any time before
 * msloc_close. msloc_close must not overlap any other call on its localizer. Callbacks come from the calling thread,
 * must not call back into the same localizer (a msloc_film_fn may read from it), and must not throw.
 *
 * Errors
 * ------
 * Every function says by its status what happened; no C++ exception leaves the library. msloc_last_error gives one
 * sentence about the last call on this localizer that failed: what was expected, what came, what to do. After a failed
 * localization there is no result: the one before is gone too. A localizer goes on working after every error.
 *
 * Versions
 * --------
 * Every struct begins with its size, set by its MSLOC_..._INIT. Later versions add members at the end only, and take
 * the sizes of earlier ones. A size that this library does not know (a header newer than the library) is refused.
 * Values of enums never change.
 *
 * No network connection is ever made, and no file is written but OpenVINO's own into `cache_folder`, where one is set.
 */
#ifndef MSLOC_EDGE_H
#define MSLOC_EDGE_H

#include <stddef.h>
#include <stdint.h>

#define MSLOC_VERSION_MAJOR 0
#define MSLOC_VERSION_MINOR 2
#define MSLOC_VERSION_PATCH 0
#define MSLOC_VERSION (MSLOC_VERSION_MAJOR * 10000 + MSLOC_VERSION_MINOR * 100 + MSLOC_VERSION_PATCH)

#if defined(__GNUC__)
#define MSLOC_API __attribute__((visibility("default")))
#else
#define MSLOC_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* What a call came to. Those that Python knows too have the same names as its reason codes (docs/errors.md). */
typedef int32_t msloc_status;
enum {
    MSLOC_OK = 0,

    /* the call: fix the program */
    MSLOC_ARGUMENT = 1,         /* a null pointer, or a number that cannot be */
    MSLOC_STRUCT_SIZE = 2,      /* a struct_size that this library does not know */
    MSLOC_BUFFER_TOO_SMALL = 3, /* nothing was written */
    MSLOC_NO_RESULT = 4,        /* no localization succeeded, or this class was not localized in it */

    /* the moment: try again, or with more time */
    MSLOC_BUSY = 10,      /* another thread is inside this localizer */
    MSLOC_DEADLINE = 11,  /* the deadline passed before the film was done */
    MSLOC_CANCELLED = 12, /* msloc_cancel */

    /* the bundle: copy or export it again */
    MSLOC_BUNDLE_MISSING = 20,      /* no such folder */
    MSLOC_BUNDLE_FILE_MISSING = 21, /* no manifest.json, or not a file that it names, or unreadable */
    MSLOC_BUNDLE_DAMAGED = 22,      /* a manifest that is not JSON, or holds what cannot be */
    MSLOC_BUNDLE_SCHEMA = 23,       /* a manifest of another schema: update the library */
    MSLOC_BUNDLE_HASH = 24,         /* a file that is not the one that was exported */
    MSLOC_PROFILE_UNKNOWN = 25,     /* no such threshold profile; the sentence lists those there are */
    MSLOC_GOLDEN_MISSING = 26,      /* msloc_self_test with a bundle without a golden result of this film */

    /* the film: it is refused, the next one may do */
    MSLOC_TOO_SMALL = 30,          /* a side of less than 32 pixels */
    MSLOC_TOO_LARGE = 31,          /* more than max_pixels */
    MSLOC_CONSTANT = 32,           /* everything is displayed alike: look at pixels and window */
    MSLOC_BAD_WINDOW = 33,         /* a window, rescale or table that cannot be */
    MSLOC_UNREADABLE = 34,         /* a DICOM file that cannot be opened or decoded */
    MSLOC_WRONG_MODALITY = 35,     /* DICOM that is no projection radiograph */
    MSLOC_UNSUPPORTED_PIXELS = 36, /* DICOM of colour, floats, or another depth */
    MSLOC_UNSUPPORTED_CODEC = 37,  /* DICOM of a transfer syntax without a decoder here */
    MSLOC_DICOM_MISSING = 38,      /* the library was built without DCMTK */

    /* the film: refused by the bundle's input gate, or for its header, before the network. Which of these refuse, and
     * which are warnings alone, the profile says (docs/input-gate.md). A bundle without a gate refuses for none. */
    MSLOC_NOT_XRAY = 60,         /* a photograph, a slice, a screen, text */
    MSLOC_NOT_CHEST = 61,        /* another part of the body, by its header or its look */
    MSLOC_NOT_FRONTAL = 62,      /* a lateral or oblique view, by its header */
    MSLOC_ROTATED = 63,          /* by 90 or 180 degrees */
    MSLOC_POLARITY_SUSPECT = 64, /* shown as a negative */
    MSLOC_CUT_OFF = 65,          /* a lung is not whole on it */
    MSLOC_CLIPPED = 66,          /* too much of it is black or white */
    MSLOC_LOW_RESOLUTION = 67,   /* less than half of the model's input along a side */

    /* the engine */
    MSLOC_BACKEND_UNKNOWN = 40, /* no engine of this name in this build */
    MSLOC_BACKEND_DEVICE = 41,  /* a device, driver or library of the engine that is not here; or samples on a device,
                                   of an engine without films on it */
    MSLOC_BACKEND_FAILED = 42,  /* the engine cannot load the model, or failed on a film: stop using this localizer */
    MSLOC_SELF_TEST = 43,       /* results beyond the limits: take the device out of use */

    /* the machine */
    MSLOC_NO_MEMORY = 50,
    MSLOC_INTERNAL = 51 /* a fault of this library: report it */
};

/* The stable name of a status, such as "bundle_hash"; "unknown" for a value that is none. Constant text. */
MSLOC_API const char *msloc_status_text(msloc_status status);

/* MSLOC_VERSION of the library that runs; that of the header is the macro. */
MSLOC_API uint32_t msloc_version(void);

enum { MSLOC_LOG_INFO = 0, MSLOC_LOG_WARNING = 1, MSLOC_LOG_ERROR = 2 };

/* One sentence without a line end; `message` lives during the call. */
typedef void (*msloc_log_fn)(void *user, int32_t level, const char *message);

/* One JSON object without a line end, for every film that was begun, also a refused one: schema "msloc-edge/audit/1",
 * time (UTC), status, model with the sha256 of its manifest, engine, size of the film, abnormal (score, threshold,
 * positive; null where the bundle has none), scores, positive classes, number of boxes, warnings, stage times. It holds
 * no pixel, no file name and no element of a DICOM header but the size. */
typedef void (*msloc_audit_fn)(void *user, const char *json);

typedef struct msloc_options {
    uint32_t struct_size;
    uint32_t threads;         /* for the network and for all around it; 0: one for each core */
    const char *bundle;       /* the bundle's folder, UTF-8 */
    const char *profile;      /* which thresholds decide; NULL: the bundle's default */
    const char *engine;       /* NULL: "openvino" */
    const char *device;       /* as the engine names it; NULL: "CPU", for tensorrt "cuda" (also cuda:0,fp16 or
                                 cuda:0,FILE.plan) */
    const char *cache_folder; /* where the engine may keep compiled models, for a faster start; NULL: nowhere; for
                                 tensorrt the folder engines/ of Python's cache, which is only read */
    uint64_t max_pixels;      /* the largest film, width x height; 0: 120,000,000 */
    uint32_t max_boxes;       /* kept for each class, the strongest: 16 to 1024; 0: 16 */
    uint32_t error_size;      /* bytes in `error` */
    char *error;              /* where msloc_open writes its sentence when it fails; NULL: nowhere */
    msloc_log_fn log;         /* NULL: no log */
    void *log_user;
    msloc_audit_fn audit; /* NULL: no audit */
    void *audit_user;
} msloc_options;
#define MSLOC_OPTIONS_INIT \
    {sizeof(msloc_options), 0, NULL, NULL, NULL, NULL, NULL, 0, 0, 0, NULL, NULL, NULL, NULL, NULL}

/* A model in an engine, ready to run. Opaque. */
typedef struct msloc_localizer msloc_localizer;

/* Open a bundle: check the hash of every file, load the network, run it once.
 * On success *localizer is the caller's to close; on failure it is NULL and options->error has the sentence. */
MSLOC_API msloc_status msloc_open(const msloc_options *options, msloc_localizer **localizer);

/* Free everything. NULL does nothing. */
MSLOC_API void msloc_close(msloc_localizer *localizer);

/* The sentence of the last call that failed; "" when none did. */
MSLOC_API const char *msloc_last_error(const msloc_localizer *localizer);

/* How stored values become what a radiologist sees: the VOI step of DICOM PS3.3 C.11.2. */
enum {
    MSLOC_VOI_FULL_RANGE = 0,   /* from the lowest to the highest value that bits_stored can hold */
    MSLOC_VOI_LINEAR = 1,       /* C.11.2.1.2.1, window_width >= 1 */
    MSLOC_VOI_LINEAR_EXACT = 2, /* C.11.2.1.3.2, window_width > 0 */
    MSLOC_VOI_SIGMOID = 3,      /* C.11.2.1.3.1, window_width > 0 */
    MSLOC_VOI_TABLE = 4         /* `table` is the whole display transform; window, rescale and polarity are not used */
};

enum {
    MSLOC_MONOCHROME2 = 0, /* the lowest value is black */
    MSLOC_MONOCHROME1 = 1  /* the lowest value is white; takes effect after the window, C.7.6.3.1.2 */
};

/* One film: grey pixels as stored, in the machine's byte order, top row first. */
typedef struct msloc_pixels {
    uint32_t struct_size;
    uint32_t width;           /* pixels */
    uint32_t height;          /* pixels */
    uint32_t bits_allocated;  /* 8 or 16: the size of one sample; 16-bit data lie on an even address */
    uint32_t bits_stored;     /* 1 to bits_allocated: the low bits that count, the others are ignored; 0: all */
    uint32_t is_signed;       /* 1: two's complement of bits_stored bits */
    uint32_t photometric;     /* MSLOC_MONOCHROME2 or MSLOC_MONOCHROME1 */
    uint32_t voi;             /* MSLOC_VOI_... */
    const void *data;
    uint64_t data_size;       /* bytes behind `data`: at least (height - 1) * row_stride + one packed row */
    uint64_t row_stride;      /* bytes from row to row, a multiple of a sample's; 0: rows are packed */
    double window_center;     /* in units after the rescale */
    double window_width;
    double rescale_slope;     /* modality LUT, C.11.1: value = stored * slope + intercept; not 0 */
    double rescale_intercept;
    const float *table;       /* for MSLOC_VOI_TABLE: brightness in [0, 1], 1 = white, of each bit pattern */
    uint32_t table_size;      /* 2 to the power of bits_stored */
    uint32_t reserved;        /* 0 */
    const void *device_data;  /* in place of `data`, which is NULL then: samples in the memory of the engine's device, of
                                 an engine that says "films on the device" (msloc_model.engine), else
                                 MSLOC_BACKEND_DEVICE. `data_size` and `row_stride` are theirs */
    void *stream;             /* CUstream, a cudaStream_t, on which `device_data` is written: what is on it when the call
                                 begins is waited for by the device. NULL: the default stream */
} msloc_pixels;
#define MSLOC_PIXELS_INIT \
    {sizeof(msloc_pixels), 0, 0, 0, 0, 0, 0, 0, NULL, 0, 0, 0.0, 0.0, 1.0, 0.0, NULL, 0, 0, NULL, NULL}

#define MSLOC_NO_DEADLINE UINT32_MAX

/* How one film is to be localized. */
typedef struct msloc_request {
    uint32_t struct_size;
    uint32_t all_classes; /* 1: localize every class; 0: those that the film's gate and their score let through */
    uint32_t deadline_ms; /* from the call on; 0 has passed already, MSLOC_NO_DEADLINE never does */
} msloc_request;
#define MSLOC_REQUEST_INIT {sizeof(msloc_request), 0, MSLOC_NO_DEADLINE}

/* Localize one film; its result stays in the localizer until the next. `request` NULL: not all classes, no deadline. */
MSLOC_API msloc_status msloc_localize(msloc_localizer *localizer, const msloc_pixels *pixels,
                                      const msloc_request *request);

/* The same for a DICOM file (CR, DX, RG), first frame; `path` UTF-8. MSLOC_DICOM_MISSING in a build without DCMTK. */
MSLOC_API msloc_status msloc_localize_dicom(msloc_localizer *localizer, const char *path,
                                            const msloc_request *request);

/* A batch calls it after each film, in the calling thread, with the film's index, 0 <= i < count, and status. The
 * msloc_get_* functions and msloc_last_error speak of that film until it returns; of the other calls only msloc_cancel
 * may be made. */
typedef void (*msloc_film_fn)(void *user, uint32_t i, msloc_status status);

/* Localize several films, one after another; a film that is refused keeps no other back. The deadline is that of the
 * whole batch: films that it leaves no time for end with MSLOC_DEADLINE, those after a msloc_cancel with
 * MSLOC_CANCELLED. MSLOC_OK when every film was localized, else the first status that was another. */
MSLOC_API msloc_status msloc_localize_batch(msloc_localizer *localizer, const msloc_pixels *const *films,
                                            uint32_t count, const msloc_request *request, msloc_film_fn done,
                                            void *user);

/* End the localization or self-test that runs in another thread, at its next stage, with MSLOC_CANCELLED. Where none
 * runs nothing happens: the next one is not touched. */
MSLOC_API msloc_status msloc_cancel(msloc_localizer *localizer);

/* What was opened. Texts belong to the localizer, until msloc_close. */
typedef struct msloc_model {
    uint32_t struct_size;
    uint32_t classes;       /* K */
    uint32_t stages;        /* S */
    uint32_t input_width;   /* pixels of the model's input */
    uint32_t input_height;
    uint32_t max_boxes;     /* for each class */
    const char *name;
    const char *version;
    const char *sha256;     /* of manifest.json, which holds the hash of every file: it names the whole bundle */
    const char *profile;
    const char *engine;     /* name, version and device, such as "openvino 2026.4.1 CPU" */
} msloc_model;
#define MSLOC_MODEL_INIT {sizeof(msloc_model), 0, 0, 0, 0, 0, NULL, NULL, NULL, NULL, NULL}

MSLOC_API msloc_status msloc_get_model(msloc_localizer *localizer, msloc_model *model);

/* The layer relevance weights of class k, S numbers that sum to one: how much each stage counts in its map. */
MSLOC_API msloc_status msloc_get_relevance(msloc_localizer *localizer, uint32_t k, float *weights, uint32_t capacity);

/* Bits of msloc_summary.warnings. */
enum {
    MSLOC_WARNING_POLARITY = 1, /* the film as displayed looks like a negative: its photometric may be wrong */
    MSLOC_WARNING_NO_WINDOW = 2,     /* DICOM of more than 8 bits without window or VOI LUT: stretched */
    MSLOC_WARNING_BAD_WINDOW = 4,    /* DICOM with a window that the standard does not allow: as without */
    MSLOC_WARNING_NOT_FRONTAL = 8,   /* DICOM: a lateral or oblique view */
    MSLOC_WARNING_NOT_CHEST = 16,    /* DICOM: another part of the body; or it looks like one */
    MSLOC_WARNING_FOR_PROCESSING = 32, /* DICOM: raw detector values */
    MSLOC_WARNING_MODALITY = 64,     /* DICOM: no modality, or OT */
    MSLOC_WARNING_NONCONFORMANT = 128, /* DICOM: something against the standard that was passed over */
    MSLOC_WARNING_NOT_XRAY = 256,      /* these by the bundle's input gate; each has a status of its name */
    MSLOC_WARNING_ROTATED = 512,
    MSLOC_WARNING_CUT_OFF = 1024,
    MSLOC_WARNING_CLIPPED = 2048,
    MSLOC_WARNING_LOW_RESOLUTION = 4096
};

/* The last film as a whole. x_input = x_image * width / image_width + left, and likewise for y. */
typedef struct msloc_summary {
    uint32_t struct_size;
    uint32_t warnings;     /* MSLOC_WARNING_... */
    uint32_t positive;     /* number of positive classes */
    uint32_t image_width;  /* the stored image, pixels */
    uint32_t image_height;
    uint32_t left;         /* the film's place within the model's input, whole pixels; what is beside it is black */
    uint32_t top;
    uint32_t width;
    uint32_t height;
    float preprocess_ms;   /* window and letterbox in one pass */
    float network_ms;      /* with films on the device also their maps, regions and peaks */
    float localize_ms;     /* maps, boxes, peaks */
    float total_ms;        /* the whole call */
    uint32_t reserved;
    float abnormal;           /* calibrated probability that the film shows anything; NaN: the bundle does not say */
    float abnormal_threshold; /* the film's gate, the profile's: below it no class is positive; 0: all films pass */
} msloc_summary;
#define MSLOC_SUMMARY_INIT {sizeof(msloc_summary), 0, 0, 0, 0, 0, 0, 0, 0, 0.0f, 0.0f, 0.0f, 0.0f, 0, 0.0f, 0.0f}

MSLOC_API msloc_status msloc_get_summary(msloc_localizer *localizer, msloc_summary *summary);

/* One class of the last film. Which findings are shown, and in what order, is the caller's part: docs/embedding.md. */
typedef struct msloc_finding {
    uint32_t struct_size;
    uint32_t positive;    /* 1: the film passes its gate (msloc_summary), score >= threshold, and the map has a box */
    const char *label;    /* the class's name, UTF-8, until msloc_close */
    double score;         /* calibrated probability, sigmoid(logit / temperature) */
    double threshold;     /* the profile's, of the score */
    double logit;
    double map_threshold; /* the profile's, of the map, logit units */
    uint32_t localized;   /* 1: peak and boxes are filled */
    uint32_t boxes;       /* kept, see msloc_get_boxes */
    uint32_t boxes_found; /* all, also beyond max_boxes */
    uint32_t reserved;
    double peak_x;        /* the highest point of the map, the first in reading order: pixels of the stored image */
    double peak_y;
    double peak_value;    /* logit units */
} msloc_finding;
#define MSLOC_FINDING_INIT {sizeof(msloc_finding), 0, NULL, 0.0, 0.0, 0.0, 0.0, 0, 0, 0, 0, 0.0, 0.0, 0.0}

/* Class k of the last film, 0 <= k < K; MSLOC_ARGUMENT beyond. */
MSLOC_API msloc_status msloc_get_finding(msloc_localizer *localizer, uint32_t k, msloc_finding *finding);

/* A box in pixels of the stored image. This struct never grows: arrays of it are safe. */
typedef struct msloc_box {
    double x;
    double y;
    double w;
    double h;
    double score; /* in (0, 1]: the finding's for its strongest box; less for the others, in proportion to how far their
                     peaks rise above the map's threshold */
} msloc_box;

/* The boxes of class k, strongest first: around each 8-connected region of the map above its threshold of at least 16
 * input pixels, but those that the bundle's rule calls too small, or too weak beside the strongest. The strongest
 * max_boxes are kept. `capacity` counts boxes; where it is less than finding.boxes nothing is written. A map that
 * nowhere exceeds its threshold gives no box: its class is not positive, whatever its score. */
MSLOC_API msloc_status msloc_get_boxes(msloc_localizer *localizer, uint32_t k, msloc_box *boxes, uint32_t capacity);

/* The localization map of class k of the last film, positive or not: input_height x input_width floats in reading
 * order, logit units, made anew at each call. `capacity` counts floats. */
MSLOC_API msloc_status msloc_get_map(msloc_localizer *localizer, uint32_t k, float *map, uint64_t capacity);

/* What the model saw of the last film: input_height x input_width brightnesses in reading order, 0 black, 1 white; the
 * film lies in it as msloc_summary says. `capacity` counts floats. */
MSLOC_API msloc_status msloc_get_input(msloc_localizer *localizer, float *input, uint64_t capacity);

/* How far this machine is from the model's maker: the worst over all classes of the built-in film. */
typedef struct msloc_deviation {
    uint32_t struct_size;
    uint32_t classes_beyond; /* classes outside the limits */
    double logit;            /* largest difference; limit 1e-3 */
    double peak_value;       /* largest difference, logit units; limit 1e-2 */
    double peak_shift;       /* largest move of a peak, widths of the film; limit 0.01 */
    double iou;              /* smallest IoU of boxes; limit 0.95 */
    double abnormal;         /* difference of the film's; limit 1e-3; 0 where the golden result has none */
} msloc_deviation;
#define MSLOC_DEVIATION_INIT {sizeof(msloc_deviation), 0, 0.0, 0.0, 0.0, 0.0, 0.0}

/* Localize the built-in phantom and compare with the golden result in the bundle. MSLOC_OK within the limits,
 * MSLOC_SELF_TEST beyond. `deviation` may be NULL. Its result replaces that of the last film; it writes no audit. */
MSLOC_API msloc_status msloc_self_test(msloc_localizer *localizer, msloc_deviation *deviation);

#ifdef __cplusplus
}
#endif

#endif
