"""The interpreter itself: threads that part and meet, barriers, warps, parameters, and every kind of fault."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from interpreter import Executed, KernelError, Memory, launch, parse
from interpreter.warp import source_lanes

HEAD = """
    .reg .pred %p<4>; .reg .b16 %rs<4>; .reg .b32 %r<10>; .reg .b64 %rd<10>;
    ld.param.b64 %rd1, [data];
    ld.param.b32 %r1, [number];
    mov.u32 %r2, %tid.x;
    mov.u32 %r3, %ctaid.x;
    mad.lo.s32 %r4, %r3, 64, %r2;
    mad.wide.u32 %rd2, %r4, 4, %rd1;
"""
"""%r2: the thread, %r3: the block of 64, %rd2: the thread's own int32 in `data`."""


def run(body: str, values: Sequence[int] | int = 64, *, blocks: int = 1, number: int = 0) -> tuple[list[int], Executed]:
    """Run a body behind HEAD on int32 `data`; of an int, so many that nobody has written."""
    memory = Memory()
    if isinstance(values, int):
        data = memory.empty(values, np.int32)
    else:
        data = memory.put(np.array(values, np.int32), writable=True)
    done = launch(kernel(body), "k", (blocks, 1, 1), 64, [data, number], memory)
    return memory[data].tolist(), done


def kernel(body: str) -> str:
    return (
        f".extern .shared .align 16 .b8 dynamic[];\n.shared .align 4 .b8 own[512];\n"
        f".visible .entry k(\n.param .u64 .ptr .global .align 1 data,\n.param .u32 number\n)\n{{{HEAD}{body}\n}}\n"
    )


def refused(body: str, values: Sequence[int] | int = 64, *, blocks: int = 1, number: int = 0) -> KernelError:
    with pytest.raises(KernelError) as caught:
        run(body, values, blocks=blocks, number=number)
    return caught.value


# Control flow


def test_threads_that_part_meet_again() -> None:
    """Odd threads take a way of their own; then the whole warp exchanges values."""
    body = """
        mov.b32 %r5, 1;
        and.b32 %r6, %r2, 1;
        setp.eq.b32 %p1, %r6, 0;
        @%p1 bra $there;
        mov.b32 %r5, 100;
    $there:
        shfl.sync.bfly.b32 %r7, %r5, 1, 31, -1;
        st.global.b32 [%rd2], %r7;
        ret;"""
    assert run(body)[0] == [100, 1] * 32


