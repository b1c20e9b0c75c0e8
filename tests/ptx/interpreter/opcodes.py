"""The instructions that compute: from values to a value, for all threads at once, as the PTX ISA says.

`FORMS` has every one that is understood by its full name, "mul.wide.s32", with its section of the PTX ISA. One that is
not there is refused, so that no modifier is overlooked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[Any]
Compute = Callable[..., Any]
"""From the values of sources to those of the result, or one for all."""

TYPES: dict[str, type[Any]] = {
    **{"pred": np.bool_, "b8": np.uint8},
    **{"s16": np.int16, "u16": np.uint16, "b16": np.uint16, "f16": np.float16, "bf16": np.uint16},
    **{"s32": np.int32, "u32": np.uint32, "b32": np.uint32, "f32": np.float32, "f16x2": np.uint32, "bf16x2": np.uint32},
    **{"s64": np.int64, "u64": np.uint64, "b64": np.uint64, "f32x2": np.uint64},
}
"""PTX type -> numpy's, of bf16 that of its bits. A pair lies in one register: f32x2 in 64 bits."""


@dataclass(frozen=True, slots=True)
class Form:
    """One instruction with its types.

    section      of the PTX ISA
    result       PTX type of the destination
    sources      PTX types of the operands
    compute      from their values to the result's
    approximate  how many units in the last place a device's result may be off
    """

    section: str
    result: str
    sources: tuple[str, ...]
    compute: Compute
    approximate: int = 0


FORMS: dict[str, Form] = {}

INTEGER = "Integer Arithmetic Instructions"
FLOATING = "Floating Point Instructions"
MIXED = "Mixed Precision Floating-Point Instructions"
COMPARISON = "Comparison and Selection Instructions"
LOGIC = "Logic and Shift Instructions"
MOVEMENT = "Data Movement and Conversion Instructions"

INTEGERS = ("s32", "u32", "s64", "u64")
WIDER = {"s32": "s64", "u32": "u64"}


def define(
    chapter: str, opcode: str, types: Iterable[str], compute: Compute, sources: int = 2, result: str = ""
) -> None:
    """Define "opcode.type" for all types, with so many sources of that type and a result of it, or of another."""
    for kind in types:
        FORMS[f"{opcode}.{kind}"] = Form(
            f"{chapter}: {opcode.split('.')[0]}", result or kind, (kind,) * sources, compute
        )


def truncated(a: Values, b: Values) -> tuple[Values, Values]:
    """Quotient, rounded toward zero, and rest. Division by zero has no result: the quotient is then all ones."""
    wide, by = a.astype(np.int64), b.astype(np.int64)
    quotient = np.abs(wide) // np.maximum(np.abs(by), 1) * (np.sign(wide) * np.sign(by))
    quotient = np.where(by == 0, -1, quotient)
    return quotient.astype(a.dtype), (wide - quotient * by).astype(a.dtype)


def fused(a: Values, b: Values, c: Values) -> Values:
    """a * b + c in float32, rounded once.

    The product is exact in float64. The sum is rounded to odd there, which keeps what the rounding to float32 needs
    (Boldo and Melquiond, "Emulation of FMA and correctly rounded sums", 2008).
    """
    product, addend = a.astype(np.float64) * b, c.astype(np.float64)
    total = np.atleast_1d(product + addend)
    added = total - product
    rest = (product - (total - added)) + (addend - added)
    bits = total.view(np.int64)
    inexact = (rest != 0) & np.isfinite(total) & (bits & 1 == 0)
    outward = np.where((rest > 0) == (total > 0), 1, -1)
    return (bits + np.where(inexact, outward, 0)).view(np.float64).astype(np.float32)


def wide(compute: Compute) -> Compute:
    """The same on factors of half the width."""

    def computed(a: Values, b: Values, *c: Values) -> Values:
        kind = f"{a.dtype.kind}{2 * a.itemsize}"
        return compute(a.astype(kind), b.astype(kind), *c)

    return computed


def multiply_add(a: Values, b: Values, c: Values) -> Values:
    return a * b + c


def of_pairs(compute: Compute) -> Compute:
    """The same on both floats of a 64-bit register."""

    def computed(*sources: Values) -> Values:
        parts = np.broadcast_arrays(*(np.atleast_1d(np.asarray(s, np.uint64)) for s in sources))
        return compute(*(np.ascontiguousarray(p).view(np.float32) for p in parts)).astype(np.float32).view(np.uint64)

    return computed


def larger(a: Values, b: Values) -> Values:
    """The number where one is NaN; +0 is above -0."""
    bits = a.view(f"u{a.itemsize}") & b.view(f"u{b.itemsize}")
    return np.where(a == b, bits.view(a.dtype), np.fmax(a, b))


def smaller(a: Values, b: Values) -> Values:
    """The number where one is NaN; -0 is below +0."""
    bits = a.view(f"u{a.itemsize}") | b.view(f"u{b.itemsize}")
    return np.where(a == b, bits.view(a.dtype), np.fmin(a, b))


