"""Damaged films by the thousand: does any end the program, hang it, fill the memory, or repeat a patient's name?
And runs that are killed: is a line lost, or there twice?

    python benchmarks/robustness.py [--mutations 20000] [--kills 50] [--seed 0]

Small films of every kind that is read are damaged in every way that files are (bits, bytes, lengths, holes, cuts,
pieces swapped), and each is read. A film is read, or refused with a reason; everything else counts as a fault.
`infer --out` and `infer --watch --out` are killed (SIGKILL) at random moments, and go on, until all films are done.
Each part has its entry in benchmarks/results/robustness.json; 0 leaves a part, and its entry, as it is.
tests/robustness runs a few hundred films and a few kills of the same on every `make test`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from io import BytesIO
from pathlib import Path
from subprocess import DEVNULL
from types import FrameType
from typing import Any

import cv2
import imagecodecs
import numpy as np
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from msloc_edge.errors import MslocError
from msloc_edge.imaging import decoder
from msloc_edge.imaging.reading import decode_frame

HANG_S, MAX_MB = 10.0, 1024
NAMES = ("ROENTGEN", "WILHELM", "PATIENT-0815", "MUSTERMANN")
"""Invented, in every DICOM film here; none may come out."""

_HEIGHT, _WIDTH = 72, 88


def grey(dtype: str = "u1", bits: int | None = None) -> np.ndarray:
    """A small film [72, 88]: a slope with noise, which no codec shrinks to nothing."""
    rng = np.random.default_rng(3)
    rows, columns = np.mgrid[:_HEIGHT, :_WIDTH]
    shape = (rows + columns) / (_HEIGHT + _WIDTH) * 0.8 + rng.normal(0.1, 0.02, (_HEIGHT, _WIDTH))
    return (shape.clip(0, 1) * (2 ** (bits or 8 * np.dtype(dtype).itemsize) - 1)).astype(dtype)


def dicom(pixels: np.ndarray, bits: int, syntax: str = "1.2.840.10008.1.2.1", stream: bytes | None = None) -> Dataset:
    """A DX film with invented names; `stream` is its compressed pixels."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    ds.SOPClassUID, ds.SOPInstanceUID, ds.Modality = "1.2.840.10008.5.1.4.1.1.1.1", "1.2.3", "DX"
    ds.PatientName, ds.PatientID = f"{NAMES[0]}^{NAMES[1]}", NAMES[2]
    ds.ReferringPhysicianName = ds.OperatorsName = NAMES[3]
    ds.BodyPartExamined, ds.ViewPosition = "CHEST", "PA"
    ds.SamplesPerPixel, ds.PhotometricInterpretation = (3, "RGB") if pixels.ndim == 3 else (1, "MONOCHROME2")
    ds.Rows, ds.Columns = pixels.shape[:2]
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8 * pixels.itemsize, bits, bits - 1
    ds.PixelRepresentation = int(pixels.dtype.kind == "i")
    if pixels.ndim == 3:
        ds.PlanarConfiguration = 0
    elif bits > 8:
        ds.WindowCenter, ds.WindowWidth, ds.RescaleIntercept, ds.RescaleSlope = 2 ** (bits - 1), 2**bits, 0, 1
    big = syntax == "1.2.840.10008.1.2.2"
    ds.PixelData = pixels.astype(pixels.dtype.newbyteorder(">" if big else "<")).tobytes()
    if stream is not None:
        ds.PixelData = encapsulate([stream])
        ds["PixelData"].is_undefined_length = True
    return ds


def to_bytes(ds: Dataset) -> bytes:
    buffer = BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _saved(pixels: np.ndarray, kind: str, mode: str | None = None, **options: Any) -> bytes:
    buffer = BytesIO()
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(buffer, kind, **options)
    return buffer.getvalue()


def _with_lut() -> Dataset:
    ds = dicom(grey("u2", 12), 12)
    item = Dataset()
    item.LUTDescriptor = [4096, 0, 16]
    item.add_new("LUTData", "OW", np.arange(4096, dtype="<u2").tobytes())
    ds.VOILUTSequence = [item]
    return ds


def _rle(pixels: np.ndarray, bits: int) -> Dataset:
    ds = dicom(pixels, bits)
    ds.compress(RLELossless)
    return ds


