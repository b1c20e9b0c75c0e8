"""Kernels compiled ahead of time: what is written is complete, true, and fits every device that it names."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from msloc_edge.cuda.compiled import INDEX, Compiled, grid_size, pick, read_index
from msloc_edge.errors import BackendError, ExportError

triton = pytest.importorskip("triton", reason="triton is not installed")
tl = triton.language

from triton.runtime.jit import JITFunction  # noqa: E402

from msloc_edge.kernels.aot.assemble import assemble  # noqa: E402
from msloc_edge.kernels.aot.build import DEVICES, PORTABLE, build, heavy, to_ptx  # noqa: E402
from msloc_edge.kernels.aot.ptx import entry, retarget, strip_scratch  # noqa: E402
from msloc_edge.kernels.aot.spec import Variant  # noqa: E402

DEVICE = 87
"""The one that our kernels are compiled for here, beside the portable form; the command judges all of them alike."""

BOTH_KINDS = (87, 120)
"""Devices whose cubins have different headers."""

FIELDS = {"operation", "sm", "dtype", "entry", "arguments", "aligned", "grid", "block"}
FIELDS |= {"registers", "spills", "shared", "triton"}
POINTER, NUMBER = 8, 4


def scaled_sum(parts, scales, count, out, block: tl.constexpr, squared: tl.constexpr):  # type: ignore[no-untyped-def]
    """A kernel with what ours have: a tuple, optional work, a masked store."""
    place = tl.program_id(0) * block + tl.arange(0, block)
    total = tl.full([block], 0.0, tl.float32)
    for s in tl.static_range(len(parts)):
        total += tl.load(scales + s) * tl.load(parts[s] + place, place < count, 0.0).to(tl.float32)
    if squared:
        total *= total
    tl.store(out + place, total.to(out.dtype.element_ty), place < count)


def toy(**changes: Any) -> Variant:
    values: dict[str, Any] = {
        "operation": "scaled_sum",
        "variant": "",
        "dtype": "fp16",
        "kernel": JITFunction(scaled_sum),  # and not @triton.jit, which gives none under TRITON_INTERPRET
        "signature": {"parts": ("*fp16", "*fp16"), "scales": "*fp32", "count": "i32", "out": "*fp16"},
        "constants": {"block": 256, "squared": False},
        "grid": ("cdiv(count, 256)", "1", "1"),
    }
    return Variant(**{**values, **changes})


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command's output for DEVICE; a process of its own compiles also where this one has TRITON_INTERPRET."""
    out = tmp_path_factory.mktemp("aot")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "msloc_edge.kernels.aot", "--out", str(out), "--sm", str(DEVICE)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    return out


@pytest.fixture(scope="session")
def kernels(folder: Path) -> list[Compiled]:
    return read_index(folder)


@pytest.fixture(scope="session")
def toy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("toy")
    build([toy(), toy(variant="squared", constants={"block": 256, "squared": True})], BOTH_KINDS, out)
    return out


def machine_of(cubin: bytes) -> int:
    """The SM in an ELF header: CUDA 13's form, also of CUDA 12 from sm_100 on, keeps it one byte further up."""
    assert cubin[:5] == b"\x7fELF\x02"
    assert int.from_bytes(cubin[18:20], "little") == 190, "e_machine is not EM_CUDA"
    flags = int.from_bytes(cubin[48:52], "little")
    return (flags >> 8 if cubin[8] >= 8 else flags) & 0xFF


def test_every_operation_is_there_for_every_device(kernels: list[Compiled]) -> None:
    assert {k.operation for k in kernels} == {"regions", "fuse_cams", "window_resize"}
    forms = {(k.operation, k.variant, k.dtype) for k in kernels}
    for operation, variant, _ in forms - {
        ("fuse_cams", "peaks", "fp32"),
        ("regions", "regions", "fp32"),  # these read no map
        ("fuse_cams", "located", "fp32"),  # engines give float32
    }:
        assert {(operation, variant, "fp16"), (operation, variant, "fp32")} <= forms
    for form in forms:
        entries = [k for k in kernels if (k.operation, k.variant, k.dtype) == form]
        assert [k.sm for k in entries if not k.portable] == [DEVICE]
        assert [k.sm for k in entries if k.portable] == [PORTABLE]