def shifted_left(a: Values, by: Values) -> Values:
    width = 8 * a.itemsize
    return np.where(by >= width, 0, a << np.minimum(by, width - 1).astype(a.dtype)).astype(a.dtype)


def shifted_right(a: Values, by: Values) -> Values:
    """Filled with the sign, of unsigned numbers with zeros; by more than the width as by the width."""
    width = 8 * a.itemsize
    filled = a >> np.minimum(by, width - 1).astype(a.dtype)
    return filled if a.dtype.kind == "i" else np.where(by >= width, 0, filled).astype(a.dtype)


def bit_field(a: Values, place: Values, length: Values) -> Values:
    """Bits from a place on, with the sign of the highest of them where they are signed."""
    wide_type = np.int64 if a.dtype.kind == "i" else np.uint64
    unused = 64 - np.minimum(length & 0xFF, 64)
    field = shifted_right(a.astype(wide_type), place & 0xFF)
    return shifted_right(shifted_left(field, unused), unused).astype(a.dtype) * (length & 0xFF != 0)


def population(a: Values) -> Values:
    return np.unpackbits(np.atleast_1d(a).view(np.uint8).reshape(-1, a.itemsize), axis=1).sum(1, dtype=np.uint32)


def rounded(kind: type[Any]) -> Compute:
    """A conversion to another type: integers modulo its width, to floats rounded to the nearest, ties to even."""
    return lambda a: a.astype(kind)


def saturated(a: Values) -> Values:
    """To int32, toward zero: what is beyond becomes the largest or smallest, NaN zero."""
    limits = np.iinfo(np.int32)
    whole = np.trunc(np.where(np.isnan(a), 0, a).astype(np.float64))
    return np.clip(whole, limits.min, limits.max).astype(np.int32)


def flushed(a: Values) -> Values:
    """Zero of the same sign in place of a subnormal number."""
    return np.where(np.abs(a) < np.finfo(np.float32).tiny, np.copysign(np.float32(0), a), a).astype(np.float32)


def half(a: Values) -> Values:
    """Bits of the nearest float16, ties to even."""
    return a.astype(np.float16).view(np.uint16)


def brain_float(a: Values) -> Values:
    """Bits of the nearest bfloat16, ties to even."""
    bits = a.view(np.uint32)
    rounded_bits = (bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))) >> np.uint32(16)
    return np.where(np.isnan(a), 0x7FFF, rounded_bits).astype(np.uint16)


def from_brain_float(a: Values) -> Values:
    return (a.astype(np.uint32) << np.uint32(16)).view(np.float32)


def packed(convert: Compute) -> Compute:
    """Two conversions to 16 bits, the first in the upper half."""
    return lambda high, low: convert(high).astype(np.uint32) << np.uint32(16) | convert(low).astype(np.uint32)


def unordered(compute: Compute) -> Compute:
    """True also where one of both is NaN."""
    return lambda a, b: compute(a, b) | np.isnan(a) | np.isnan(b)


define(INTEGER, "add", INTEGERS, np.add)
define(INTEGER, "sub", INTEGERS, np.subtract)
define(INTEGER, "mul.lo", INTEGERS, np.multiply)
define(INTEGER, "mad.lo", INTEGERS, multiply_add, 3)
define(INTEGER, "div", ("s32", "u32"), lambda a, b: truncated(a, b)[0])
define(INTEGER, "rem", ("s32", "u32"), lambda a, b: truncated(a, b)[1])
define(INTEGER, "neg", ("s32", "s64"), np.negative, 1)
define(INTEGER, "min", INTEGERS, np.minimum)
define(INTEGER, "max", INTEGERS, np.maximum)
define(INTEGER, "popc", ("b32",), population, 1, "u32")
for narrow, twice in WIDER.items():
    FORMS[f"mul.wide.{narrow}"] = Form(f"{INTEGER}: mul", twice, (narrow,) * 2, wide(np.multiply))
    FORMS[f"mad.wide.{narrow}"] = Form(f"{INTEGER}: mad", twice, (narrow, narrow, twice), wide(multiply_add))
define(INTEGER, "mul.hi", ("s32", "u32"), lambda a, b: (wide(np.multiply)(a, b) >> 32).astype(a.dtype))
for kind in ("s32", "u32"):
    FORMS[f"bfe.{kind}"] = Form(f"{INTEGER}: bfe", kind, (kind, "u32", "u32"), bit_field)

ARITHMETIC: dict[str, Compute] = {"add": np.add, "sub": np.subtract, "mul": np.multiply}
for opcode, compute in ARITHMETIC.items():
    for rounding in ("", ".rn"):
        define(FLOATING, f"{opcode}{rounding}", ("f32",), compute)
        define(FLOATING, f"{opcode}{rounding}", ("f32x2",), of_pairs(compute))