def films() -> dict[str, bytes]:
    """One small film of every kind that is read, by its name."""
    eight, twelve, sixteen = grey(), grey("u2", 12), grey("u2")
    colour8, colour16 = np.dstack([eight, eight[::-1], eight]), np.dstack([sixteen, sixteen[::-1], sixteen])
    explicit = "1.2.840.10008.1.2.1"
    jpeg = imagecodecs.jpeg8_encode
    streams = {
        "jpeg": (eight, 8, JPEGBaseline8Bit, jpeg(eight, level=90)),
        "jpeg-12": (twelve, 12, JPEGExtended12Bit, jpeg(twelve, level=90, bitspersample=12)),
        "jpeg-lossless": (sixteen, 16, JPEGLosslessSV1, jpeg(sixteen, lossless=True, predictor=1, bitspersample=16)),
        "jpeg-colour": (colour8, 8, JPEGBaseline8Bit, jpeg(colour8, level=90)),
        "jpeg-ls": (twelve, 12, JPEGLSLossless, imagecodecs.jpegls_encode(twelve)),
        "jpeg-2000": (
            *(twelve, 12, JPEG2000Lossless),
            imagecodecs.jpeg2k_encode(twelve, reversible=True, codecformat="j2k", bitspersample=12),
        ),
        "jp2": (sixteen, 16, JPEG2000Lossless, imagecodecs.jpeg2k_encode(sixteen, reversible=True, codecformat="jp2")),
        "htj2k": (sixteen, 16, HTJ2KLossless, imagecodecs.htj2k_encode(sixteen, reversible=True)),
    }
    datasets = {
        "explicit": dicom(twelve, 12),
        "implicit": dicom(twelve, 12, "1.2.840.10008.1.2"),
        "big-endian": dicom(sixteen, 16, "1.2.840.10008.1.2.2"),
        "deflated": dicom(twelve, 12, "1.2.840.10008.1.2.1.99"),
        "signed": dicom((twelve.astype("i4") - 2048).astype("i2"), 12, explicit),
        "colour": dicom(colour8, 8),
        "voi-lut": _with_lut(),
        "rle": _rle(twelve, 12),
        "rle-colour-16": _rle(colour16, 16),
        **{name: dicom(*film) for name, film in streams.items()},
    }
    return {
        "png": _saved(eight, "PNG"),
        "png-16": _saved(sixteen, "PNG"),
        "png-palette": _saved(colour8, "PNG", "P"),
        "png-colour-16": cv2.imencode(".png", colour16)[1].tobytes(),
        "jpg": _saved(eight, "JPEG"),
        "jpg-progressive": _saved(eight, "JPEG", progressive=True),
        "jpg-colour": _saved(colour8, "JPEG"),
        "tiff": _saved(sixteen, "TIFF"),
        "tiff-deflate": _saved(sixteen, "TIFF", compression="tiff_adobe_deflate"),
        "tiff-lzw": _saved(colour8, "TIFF", compression="tiff_lzw"),
        "bigtiff": _saved(sixteen, "TIFF", big_tiff=True),
        **{f"dicom-{name}": to_bytes(ds) for name, ds in datasets.items()},
    }


def _flip(data: bytearray, rng: np.random.Generator) -> None:
    data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))


def _byte(data: bytearray, rng: np.random.Generator) -> None:
    data[int(rng.integers(len(data)))] = int(rng.choice([0, 1, 0x7F, 0x80, 0xFE, 0xFF, int(rng.integers(256))]))


def _header_byte(data: bytearray, rng: np.random.Generator) -> None:
    data[int(rng.integers(min(len(data), 900)))] = int(rng.choice([0, 1, 0x20, 0x7F, 0xFF, int(rng.integers(256))]))


def _length(data: bytearray, rng: np.random.Generator) -> None:
    at = int(rng.integers(max(1, min(len(data), 1200) - 4)))
    struct.pack_into(str(rng.choice(["<", ">"])) + "I", data, at, int(rng.choice([0, 7, 255, 65535, 2**31, 2**32 - 1])))


def _cut(data: bytearray, rng: np.random.Generator) -> None:
    del data[int(rng.integers(1, len(data))) :]