def test_no_kernel_is_heavy(kernels: list[Compiled]) -> None:
    assert [(k.operation, k.variant, k.dtype, k.sm, k.registers, k.spills) for k in kernels if heavy(k)] == []


def test_the_index_is_complete(folder: Path) -> None:
    content = json.loads((folder / INDEX).read_text())
    for kernel in content["kernels"]:
        assert kernel.keys() >= {*FIELDS, "sha256", "files"}
        assert kernel["triton"] == triton.__version__
        assert all(argument.keys() == {"name", "type"} for argument in kernel["arguments"])
        assert kernel["registers"] > 0
        assert kernel["block"] % 32 == 0
    named = [name for kernel in content["kernels"] for name in kernel["files"].values()]
    assert sorted([*named, INDEX]) == sorted(file.name for file in folder.iterdir()), "each file once, and no other"


def test_hashes_are_those_of_the_files(folder: Path, kernels: list[Compiled]) -> None:
    for kernel in kernels:
        assert kernel.files.keys() == kernel.sha256.keys() == {"ptx"} | ({"cubin"} if not kernel.portable else set())
        for kind, name in kernel.files.items():
            assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == kernel.sha256[kind]


def test_files_have_the_declared_parameters_and_no_other(folder: Path, kernels: list[Compiled]) -> None:
    for kernel in kernels:
        text = (folder / kernel.files["ptx"]).read_text()
        name, parameters = entry(text)
        assert name == kernel.entry
        assert [p.size for p in parameters] == [argument.size for argument in kernel.arguments]
        assert text.count(".param .") == len(kernel.arguments)
        if "cubin" in kernel.files:
            assert kernel.entry.encode() in (folder / kernel.files["cubin"]).read_bytes()


def test_arguments_are_inputs_then_numbers_then_outputs(kernels: list[Compiled]) -> None:
    """The order that TensorRT's ahead-of-time plugins need."""
    for kernel in kernels:
        kinds = "".join("p" if argument.type.startswith("*") else "n" for argument in kernel.arguments)
        assert re.fullmatch("p+n+p+", kinds), (kernel.operation, kinds)


def test_promises_are_of_pointers_and_store_two_pixels_at_once(folder: Path, kernels: list[Compiled]) -> None:
    promised = {(k.operation, k.variant): k.aligned for k in kernels if k.aligned}
    assert promised == {("fuse_cams", form): ("maps",) for form in ("maps", "wanted", "located")}
    for kernel in kernels:
        assert {*kernel.aligned} <= {a.name for a in kernel.arguments if a.type.startswith("*")}
        if kernel.aligned:
            pair = {"fp16": "st.global.b32", "fp32": "st.global.v2.b32"}[kernel.dtype]
            keys = {"st.global.b64"} if kernel.variant == "located" else set()
            assert {*re.findall(r"st\.global\S*", (folder / kernel.files["ptx"]).read_text())} == {pair, *keys}
            assert kernel.shared == 0


def test_grid_rules_need_arguments_and_numbers_of_maps(kernels: list[Compiled]) -> None:
    """Not every kernel is told B and J."""
    for kernel in kernels:
        numbers = {a.name: 4 for a in kernel.arguments if not a.type.startswith("*")}
        assert min(grid_size(kernel.grid, {"B": 2, "J": 3, **numbers})) >= 1


def test_ptx_is_for_the_plain_device(folder: Path, kernels: list[Compiled]) -> None:
    for kernel in kernels:
        text = (folder / kernel.files["ptx"]).read_text()
        assert re.findall(r"^\.target (.*)$", text, re.MULTILINE) == [f"sm_{kernel.sm}"]
        assert ".file" not in text, "a path of this machine"
        if kernel.portable:
            assert ".version 7.4\n" in text


