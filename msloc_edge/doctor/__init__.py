"""What this machine can run, and what keeps it from it: one line per question, with the command that mends it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from msloc_edge.doctor.check import Check
from msloc_edge.doctor.hardware import gpu, machine
from msloc_edge.doctor.machine import environment
from msloc_edge.doctor.packages import PROBES, ask, engines, films
from msloc_edge.doctor.places import folders, models, ports

__all__ = ["SCHEMA", "Check", "Report", "examine"]

SCHEMA = "msloc-edge/doctor/1"


@dataclass(frozen=True, slots=True)
class Report:
    """All checks in the order in which they are shown, and the environment they were made in."""

    checks: tuple[Check, ...]
    environment: dict[str, Any]

    @property
    def ok(self) -> bool:
        """Nothing is failing."""
        return all(check.status != "failing" for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        checks = [asdict(check) for check in self.checks]
        return {"schema": SCHEMA, "ok": self.ok, "checks": checks, "environment": self.environment}


def examine(model: str | None = None) -> Report:
    """Make every check. `model` is a bundle to look at beside those that ship."""
    with ThreadPoolExecutor(len(PROBES)) as pool:
        answers = {probe: pool.submit(ask, probe) for probe in PROBES}
        found = environment()
        groups: dict[str, Callable[[], list[Check]]] = {
            "machine": lambda: machine(found),
            "gpu": lambda: gpu(found),
            "engines": lambda: engines(answers, found),
            "films": lambda: films(answers),
            "models": lambda: models(model),
            "places": lambda: [*folders(), *ports()],
        }
        return Report(tuple(check for group, look in groups.items() for check in _guarded(group, look)), found)


def _guarded(group: str, look: Callable[[], list[Check]]) -> list[Check]:
    """The group's checks, or one that says what stopped them: on a broken machine anything can raise."""
    try:
        return look()
    except Exception as error:
        mend = "pip install --force-reinstall msloc-edge" if isinstance(error, ImportError) else "report it, please"
        return [Check(group, "checks", "failing", f"stopped by {type(error).__name__}: {error}", mend)]
