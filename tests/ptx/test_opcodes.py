"""Every instruction that computes: vectors by hand, under the section of the PTX ISA that says what it does.

A line is one vector: opcode, sources -> result. Braces stand for several types, [a b] for the two floats of a register.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from interpreter import Memory, launch
from interpreter.opcodes import FORMS, TYPES, fused

VECTORS = """
Integer Arithmetic Instructions: add
    add.{s32,u32,s64,u64}    5 -3 -> 2
    add.{s32,u32}            0x7fffffff 1 -> 0x80000000
    add.{s64,u64}            0xffffffff 1 -> 0x100000000
Integer Arithmetic Instructions: sub
    sub.{s32,u32,s64,u64}    5 7 -> -2
    sub.{s32,u32}            0x80000000 1 -> 0x7fffffff
    sub.{s64,u64}            0x100000000 1 -> 0xffffffff
Integer Arithmetic Instructions: mul
    mul.lo.{s32,u32,s64,u64} -3 7 -> -21
    mul.lo.{s32,u32}         0x10001 0x10001 -> 0x20001
    mul.lo.{s64,u64}         0x100000001 0x100000001 -> 0x200000001
    mul.hi.s32               -7 0x2aaaaaab -> -2
    mul.hi.u32               0xfffffff9 0x10000 -> 0xffff
    mul.wide.s32             -2 0x7fffffff -> -4294967294
    mul.wide.u32             0xfffffffe 0x7fffffff -> 0x7ffffffe00000002
Integer Arithmetic Instructions: mad
    mad.lo.{s32,u32,s64,u64} -3 7 22 -> 1
    mad.lo.{s32,u32}         0x10001 0x10001 -1 -> 0x20000
    mad.lo.{s64,u64}         0x100000001 0x100000001 -1 -> 0x200000000
    mad.wide.s32             -2 0x7fffffff -1 -> -4294967295
    mad.wide.u32             0xfffffffe 4 1 -> 0x3fffffff9
Integer Arithmetic Instructions: div
    div.s32                  7 2 -> 3
    div.s32                  -7 2 -> -3
    div.s32                  7 -2 -> -3
    div.u32                  0xfffffff9 2 -> 0x7ffffffc
Integer Arithmetic Instructions: rem
    rem.s32                  7 2 -> 1
    rem.s32                  -7 2 -> -1
    rem.s32                  7 -2 -> 1
    rem.u32                  0xfffffff9 0x10 -> 9
Integer Arithmetic Instructions: neg
    neg.{s32,s64}            5 -> -5
    neg.s32                  0x80000000 -> 0x80000000
Integer Arithmetic Instructions: min
    min.{s32,s64}            -1 1 -> -1
    min.{u32,u64}            -1 1 -> 1
Integer Arithmetic Instructions: max
    max.{s32,s64}            -1 1 -> 1
    max.{u32,u64}            -1 1 -> -1
Integer Arithmetic Instructions: popc
    popc.b32                 0 -> 0
    popc.b32                 0x80000701 -> 5
    popc.b32                 0xffffffff -> 32
Integer Arithmetic Instructions: bfe
    bfe.u32                  0xabcd1234 8 12 -> 0xd12
    bfe.u32                  0xabcd1234 28 12 -> 0xa
    bfe.u32                  0xabcd1234 0 32 -> 0xabcd1234
    bfe.u32                  0xabcd1234 4 0 -> 0
    bfe.u32                  0xabcd1234 40 4 -> 0
    bfe.u32                  0xabcd1234 0x108 0x10c -> 0xd12
    bfe.s32                  0xabcd1234 8 12 -> 0xfffffd12
    bfe.s32                  0x7bcd1234 8 8 -> 0x12
    bfe.s32                  0xabcd1234 30 1 -> 0
    bfe.s32                  0x40000000 30 1 -> -1
    bfe.s32                  0xabcd1234 28 12 -> 0xfffffffa
    bfe.s32                  0xabcd1234 40 4 -> -1
    bfe.s32                  0xabcd1234 4 0 -> 0
    bfe.s32                  0xabcd1234 0 32 -> 0xabcd1234

