"""Files of a variant: Triton to PTX, without a GPU or a driver, then the assembler and the gates."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import triton
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

from msloc_edge._files import atomic_write
from msloc_edge.cuda.compiled import ALIGNMENT, INDEX, SCHEMA, Compiled
from msloc_edge.errors import ExportError
from msloc_edge.kernels import OPTIONS
from msloc_edge.kernels.aot.assemble import assemble, is_known
from msloc_edge.kernels.aot.ptx import entry, retarget, strip_scratch
from msloc_edge.kernels.aot.spec import Variant

PTX_VERSIONS = {80: 74, 86: 74, 87: 74, 89: 78, 90: 80, 100: 86, 110: 90, 120: 87}
"""Device -> the oldest PTX that LLVM writes for it: an older driver, or TensorRT's, then still reads it.

LLVM ends the process when it is asked for an older one.
"""

DEVICES = tuple(PTX_VERSIONS)
PORTABLE = 80
MOST_REGISTERS = 64
HEAVIER = {"fuse_cams.located": 80}
"""A form that may have more: it saves a second pass over the maps, and 24 warps of it still fit on a multiprocessor."""
MOST_SHARED = 48 * 1024


def build(
    variants: Sequence[Variant], devices: Sequence[int], folder: Path, tell: Callable[[Compiled], None] = lambda _: None
) -> list[Compiled]:
    """Compile every variant for every device and in its portable form; kernels.json is written last.

    tell  called with each kernel when its files are written
    Raises ExportError kernel_refused: Triton or ptxas refuses a kernel, or it reads scratch memory; OSError as it
    comes. What a kernel uses is no reason to refuse it here, where its author wants to know: `heavy` judges that.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kernels = []
    for variant in variants:
        texts = {sm: to_ptx(variant, sm) for sm in sorted({*devices, PORTABLE})}
        for sm in devices:
            kernels.append(_write(folder, variant, *texts[sm], sm, portable=False))
            tell(kernels[-1])
        kernels.append(_write(folder, variant, *texts[PORTABLE], PORTABLE, portable=True))
        tell(kernels[-1])
    index = {"schema": SCHEMA, "kernels": [kernel.to_dict() for kernel in kernels]}
    atomic_write(folder / INDEX, (json.dumps(index, indent=1) + "\n").encode())
    return kernels


def heavy(kernel: Compiled) -> bool:
    """It spills, or has so many registers that too few threads fit on a device to hide the memory's latency."""
    most = HEAVIER.get(f"{kernel.operation}.{kernel.variant}", MOST_REGISTERS)
    return kernel.spills > 0 or kernel.registers > most


def to_ptx(variant: Variant, sm: int) -> tuple[str, int]:
    """PTX for the plain architecture without scratch parameters, and the bytes of dynamic shared memory it needs."""
    if not isinstance(variant.kernel, JITFunction):
        raise ExportError(
            "build_failed", f"{variant.name}: expected a Triton kernel that compiles; unset TRITON_INTERPRET"
        )
    declared = {**variant.signature, **dict.fromkeys(variant.constants, "constexpr")}
    if declared.keys() != set(variant.kernel.arg_names):
        raise ExportError(
            "build_failed",
            f"{variant.name}: declared with {sorted(declared)}, the kernel has {variant.kernel.arg_names}",
        )
    signature = {name: declared[name] for name in variant.kernel.arg_names}  # Triton goes by place
    promises = {(variant.kernel.arg_names.index(name),): [["tt.divisibility", ALIGNMENT]] for name in variant.aligned}
    source = ASTSource(variant.kernel, signature, dict(variant.constants), promises)
    options = {"num_warps": variant.num_warps, "ptx_version": PTX_VERSIONS[sm], **OPTIONS}
    with _no_line_numbers():
        try:
            made = triton.compile(source, GPUTarget("cuda", sm, 32), options)
        except Exception as error:  # the compiler's exceptions share no base of their own
            raise ExportError("build_failed", f"{variant.name}: Triton refuses it for sm_{sm}: {error}") from error
    if made.metadata.shared > MOST_SHARED:
        raise ExportError(
            "build_failed", f"{variant.name}: needs {made.metadata.shared} bytes of shared memory, over {MOST_SHARED}"
        )
    text = strip_scratch(made.asm["ptx"], tuple(argument.size for argument in variant.arguments))
    return retarget(text, sm), made.metadata.shared


def _write(folder: Path, variant: Variant, text: str, shared: int, sm: int, portable: bool) -> Compiled:
    judges = filter(is_known, DEVICES) if portable else (sm,)
    assembled = [assemble(text, device) for device in judges]
    data = {"ptx": text.encode()}
    if not portable:
        data["cubin"] = assembled[0].cubin
    stem = f"{variant.name}.{'portable' if portable else f'sm_{sm}'}"
    for kind, content in data.items():
        atomic_write(folder / f"{stem}.{kind}", content)
    return Compiled(
        operation=variant.operation,
        variant=variant.variant,
        sm=sm,
        portable=portable,
        dtype=variant.dtype,
        entry=entry(text)[0],
        arguments=variant.arguments,
        aligned=variant.aligned,
        grid=variant.grid,
        block=32 * variant.num_warps,
        tile=variant.tile,
        registers=max(a.registers for a in assembled),
        spills=max(a.spills for a in assembled),
        shared=shared,
        triton=triton.__version__,
        ptxas=max((a.ptxas for a in assembled), key=lambda version: [int(part) for part in version.split(".")]),
        files={kind: f"{stem}.{kind}" for kind in data},
        sha256={kind: hashlib.sha256(content).hexdigest() for kind, content in data.items()},
    )


@contextmanager
def _no_line_numbers() -> Iterator[None]:
    """Files that do not depend on where the source lies: without the names of its files in them."""
    with knobs.compilation.scope():
        knobs.compilation.disable_line_info = True
        yield
