"""Parts of the way of one film that are timed, as a call that does it and says where its time went.

    kernel      fuse_cams alone: the maps of all classes, from class maps that are there
    network     the backend's run on a model input that is there
    device      stored pixels on the host -> window, network, peaks and regions, all on the backend's device
    end-to-end  a film file -> decode, preprocess, network, fuse, localize -> its JSON line written to a file

The bare classifier has the last two as well: it ends with probabilities instead of maps and boxes.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from io import FileIO
from itertools import cycle
from pathlib import Path

import numpy as np

from msloc_edge.backends import Backend, Search
from msloc_edge.bench.scenarios import Clock, Target
from msloc_edge.imaging.preprocess import Prepared
from msloc_edge.pipeline import Localizer


def kernel(localizer: Localizer, films: Sequence[Prepared]) -> Target:
    """Time fuse_cams for one film and all classes, in the backend's own form."""
    classes = range(len(localizer.bundle.classes))
    outputs = [localizer.backend.run(film.batch) for film in films]

    def fuse(at: int) -> Mapping[str, float]:
        outputs[at % len(outputs)].fuse(0, classes).dense()
        return {}

    return fuse


def network(backend: Backend, films: Sequence[Prepared]) -> Target:
    """Time the backend's run, one film."""
    inputs = [film.batch for film in films]

    def run(at: int) -> Mapping[str, float]:
        return backend.run(inputs[at % len(inputs)]).timing_ms

    return run


def has_device(localizer: Localizer, film: Prepared) -> bool:
    """Tell whether the backend windows films on a device of its own, which then does all of the scope "device"."""
    return not isinstance(localizer.backend.preprocess(film.frame, film.geometry), np.ndarray)


def device(localizer: Localizer, films: Sequence[Prepared]) -> Target:
    """Time stored pixels to peaks and regions on the host; the device's events tell the stages."""

    def run(at: int) -> Mapping[str, float]:
        return _on_device(localizer, [films[at % len(films)]])

    return run


def device_batches(localizer: Localizer, films: Sequence[Prepared], batch: int) -> Generator[int, None, None]:
    """Run the scope "device" over batches of `batch` films without an end; yields how many were in each."""
    chosen = [films[at % len(films)] for at in range(batch)]
    while True:
        _on_device(localizer, chosen)
        yield batch


def _on_device(localizer: Localizer, films: Sequence[Prepared]) -> Mapping[str, float]:
    inputs = [localizer.backend.preprocess(film.frame, film.geometry) for film in films]
    search = Search([film.geometry.content for film in films], localizer.profile.map)
    return localizer.backend.run(inputs, search).timing_ms


def from_input(localizer: Localizer, films: Sequence[Prepared]) -> Target:
    """Time a model input to boxes: network, fuse, localize; compared with the bare classifier's network."""

    def run(at: int) -> Mapping[str, float]:
        return localizer.run([films[at % len(films)]])[0].timing_ms

    return run


def end_to_end(localizer: Localizer, files: Sequence[Path], lines: FileIO, clock: Clock) -> Target:
    """Time a film file to the JSON line in `lines`, an unbuffered file."""

    def run(at: int) -> Mapping[str, float]:
        result = localizer.localize(files[at % len(files)])
        begin = clock.now()
        lines.write(json.dumps(result.to_dict()).encode() + b"\n")
        return {**result.timing_ms, "write": (clock.now() - begin) * 1e3}

    return run


def network_batches(backend: Backend, films: Sequence[Prepared], batch: int) -> Generator[int, None, None]:
    """Run batches of `batch` films without an end; yields how many were in each."""
    inputs = np.concatenate([films[at % len(films)].batch for at in range(batch)])
    while True:
        backend.run(inputs)
        yield batch


def streamed(
    localizer: Localizer, files: Sequence[Path], lines: FileIO, batch: int, workers: int
) -> Generator[int, None, None]:
    """Send film files through `Localizer.stream` to JSON lines without an end; yields 1 for each film."""
    with closing(localizer.stream(cycle(files), batch=batch, workers=workers)) as outcomes:
        for outcome in outcomes:
            if outcome.error:
                raise outcome.error
            assert outcome.result
            lines.write(json.dumps(outcome.result.to_dict()).encode() + b"\n")
            yield 1


def classify(localizer: Localizer, classifier: Backend, files: Sequence[Path], lines: FileIO, clock: Clock) -> Target:
    """Time the same with the bare classifier: a film file to a line of probabilities."""

    def run(at: int) -> Mapping[str, float]:
        film = localizer.prepare(files[at % len(files)])
        begin = clock.now()
        logits = classifier.run(film.batch).logits[0]
        ran = clock.now()
        scores = dict(zip(localizer.bundle.classes, localizer.bundle.probabilities(logits).tolist(), strict=True))
        lines.write(json.dumps({"input": film.frame.name, "scores": scores}).encode() + b"\n")
        return {**film.timing_ms, "network": (ran - begin) * 1e3, "write": (clock.now() - ran) * 1e3}

    return run
