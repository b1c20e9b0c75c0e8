"""The rule of fragments on lesions drawn by hand."""

from __future__ import annotations

from msloc_edge.bundle import RegionRule
from msloc_edge.maps.regions import Region
from msloc_edge.train.calibration.region_rule import LesionRegions, fit_region_rule


def region(left: int, top: int, side: int, peak: float) -> Region:
    return Region(top * 256 + left, left, top, left + side, top + side, side * side, peak)


LESION = (40.0, 40.0, 20.0, 20.0)


def film(*found: Region) -> LesionRegions:
    return LesionRegions(found, 1.0, (LESION,))


def test_a_lesion_is_found_by_a_box_whose_centre_lies_in_it() -> None:
    found = [region(45, 45, 10, 3.0), region(0, 0, 10, 2.0), region(58, 50, 10, 2.0)]
    assert film(*found).counts(RegionRule()) == (3, 1)
    assert film(*found[1:]).counts(RegionRule()) == (2, 0)
    assert film().counts(RegionRule()) == (0, 0)


def test_the_rule_drops_what_is_small_or_weak() -> None:
    lesion = film(region(45, 45, 10, 3.0), region(0, 0, 5, 3.0), region(100, 0, 20, 1.5))
    assert lesion.counts(RegionRule(min_area=26)) == (2, 1)
    assert lesion.counts(RegionRule(min_share=0.3)) == (2, 1)
    assert lesion.counts(RegionRule(26, 0.3)) == (1, 1)


def test_two_films_side_by_side() -> None:
    both = film(region(45, 45, 10, 3.0)).beside(film(region(45, 45, 10, 2.0), region(0, 0, 4, 2.0)), 256)
    assert both.counts(RegionRule()) == (3, 2)
    assert both.counts(RegionRule(min_share=0.6)) == (1, 1)  # the second lesion is half as strong
    assert both.boxes == (LESION, (296.0, 40.0, 20.0, 20.0))


def test_fragments_are_dropped_and_lesions_kept() -> None:
    # A strong region on each lesion; beside it weak ones of 100 pixels, and specks of 16 as strong as half of it.
    films = [film(region(45, 45, 8, 3.0), region(80, 0, 10, 1.2), region(0, 90, 4, 2.0)) for _ in range(5)]
    rule, f1, without = fit_region_rule(films, 256)
    assert (rule.min_area, rule.min_share) == (16, 0.55)  # the least share that drops both
    assert f1 == 1.0
    assert without == 2 * (5 + 8) / (15 + 24 + 5 + 8)  # with the four pairs of neighbours


def test_the_weaker_of_two_lesions_is_kept() -> None:
    # Every second lesion is a third as strong as the others, and each film has a speck of a quarter of the strongest.
    films = [film(region(45, 45, 8, peak), region(0, 90, 6, 1.5)) for peak in (3.0, 5 / 3) * 4]
    rule, f1, _ = fit_region_rule(films, 256)
    assert (rule.min_area, rule.min_share) == (48, 0.0)
    assert f1 == 1.0


def test_classes_are_never_side_by_side() -> None:
    films = [film(region(45, 45, 8, 3.0)), LesionRegions((region(45, 45, 8, 9.0),), 2.0, (LESION,))]
    assert fit_region_rule(films, 256) == (RegionRule(16, 0.0), 1.0, 1.0)


def test_of_equal_rules_the_mildest_is_taken() -> None:
    assert fit_region_rule([film(region(45, 45, 20, 3.0))], 256) == (RegionRule(16, 0.0), 1.0, 1.0)


def test_a_rule_that_loses_lesions_is_not_worth_it() -> None:
    small = [film(region(48, 48, 4, 2.0)) for _ in range(9)]
    one = film(region(45, 45, 20, 3.0), region(0, 0, 4, 2.9))
    assert fit_region_rule([*small, one], 256)[0] == RegionRule(16, 0.0)
