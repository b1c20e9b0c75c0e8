"""The cases themselves: they execute every instruction, and find faults that are put into the shipped PTX.

A barrier is taken out; a store or atomic operation loses its guard; a comparison that such a guard comes from is off by
one. What no case can find has no effect: `WITHOUT_EFFECT` says of how many, and why.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import pytest
from interpreter import KernelError
from interpreter.parser import Instruction, Register, parse
from shipped import Outcome, Shipped, fuse_cams, of_variant, regions, window_resize
from test_fuse_cams import GENERAL, LOCATED, STRIDED, WANTED
from test_regions import CASES
from test_window_resize import ENLARGE, SHRINK

from msloc_edge.kernels.aot.variants import variants

SM = 90
PEAKS = "fuse_cams.peaks.fp32"
RUNS, REGIONS = "regions.runs.fp32", "regions.regions.fp32"

Cases = Callable[[Shipped], Iterator[Outcome]]


def outcomes_of(name: str) -> Cases:
    """Make a function that runs all cases of a form, one after the other, with any kernel in its place."""
    peaks, runs, table = (of_variant(other, SM) for other in (PEAKS, RUNS, REGIONS))
    operation, variant, _ = name.split(".")
    if name == PEAKS:
        return lambda form: (fuse_cams.run_peaks(form, 3, parts) for parts in (1, 31, 33, 100))
    if operation == "fuse_cams":
        of_maps = {"maps": STRIDED, "wanted": WANTED, "located": LOCATED, "findings": GENERAL}[variant]
        return lambda form: (fuse_cams.run(form, peaks, case) for case in of_maps.values())
    if operation == "window_resize":
        films = SHRINK if variant.endswith("shrink") else ENLARGE
        return lambda form: (window_resize.run(form, film) for film in films.values())
    if variant == "runs":
        return lambda form: (regions.run(form, table, case)[0] for case in CASES.values())
    return lambda form: (regions.run(runs, form, case)[1] for case in CASES.values())


@dataclass(frozen=True, slots=True)
class Mutant:
    """The text with one line changed: its number, and what it was."""

    kind: str
    line: int
    was: str
    text: str


def mutants(form: Shipped) -> Iterator[Mutant]:
    lines = form.text.splitlines()
    body = parse(form.text)[form.entry].body
    bounds: set[int] = set()
    for it in body:
        if it.opcode == "bar.sync":
            yield _changed(lines, it, "barrier", "")
        elif it.guard and it.opcode.startswith(("st.", "red.", "atom.")):
            yield _changed(lines, it, "guard", re.sub(r"@!?%p\d+", "", lines[it.line - 1]))
            bounds |= _bounds_of(it.guard[0], body)
    for it in body:
        if it.line in bounds:
            other = {"lt": "le", "le": "lt", "gt": "ge", "ge": "gt"}[it.opcode.split(".")[1]]
            yield _changed(lines, it, "bound", re.sub(r"setp\.\w\w", f"setp.{other}", lines[it.line - 1]))


def _bounds_of(predicate: Register, body: Sequence[Instruction]) -> set[int]:
    """Lines of the comparisons of whole numbers that a predicate comes from, through `and`."""
    found, todo, seen = set(), [predicate], set()
    while todo:
        seen.add(register := todo.pop())
        for it in body:
            if it.operands and it.operands[0] == register:
                if re.fullmatch(r"setp\.(lt|le|gt|ge)\.[su]32", it.opcode):
                    found.add(it.line)
                elif it.opcode == "and.pred":
                    todo += [
                        source for source in it.operands[1:] if isinstance(source, Register) and source not in seen
                    ]
    return found


def _changed(lines: list[str], it: Instruction, kind: str, line: str) -> Mutant:
    return Mutant(kind, it.line, it.text, "\n".join([*lines[: it.line - 1], line, *lines[it.line :]]))


def is_found(form: Shipped, cases: Cases) -> bool:
    try:
        return any(not outcome.right for outcome in cases(form))
    except KernelError:
        return True


WITHOUT_EFFECT = {
    PEAKS: ["guard"] * 3,  # a warp reduces one map: all its lanes store the same
    RUNS: ["guard"],  # likewise the count of a row's runs
    # The kernel's own barriers stand beside those that Triton puts around a reduction. The bits of a peak are not -1.
    REGIONS: ["barrier"] * 4 + ["bound"],
}


@pytest.mark.parametrize("name", [variant.name for variant in variants()])
def test_the_cases_take_every_way(name: str) -> None:
    """No instruction of a form is left that no case executes."""
    form = of_variant(name, SM)
    taken = {line for outcome in outcomes_of(name)(form) for line in outcome.executed.issued}
    assert [str(it) for it in parse(form.text)[form.entry].body if it.line not in taken] == []


@pytest.mark.parametrize(
    "name",
    [
        *("fuse_cams.maps.fp32", "fuse_cams.wanted.fp16", "fuse_cams.located.fp32", "fuse_cams.findings.fp32"),
        *(PEAKS, RUNS, REGIONS),
        *("window_resize.u8-shrink.fp32", "window_resize.u8-enlarge.fp16"),
    ],
)
def test_faults_are_found(name: str) -> None:
    form, cases = of_variant(name, SM), outcomes_of(name)
    tried = list(mutants(form))
    assert tried
    assert not is_found(form, cases), "the sound kernel passes"
    survived = [mutant for mutant in tried if not is_found(replace(form, text=mutant.text), cases)]
    kinds = [mutant.kind for mutant in survived]
    assert kinds == WITHOUT_EFFECT.get(name, []), [(mutant.line, mutant.was) for mutant in survived]


def test_a_grid_of_another_size_is_found() -> None:
    """A block less leaves poison behind, a block more goes beyond the arrays."""
    form = of_variant("fuse_cams.maps.fp32", SM)
    for change in ("- 1", "+ 1"):
        wrong = replace(form, grid=(f"{form.grid[0]} {change}", "1", "1"))
        assert is_found(wrong, outcomes_of("fuse_cams.maps.fp32"))


def test_rows_of_a_program_that_end_within_a_byte_of_the_mask_are_found() -> None:
    """Eight rows are one byte: tile_h is a multiple of 8."""
    form, case = of_variant("fuse_cams.findings.fp32", SM), replace(GENERAL["odd"], tile_h=12)
    assert not fuse_cams.run(form, of_variant(PEAKS, SM), case).right


def test_a_broken_promise_of_alignment_is_found() -> None:
    form = replace(of_variant("fuse_cams.maps.fp32", SM), aligned=())
    with pytest.raises(KernelError, match=r"alignment: .*st\.global\.v2\.b32"):
        fuse_cams.run(form, of_variant(PEAKS, SM), STRIDED["one tile"])