Floating Point Instructions: add
    add{,.rn}.f32            1 0x1p-24 -> 1
    add{,.rn}.f32            1 0x1.8p-23 -> 0x1.000004p+0
    add{,.rn}.f32            0x1p-149 0x1p-149 -> 0x1p-148
    add{,.rn}.f32            inf -inf -> nan
    add{,.rn}.f32x2          [1 2] [0.5 -2] -> [1.5 0]
Floating Point Instructions: sub
    sub{,.rn}.f32            1 0x1p-25 -> 1
    sub{,.rn}.f32            1 0x1.8p-24 -> 0x1.fffffcp-1
    sub{,.rn}.f32x2          [1 2] [0.5 -2] -> [0.5 4]
Floating Point Instructions: mul
    mul{,.rn}.f32            0x1.000002p+0 0x1.000002p+0 -> 0x1.000004p+0
    mul{,.rn}.f32            -0.0 3 -> -0.0
    mul{,.rn}.f32            0 inf -> nan
    mul{,.rn}.f32x2          [3 -2] [0.5 8] -> [1.5 -16]
Floating Point Instructions: fma
    fma.rn.f32               0x1.000002p+0 0x1.000002p+0 -0x1.000004p+0 -> 0x1p-46
    fma.rn.f32               0x1.838ffcp+0 0x1.bf8b36p+0 0x1.b99b02p-29 -> 0x1.52c596p+1
    fma.rn.f32               0x1.951604p+0 0x1.4918e4p+0 0x1.011bfep-30 -> 0x1.046056p+1
    fma.rn.f32               -0x1.951604p+0 0x1.4918e4p+0 -0x1.011bfep-30 -> -0x1.046056p+1
    fma.rn.f32               0x1p-100 0x1p-49 0x1p-149 -> 0x1p-148
    fma.rn.f32               2 3 nan -> nan
    fma.rn.f32               2 inf 1 -> inf
    fma.rn.f32x2             [2 0x1.838ffcp+0] [3 0x1.bf8b36p+0] [1 0x1.b99b02p-29] -> [7 0x1.52c596p+1]
Floating Point Instructions: neg
    neg.f32                  0 -> -0.0
    neg.f32                  -2 -> 2
Floating Point Instructions: abs
    abs.f32                  -0.0 -> 0
    abs.f32                  -inf -> inf
Floating Point Instructions: min
    min.f32                  nan 2 -> 2
    min.f32                  0 -0.0 -> -0.0
    min.f32                  -0.0 0 -> -0.0
    min.f32                  1 2 -> 1
Floating Point Instructions: max
    max.f32                  2 nan -> 2
    max.f32                  0 -0.0 -> 0
    max.f32                  -0.0 0 -> 0
    max.f32                  nan nan -> nan
    max.f32                  1 2 -> 2
Floating Point Instructions: div
    div.full.f32             1 3 -> 0x1.555556p-2
    div.full.f32             1 0 -> inf
Mixed Precision Floating-Point Instructions: add
    add.rn.f32.f16           0.5 0x1p-24 -> 0x1.000002p-1
Mixed Precision Floating-Point Instructions: sub
    sub.rn.f32.f16           0.5 0x1p-24 -> 0x1.fffffcp-2
    sub.rn.f32.f16           1 3 -> -2