def test_cubins_are_for_their_device(folder: Path, kernels: list[Compiled]) -> None:
    for kernel in kernels:
        if not kernel.portable:
            assert machine_of((folder / kernel.files["cubin"]).read_bytes()) == kernel.sm


def test_ptx_becomes_that_cubin(folder: Path, kernels: list[Compiled]) -> None:
    """The assembler accepts the file as it was written, and says of it what the index says."""
    for kernel in kernels:
        if not kernel.portable and kernel.dtype == "fp16":
            made = assemble((folder / kernel.files["ptx"]).read_text(), kernel.sm)
            assert hashlib.sha256(made.cubin).hexdigest() == kernel.sha256["cubin"]
            assert (made.registers, made.spills, made.ptxas) == (kernel.registers, kernel.spills, kernel.ptxas)


@pytest.mark.parametrize("sm", DEVICES)
def test_the_portable_form_fits_every_device(sm: int, folder: Path, kernels: list[Compiled]) -> None:
    for kernel in kernels:
        if kernel.portable and kernel.dtype == "fp16":
            assert machine_of(assemble((folder / kernel.files["ptx"]).read_text(), sm).cubin) == sm


@pytest.mark.parametrize("sm", DEVICES)
def test_every_device_can_be_compiled_for(sm: int) -> None:
    """With the suite's own small kernel."""
    text, shared = to_ptx(toy(), sm)
    assert [p.size for p in entry(text)[1]] == [POINTER] * 3 + [NUMBER, POINTER]
    made = assemble(text, sm)
    assert machine_of(made.cubin) == sm
    assert (made.spills, made.shared, shared) == (0, 0, 0)


def test_a_tuple_is_spelled_out() -> None:
    listed = [(argument.name, argument.type) for argument in toy().arguments]
    assert listed[:3] == [("parts_1", "*fp16"), ("parts_2", "*fp16"), ("scales", "*fp32")]
    assert [name for name, _ in listed[3:]] == ["count", "out"]


def test_two_builds_are_equal(toy_folder: Path, tmp_path: Path) -> None:
    build([toy()], BOTH_KINDS, tmp_path)
    for file in tmp_path.iterdir():
        if file.name != INDEX:
            assert file.read_bytes() == (toy_folder / file.name).read_bytes()


PTX = """.version 7.4
.target sm_80
.address_size 64
.visible .entry copy(
\t.param .u64 .ptr .global .align 1 copy_param_0,
\t.param .u32 copy_param_1,
\t.param .u64 .ptr .global .align 1 copy_param_2,
\t.param .u64 .ptr .global .align 1 copy_param_3
)
.reqntid 128
{
\t.reg .b64 %rd<3>;
\t.reg .b32 %r<2>;
\tld.param.b64 %rd1, [copy_param_0];
\tld.param.b32 %r1, [copy_param_1];
\tst.global.b32 [%rd1], %r1;
\tret;
}
"""


def test_scratch_parameters_are_stripped() -> None:
    stripped = strip_scratch(PTX, (POINTER, NUMBER))
    assert [p.name for p in entry(stripped)[1]] == ["copy_param_0", "copy_param_1"]
    assert "copy_param_2" not in stripped
    assert stripped.count("\n") == PTX.count("\n") - 2
    assert assemble(stripped, 80).registers > 0


@pytest.mark.parametrize("number", [2, 3])
def test_a_kernel_that_reads_its_scratch_is_refused(number: int) -> None:
    planted = PTX.replace("\tret;", f"\tld.param.b64 %rd2, [copy_param_{number}];\n\tret;")
    assert assemble(planted, 80).registers > 0
    with pytest.raises(ExportError, match=f"reads copy_param_{number}, scratch memory") as caught:
        strip_scratch(planted, (POINTER, NUMBER))
    assert caught.value.reason == "build_failed"


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        (PTX, (POINTER,)),  # one more than Triton adds
        (PTX, (POINTER, NUMBER, POINTER)),  # one of them is the kernel's own
        (PTX, (POINTER, POINTER)),
        (PTX.replace(".u64 .ptr .global .align 1 copy_param_3", ".u32 copy_param_3"), (POINTER, NUMBER)),
    ],
)
def test_other_parameters_than_declared_are_refused(text: str, sizes: tuple[int, ...]) -> None:
    with pytest.raises(ExportError, match="copy: expected parameters of"):
        strip_scratch(text, sizes)


