#include "status.h"

namespace msloc {

const char* status_name(msloc_status status) noexcept {
  switch (status) {
    case MSLOC_OK: return "ok";
    case MSLOC_ARGUMENT: return "argument";
    case MSLOC_STRUCT_SIZE: return "struct_size";
    case MSLOC_BUFFER_TOO_SMALL: return "buffer_too_small";
    case MSLOC_NO_RESULT: return "no_result";
    case MSLOC_BUSY: return "busy";
    case MSLOC_DEADLINE: return "deadline";
    case MSLOC_CANCELLED: return "cancelled";
    case MSLOC_BUNDLE_MISSING: return "bundle_missing";
    case MSLOC_BUNDLE_FILE_MISSING: return "bundle_file_missing";
    case MSLOC_BUNDLE_DAMAGED: return "bundle_damaged";
    case MSLOC_BUNDLE_SCHEMA: return "bundle_schema";
    case MSLOC_BUNDLE_HASH: return "bundle_hash";
    case MSLOC_PROFILE_UNKNOWN: return "profile_unknown";
    case MSLOC_GOLDEN_MISSING: return "golden_missing";
    case MSLOC_TOO_SMALL: return "too_small";
    case MSLOC_TOO_LARGE: return "too_large";
    case MSLOC_CONSTANT: return "constant";
    case MSLOC_BAD_WINDOW: return "bad_window";
    case MSLOC_UNREADABLE: return "unreadable";
    case MSLOC_WRONG_MODALITY: return "wrong_modality";
    case MSLOC_UNSUPPORTED_PIXELS: return "unsupported_pixels";
    case MSLOC_UNSUPPORTED_CODEC: return "unsupported_codec";
    case MSLOC_DICOM_MISSING: return "dicom_missing";
    case MSLOC_NOT_XRAY: return "not_xray";
    case MSLOC_NOT_CHEST: return "not_chest";
    case MSLOC_NOT_FRONTAL: return "not_frontal";
    case MSLOC_ROTATED: return "rotated";
    case MSLOC_POLARITY_SUSPECT: return "polarity_suspect";
    case MSLOC_CUT_OFF: return "cut_off";
    case MSLOC_CLIPPED: return "clipped";
    case MSLOC_LOW_RESOLUTION: return "low_resolution";
    case MSLOC_BACKEND_UNKNOWN: return "backend_unknown";
    case MSLOC_BACKEND_DEVICE: return "backend_device";
    case MSLOC_BACKEND_FAILED: return "backend_failed";
    case MSLOC_SELF_TEST: return "self_test";
    case MSLOC_NO_MEMORY: return "no_memory";
    case MSLOC_INTERNAL: return "internal";
    default: return "unknown";
  }
}

}  // namespace msloc