Comparison and Selection Instructions: setp
    setp.eq.{s32,u32,s64,u64,b16,b32,b64} 7 7 -> 1
    setp.eq.{s32,u32,s64,u64,b16,b32,b64} 7 8 -> 0
    setp.ne.{s32,u32,s64,u64,b16,b32,b64} 7 8 -> 1
    setp.ne.{s32,u32,s64,u64,b16,b32,b64} 7 7 -> 0
    setp.{lt,le}.{s32,s64}   -1 0 -> 1
    setp.{lt,le}.{u32,u64}   -1 0 -> 0
    setp.{gt,ge}.{s32,s64}   -1 0 -> 0
    setp.{gt,ge}.{u32,u64}   -1 0 -> 1
    setp.{lt,gt}.{s32,u32,s64,u64} 3 3 -> 0
    setp.{le,ge}.{s32,u32,s64,u64} 3 3 -> 1
    setp.{eq,lt,le,gt,ge}.{f16,f32}      nan 1 -> 0
    setp.{equ,ltu,leu,gtu,geu}.{f16,f32} nan 1 -> 1
    setp.{equ,ltu,leu,gtu,geu}.{f16,f32} 1 nan -> 1
    setp.{lt,ltu,le,leu}.{f16,f32}       1 2 -> 1
    setp.{gt,gtu,ge,geu}.{f16,f32}       1 2 -> 0
    setp.{eq,equ,le,leu,ge,geu}.{f16,f32} 0 -0.0 -> 1
    setp.{ne,neu,lt,ltu,gt,gtu}.{f16,f32} 0 -0.0 -> 0
    setp.{ne,neu}.{f16,f32}  1 2 -> 1
    setp.ne.{f16,f32}        nan 1 -> 0
    setp.neu.{f16,f32}       nan 1 -> 1
    setp.num.{f16,f32}       1 2 -> 1
    setp.num.{f16,f32}       1 nan -> 0
    setp.nan.{f16,f32}       1 2 -> 0
    setp.nan.{f16,f32}       nan 2 -> 1
Comparison and Selection Instructions: selp
    selp.{s32,u32,s64,u64,b16,b32,b64} 3 4 1 -> 3
    selp.{s32,u32,s64,u64,b16,b32,b64} 3 4 0 -> 4
    selp.f32                 1.5 nan 1 -> 1.5
    selp.f32                 1.5 nan 0 -> nan

Logic and Shift Instructions: and
    and.pred                 1 0 -> 0
    and.pred                 1 1 -> 1
    and.{b16,b32,b64}        0xff 0x1e3 -> 0xe3
Logic and Shift Instructions: or
    or.pred                  1 0 -> 1
    or.pred                  0 0 -> 0
    or.{b16,b32,b64}         0xff 0x1e3 -> 0x1ff
Logic and Shift Instructions: xor
    xor.pred                 1 1 -> 0
    xor.pred                 1 0 -> 1
    xor.{b16,b32,b64}        0xff 0x1e3 -> 0x11c
Logic and Shift Instructions: not
    not.pred                 1 -> 0
    not.{b16,b32,b64}        0xff -> -256
Logic and Shift Instructions: shl
    shl.{b16,b32,b64}        3 4 -> 48
    shl.b16                  1 16 -> 0
    shl.b32                  1 31 -> 0x80000000
    shl.b32                  1 33 -> 0
    shl.b64                  1 63 -> 0x8000000000000000
    shl.b64                  1 64 -> 0
Logic and Shift Instructions: shr
    shr.{s32,u32,s64,u64,b16,b32,b64} 48 4 -> 3
    shr.s32                  -8 1 -> -4
    shr.s32                  -8 40 -> -1
    shr.s64                  -8 70 -> -1
    shr.u32                  0x80000000 31 -> 1
    shr.{u32,b32}            0x80000000 32 -> 0
    shr.b16                  0x8000 16 -> 0
    shr.{u64,b64}            -1 64 -> 0

