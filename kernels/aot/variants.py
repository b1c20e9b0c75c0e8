"""Every kernel that is compiled ahead of time, with the choices that a device gets."""

from __future__ import annotations

from itertools import product

from msloc_edge.kernels.aot.spec import Types, Variant
from msloc_edge.kernels.fuse_cams.kernel import fuse_cams_kernel
from msloc_edge.kernels.fuse_cams.peaks import fuse_cams_peaks_kernel
from msloc_edge.kernels.fuse_cams.programs import GENERAL_TILE, STRIDED_TILE
from msloc_edge.kernels.fuse_cams.strided import STEPS, fuse_cams_strided_kernel
from msloc_edge.kernels.regions.kernel import regions_kernel, runs_kernel
from msloc_edge.kernels.window_resize.kernel import window_resize_kernel

DTYPES = ("fp16", "fp32")


def variants() -> tuple[Variant, ...]:
    """List all kernels, in the order of kernels.json."""
    return (*_fused(), *_findings(), _peaks(), *_window_resize(), *_regions())


STRIDES = (4, 8, 16, 32)
"""Pixels of a cell of each stage: every network of four stages has these."""

STAGES = len(STRIDES)

NUMBERS: dict[str, Types] = dict.fromkeys(("K", "J", "H", "W", "tile_h"), "i32")
"""Scalars of both fuse_cams kernels that compute maps."""


def _fused() -> list[Variant]:
    """The maps of all classes; of those that each image wants; of all, with their peaks within the film."""
    found = []
    forms = [*product(("maps", "wanted"), DTYPES), ("located", "fp32")]
    for form, dtype in forms:
        signature: dict[str, Types] = {
            "cams": (f"*{dtype}",) * STAGES,
            "relevance": "*fp32",
            **({"classes": "*i32"} if form == "wanted" else {}),
            **({"content": "*i32"} if form == "located" else {}),
            **NUMBERS,
            "maps": f"*{dtype}",
            **({"peaks": "*i64"} if form == "located" else {}),
        }
        unused = [name for name in ("classes", "content", "peaks") if name not in signature]
        found.append(
            Variant(
                operation="fuse_cams",
                variant=form,
                dtype=dtype,
                kernel=fuse_cams_strided_kernel,
                signature=signature,
                constants={**dict.fromkeys(unused), "strides": STRIDES, "BLOCK_W": 256, "STEPS": STEPS},
                grid=("B * J * cdiv(H, tile_h) * cdiv(W, 256)", "1", "1"),
                tile=STRIDED_TILE,
                aligned=("maps",),
            )
        )
    return found


def _findings() -> list[Variant]:
    """Peaks and masks, of maps of any size; one column a thread, as with two it would need more than 64 registers."""
    return [
        Variant(
            operation="fuse_cams",
            variant="findings",
            dtype=dtype,
            kernel=fuse_cams_kernel,
            signature={
                "cams": (f"*{dtype}",) * STAGES,
                "relevance": "*fp32",
                "classes": "*i32",
                "thresholds": "*fp32",
                "heights": ("i32",) * STAGES,
                "widths": ("i32",) * STAGES,
                **NUMBERS,
                "peaks": "*i64",
                "mask": "*u8",
            },
            constants={**dict.fromkeys(("content", "maps", "index")), "BLOCK_W": 128},
            grid=("B * J * cdiv(H, tile_h) * cdiv(W, 128)", "1", "1"),
            tile=GENERAL_TILE,
        )
        for dtype in DTYPES
    ]


def _peaks() -> Variant:
    return Variant(
        operation="fuse_cams",
        variant="peaks",
        dtype="fp32",
        kernel=fuse_cams_peaks_kernel,
        signature={"peaks": "*i64", "parts": "i32", "W": "i32", "values": "*fp32", "positions": "*i32"},
        constants={},
        grid=("B * J", "1", "1"),
        num_warps=1,
    )


TILES = {"shrink": (8, 64), "enlarge": (2, 128)}
"""Source columns of a turn and output pixels of a program. Films come at 3 to 8 times the model's input: one turn."""

PIXELS = {"u8": "*u8", "u16": "*i16"}
"""Stored pixels of 16 bits pass as they lie in memory: the kernel does not look at the sign."""


def _window_resize() -> list[Variant]:
    found = []
    for (pixels, pointer), (way, (taps, columns)), dtype in product(PIXELS.items(), TILES.items(), DTYPES):
        signature: dict[str, Types] = {
            "pixels": pointer,
            "table": "*fp32",
            **dict.fromkeys(("last", "image_width", "image_height", "input_width", "input_height"), "i32"),
            **dict.fromkeys(("left", "top", "width", "height"), "i32"),
            "output": f"*{dtype}",
        }
        found.append(
            Variant(
                operation="window_resize",
                variant=f"{pixels}-{way}",
                dtype=dtype,
                kernel=window_resize_kernel,
                signature=signature,
                constants={"enlarge": way == "enlarge", "taps": taps, "BLOCK_W": columns},
                grid=(f"cdiv(input_width, {columns})", "input_height", "1"),
            )
        )
    return found


COLUMNS, ROWS = 128, 512
"""Columns of a turn of the warp that finds the runs of a row, rows of a turn of the block that joins those of a map."""


def _regions() -> list[Variant]:
    sizes: dict[str, Types] = {"H": "i32", "W": "i32"}
    runs = [
        Variant(
            operation="regions",
            variant="runs",
            dtype=dtype,
            kernel=runs_kernel,
            signature={"maps": f"*{dtype}", "thresholds": "*fp32", "content": "*i32", **sizes, "runs": "*i32"},
            constants={"BLOCK_W": COLUMNS},
            grid=("H", "J", "B"),
            num_warps=1,
        )
        for dtype in DTYPES
    ]
    joined = Variant(
        operation="regions",
        variant="regions",
        dtype="fp32",
        kernel=regions_kernel,
        signature={"runs": "*i32", **sizes, "max_regions": "i32", "counts": "*i32", "table": "*i32"},
        constants={"BLOCK_H": ROWS},
        grid=("B * J", "1", "1"),
        num_warps=ROWS // 32,
    )
    return [*runs, joined]