define(FLOATING, "fma.rn", ("f32",), fused, 3)
define(FLOATING, "fma.rn", ("f32x2",), of_pairs(fused), 3)
define(FLOATING, "neg", ("f32",), np.negative, 1)
define(FLOATING, "abs", ("f32",), np.abs, 1)
define(FLOATING, "min", ("f32",), smaller)
define(FLOATING, "max", ("f32",), larger)
FORMS["div.full.f32"] = Form(f"{FLOATING}: div", "f32", ("f32",) * 2, np.divide, approximate=2)
FORMS["add.rn.f32.f16"] = Form(f"{MIXED}: add", "f32", ("f16", "f32"), lambda a, c: a.astype(np.float32) + c)
FORMS["sub.rn.f32.f16"] = Form(f"{MIXED}: sub", "f32", ("f16", "f32"), lambda a, c: a.astype(np.float32) - c)

ORDERED: dict[str, Compute] = {
    "eq": np.equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
}
FLOATS = ("f16", "f32")
for name, compute in ORDERED.items():
    define(COMPARISON, f"setp.{name}", (*INTEGERS, *FLOATS), compute, result="pred")
    define(COMPARISON, f"setp.{name}u", FLOATS, unordered(compute), result="pred")
define(COMPARISON, "setp.eq", ("b16", "b32", "b64"), np.equal, result="pred")
define(COMPARISON, "setp.ne", (*INTEGERS, "b16", "b32", "b64"), np.not_equal, result="pred")
define(COMPARISON, "setp.ne", FLOATS, lambda a, b: (a < b) | (a > b), result="pred")
define(COMPARISON, "setp.neu", FLOATS, np.not_equal, result="pred")
define(COMPARISON, "setp.num", FLOATS, lambda a, b: ~(np.isnan(a) | np.isnan(b)), result="pred")
define(COMPARISON, "setp.nan", FLOATS, lambda a, b: np.isnan(a) | np.isnan(b), result="pred")
for kind in (*INTEGERS, "b16", "b32", "b64", "f32"):
    FORMS[f"selp.{kind}"] = Form(f"{COMPARISON}: selp", kind, (kind, kind, "pred"), lambda a, b, p: np.where(p, a, b))

BITS = ("pred", "b16", "b32", "b64")
define(LOGIC, "and", BITS, np.bitwise_and)
define(LOGIC, "or", BITS, np.bitwise_or)
define(LOGIC, "xor", BITS, np.bitwise_xor)
define(LOGIC, "not", BITS, np.invert, 1)
for kind in ("b16", "b32", "b64"):
    FORMS[f"shl.{kind}"] = Form(f"{LOGIC}: shl", kind, (kind, "u32"), shifted_left)
for kind in (*INTEGERS, "b16", "b32", "b64"):
    FORMS[f"shr.{kind}"] = Form(f"{LOGIC}: shr", kind, (kind, "u32"), shifted_right)

for target, source in (
    *(("s64", "s32"), ("u64", "u32"), ("u32", "u64"), ("s32", "s64"), ("u32", "u16"), ("s32", "s16"), ("u16", "u32")),
    ("f32", "f16"),
):
    FORMS[f"cvt.{target}.{source}"] = Form(f"{MOVEMENT}: cvt", target, (source,), rounded(TYPES[target]))
for target, source in (("f32", "s32"), ("f32", "u32"), ("f16", "f32")):
    FORMS[f"cvt.rn.{target}.{source}"] = Form(f"{MOVEMENT}: cvt", target, (source,), rounded(TYPES[target]))
FORMS["cvt.rn.f16x2.f32"] = Form(f"{MOVEMENT}: cvt", "f16x2", ("f32", "f32"), packed(half))
FORMS["cvt.rn.bf16x2.f32"] = Form(f"{MOVEMENT}: cvt", "bf16x2", ("f32", "f32"), packed(brain_float))
FORMS["cvt.rn.bf16.f32"] = Form(f"{MOVEMENT}: cvt", "bf16", ("f32",), brain_float)
FORMS["cvt.f32.bf16"] = Form(f"{MOVEMENT}: cvt", "f32", ("bf16",), from_brain_float)
FORMS["cvt.rzi.s32.f32"] = Form(f"{MOVEMENT}: cvt", "s32", ("f32",), saturated)
FORMS["cvt.rmi.f32.f32"] = Form(f"{MOVEMENT}: cvt", "f32", ("f32",), np.floor)
FORMS["cvt.rmi.ftz.f32.f32"] = Form(f"{MOVEMENT}: cvt", "f32", ("f32",), lambda a: np.floor(flushed(a)))
for when in ("first", "last"):
    FORMS[f"createpolicy.fractional.L2::evict_{when}.b64"] = Form(
        f"{MOVEMENT}: createpolicy", "b64", (), lambda: np.uint64(0)
    )