Data Movement and Conversion Instructions: cvt
    cvt.s64.s32              -5 -> -5
    cvt.u64.u32              -5 -> 0xfffffffb
    cvt.u32.u64              0x123456789 -> 0x23456789
    cvt.s32.s64              0x123456789 -> 0x23456789
    cvt.u32.u16              -5 -> 0xfffb
    cvt.s32.s16              -5 -> -5
    cvt.u16.u32              0x12345 -> 0x2345
    cvt.f32.f16              0x1p-24 -> 0x1p-24
    cvt.f32.f16              nan -> nan
    cvt.rn.f32.s32           -16777217 -> -16777216
    cvt.rn.f32.s32           16777219 -> 16777220
    cvt.rn.f32.u32           0xffffffff -> 4294967296
    cvt.rn.f16.f32           0x1.002p+0 -> 1
    cvt.rn.f16.f32           0x1.006p+0 -> 0x1.008p+0
    cvt.rn.f16.f32           65520 -> inf
    cvt.rn.f16.f32           0x1.8p-25 -> 0x1p-24
    cvt.rn.f16x2.f32         1 -2 -> 0x3c00c000
    cvt.f32.bf16             0x3f81 -> 0x1.02p+0
    cvt.rn.bf16.f32          0x1.01p+0 -> 0x3f80
    cvt.rn.bf16.f32          0x1.03p+0 -> 0x3f82
    cvt.rn.bf16.f32          -0x1.010002p+0 -> 0xbf81
    cvt.rn.bf16.f32          0x1.fffffep+127 -> 0x7f80
    cvt.rn.bf16.f32          nan -> 0x7fff
    cvt.rn.bf16x2.f32        1 -2 -> 0x3f80c000
    cvt.rzi.s32.f32          -1.9 -> -1
    cvt.rzi.s32.f32          3e9 -> 0x7fffffff
    cvt.rzi.s32.f32          -inf -> 0x80000000
    cvt.rzi.s32.f32          nan -> 0
    cvt.rmi.f32.f32          -1.5 -> -2
    cvt.rmi{,.ftz}.f32.f32   1.5 -> 1
    cvt.rmi.f32.f32          -0x1p-140 -> -1
    cvt.rmi.ftz.f32.f32      -0x1p-140 -> -0.0