def test_a_loop_runs_as_often_as_each_thread_asks() -> None:
    body = """
        mov.b32 %r5, 0;
    $again:
        add.s32 %r5, %r5, 3;
        setp.lt.s32 %p1, %r5, %r2;
        @%p1 bra $again;
        st.global.b32 [%rd2], %r5;
        ret;"""
    values, done = run(body)
    assert values == [max(3, -(-n // 3) * 3) for n in range(64)]
    loop = next(line for line, text in enumerate(kernel(body).splitlines(), 1) if "add.s32 %r5" in text)
    assert done.issued[loop] == 11 + 21, "a warp is there as often as the one of its threads that is there most often"


@pytest.mark.parametrize("guard", ["@%p1", "@!%p1"])
def test_a_guard_switches_threads_off(guard: str) -> None:
    body = f"setp.lt.s32 %p1, %r2, 10;\n{guard} st.global.b32 [%rd2], %r2;\nret;"
    values, done = run(body, [-1] * 64)
    written = [n < 10 if guard == "@%p1" else n >= 10 for n in range(64)]
    assert values == [n if yes else -1 for n, yes in enumerate(written)]
    assert (done.stores, done.written) == (sum(written), 4 * sum(written))


def test_special_registers() -> None:
    text = """.visible .entry k(.param .u64 data) .reqntid 32
{
    .reg .b32 %r<9>; .reg .b64 %rd<3>;
    mov.u32 %r1, %ctaid.z; mov.u32 %r2, %nctaid.y; mov.u32 %r3, %ctaid.y; mov.u32 %r4, %nctaid.x;
    mov.u32 %r5, %ctaid.x; mov.u32 %r6, %ntid.x; mov.u32 %r7, %tid.x;
    mad.lo.s32 %r8, %r1, %r2, %r3;
    mad.lo.s32 %r8, %r8, %r4, %r5;
    mad.lo.s32 %r8, %r8, %r6, %r7;
    ld.param.b64 %rd1, [data];
    mad.wide.u32 %rd2, %r8, 4, %rd1;
    st.global.b32 [%rd2], %r8;
    ret;
}
"""
    memory = Memory()
    data = memory.empty(32 * 30, np.int32)
    launch(text, "k", (2, 3, 5), 32, [data], memory)
    assert memory[data].tolist() == list(range(32 * 30))


def test_registers_are_packed_and_unpacked() -> None:
    body = """
        mov.b64 %rd3, {%r2, %r1};
        mov.b64 {_, %r5}, %rd3;
        mov.b32 {%rs1, %rs2}, %r5;
        mov.b32 %r6, {%rs2, %rs1};
        st.global.b32 [%rd2], %r6;
        ret;"""
    assert set(run(body, number=0x12345678)[0]) == {0x56781234}


# Barriers


EXCHANGE = """
        mov.b32 %r5, own;
        shl.b32 %r6, %r2, 2;
        add.s32 %r7, %r5, %r6;
        st.shared.b32 [%r7], %r2;
        BARRIER
        sub.s32 %r8, 252, %r6;
        add.s32 %r8, %r5, %r8;
        ld.shared.b32 %r9, [%r8];
        st.global.b32 [%rd2], %r9;
        ret;"""


def test_blocks_exchange_values_behind_a_barrier() -> None:
    values, done = run(EXCHANGE.replace("BARRIER", "bar.sync 0;"), 128, blocks=2)
    assert values == [*range(63, -1, -1)] * 2
    assert not done.races


def test_a_missing_barrier_is_a_race_although_the_values_are_right() -> None:
    values, done = run(EXCHANGE.replace("BARRIER", ""), 128, blocks=2)
    assert values == [*range(63, -1, -1)] * 2
    assert [race.text for race in done.races.values()] == ["ld.shared.b32 %r9, [%r8]"]


def test_a_barrier_that_some_do_not_reach() -> None:
    body = "setp.lt.s32 %p1, %r2, 32;\n@%p1 bra $end;\nbar.sync 0;\n$end:\nret;"
    assert refused(body).reason == "barrier"


def test_a_barrier_that_a_part_of_a_warp_reaches() -> None:
    body = "setp.lt.s32 %p1, %r2, 40;\n@%p1 bra $end;\nbar.sync 0;\n$end:\nbar.sync 0;\nret;"
    assert refused(body).reason == "warp"


def test_a_kernel_without_end() -> None:
    memory = Memory()
    data = memory.empty(64, np.int32)
    with pytest.raises(KernelError, match="endless: k: has not ended after 50 steps"):
        launch(kernel("$on:\nbra.uni $on;"), "k", (1, 1, 1), 64, [data, 0], memory, limit=50)


# Warps


@pytest.mark.parametrize("instruction", ["shfl.sync.up.b32 %r5, %r2, 1, 0, -1;", "redux.sync.add.s32 %r5, %r2, -1;"])
def test_an_instruction_of_a_warp_that_a_part_of_it_reaches(instruction: str) -> None:
    body = f"setp.lt.s32 %p1, %r2, 7;\n@%p1 bra $end;\n{instruction}\n$end:\nret;"
    assert refused(body).reason == "warp"


@pytest.mark.parametrize("instruction", ["shfl.sync.up.b32 %r5, %r2, 1, 0, 15;", "redux.sync.add.s32 %r5, %r2, 15;"])
def test_an_instruction_of_a_part_of_a_warp_is_not_known(instruction: str) -> None:
    assert refused(f"{instruction}\nret;").reason == "unsupported"


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        ("add.s32", [sum(range(-5, 27)), sum(range(27, 59))]),
        ("min.s32", [-5, 27]),
        ("max.s32", [26, 58]),
        ("max.u32", [-1, 58]),
        ("min.u32", [0, 27]),
    ],
)
def test_redux(operation: str, expected: list[int]) -> None:
    body = f"sub.s32 %r5, %r2, 5;\nredux.sync.{operation} %r6, %r5, -1;\nst.global.b32 [%rd2], %r6;\nret;"
    assert run(body)[0] == [value for value in expected for _ in range(32)]


@pytest.mark.parametrize(
    ("mode", "by", "limits", "expected"),
    [
        ("up", 1, 0, [0, *range(31)]),
        ("up", 1, 0x1C00, [n - (n % 4 > 0) for n in range(32)]),  # segments of 4
        ("down", 2, 31, [*range(2, 32), 30, 31]),
        ("bfly", 16, 31, [*range(16, 32), *range(16)]),
        ("idx", 5, 31, [5] * 32),
        ("idx", 1, 0x181F, [n // 8 * 8 + 1 for n in range(32)]),  # segments of 8
        ("idx", 9, 7, [*range(32)]),  # beyond the clamp: its own
    ],
)
def test_shuffles(mode: str, by: int, limits: int, expected: list[int]) -> None:
    """PTX ISA, "Data Movement and Conversion Instructions: shfl.sync"."""
    found = source_lanes(mode, np.full((1, 32), by), np.full((1, 32), limits))
    assert found.tolist() == [expected]
    body = f"shfl.sync.{mode}.b32 %r5, %r2, {by}, {limits}, -1;\nst.global.b32 [%rd2], %r5;\nret;"
    assert run(body)[0] == [*expected, *(32 + n for n in expected)]


# Memory


def test_atomics_happen_one_after_the_other() -> None:
    body = "atom.global.cta.relaxed.add.u32 %r5, [%rd1], 2;\nst.global.b32 [%rd2 + 4], %r5;\nret;"
    values, done = run(body, [10] + [0] * 64)
    assert values[0] == 10 + 2 * 64
    assert sorted(values[1:]) == [10 + 2 * n for n in range(64)]
    assert not done.races


@pytest.mark.parametrize(
    ("operation", "expected"), [("min.s32", -20), ("max.s32", 43), ("min.u32", 0), ("max.u32", -1)]
)
def test_reductions_in_memory(operation: str, expected: int) -> None:
    body = f"sub.s32 %r5, %r2, 20;\nred.global.cta.relaxed.{operation} [%rd1], %r5;\nret;"
    assert run(body, [5])[0] == [expected]


def test_two_values_at_once() -> None:
    body = """
        mad.wide.u32 %rd3, %r2, 8, %rd1;
        st.global.v2.b32 [ %rd3 + 0 ], { %r2, %r1 };
        ret;"""
    values, done = run(body, 128, number=7)
    assert values == [value for n in range(64) for value in (n, 7)]
    assert (done.stores, done.written) == (64, 512)


def test_a_byte_into_a_wider_register_and_back() -> None:
    body = """
        cvt.u64.u32 %rd3, %r2;
        add.s64 %rd3, %rd1, %rd3;
        ld.global.b8 %rs1, [%rd3 + 1];
        add.s64 %rd3, %rd3, 256;
        st.global.b8 [%rd3], %rs1;
        ret;"""
    values, done = run(body, [0x04030201] * 128)
    assert np.array(values[64:80], np.int32).tobytes() == bytes([2, 3, 4, 1] * 16)
    assert [race.text for race in done.races.values()] == ["st.global.b8 [%rd3], %rs1"], "four threads, one number"


@pytest.mark.parametrize(
    ("body", "reason", "sentence"),
    [
        ("st.global.b32 [%rd2 + 4], %r2;", "bounds", "4 bytes at 256 of an array of 256 bytes (element 64 of 64)"),
        ("ld.global.b32 %r5, [%rd2 + -4];", "bounds", "4 bytes at -4 of an array of 256 bytes (element -1 of 64)"),
        ("mov.b64 %rd3, 64;\nld.global.b32 %r5, [%rd3];", "bounds", "4 bytes at 0x40, where nothing is"),
        ("st.global.b32 [%rd2 + 2], %r2;", "alignment", "expected a multiple of 4 as address"),
        ("st.global.v2.b32 [%rd2], {%r2, %r2};", "alignment", "expected a multiple of 8 as address"),
        ("ld.global.b32 %r5, [%rd2];", "unwritten", "reads what nobody has written"),
        ("st.shared.b32 [%r2 + 2], %r2;", "alignment", "expected a multiple of 4 as address"),
        ("mov.b32 %r5, own;\nst.shared.b32 [%r5 + 512], %r2;", "bounds", "outside a block's 512 of shared memory"),
        ("mov.b32 %r5, own;\nld.shared.b32 %r5, [%r5];", "unwritten", "reads what nobody has written"),
    ],
)
def test_faults_of_memory(body: str, reason: str, sentence: str) -> None:
    found = refused(f"{body}\nret;")
    assert found.reason == reason
    assert sentence in str(found)


def test_an_input_is_not_written() -> None:
    memory = Memory()
    data = memory.put(np.zeros(64, np.int32))
    with pytest.raises(KernelError, match=r"read-only: line 15, st\.global\.b32"):
        launch(kernel("st.global.b32 [%rd2], %r2;\nret;"), "k", (1, 1, 1), 64, [data, 0], memory)


def test_memory_that_is_there_already() -> None:
    """As a driver gives it: whatever calls the interpreter has the array."""
    memory, array = Memory(), np.arange(64, dtype=np.int32)
    memory.map(0x10000, array, written=True)
    body = "ld.global.b32 %r5, [%rd2];\nadd.s32 %r5, %r5, %r1;\nst.global.b32 [%rd2], %r5;\nret;"
    launch(kernel(body), "k", (1, 1, 1), 64, [0x10000, 5], memory)
    assert array.tolist() == list(range(5, 69))
    with pytest.raises(ValueError, match="a multiple of 16"):
        memory.map(0x10008, array, written=True)


def test_poison_is_counted() -> None:
    memory = Memory()
    data = memory.empty((2, 40), np.float16, skew=2)
    assert data % 256 == 2
    assert memory.unwritten(data) == 80
    text = kernel("mad.wide.u32 %rd3, %r2, 2, %rd1;\nmov.b16 %rs1, 0;\nst.global.b16 [%rd3], %rs1;\nret;")
    launch(text, "k", (1, 1, 1), 64, [data, 0], memory)
    assert memory.unwritten(data) == 16
    assert not memory[data][:64].any()
    assert (memory[data][64:].view(np.uint16) == 0xA5A5).all()
    with pytest.raises(ValueError, match="a multiple of 2 bytes, got 1"):
        memory.empty(3, np.float16, skew=1)


# What is not understood


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("add.sat.s32 %r5, %r2, %r2;", "unsupported"),
        ("add.ftz.f32 %r5, %r2, %r2;", "unsupported"),
        ("ld.global.nc.b32 %r5, [%rd2];", "unsupported"),
        ("atom.global.gpu.relaxed.add.u32 %r5, [%rd2], 1;", "unsupported"),
        ("bar.sync 1;", "unsupported"),
        ("mov.u32 %r5, %clock;", "unsupported"),
        ("ld.global.b32 %r5, [data];", "unsupported"),
        ("add.s32 %r5, %r2, %rd1;", "syntax"),
        ("add.s64 %r5, %rd1, %rd1;", "syntax"),
        ("ld.param.b32 %r5, [data];", "syntax"),
        ("ld.param.b32 %r5, [nothing];", "syntax"),
        ("ld.global.v2.b32 %r5, [%rd2];", "syntax"),
        ("bra $nowhere;", "syntax"),
        ("add.s32 %r5, %r2, (3);", "syntax"),
        ("{ add.s32 %r5, %r2, 3; }", "syntax"),
        ('.pragma "nounroll";', "syntax"),
    ],
)
def test_what_is_not_understood_is_refused(body: str, reason: str) -> None:
    assert refused(f"{body}\nret;").reason == reason


def test_a_body_without_end_is_refused() -> None:
    assert refused("add.s32 %r5, %r2, %r2;").reason == "syntax"


@pytest.mark.parametrize(
    ("name", "grid", "block", "params", "sentence"),
    [
        ("other", (1, 1, 1), 64, 2, "expected a kernel of ['k'], got other"),
        ("k", (1, 1, 1), 48, 2, "expected a multiple of 32, at most 1024, threads"),
        ("k", (1, 1, 1), 2048, 2, "expected a multiple of 32, at most 1024, threads"),
        ("k", (1, 0, 1), 64, 2, "expected at least one block along each axis"),
        ("k", (1, 1, 1), 64, 1, "expected 2 parameters, got 1"),
    ],
)
def test_a_launch_that_no_driver_takes(
    name: str, grid: tuple[int, int, int], block: int, params: int, sentence: str
) -> None:
    with pytest.raises(KernelError) as caught:
        launch(kernel("ret;"), name, grid, block, [0] * params, Memory())
    assert caught.value.reason == "launch"
    assert sentence in str(caught.value)


def test_a_kernel_asks_for_its_threads() -> None:
    text = kernel("ret;").replace(")\n{", ")\n.reqntid 128\n{")
    assert parse(text)["k"].threads == 128
    with pytest.raises(KernelError, match="expected 128 threads of a block, got 64"):
        launch(text, "k", (1, 1, 1), 64, [0, 0], Memory())


def test_dynamic_shared_memory_is_as_large_as_the_launch_says() -> None:
    text = kernel(
        "mov.b32 %r5, dynamic;\nshl.b32 %r6, %r2, 2;\nadd.s32 %r5, %r5, %r6;\nst.shared.b32 [%r5], %r2;\nret;"
    )
    text = text.replace(".shared .align 4 .b8 own[512];\n", "")
    launch(text, "k", (2, 1, 1), 64, [0, 0], Memory(), shared=256)
    with pytest.raises(KernelError, match=r"bounds: line .* outside a block's 240"):
        launch(text, "k", (2, 1, 1), 64, [0, 0], Memory(), shared=240)
