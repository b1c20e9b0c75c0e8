"""The examples in the docstrings of public array functions."""

from __future__ import annotations

import doctest

import pytest

from msloc_edge import maps


@pytest.mark.parametrize("name", ["fuse_cams", "iobb", "iou", "regions", "to_boxes"])
def test_the_example_gives_what_it_says(name: str) -> None:
    function = getattr(maps, name)
    (example,) = doctest.DocTestFinder(recurse=False).find(function, name, globs=function.__globals__)
    assert example.examples
    assert doctest.DocTestRunner().run(example).failed == 0