"""

Vector = tuple[list[str], str]


def vectors() -> tuple[dict[str, list[Vector]], dict[str, str]]:
    """Opcode -> its vectors, and its section."""
    found: dict[str, list[Vector]] = {}
    sections: dict[str, str] = {}
    for line in filter(str.strip, VECTORS.splitlines()):
        if not line.startswith(" "):
            section = line
            continue
        left, result = line.split(" -> ")
        pattern, *sources = re.findall(r"\[.*?\]|\S+", left)
        parts = [part.split(",") for part in re.split(r"[{}]", pattern)]
        for opcode in map("".join, itertools.product(*parts)):
            found.setdefault(opcode, []).append((sources, result.strip()))
            sections[opcode] = section
    return found, sections


BY_HAND, SECTIONS = vectors()


def bits_of(text: str, kind: str) -> int:
    """A number as it lies in a register."""
    if kind == "f32x2":
        low, high = (bits_of(part, "f32") for part in text[1:-1].split())
        return high << 32 | low
    numpy_type = np.dtype(TYPES[kind])
    if numpy_type.kind == "f":
        value = float.fromhex(text) if "0x" in text else float(text)
        return int(np.array([value], numpy_type).view(f"u{numpy_type.itemsize}")[0])
    return int(text, 0) & (1 << 8 * numpy_type.itemsize) - 1


def register(kind: str, number: int) -> str:
    size = np.dtype(TYPES[kind]).itemsize
    return f"%p{number}" if kind == "pred" else f"%x{'abcdefgh'[size - 1]}{number}"


def executed(opcode: str, rows: Sequence[Sequence[int]], ulps: int = 0) -> list[int]:
    """What the instruction makes of rows of sources, a row for each thread; through memory and registers."""
    form = FORMS[opcode]
    size = np.dtype(TYPES[form.result]).itemsize
    lines = ["mov.u32 %xd0, %tid.x;"]
    for place, kind in enumerate(form.sources, start=1):
        width = np.dtype(TYPES[kind]).itemsize
        lines += [f"ld.param.b64 %xh{place}, [source_{place}];", f"mad.wide.u32 %xh{place}, %xd0, {width}, %xh{place};"]
        if kind == "pred":
            lines += [f"ld.global.b8 %xb0, [%xh{place}];", f"setp.ne.b16 %p{place}, %xb0, 0;"]
        else:
            lines.append(f"ld.global.b{8 * width} {register(kind, place)}, [%xh{place}];")
    target = register(form.result, 9)
    lines.append(f"{opcode} {', '.join([target, *(register(k, n) for n, k in enumerate(form.sources, start=1))])};")
    if form.result == "pred":
        lines.append("selp.b16 %xb9, 1, 0, %p9;")
        target = "%xb9"
    lines += ["ld.param.b64 %xh0, [result];", f"mad.wide.u32 %xh0, %xd0, {size}, %xh0;"]
    lines += [f"st.global.b{8 * size} [%xh0], {target};", "ret;"]
    names = [*(f"source_{place}" for place in range(1, len(form.sources) + 1)), "result"]
    registers = ".reg .pred %p<10>; .reg .b16 %xb<10>; .reg .b32 %xd<10>; .reg .b64 %xh<10>;"
    text = f".visible .entry one({', '.join(f'.param .u64 {name}' for name in names)})\n{{\n{registers}\n"
    memory = Memory()
    threads = -(-len(rows) // 32) * 32
    params = []
    for column, kind in zip(zip(*rows, strict=True), form.sources, strict=True):
        width = np.dtype(TYPES[kind]).itemsize
        params.append(memory.put(np.resize(np.array(column, f"u{width}"), threads)))
    params.append(memory.empty(threads, f"u{size}"))
    launch(text + "\n".join(lines) + "\n}\n", "one", (1, 1, 1), threads, params, memory, ulps=ulps)
    return [int(value) for value in memory[params[-1]][: len(rows)]]


def test_every_opcode_has_a_vector() -> None:
    without_sources = {opcode for opcode, form in FORMS.items() if not form.sources}
    assert without_sources == {f"createpolicy.fractional.L2::evict_{when}.b64" for when in ("first", "last")}
    assert BY_HAND.keys() == FORMS.keys() - without_sources


@pytest.mark.parametrize("opcode", sorted(BY_HAND))
def test_by_hand(opcode: str) -> None:
    form = FORMS[opcode]
    assert form.section == SECTIONS[opcode]
    rows = [[bits_of(s, kind) for s, kind in zip(sources, form.sources, strict=True)] for sources, _ in BY_HAND[opcode]]
    for found, (sources, expected) in zip(executed(opcode, rows), BY_HAND[opcode], strict=True):
        kind = np.dtype(TYPES[form.result])
        if expected == "nan":
            assert np.isnan(np.array([found], f"u{kind.itemsize}").view(kind))[0], (opcode, sources)
        else:
            assert found == bits_of(expected, form.result), (opcode, sources, hex(found))


SINGLE = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(a=SINGLE, b=SINGLE, c=SINGLE)
def test_fma_rounds_once(a: float, b: float, c: float) -> None:
    """Against exact fractions: no float32 lies nearer, and of two equally near ones it is the even one."""
    with np.errstate(all="ignore"):
        found = fused(*(np.array([value], np.float32) for value in (a, b, c)))[0]
        exact = Fraction(a) * Fraction(b) + Fraction(c)
        if not np.isfinite(found):
            assert abs(exact) >= Fraction(2) ** 128 - Fraction(2) ** 103
            return
        neighbours = (np.nextafter(found, np.float32(np.inf)), np.nextafter(found, np.float32(-np.inf)))
    for other in filter(np.isfinite, neighbours):
        distance, further = abs(Fraction(float(found)) - exact), abs(Fraction(float(other)) - exact)
        assert distance < further or (distance == further and not int(found.view(np.uint32)) & 1)


@pytest.mark.parametrize("ulps", [-2, -1, 1, 2])
def test_approximate_division_can_be_as_wrong_as_the_isa_allows(ulps: int) -> None:
    """PTX ISA, "Floating Point Instructions: div": div.full has at most 2 units in the last place of error."""
    assert {opcode for opcode, form in FORMS.items() if form.approximate} == {"div.full.f32"}
    third = int(np.float32(1 / 3).view(np.int32))
    found = executed("div.full.f32", [[bits_of("1", "f32"), bits_of("3", "f32")]], ulps)
    assert found == [third + ulps]
