"""Survey of this machine: what it can run, and what is in the way, with the command that fixes it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from msloc_edge.doctor.check import Check
from msloc_edge.doctor.hardware import check_gpus, check_machine
from msloc_edge.doctor.machine import environment
from msloc_edge.doctor.packages import PROBES, ask, check_backends, check_films
from msloc_edge.doctor.places import check_folders, check_models, check_ports

__all__ = ["SCHEMA", "Check", "Report", "examine"]

SCHEMA = "msloc-edge/doctor/2"


@dataclass(frozen=True, slots=True)
class Report:
    """All checks in the order in which they are shown, and the environment they were made in."""

    checks: tuple[Check, ...]
    environment: dict[str, Any]

    @property
    def ok(self) -> bool:
        """True where no check is failing."""
        return all(check.status != "failing" for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """Values for JSON, of the schema SCHEMA."""
        checks = [asdict(check) for check in self.checks]
        return {"schema": SCHEMA, "ok": self.ok, "checks": checks, "environment": self.environment}


def examine(model: str | None = None) -> Report:
    """Make every check; `model` is a bundle, by name or folder, to look at beside those that ship. Never raises."""
    with ThreadPoolExecutor(len(PROBES)) as pool:
        answers = {probe: pool.submit(ask, probe) for probe in PROBES}
        found = environment()
        groups: dict[str, Callable[[], list[Check]]] = {
            "machine": lambda: check_machine(found),
            "gpu": lambda: check_gpus(found),
            "backends": lambda: check_backends(answers, found),
            "films": lambda: check_films(answers),
            "models": lambda: check_models(model),
            "places": lambda: [*check_folders(), *check_ports()],
        }
        return Report(tuple(check for group, look in groups.items() for check in _guarded(group, look)), found)


def _guarded(group: str, look: Callable[[], list[Check]]) -> list[Check]:
    """Checks of a group, or one that says what stopped them: on a broken machine anything can raise."""
    try:
        return look()
    except Exception as error:
        fix = "pip install --force-reinstall msloc-edge" if isinstance(error, ImportError) else "report it, please"
        return [Check(group, "checks", "failing", f"stopped by {type(error).__name__}: {error}", fix)]
