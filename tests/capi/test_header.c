/* The header is C99 without extensions, and its structs have the sizes that the ABI fixes. */
#include <stdio.h>
#include <string.h>

#include "msloc_edge.h"

int main(void) {
    msloc_options options = MSLOC_OPTIONS_INIT;
    msloc_pixels pixels = MSLOC_PIXELS_INIT;
    msloc_request request = MSLOC_REQUEST_INIT;
    msloc_model model = MSLOC_MODEL_INIT;
    msloc_summary summary = MSLOC_SUMMARY_INIT;
    msloc_finding finding = MSLOC_FINDING_INIT;
    msloc_deviation deviation = MSLOC_DEVIATION_INIT;
    msloc_localizer *localizer = NULL;
    char error[200] = "";
    int failures = 0;

    if (sizeof(void *) == 8) {
        failures += options.struct_size != 104 || pixels.struct_size != 120 || request.struct_size != 12;
        failures += model.struct_size != 64 || summary.struct_size != 64 || finding.struct_size != 88;
        failures += deviation.struct_size != 48 || sizeof(msloc_box) != 40;
    }
    failures += msloc_version() != MSLOC_VERSION;
    failures += strcmp(msloc_status_text(MSLOC_BUNDLE_HASH), "bundle_hash") != 0;
    options.bundle = "/nowhere";
    options.error = error;
    options.error_size = sizeof error;
    failures += msloc_open(&options, &localizer) != MSLOC_BUNDLE_MISSING || localizer != NULL;
    failures += strstr(error, "/nowhere") == NULL;
    msloc_close(localizer);
    if (failures != 0) fprintf(stderr, "%d failed\n", failures);
    return failures != 0;
}
