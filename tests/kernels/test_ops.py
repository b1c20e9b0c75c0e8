"""The custom operators: registered soundly, light to import, one node for torch.compile and torch.export."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from msloc_edge.imaging.geometry import Geometry
from msloc_edge.kernels import ops
from msloc_edge.kernels.fuse_cams import reference
from msloc_edge.kernels.regions import reference as regions_reference
from msloc_edge.types import Frame

SIZE = (12, 20)


def draw(batch: int = 2, dtype: torch.dtype = torch.float32) -> tuple[list[Tensor], Tensor]:
    source = torch.Generator().manual_seed(0)
    cams = [torch.randn(batch, 3, *shape, generator=source).to(dtype) for shape in ((6, 10), (3, 5))]
    return cams, torch.rand(3, 2, generator=source).softmax(dim=1)


class Head(nn.Module):
    """Scores and maps from one tensor of features."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = nn.Conv2d(4, 3, 1), nn.Conv2d(4, 3, 2, 2)
        self.theta = nn.Parameter(torch.randn(3, 2))

    def forward(self, features: Tensor) -> Tensor:
        cams = [self.fine(features), self.coarse(features)]
        maps: Tensor = torch.ops.msloc.fuse_cams(cams, self.theta.softmax(dim=1), *SIZE)
        return maps


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("classes", [None, torch.tensor([[2, 0], [1, 1]]), torch.empty(2, 0, dtype=torch.long)])
def test_registered_soundly(dtype: torch.dtype, classes: Tensor | None) -> None:
    cams, relevance = draw(dtype=dtype)
    torch.library.opcheck(ops.fuse_cams, (cams, relevance, *SIZE, classes))
    found = ops.fuse_cams(cams, relevance, *SIZE, classes)
    assert found.dtype == dtype
    assert torch.equal(found, reference.fuse_cams(cams, relevance, SIZE, classes))


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compile(backend: str) -> None:
    head, features = Head().eval(), torch.randn(2, 4, 6, 10)
    with torch.no_grad():
        found = torch.compile(head, backend=backend, fullgraph=True)(features)
        assert torch.equal(found, head(features))


def test_export_with_any_batch() -> None:
    head = Head().eval()
    batch = torch.export.Dim("batch", max=64)
    with torch.no_grad():
        program = torch.export.export(head, (torch.randn(2, 4, 6, 10),), dynamic_shapes=({0: batch},))
        features = torch.randn(5, 4, 6, 10)
        assert torch.equal(program.module()(features), head(features))
    assert [node.target for node in program.graph.nodes].count(torch.ops.msloc.fuse_cams.default) == 1


def test_shapes_that_do_not_fit() -> None:
    cams, relevance = draw()
    with pytest.raises(ValueError, match=r"relevance of shape \(3, 2\), got \(2, 3\)"):
        ops.fuse_cams(cams, relevance.T, *SIZE)


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("image", [(30, 40), (9, 5)])
def test_window_resize_is_the_path_on_the_cpu(bits: int, image: tuple[int, int]) -> None:
    rng = np.random.default_rng(bits)
    stored = rng.integers(0, 2**bits, image).astype(np.uint8 if bits == 8 else np.uint16)
    frame = Frame(stored, rng.random(2**bits, np.float32))
    fit = Geometry.fit(image, (16, 16))
    pixels = torch.from_numpy(stored if bits == 8 else stored.view(np.int16))
    arguments = (pixels, torch.from_numpy(frame.lut), (16, 16), (fit.left, fit.top, fit.width, fit.height))
    torch.library.opcheck(ops.window_resize, arguments)
    found = ops.window_resize(*arguments)[0, 0].numpy()
    np.testing.assert_allclose(found, fit.letterbox(frame.display()), atol=5e-5)


@pytest.mark.parametrize("content", [None, torch.tensor([[1, 2, 5, 4], [11, 19, 1, 1]], dtype=torch.int32)])
def test_maps_with_their_peaks_registered_soundly(content: Tensor | None) -> None:
    cams, relevance = draw()
    arguments = (cams, relevance, *SIZE, content)
    torch.library.opcheck(ops.fuse_cams_peaks, arguments)
    maps, values, positions = torch.ops.msloc.fuse_cams_peaks(*arguments)
    assert torch.equal(maps, reference.fuse_cams(cams, relevance, SIZE))
    for image, (top, left, height, width) in enumerate([(0, 0, *SIZE)] * 2 if content is None else content.tolist()):
        for k in range(3):
            part = maps[image, k, top : top + height, left : left + width]
            y, x = positions[image, k].tolist()
            assert values[image, k] == part.max() == maps[image, k, y, x]
            assert (y, x) == (top + int(part.argmax()) // width, left + int(part.argmax()) % width)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("content", [None, torch.tensor([[1, 2, 5, 4], [0, 0, 8, 0]], dtype=torch.int32)])
def test_regions_registered_soundly(dtype: torch.dtype, content: Tensor | None) -> None:
    maps = torch.randn(2, 3, 8, 9, generator=torch.Generator().manual_seed(0)).to(dtype)
    arguments = (maps, torch.tensor([-0.5, 0.0, 0.5]), content, 5)
    torch.library.opcheck(ops.regions, arguments)
    counts, table = torch.ops.msloc.regions(*arguments)
    assert (counts.shape, table.shape) == ((2, 3), (2, 3, 5, 8))
    for found, expected in zip((counts, table), regions_reference.regions(*arguments), strict=True):
        assert torch.equal(found, expected)


def test_regions_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match=r"float32 thresholds of shape \(3,\), got \(2,\)"):
        ops.regions(torch.zeros(1, 3, 4, 4), torch.zeros(2))


def test_import_is_light() -> None:
    script = "import sys, msloc_edge.kernels.ops; assert 'triton' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)
