"""The CamFuse node as a plugin of TensorRT 10.9 and later: the plan holds the Triton kernel as PTX.

    from msloc_edge.export import camfuse_plugin
    camfuse_plugin.register()       before TensorRT parses a graph of graphs.with_camfuse

TensorRT's "quickly deployable plugins" (tensorrt.plugin) give a kernel inputs, then int32 scalars, then outputs: the
order of fuse_cams_strided_kernel. Its maps lie at multiples of 16 bytes: TensorRT's tensors at those of 256. A plan
built this way runs without Python. For TensorRT 10.3, which has no such plugins, kernels/plugin has the same node in
C++.
"""

# No `from __future__ import annotations` here: tensorrt.plugin reads the annotations of its functions as classes.

import numpy as np
from numpy.typing import NDArray

from msloc_edge.backends.tensorrt.library import JETPACK_7, X86
from msloc_edge.errors import DependencyError, ExportError
from msloc_edge.export.graphs import CAMFUSE, DOMAIN

PLUGIN = f"{DOMAIN}::{CAMFUSE}"

Number = NDArray[np.int32]
"""An attribute, one element. Not int: for that, TensorRT 10.9 to 10.16 call int(array), which NumPy 2.4 refuses."""


def register() -> None:
    """Make the node known to TensorRT in this process; a second call changes nothing.

    Raises BackendError (backend_missing) without TensorRT 10.9 or later, or without Triton, which compiles the kernel
    while an engine is built. Building with class maps of other cells than 4, 8, 16 and 32 pixels ends with ExportError
    (option_invalid).
    """
    try:
        import tensorrt.plugin as trtp
    except ImportError as error:
        raise DependencyError(
            "backend_missing", f"expected TensorRT 10.9 or later: {error}; JetPack 7: {JETPACK_7}; x86: {X86}"
        ) from error
    if not hasattr(trtp, "aot_impl"):
        raise DependencyError(
            "backend_missing",
            "expected TensorRT 10.9 or later, got an older one; use libmsloc_camfuse.so (kernels/plugin)",
        )
    try:
        from msloc_edge.kernels.aot.build import PORTABLE, to_ptx
        from msloc_edge.kernels.aot.ptx import entry
        from msloc_edge.kernels.aot.variants import STRIDES, variants
        from msloc_edge.kernels.fuse_cams.programs import STRIDED_TILE
    except ImportError as error:
        raise DependencyError(
            "backend_missing",
            f"compiling the kernel needs {error.name}; install it with: pip install 'msloc-edge[gpu]'",
        ) from error
    if hasattr(getattr(trtp.op, DOMAIN, None), CAMFUSE):
        return
    kernels = {v.dtype: v for v in variants() if (v.operation, v.variant) == ("fuse_cams", "maps")}

    def describe(
        cams_1: trtp.TensorDesc,
        cams_2: trtp.TensorDesc,
        cams_3: trtp.TensorDesc,
        cams_4: trtp.TensorDesc,
        relevance: trtp.TensorDesc,
        height: Number,
        width: Number,
    ) -> trtp.TensorDesc:
        heatmap = cams_1.like()
        heatmap.shape_expr[2], heatmap.shape_expr[3] = int(height[0]), int(width[0])
        return heatmap

    def types(
        cams_1: trtp.TensorDesc,
        cams_2: trtp.TensorDesc,
        cams_3: trtp.TensorDesc,
        cams_4: trtp.TensorDesc,
        relevance: trtp.TensorDesc,
        outputs: tuple[trtp.TensorDesc],
    ) -> list[trtp.AutoTuneCombination]:
        return [trtp.AutoTuneCombination(", ".join(["FP32|FP16"] * 4 + ["FP32", "FP32|FP16"]), "LINEAR")]

    def compile_kernel(
        cams_1: trtp.TensorDesc,
        cams_2: trtp.TensorDesc,
        cams_3: trtp.TensorDesc,
        cams_4: trtp.TensorDesc,
        relevance: trtp.TensorDesc,
        height: Number,
        width: Number,
        outputs: tuple[trtp.TensorDesc],
        tactic: int,
    ) -> tuple[str | bytes, str | bytes, trtp.KernelLaunchParams, trtp.SymExprs]:
        # The portable form, as an engine may be hardware-compatible; a driver compiles it for its device.
        variant = kernels["fp16" if cams_1.dtype.name == "HALF" else "fp32"]
        text, shared = to_ptx(variant, PORTABLE)
        batch, classes = cams_1.shape_expr[0], cams_1.shape_expr[1]
        size = int(height[0]), int(width[0])
        _check([(cams.shape[2], cams.shape[3]) for cams in (cams_1, cams_2, cams_3, cams_4)], size, STRIDES)
        columns = variant.constants["BLOCK_W"]
        tile_h = STRIDED_TILE.tile_h(batch * classes, size, columns)
        programs = batch * classes * -(-size[1] // columns) * trtp.cdiv(size[0], tile_h)
        values = {"K": classes, "J": classes, "H": size[0], "W": size[1], "tile_h": tile_h}
        numbers = [argument.name for argument in variant.arguments if not argument.type.startswith("*")]
        return (
            entry(text)[0],
            text,
            trtp.KernelLaunchParams(grid_x=programs, block_x=32 * variant.num_warps, shared_mem=shared),
            trtp.SymIntExprs.from_tuple(trtp.SymInt32(values[name]) for name in numbers),
        )

    trtp.register(PLUGIN)(describe)
    trtp.autotune(PLUGIN)(types)
    trtp.aot_impl(PLUGIN)(compile_kernel)


def _check(grids: list[tuple[int, int]], size: tuple[int, int], strides: tuple[int, ...]) -> None:
    """Refuse class maps whose grid times stride is not the map, or that have fewer than two columns."""
    from msloc_edge.kernels.fuse_cams.strided import fits  # it needs triton, as whoever compiles the kernel has

    for (h, w), stride in zip(grids, strides, strict=True):
        if not fits((h, w), stride, size):
            raise ExportError(
                "option_invalid",
                f"{CAMFUSE}: expected class maps of at least two columns, with cells of 4, 8, 16 and 32 pixels, "
                f"got {h} x {w} of {stride} for a map of {size[0]} x {size[1]}; export with --plugin plain",
            )
