"""What the torch backend does on a CUDA device, without one: tensors on the CPU, where operators are references.

A stand-in takes the place of CUDA's streams, events and pinned memory; capturing a graph fails in it, so that the eager
way is taken. On a GPU such films go the real way in benchmarks/gpu_check.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from msloc_edge import Localizer
from msloc_edge.errors import BackendError
from msloc_edge.train.phantom import generate


class Anything:
    """A stream or an event: takes part in nothing, and everything has happened."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def elapsed_time(self, _: Anything) -> float:
        return 0.5

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch, tiny_bundle: Path) -> Iterator[Localizer]:
    """A Localizer of all classes whose backend believes itself on a CUDA device."""
    from msloc_edge.backends.torch.backend import TorchBackend
    from msloc_edge.backends.torch.cuda import CudaNetwork
    from msloc_edge.backends.torch.window import CudaWindow

    for name in ("Event", "Stream"):
        monkeypatch.setattr(torch.cuda, name, Anything)
    for name in ("device", "stream"):
        monkeypatch.setattr(torch.cuda, name, lambda _: nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", Anything)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda *_: None)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
    for name in ("empty", "empty_like"):
        real = getattr(torch, name)
        monkeypatch.setattr(
            torch, name, lambda *args, real=real, pin_memory=False, **options: real(*args, **options).fill_(-7)
        )
    with Localizer(tiny_bundle, "torch", all_classes=True) as localizer:
        backend = localizer.backend
        assert isinstance(backend, TorchBackend)
        backend._cuda = CudaNetwork(backend._bundle, backend._net, backend._predict, backend._device)
        backend._window = CudaWindow(backend._device)
        yield localizer


def films() -> list[np.ndarray]:
    """High, wide and square ones, so that the content of each differs; 8 and 16 bits."""
    found = [generate(seed, size).stored for seed, size in enumerate([(90, 150), 64, (128, 96)], start=3)]
    return [*found, np.round(generate(7, 80).display() * 65535).astype(np.uint16)]


def test_the_device_finds_what_the_host_finds(cuda: Localizer, tiny_bundle: Path) -> None:
    with Localizer(tiny_bundle, "torch", all_classes=True) as host:
        expected = host.localize_batch(films())
    single = [cuda.localize(film) for film in films()]
    boxes = 0
    for results in (single, cuda.localize_batch(films())):
        for found, right in zip(results, expected, strict=True):
            assert "fuse" not in found.timing_ms  # it was done on the device
            assert (found.warnings, found.geometry) == (right.warnings, right.geometry)
            for ours, theirs in zip(found.findings, right.findings, strict=True):
                boxes += len(ours.boxes)
                assert ours.peak is not None
                assert theirs.peak is not None
                assert abs(ours.peak.value - theirs.peak.value) < 1e-4
                ((x, y),) = right.geometry.to_input(np.array([[ours.peak.x, ours.peak.y]])) - (
                    right.geometry.left,
                    right.geometry.top,
                )
                there = right.maps[ours.label][int(y), int(x)]
                assert abs(there - theirs.peak.value) < 1e-4  # on a plateau rounding says which pixel it is
                corners = [[(b.x, b.y, b.w, b.h) for b in finding.boxes] for finding in (ours, theirs)]
                assert corners[0] == corners[1]
                np.testing.assert_allclose([b.score for b in ours.boxes], [b.score for b in theirs.boxes], atol=1e-3)
            for label, shown in right.maps.items():
                np.testing.assert_allclose(found.maps[label], shown, atol=1e-3)
                for ours, theirs in zip(found.stage_maps[label], right.stage_maps[label], strict=True):
                    np.testing.assert_allclose(ours, theirs, atol=1e-3)
    assert boxes
    assert cuda.backend.describe()["eager_because"]


def test_more_regions_than_the_table_holds_are_found_on_the_host(
    cuda: Localizer, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from msloc_edge.backends.torch import cuda as torch_cuda

    monkeypatch.setattr(torch_cuda, "MAX_REGIONS", 1)
    with Localizer(tiny_bundle, "torch", all_classes=True) as host:
        expected = host.localize_batch(films())
    most = max(len(finding.boxes) for result in expected for finding in result.findings)
    assert most > 1
    for film, right in zip(films(), expected, strict=True):
        found = cuda.localize(film)
        assert [len(f.boxes) for f in found.findings] == [len(f.boxes) for f in right.findings]


def test_batches_larger_than_what_is_in_memory_at_a_time(cuda: Localizer, monkeypatch: pytest.MonkeyPatch) -> None:
    from msloc_edge.backends.torch import cuda as torch_cuda

    together = cuda.localize_batch(films()[:3])
    monkeypatch.setattr(torch_cuda, "MAX_IMAGES", 2)
    cuda.backend._cuda._slots.clear()  # type: ignore[attr-defined]
    parted = cuda.localize_batch(films()[:3])
    for ours, theirs in zip(parted, together, strict=True):
        assert ours.findings == theirs.findings


def test_other_thresholds(cuda: Localizer) -> None:
    """They may change from film to film, as two Localizers may share a backend."""
    from dataclasses import replace

    film = films()[0]
    some = cuda.localize(film)
    count = len(cuda.bundle.classes)
    cuda.profile = replace(cuda.profile, map=(1e6,) * count)
    assert not any(finding.boxes for finding in cuda.localize(film).findings)
    cuda.profile = replace(cuda.profile, map=(-1e6,) * count)
    whole = [finding.boxes for finding in cuda.localize(film).findings]
    assert all(len(boxes) == 1 and boxes[0].w == film.shape[1] and boxes[0].h == film.shape[0] for boxes in whole)
    assert any(finding.boxes for finding in some.findings)


def test_a_bare_batch_is_run_without_a_search(cuda: Localizer) -> None:
    film = cuda.prepare(films()[1])
    outputs, steps = cuda.backend.run(film.batch), []
    assert outputs.logits.shape == (1, len(cuda.bundle.classes))
    assert len(outputs.regions(0, [0], steps.append)) == 1
    assert steps == ["fuse"], "regions are found on the host, when they are asked for"


def test_a_batch_may_be_on_the_device(cuda: Localizer) -> None:
    batch = np.concatenate([cuda.prepare(film).batch for film in films()[:3]])
    expected = cuda.backend.run(batch)
    found = cuda.backend.run(torch.from_numpy(batch))
    assert np.array_equal(found.logits, expected.logits)
    for ours, theirs in zip(found.stage_maps(2, 1), expected.stage_maps(2, 1), strict=True):
        assert np.array_equal(ours, theirs)
    with pytest.raises(BackendError, match=r"failed on a batch of shape .3, 64, 64.: expected films of 64 x 64"):
        cuda.backend.run(batch[:, 0])


def test_nothing_is_copied_to_the_device_but_from_pinned_memory(
    cuda: Localizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other memory would be waited for."""
    pinned: list[int] = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pinned.append(tensor.numel()) or tensor)
    film = np.round(generate(7, 80).display() * 65535).astype(np.uint16)
    cuda.localize(film)
    assert pinned[:2] == [film.size, 2**16], "the pixels, and the table"


def test_convolutions_are_exact_whatever_else_was_set(cuda: Localizer) -> None:
    """Also where somebody has used torch's newer settings, whose mixture with the older one torch refuses."""
    conv: Any = pytest.importorskip("torch.backends.cudnn").conv
    before, within = conv.fp32_precision, []
    network = cuda.backend._cuda  # type: ignore[attr-defined]
    predict = network._predict
    network._predict = lambda films: within.append(conv.fp32_precision) or predict(films)
    try:
        conv.fp32_precision = "tf32"
        torch.backends.cudnn.rnn.fp32_precision = "ieee"  # type: ignore[attr-defined]
        cuda.localize(films()[0])
        assert conv.fp32_precision == "tf32", "it is set back"
    finally:
        conv.fp32_precision = before
        torch.backends.cudnn.rnn.fp32_precision = before  # type: ignore[attr-defined]
    assert set(within) == {"ieee"}


def test_channels_come_last_in_16_bits_alone(tiny_bundle: Path) -> None:
    from msloc_edge.backends.torch.backend import load
    from msloc_edge.backends.torch.cuda import CudaNetwork
    from msloc_edge.bundle import Bundle

    for precision, expected in (("fp32", False), ("bf16", True)):
        backend = load(Bundle.open(tiny_bundle), "cpu", precision)
        CudaNetwork(backend._bundle, backend._net, backend._predict, backend._device)
        weights = [
            module.weight
            for module in backend._net.modules()
            if isinstance(module, torch.nn.Conv2d) and module.kernel_size != (1, 1) and module.in_channels > 1
        ]
        last = {w.is_contiguous(memory_format=torch.channels_last) and not w.is_contiguous() for w in weights}
        assert last == {expected}
