"""A clock that stands still until it is told to go on."""

from __future__ import annotations

import pytest

from msloc_edge.bench.scenarios import Clock


class StandingClock(Clock):
    """Time passes when `work` or `sleep` says so."""

    def __init__(self) -> None:
        self.at = 1000.0

    def now(self) -> float:
        return self.at

    def sleep(self, until: float) -> None:
        self.at = max(self.at, until)

    def work(self, ms: float) -> None:
        self.at += ms / 1e3


@pytest.fixture
def clock() -> StandingClock:
    return StandingClock()
