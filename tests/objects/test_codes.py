"""The table of codes: against the standard's own dictionaries, and against the check digits that SNOMED CT carries."""

from __future__ import annotations

import doctest
from types import ModuleType

import pytest
from pydicom.sr._concepts_dict import concepts

from msloc_edge.bundle import Bundle
from msloc_edge.objects import codes, regions
from msloc_edge.objects.codes import FINDINGS, PRIVATE, Term, finding_codes

TERMS = [term for term in vars(codes).values() if isinstance(term, Term)]
TERMS += [term for found in FINDINGS.values() for term in (found.type, found.radlex, found.site) if term]

# Verhoeff's tables: multiplication in the dihedral group D5, and the permutation's powers.
_TIMES = [
    *([0, 1, 2, 3, 4, 5, 6, 7, 8, 9], [1, 2, 3, 4, 0, 6, 7, 8, 9, 5], [2, 3, 4, 0, 1, 7, 8, 9, 5, 6]),
    *([3, 4, 0, 1, 2, 8, 9, 5, 6, 7], [4, 0, 1, 2, 3, 9, 5, 6, 7, 8], [5, 9, 8, 7, 6, 0, 4, 3, 2, 1]),
    *([6, 5, 9, 8, 7, 1, 0, 4, 3, 2], [7, 6, 5, 9, 8, 2, 1, 0, 4, 3], [8, 7, 6, 5, 9, 3, 2, 1, 0, 4]),
    [9, 8, 7, 6, 5, 4, 3, 2, 1, 0],
]
_STEP = [1, 5, 7, 6, 2, 8, 3, 0, 9, 4]


def verhoeff(digits: str) -> bool:
    """Whether the last digit is the check digit of the others (SNOMED CT Technical Guide, SCTID)."""
    check = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit)
        for _ in range(place % 8):
            value = _STEP[value]
        check = _TIMES[check][value]
    return check == 0


def in_dictionary(term: Term) -> tuple[str, list[int]] | None:
    """Meaning and context groups of a code in pydicom's dictionary of PS3.16."""
    found = [entry[term.value] for entry in concepts[term.scheme].values() if term.value in entry]
    return (found[0][0], sorted({group for _, groups in found for group in groups})) if found else None


def test_check_digit_tells_a_wrong_code() -> None:
    assert verhoeff("60046008")  # pleural effusion
    assert not verhoeff("60046009")
    assert not verhoeff("60064008")


@pytest.mark.parametrize("term", [term for term in TERMS if term.scheme == "SCT"], ids=lambda term: term.value)
def test_snomed_codes_have_their_check_digit(term: Term) -> None:
    assert verhoeff(term.value)


@pytest.mark.parametrize("term", [term for term in TERMS if term.scheme == "DCM"], ids=lambda term: term.value)
def test_dicom_codes_are_those_of_the_standard(term: Term) -> None:
    found = in_dictionary(term)
    assert found is not None
    assert found[0].lower() == term.meaning.lower()


@pytest.mark.parametrize("label", FINDINGS)
def test_findings_are_checked_as_the_table_says(label: str) -> None:
    found = FINDINGS[label]
    if found.checked.startswith("CID "):
        assert int(found.checked.removeprefix("CID ")) in (in_dictionary(found.type) or ("", []))[1]
    else:
        assert found.checked == ("private" if found.type.scheme == PRIVATE else "public")


def test_codes_fit_their_value_representations() -> None:
    for term in [*TERMS, finding_codes("x" * 200).type, finding_codes("胸水").type]:
        assert 1 <= len(term.value) <= 16, term
        assert 1 <= len(term.meaning) <= 64, term
        assert term.value.isascii()


def test_every_class_of_the_shipped_model_is_in_the_table() -> None:
    assert set(Bundle.open().classes) == set(FINDINGS)


@pytest.mark.parametrize("module", [codes, regions])
def test_examples(module: ModuleType) -> None:
    done = doctest.testmod(module)
    assert done.attempted > 0
    assert done.failed == 0


def test_own_classes_have_codes_of_their_own() -> None:
    first, second = finding_codes("Rib_Fracture"), finding_codes("Rib fracture")
    assert first.type.scheme == second.type.scheme == PRIVATE
    assert first.type.value != second.type.value
    assert finding_codes("Rib_Fracture") == first