def _hole(data: bytearray, rng: np.random.Generator) -> None:
    at = int(rng.integers(len(data)))
    del data[at : at + int(rng.integers(1, 600))]


def _zeros(data: bytearray, rng: np.random.Generator) -> None:
    at = int(rng.integers(len(data)))
    end = min(len(data), at + int(rng.integers(1, 600)))
    data[at:end] = bytes(end - at)


def _repeat(data: bytearray, rng: np.random.Generator) -> None:
    at, to = (int(rng.integers(len(data))) for _ in range(2))
    data[to:to] = data[at : at + int(rng.integers(1, 300))]


_DAMAGES: tuple[Callable[[bytearray, np.random.Generator], None], ...]
_DAMAGES = (_flip, _byte, _header_byte, _header_byte, _length, _cut, _hole, _zeros, _repeat)


def mutations(count: int, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """(kind of film, its damaged bytes), the same for the same seed; PNG checksums are put right half of the time."""
    kinds, rng = list(films().items()), np.random.default_rng(seed)
    for number in range(count):
        name, whole = kinds[number % len(kinds)]
        data = bytearray(whole)
        for _ in range(int(rng.integers(1, 4))):
            if len(data) > 8:
                _DAMAGES[int(rng.integers(len(_DAMAGES)))](data, rng)
        yield name, _checksummed(data) if rng.random() < 0.5 else bytes(data)


def _checksummed(data: bytearray) -> bytes:
    at = 8
    while data[:4] == b"\x89PNG" and at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        if end > len(data):
            break
        struct.pack_into(">I", data, end - 4, zlib.crc32(bytes(data[at + 4 : end - 4])))
        at = end
    return bytes(data)


class Hung(BaseException):
    """A film took longer than any may; no handler of the program catches it."""


@dataclass
class Counts:
    """What became of many damaged films; `faults` is what must stay empty."""

    read: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    slowest_s: float = 0.0

    def add(self, name: str, data: bytes) -> None:
        """Read one film, and count how it went."""
        start = time.perf_counter()
        try:
            frame = decode_frame(data, "film")
            self.read += 1
            if not (np.isfinite(frame.lut).all() and frame.pixels.max() < len(frame.lut)):
                self.faults.append(f"{name}: a display that is no number")
        except MslocError as error:
            self.refused[error.reason] += 1
            if any(part in error.message.upper() for part in NAMES):
                self.faults.append(f"{name}: a name in the error")
        except Hung:
            self.faults.append(f"{name}: hung")
        except BaseException as error:
            self.faults.append(f"{name}: {type(error).__name__}: {error}")
        seconds = time.perf_counter() - start
        self.slowest_s = max(self.slowest_s, seconds)
        if seconds > HANG_S:
            self.faults.append(f"{name}: {seconds:.0f} s")


def peak_mb() -> int:
    """Highest resident memory so far of this process, or of a decoder that it started, in MB."""
    usage = [resource.getrusage(who).ru_maxrss >> 10 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return max(*usage, *decoder.peaks_mb())


@dataclass
class Kills:
    """What became of killed runs; all but the first three must be 0."""

    kills: int = 0
    runs: int = 0
    films: int = 0
    lost: int = 0
    doubled: int = 0
    torn: int = 0
    left_over: int = 0

    def check(self, out: Path, inputs: set[str], seen: set[str]) -> None:
        """Compare what a finished folder holds with its inputs, and with the lines `seen` in it at some kill."""
        results, failures = _lines(out / "results.jsonl"), _lines(out / "failures.jsonl")
        records = [json.loads(line) for line in results + failures]
        pages = "".join(page.read_text() for page in out.glob("report*.html"))
        cards = [json.loads(block)["name"] for block in re.findall(r'class="card">(.*)</script>', pages)]
        done = Counter(record["input"] for record in records)
        pictures = {file for record in records for file in record.get("files", {}).values()}
        self.runs += 1
        self.films += len(results)
        self.lost += len(inputs - set(done)) + len(seen - {*results, *failures})
        self.lost += sum(not (out / file).exists() for file in pictures)
        self.doubled += sum(count - 1 for count in done.values())
        if pages:
            self.lost += len({json.loads(line)["input"] for line in results} - set(cards))
            self.doubled += len(cards) - len(set(cards))
        self.left_over += len(list(out.glob(".*")))


def _lines(path: Path) -> list[str]:
    """Its whole lines."""
    return path.read_text().split("\n")[:-1] if path.exists() else []


def kill_runs(count: int, seed: int, model: str, scratch: Path) -> Kills:
    """Kill `count` runs of `infer` at random moments; folders and watched folders in turn, each until it is done."""
    rng, kills = random.Random(seed), Kills()
    inbox = scratch / "films"
    inbox.mkdir()
    for name, data in films().items():
        (inbox / name).write_bytes(data)
    for number in range(2):
        (inbox / f"bad-{number}.png").write_bytes(b"no film")
    inputs = {str(file) for file in inbox.iterdir()}
    while kills.kills < count:
        watch, out, seen = kills.runs % 2 == 1, scratch / f"out-{kills.runs}", set[str]()
        command = [sys.executable, "-m", "msloc_edge", "infer", str(inbox), "--out", str(out), "--model", model, "-q"]
        while True:
            wanted = len(seen) + rng.randrange(1, 12) if kills.kills < count else len(inputs)
            process = subprocess.Popen([*command, *["--watch"] * watch], stdout=DEVNULL, stderr=DEVNULL)
            at = time.monotonic() + (rng.uniform(0.1, 3) if rng.random() < 0.2 else 300)  # also while it starts
            while process.poll() is None and time.monotonic() < at and _count(out) < min(wanted, len(inputs)):
                time.sleep(0.005)
            over = process.poll() is not None or _count(out) >= len(inputs)
            if not over:
                time.sleep(rng.uniform(0, 0.03))
                process.kill()
                kills.kills += 1
            elif watch:
                process.terminate()
            process.wait()
            lines = _lines(out / "results.jsonl") + _lines(out / "failures.jsonl")
            kills.torn += sum(not _is_json(line) for line in lines)
            seen |= set(lines)
            if over:
                break
        kills.check(out, inputs, seen)
    return kills


def _count(out: Path) -> int:
    return len(_lines(out / "results.jsonl")) + len(_lines(out / "failures.jsonl"))


def _is_json(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def mutate(count: int, seed: int) -> dict[str, Any]:
    """Read `count` damaged films."""

    def hung(signum: int, frame: FrameType | None) -> None:
        raise Hung

    signal.signal(signal.SIGALRM, hung)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libtiff's own words on stderr
    counts = Counts()
    for number, (name, data) in enumerate(mutations(count, seed), 1):
        signal.alarm(60)
        counts.add(name, data)
        if number % 1000 == 0:
            print(number, "films,", len(counts.faults), "faults,", peak_mb(), "MB", flush=True)
    signal.alarm(0)
    tracebacks = [fault for fault in counts.faults if not fault.endswith((" s", "hung"))]
    return {
        "what": f"{count} damaged films of {len(films())} kinds, seed {seed}",
        "read": counts.read,
        "refused": dict(sorted(counts.refused.items())),
        "tracebacks_or_names": len(tracebacks),
        "hangs_over_10_s": len(counts.faults) - len(tracebacks),
        "faults": counts.faults[:20],
        "slowest_s": round(counts.slowest_s, 2),
        "peak_mb": peak_mb(),
        "above_1_gb": int(peak_mb() > MAX_MB),
    }


def main() -> None:
    from machine import RESULTS, environment, save

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutations", type=int, default=20_000)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--model", default="cxr-edge")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    packages = ("imagecodecs", "simplejpeg", "pillow", "pydicom", "opencv-python-headless")
    file = RESULTS / "robustness.json"
    result = json.loads(file.read_text()) if file.exists() else {}
    if args.mutations:
        result["mutations"] = mutate(args.mutations, args.seed) | {"environment": environment(*packages)}
    if args.kills:
        with tempfile.TemporaryDirectory() as scratch:
            kills = asdict(kill_runs(args.kills, args.seed, args.model, Path(scratch)))
        what = f"infer --out and infer --watch of {len(films()) + 2} films, killed, seed {args.seed}"
        result["kills"] = {"what": what, **kills, "environment": environment(*packages)}
        print(kills)
    print("->", save("robustness", result))


if __name__ == "__main__":
    main()
