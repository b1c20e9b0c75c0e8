"""Questions to packages whose import may crash or hang: each function runs in a process of its own (`ask`)."""

from __future__ import annotations

import importlib
from io import BytesIO
from typing import Any


def onnxruntime() -> dict[str, Any]:
    import onnxruntime as ort

    return {"version": ort.__version__, "providers": ort.get_available_providers()}


def openvino() -> dict[str, Any]:
    import openvino as ov

    return {"version": ov.__version__, "devices": ov.Core().available_devices}


def tensorrt() -> dict[str, Any]:
    return {"version": importlib.import_module("tensorrt").__version__}


def tensorrt_rtx() -> dict[str, Any]:
    return {"version": importlib.import_module("tensorrt_rtx").__version__}


def cv2() -> dict[str, Any]:
    import cv2

    return {"version": cv2.__version__}


def PIL() -> dict[str, Any]:  # noqa: N802 - each probe has its package's name
    """Formats of which a small film comes back that is written and read."""
    import PIL.Image

    formats = {}
    for name, options in (("PNG", {}), ("JPEG", {}), ("TIFF", {"compression": "tiff_lzw"})):
        file = BytesIO()
        try:
            PIL.Image.new("L", (8, 8), 7).save(file, name, **options)
            formats[name] = PIL.Image.open(file).getpixel((4, 4)) == 7
        except Exception:  # a codec that Pillow was built without; each says so in its own way
            formats[name] = False
    return {"version": PIL.__version__, "formats": formats}


def pydicom() -> dict[str, Any]:
    """Ways of compression in DICOM, each with its decoder, or none."""
    import pydicom

    codecs = {"JPEG baseline": "JPEG8", "JPEG lossless": "JPEG8", "JPEG-LS": "JPEGLS", "JPEG 2000": "JPEG2K"}
    codecs["RLE"] = "PACKBITS"
    try:
        import imagecodecs
    except ImportError:
        return {"version": pydicom.__version__, "decoders": dict.fromkeys(codecs, "")}
    by = f"imagecodecs {imagecodecs.__version__}"
    found = {name: by if getattr(imagecodecs, codec).available else "" for name, codec in codecs.items()}
    return {"version": pydicom.__version__, "decoders": found}
