"""Pictures that are no chest film, as packages and public repositories ship them, as grey PNG of at most 256 pixels.

    python benchmarks/foreign_pictures.py OUT KIND=FOLDER [KIND=FOLDER ...]

Takes every picture and every DICOM image below each FOLDER (an unpacked package, a checkout) and writes it to OUT/KIND;
KIND is not_xray, not_chest or film. Colour becomes grey, a DICOM image is stretched from its 1st to its 99.5th
percentile, whatever its modality: the gate's eye is to be measured, not the reader's. What cannot be read, what has one
colour, and what looks like one before it is left out. docs/input-gate.md lists the folders that were used.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pydicom
from numpy.typing import NDArray

Picture = NDArray[np.float32]

SIDE, MIN_SIDE, MAX_FRAMES = 256, 40, 4
RASTER = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("sources", nargs="+", metavar="KIND=FOLDER")
    args = parser.parse_args()
    seen: set[bytes] = set()
    for source in args.sources:
        kind, _, folder = source.partition("=")
        (args.out / kind).mkdir(parents=True, exist_ok=True)
        for name, picture in pictures(Path(folder)):
            look = (cv2.resize(picture, (16, 16), interpolation=cv2.INTER_AREA) // 8).tobytes()
            if look not in seen:
                seen.add(look)
                cv2.imwrite(str(args.out / kind / f"{Path(folder).name}_{name}.png"), picture.astype(np.uint8))
        print(source, len(list((args.out / kind).iterdir())))


def pictures(folder: Path) -> Iterator[tuple[str, Picture]]:
    """Name and brightness [h, w] in 0 to 255 of every picture below a folder."""
    for at, path in enumerate(sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())):
        frames = [raster(path)] if path.suffix.lower() in RASTER else dicom(path)
        for number, picture in enumerate(frame for frame in frames if frame is not None):
            if min(picture.shape) >= MIN_SIDE and picture.min() < picture.max():
                yield f"{at:05d}-{number}_{path.stem[:40]}", reduced(picture)


def raster(path: Path) -> Picture | None:
    """Read a picture of any colour; what is transparent becomes white."""
    image = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
        return None
    values = image.astype(np.float32) / (257 if image.dtype == np.uint16 else 1)
    if values.ndim == 3 and values.shape[2] == 4:
        opaque = values[..., 3:] / 255
        values = values[..., :3] * opaque + 255 * (1 - opaque)
    return np.asarray(cv2.cvtColor(values, cv2.COLOR_BGR2GRAY) if values.ndim == 3 else values)


def dicom(path: Path) -> list[Picture]:
    """Read up to MAX_FRAMES frames of a DICOM file; none where it is none, or has no pixels that decode."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = pydicom.dcmread(path, force=True)
            pixels = image.pixel_array.astype(np.float32)
    except Exception:  # files that were made to be broken are among them
        return []
    if image.get("SamplesPerPixel", 1) == 3:
        pixels = pixels.mean(axis=-1)
    frames = pixels[None] if pixels.ndim == 2 else pixels[:: max(1, len(pixels) // MAX_FRAMES)][:MAX_FRAMES]
    shown = []
    for frame in frames:
        low, high = np.percentile(frame, [1, 99.5])
        levels = np.clip((frame - low) / max(high - low, 1e-6), 0, 1) * 255
        shown.append(255 - levels if image.get("PhotometricInterpretation") == "MONOCHROME1" else levels)
    return shown


def reduced(picture: Picture) -> Picture:
    """Scale a picture down to SIDE pixels on its longer side."""
    height, width = picture.shape
    scale = min(1.0, SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(cv2.resize(picture.astype(np.float32), size, interpolation=cv2.INTER_AREA))


if __name__ == "__main__":
    main()