def test_a_parameter_with_a_longer_name_is_not_its_beginning() -> None:
    """copy_param_1 is no use of copy_param_10, nor the other way round."""
    many = ",\n".join(f"\t.param .u64 .ptr .global .align 1 copy_param_{n}" for n in range(12))
    text = re.sub(r"\(\n.*?\n\)", f"(\n{many}\n)", PTX, flags=re.DOTALL)
    assert len(entry(strip_scratch(text, (POINTER,) * 10))[1]) == 10


@pytest.mark.parametrize("text", ["", PTX + PTX, PTX.replace(".u32 copy_param_1", ".b8 copy_param_1[16]")])
def test_ptx_of_another_kind_is_refused(text: str) -> None:
    with pytest.raises(ExportError):
        entry(text)


def test_the_plain_device_is_named() -> None:
    assert ".target sm_90\n" in retarget(PTX.replace("sm_80", "sm_90a"), 90)
    with pytest.raises(ExportError, match="expected PTX for sm_87"):
        retarget(PTX, 87)


def test_the_assembler_has_the_last_word() -> None:
    """An instruction that only sm_90a has does not become a cubin for sm_90."""
    planted = PTX.replace("sm_80", "sm_90").replace("7.4", "8.0").replace("ret;", "setmaxnreg.inc.sync.aligned.u32 64;")
    with pytest.raises(ExportError, match=r"ptxas refuses the kernel for sm_90: .*setmaxnreg"):
        assemble(planted, 90)
    with pytest.raises(ExportError, match=r"no assembler .* knows sm_42"):
        assemble(PTX, 42)


def test_spills_and_registers_are_read() -> None:
    """Of a kernel with more live values than registers."""
    count = 300
    lines = [f"\tld.volatile.global.b32 %x{n}, [%rd1 + {4 * n}];" for n in range(count)]
    lines += [f"\tst.volatile.global.b32 [%rd1 + {4 * n}], %x{count - 1 - n};" for n in range(count)]
    body = "\n".join([f"\t.reg .b32 %x<{count}>;", *lines, "\tret;"])
    made = assemble(PTX.replace("\tret;", body), 87)
    assert made.registers == 255
    assert made.spills > 0


def test_a_kernel_that_triton_refuses(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"scaled_sum\.fp16: Triton refuses it for sm_80") as caught:
        build([toy(constants={"block": 100, "squared": False})], BOTH_KINDS, tmp_path)
    assert caught.value.reason == "build_failed"
    assert list(tmp_path.iterdir()) == []


def test_a_declaration_of_another_kernel_is_refused() -> None:
    with pytest.raises(ExportError, match=r"declared with \['block', .*the kernel has \['parts', "):
        to_ptx(toy(constants={"block": 256}), 87)


