"""Every error that msloc-edge raises on purpose, the reason codes that name them, and the codes of warnings.

    MslocError
    ├── InputError       one film cannot be read or localized; the rest of a batch goes on
    ├── DependencyError  a package is not installed
    ├── BundleError      the model bundle is missing, damaged, or newer than this program
    ├── BackendError     a backend cannot run here, or failed
    ├── OutputError      a file cannot be written
    ├── ExportError      an export did not pass its checks; nothing was written
    ├── TrainError       a training run or an evaluation cannot start or go on
    ├── BenchError       a benchmark cannot be compared with another
    ├── ListenError      the listener cannot start, or a node does not take an object
    └── InternalError    a fault that nobody expected: please report it

An error carries `reason`, a code that is stable across versions and names what a caller can do, and one sentence that
says what was expected, what came, and what to do. REASONS has them all; tools/errors.py makes docs/errors.md of it.
"""

from __future__ import annotations

from typing import NamedTuple


def printable(text: str) -> str:
    r"""Escape control characters, and what does not encode: a file's name may hold a newline, to forge a log line.

    >>> printable("film\n.png")
    'film\\n.png'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


class MslocError(Exception):
    """Base of all expected errors: `reason` is a stable code, `str(error)` one clear sentence."""

    def __init__(self, reason: str, message: str) -> None:
        message = printable(message)
        super().__init__(message)
        self.reason = reason
        self.message = message

    def __reduce__(self) -> tuple[type[MslocError], tuple[str, str]]:
        return type(self), (self.reason, self.message)


class InputError(MslocError):
    """One film cannot be read or localized."""


class DependencyError(MslocError):
    """A package is not installed."""


class BundleError(MslocError):
    """A model bundle is missing, damaged, or of an unknown schema."""


class BackendError(MslocError):
    """A backend cannot run here, or failed."""


class OutputError(MslocError):
    """A file cannot be written: a result, a model, a plan."""


class ExportError(MslocError):
    """An export did not pass its checks; nothing was written."""


class TrainError(MslocError):
    """A training run or an evaluation cannot start, resume or go on."""


class BenchError(MslocError):
    """A benchmark cannot be compared with another."""


class ListenError(MslocError):
    """The listener cannot start, or a node does not take an object."""


class InternalError(MslocError):
    """A fault of this program, or of an engine, that nobody expected."""


class Reason(NamedTuple):
    """Facts of a reason code: the errors that carry it, what came, and what to do about it."""

    errors: tuple[type[MslocError], ...]
    came: str
    remedy: str


REASONS = {
    "missing": Reason((InputError,), "no such file", "check the path"),
    "unreadable": Reason(
        (InputError,),
        "the path cannot be opened as a file: a folder, a device or a pipe, no permission",
        "check it; name the films in it",
    ),
    "truncated": Reason(
        (InputError,), "the file, or the compressed film inside it, ends early or is empty", "copy or export it again"
    ),
    "not_an_image": Reason(
        (InputError,),
        "something other than PNG, JPEG, TIFF or DICOM, judged by content; known formats are named",
        "convert it",
    ),
    "corrupt": Reason(
        (InputError,),
        "the file is of a known kind but does not decode, or not within limits of time and memory; it lacks its pixels "
        "or another required element; its codestream has another size than its header says; its window or slope give "
        "no number",
        "export it again",
    ),
    "wrong_modality": Reason(
        (InputError,),
        "DICOM of a modality other than CR, DX, RG (or none, or OT), or of a class without pixels: structured report, "
        "PDF, DICOMDIR",
        "send the chest film itself",
    ),
    "too_small": Reason(
        (InputError,),
        "a side of less than 32 pixels (128 where a lesion is to be inserted)",
        "send the original film",
    ),
    "too_large": Reason(
        (InputError,),
        "more than 120,000,000 pixels (`MAX_PIXELS`); more memory to decode than a film of this file size takes, 1 GB "
        "at most; more pages, scans or elements than a film has; refused before decoding, the sentence names which",
        "scale it down",
    ),
    "constant": Reason(
        (InputError,),
        "every pixel is equal, or is displayed alike because the window lies beside the film",
        "check pixels and window",
    ),
    "multi_frame": Reason(
        (InputError,), "several frames or pages and none chosen; the sentence names the count", "`--frame N`"
    ),
    "unsupported_pixels": Reason(
        (InputError,),
        "1 bit, more than 16 bits, signed or floating point TIFF, CMYK, palette DICOM, JPEG of 12 bits; an array of "
        "another shape, dtype or range, or with NaN or infinity",
        "convert it",
    ),
    "unsupported_codec": Reason(
        (InputError,),
        "a DICOM transfer syntax without a decoder; it is named, with the packages that bring one",
        "install, or convert",
    ),
    "option_invalid": Reason(
        (InputError, BundleError, ExportError, TrainError),
        "a name, number or recipe that cannot be for this film, model, library or machine; the sentence says which can",
        "choose one of these",
    ),
    "backend_missing": Reason(
        (DependencyError,), "the package or library of a backend is not installed", "install what the sentence names"
    ),
    "package_missing": Reason(
        (DependencyError,),
        "a package is not installed that DICOM, signatures, training, export or evaluation needs",
        "install what the sentence names",
    ),
    "internal_error": Reason(
        (InternalError,), "something that nobody expected; the sentence has the words of the fault", "report it"
    ),
    "bundle_missing": Reason(
        (BundleError,),
        "neither a folder, an archive, nor the name of a shipped or installed model; the sentence lists those",
        "check the path or the name",
    ),
    "bundle_file_missing": Reason(
        (BundleError,),
        "a folder without `manifest.json`, or without a file that its manifest names, or with one that cannot be read",
        "copy the whole folder again",
    ),
    "bundle_damaged": Reason(
        (BundleError,),
        "a manifest that is not JSON, lacks an entry, or holds a value that cannot be (a number that is not finite, "
        "relevance weights that do not sum to one, a file name with a path in it); a network with other inputs, "
        "outputs or shapes than its manifest says, with weights in another file, control flow, functions, or operators "
        "that are not standard; an archive that is cut, mangled or encrypted",
        "copy or export it again",
    ),
    "bundle_schema": Reason(
        (BundleError,), "a manifest of another schema, such as a newer one", "update msloc-edge, or export again"
    ),
    "bundle_hash": Reason(
        (BundleError,),
        "a file that is not the one that was exported, or that the manifest does not list; an archive with another "
        "hash than `--sha256`; thresholds that were fitted for another model",
        "check the hash and the source, and copy it again; if the thresholds are named, export it again",
    ),
    "bundle_rollback": Reason(
        (BundleError,),
        "`models add` of a version older than one that was installed, or of one that cannot be compared with it, also "
        "because the store's `.versions.json` is damaged",
        "`--allow-rollback`, if it is wanted; restore a damaged record, or remove it: versions are then forgotten",
    ),
    "golden_missing": Reason(
        (BundleError,),
        "`selftest` with a bundle whose manifest has no golden result, or one of another film",
        "export it again",
    ),
    "profile_unknown": Reason(
        (BundleError,), "a profile that the bundle lacks; the sentence lists those it has", "choose one of these"
    ),
    "signature_missing": Reason(
        (BundleError,), "a bundle without `manifest.sig`, where a key is trusted or named", "ask for a signed one"
    ),
    "signature_wrong": Reason(
        (BundleError,),
        "a manifest that is not the one that was signed, or a `manifest.sig` that is cut, mangled or of another schema",
        "do not use the bundle; copy it again from its source",
    ),
    "key_unknown": Reason(
        (BundleError,),
        "a signature by a key that is not among those trusted or named",
        "ask who signed it, and trust that key or do not use it",
    ),
    "key_unusable": Reason(
        (BundleError,),
        "a key that cannot be read, is not Ed25519 in PEM, is private where a public one is expected or the reverse, "
        "or is locked and the passphrase is missing or wrong; a folder of trusted keys without one",
        "check the path and the kind of key; set `MSLOC_KEY_PASSPHRASE`, or sign at a terminal",
    ),
    "archive_refused": Reason(
        (BundleError,),
        "a file that is no .zip, .tar.gz or .tar.xz by its content; an archive without exactly one bundle, with an "
        'absolute path, "..", a link, a device or two files of one name, or of more than 2 GB, 4 GB unpacked, or 1000 '
        "files",
        "pack the bundle folder alone; do not trust an archive with unsafe names",
    ),
    "download_failed": Reason(
        (BundleError,),
        "no connection, 30 seconds without a byte, an answer that is no file, or one that ends early; an address that "
        "sends on to another protocol, or from https to http",
        "check the address and the network",
    ),
    "backend_unknown": Reason((BackendError,), "a backend of another name", "choose one of those listed"),
    "backend_device": Reason(
        (BackendError,),
        "a device or a precision that the backend does not have here; the sentence lists those it has",
        "choose one",
    ),
    "backend_closed": Reason(
        (BackendError,), "a Localizer that was closed, or maps that are gone with it", "make a new one"
    ),
    "backend_failed": Reason(
        (BackendError,),
        "the backend cannot load the bundle, failed on a batch, or gave infinity or NaN",
        "the sentence has the engine's own words; try another backend",
    ),
    "plan_missing": Reason(
        (BackendError,),
        "`--precision` fp16 or int8, and no such plan of this model in the cache",
        "export one; the sentence has the command",
    ),
    "build_failed": Reason(
        (BackendError, ExportError),
        "TensorRT refuses the graph, cannot build its plan or does not take one; Triton or ptxas refuses a kernel; or "
        "the build was stopped",
        "the sentence has the compiler's own words",
    ),
    "kernel_unusable": Reason(
        (BackendError,),
        "a folder of compiled kernels without `kernels.json`, with one of another version, without the kernel for this "
        "device, or with a file that is not the one that was written",
        "compile it again: `python -m msloc_edge.kernels.aot --out FOLDER`",
    ),
    "out_unwritable": Reason(
        (OutputError,),
        "a file or a folder is in the way, no permission, a file that may not grow, a file system without locks",
        "choose another `--out`, `--picture`, `MSLOC_MODELS` or `MSLOC_CACHE`",
    ),
    "disk_full": Reason(
        (OutputError,),
        "no space left, in the folder or behind stdout",
        "free some, or choose another `--out` or `MSLOC_MODELS`",
    ),
    "out_occupied": Reason(
        (OutputError,),
        "a folder or a name that holds something else already: other files, a run (one that works now, or one of other "
        "options), another model",
        "choose another; `--resume` a run, `--overwrite` results, `--replace` a model",
    ),
    "part_damaged": Reason(
        (OutputError,),
        "a folder without a dataset that `score` wrote, or a part of one that does not read",
        "check the folder; remove the part that is named, and its films are done again",
    ),
    "journal_unusable": Reason(
        (OutputError,),
        "a `journal.sqlite` that is damaged, of another version, or no journal",
        "move it away, or `--overwrite` its folder; what it knew is done again",
    ),
    "object_refused": Reason(
        (OutputError,),
        "a DICOM object that cannot be made: the film is no DICOM file, or lacks what the object needs; the result is "
        "of another film, has no finding to show, or came without its maps",
        "the sentence names it; the other objects are written",
    ),
    "not_calibrated": Reason((ExportError,), "a checkpoint of a run that has not ended", "resume the run first"),
    "parity": Reason(
        (ExportError,),
        "the exported model does not localize as it should: fp16, int8 or another engine changes logits, maps or "
        "boxes, or the graph is not valid ONNX of standard operators; classes and figures are named",
        "keep what the sentence names in fp32 (`--keep-fp32`), or choose another `--precision`; report it for fp32",
    ),
    "wrap_unsupported": Reason(
        (ExportError,),
        "somebody's network that cannot become a bundle as it is: other inputs or outputs, no global average pooling "
        "before its last layer, operators of its own, weights that do not fit",
        "the sentence names it; `docs/own-models.md` has what can be wrapped",
    ),
    "figures_foreign": Reason(
        (BenchError, ExportError, TrainError),
        "a file of figures that is not of this version, or of another network or other measurements",
        "measure again: `eval` on a bundle of this checkpoint, `bench` with the same scenarios, batches and rates",
    ),
    "data_missing": Reason(
        (ExportError, TrainError),
        "a collection without a file, map or picture that it needs, or with too few films that can be used; the first "
        "problem is named",
        "check the folder, the lists and the pictures; raise `val_films`",
    ),
    "data_invalid": Reason(
        (TrainError,),
        "a table, list of boxes, masks or maps in another form than it should have: not csv in UTF-8 or COCO json, a "
        "column missing, NaN in a map, a patient on two sides of a split, not one box that can be used",
        "fix what the sentence names",
    ),
    "checkpoint_missing": Reason(
        (TrainError,), "no such checkpoint, weights or run, or a folder without `best.pt`", "check the path"
    ),
    "checkpoint_damaged": Reason(
        (TrainError,),
        "a file that is not a whole checkpoint, plain weights, or a run's `config.json`",
        "train again, resume, or choose another file",
    ),
    "checkpoint_mismatch": Reason(
        (TrainError,),
        "weights of another network, or a run or checkpoint of another version of this program",
        "choose weights of this backbone; start a new run, whose `--init` the old weights can be",
    ),
    "config_invalid": Reason(
        (ListenError,),
        "a listener's file that is no TOML, an option that it does not know or that cannot be, a certificate or key "
        "that does not load",
        "fix what the sentence names; `listen --check` tells",
    ),
    "address_taken": Reason(
        (ListenError,), "an address that cannot be listened on", "choose another, or end what has it"
    ),
    "spool_taken": Reason((ListenError,), "a spool that another listener works on", "end that one, or choose another"),
    "node_unreachable": Reason(
        (ListenError,),
        "a node that cannot be connected to, hangs, or closes the connection",
        "nothing: it is tried again; check address, port and TLS",
    ),
    "node_busy": Reason(
        (ListenError,), "a node that has no resources now (A7xx, HTTP 429 or 5xx)", "nothing: it is tried again"
    ),
    "node_refused": Reason(
        (ListenError,),
        "a node that rejects the association, the class or the object, and would again",
        "allow our AE title or the class there, then `listen --retry`",
    ),
    "loss_not_finite": Reason(
        (TrainError,), "the loss became NaN or infinite", "lower the learning rate, or look at the batch"
    ),
}
"""Reason code -> its facts; docs/errors.md is this table."""

WARNINGS = {
    "narrow_range": "a 16-bit PNG, TIFF or array whose maximum is below 1/8 of the range: perhaps 10 or 12 bits stored "
    "unscaled, and displayed too dark",
    "colour_converted": "colour became luma (ITU-R BT.601) of the same depth; exact where red, green and blue are "
    "equal",
    "exif_orientation_ignored": "the file asks to be turned; it was not, boxes are in pixels of the stored image",
    "modality_missing": "DICOM without a modality, or with OT, which says nothing",
    "not_frontal": "the view position is lateral or oblique (input gate)",
    "not_chest": "the body part is given and is not the chest, or the film looks like another part (input gate)",
    "not_xray": "the picture looks like no radiograph: a photograph, a slice, a screen, text (input gate)",
    "rotated": "the film looks turned by 90 or 180 degrees (input gate)",
    "cut_off": "the film looks as if a lung were not whole on it (input gate)",
    "clipped": "more of the film is black or white than of almost any film that was looked at (input gate)",
    "low_resolution": "the film has less than half of the pixels along a side that the model looks at (input gate)",
    "for_processing": "DX For Processing: raw detector values, not meant for display",
    "no_window": "more than 8 bits without window or VOI LUT: the values that occur are stretched to the full range",
    "bad_window": "a window width that the standard does not allow; treated as no window",
    "padding_ignored": "a pixel padding value that no stored pixel can have",
    "polarity_suspect": "the film as displayed looks like a negative (white beside the neck, dark mediastinum): its "
    "photometric interpretation may be wrong; it is shown as the header says (input gate)",
    "polarity_conflict": "Presentation LUT Shape contradicts the photometric interpretation, which was followed: look "
    "whether bones are white",
    "dicom_nonconformant": "something else against the standard that was repaired or passed over",
}
"""Warning code, in Frame.warnings and in a result -> what it says of the film. Those of the input gate refuse a film
where the profile says so (docs/input-gate.md)."""
