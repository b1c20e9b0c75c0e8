"""Films and deliveries in the journal: the steps that each takes, and who takes it next.

    film      received ── worker ── localized ── worker ── routed ── sender, the last ── confirmed ── keeper ── deleted
    delivery  for NODE ── sender ── delivered

A film's items share their `content`, the hash of the film. Every step may be taken twice: after a crash it is.
"""

from __future__ import annotations

import time

from msloc_edge.journal import Item, Journal
from msloc_edge.listen.config import Node

RECEIVED, LOCALIZED, ROUTED, CONFIRMED, DELETED = "received", "localized", "routed", "confirmed", "deleted"
DELIVERED = "delivered"
PASSED_OVER = "passed over"
"""Step of a film that the configuration does not name."""

_FOR = "for "
_FRESH_S = 60.0
_HOLD_S = 3600.0


def waiting_for(node: str) -> str:
    """Name the step of a delivery that waits for a node."""
    return _FOR + node


def take(journal: Journal, step: str) -> Item | None:
    """Take an item that has done `step`: one that came within the last minute goes before a backlog."""
    return journal.take(step, _HOLD_S, since=time.time() - _FRESH_S) or journal.take(step, _HOLD_S)


def route(journal: Journal, film: Item, nodes: tuple[Node, ...]) -> None:
    """Add a localized film's deliveries, one for each of its objects at each node that gets it."""
    objects: dict[str, str] = film.facts["objects"]
    for node in nodes:
        for kind in node.objects:
            if uid := objects.get(kind):
                facts = {"film": film.name, "kind": kind, "object": uid, "node": node.name, "received": film.added}
                journal.add(f"{uid} for {node.name}", film.content, waiting_for(node.name), facts)
    journal.advance(film, ROUTED)
    settle(journal, film.content)


def settle(journal: Journal, content: str) -> None:
    """Confirm a routed film when the last of its deliveries has been."""
    family = journal.find(content=content)
    if all(item.step == DELIVERED for item in family if is_delivery(item)):
        for film in family:
            if film.step == ROUTED:
                journal.advance(film, CONFIRMED)


def withdraw(journal: Journal, nodes: tuple[Node, ...]) -> list[Item]:
    """Forget the deliveries that the configuration no longer asks for; returns them."""
    asked = {(node.name, kind) for node in nodes for kind in node.objects}
    waiting = [item for step in journal.counts() if step.startswith(_FOR) for item in journal.find(step=step)]
    given_up = [item for item in journal.find(failed=True) if is_delivery(item)]
    found = {item.id: item for item in (*waiting, *given_up)}
    withdrawn = [item for item in found.values() if (item.facts["node"], item.facts["kind"]) not in asked]
    for item in withdrawn:
        journal.forget(item)
        settle(journal, item.content)
    return withdrawn


def is_delivery(item: Item) -> bool:
    """Tell a delivery from a film."""
    return "node" in item.facts