def test_an_interpreted_kernel_is_refused() -> None:
    with pytest.raises(ExportError, match="unset TRITON_INTERPRET"):
        to_ptx(toy(kernel=scaled_sum), 87)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--sm", "88"), "expected all, or some of 80, 86, 87, 89, 90, 100, 110, 120, got 88"),
        (("--sm", ""), "expected all, or some of"),
        (("--operation", "sharpen"), "expected an operation of fuse_cams, regions, window_resize, got sharpen"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "msloc_edge.kernels.aot", "--out", str(tmp_path / "out"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split())


# What a device does with the files


def test_the_cubin_of_this_device_is_picked(toy_folder: Path) -> None:
    picked = pick(toy_folder, "scaled_sum", "fp16", 87)
    assert machine_of(picked.image) == 87
    assert (picked.kernel.sm, picked.kernel.portable, picked.kernel.variant) == (87, False, "")
    assert pick(toy_folder, "scaled_sum", "fp16", 87, "squared").image != picked.image


@pytest.mark.parametrize("sm", [80, 86, 121])
def test_another_device_gets_the_portable_form(sm: int, toy_folder: Path) -> None:
    picked = pick(toy_folder, "scaled_sum", "fp16", sm)
    assert picked.kernel.portable
    assert picked.image.startswith(b"//")


@pytest.mark.parametrize(
    ("operation", "dtype", "sm", "variant", "message"),
    [
        ("blur", "fp16", 87, "", r"expected blur \(its only variant, fp16\) for sm_87, found variants: no variant"),
        ("scaled_sum", "fp64", 87, "", "no variant"),
        ("scaled_sum", "fp16", 87, "cubed", "found variants: squared, the only one; of this one for: no device"),
        ("scaled_sum", "fp16", 75, "", "of this one for: sm_120, sm_80 or newer, sm_87"),
    ],
)
def test_nothing_fits(operation: str, dtype: str, sm: int, variant: str, message: str, toy_folder: Path) -> None:
    with pytest.raises(BackendError, match=message) as caught:
        pick(toy_folder, operation, dtype, sm, variant)
    assert caught.value.reason == "kernel_unusable"


@pytest.mark.parametrize(
    ("spoil", "reason", "message"),
    [
        (lambda f: (f / INDEX).unlink(), "kernel_unusable", "make it: python -m msloc_edge.kernels.aot"),
        (lambda f: (f / INDEX).write_text("{"), "kernel_unusable", "not a list of kernels"),
        (lambda f: (f / INDEX).write_text('{"kernels": []}'), "kernel_unusable", "not a list of kernels"),
        (lambda f: (f / INDEX).write_text('{"schema": "x/2", "kernels": []}'), "kernel_unusable", "expected schema"),
        (lambda f: edit(f, arguments=[{"name": "a"}]), "kernel_unusable", "not a list of kernels"),
        (lambda f: edit(f, colour="red"), "kernel_unusable", "not a list of kernels"),
        (lambda f: (f / "scaled_sum.fp16.sm_87.cubin").unlink(), "kernel_unusable", "cannot be read"),
        (lambda f: (f / "scaled_sum.fp16.sm_87.cubin").write_bytes(b"\x7fELF"), "kernel_unusable", "not the file that"),
    ],
)
def test_a_folder_that_was_spoilt(
    spoil: Callable[[Path], object], reason: str, message: str, toy_folder: Path, tmp_path: Path
) -> None:
    for file in toy_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    spoil(tmp_path)
    with pytest.raises(BackendError, match=message) as caught:
        pick(tmp_path, "scaled_sum", "fp16", 87)
    assert caught.value.reason == reason


def edit(folder: Path, **entries: Any) -> None:
    content = json.loads((folder / INDEX).read_text())
    content["kernels"][0] |= entries
    (folder / INDEX).write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("grid", "values", "expected"),
    [
        (("cdiv(n, 128)", "1", "1"), {"n": 129}, (2, 1, 1)),
        (("n // 2 + 3 * (m - 1)", "m", "n"), {"n": 5, "m": 2}, (5, 2, 5)),
        (("cdiv(n, 128)", "1", "1"), {"n": 0}, (0, 1, 1)),
    ],
)
def test_grid_rules(grid: tuple[str, str, str], values: dict[str, int], expected: tuple[int, ...]) -> None:
    assert grid_size(grid, values) == expected


@pytest.mark.parametrize("rule", ["exit(1)", "n.bit_length()", "m", "n / 2", "'a'", "cdiv(n)", "n if n else 1"])
def test_a_grid_rule_is_no_code(rule: str) -> None:
    with pytest.raises(BackendError, match="a grid rule with") as caught:
        grid_size((rule, "1", "1"), {"n": 3})
    assert caught.value.reason == "kernel_unusable"
