"""No rollback: what was installed once is the least that may come after it, also when it is gone."""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msloc_edge import Bundle
from msloc_edge.bundle import MANIFEST, SHIPPED, store, versions
from msloc_edge.errors import BundleError, OutputError

Make = Callable[..., Path]
NETWORK = b""  # a graph without any node

pytestmark = pytest.mark.usefixtures("models")


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Makes bundles that open and never run: make("1.2", name="tiny") -> folder."""
    shipped = json.loads((SHIPPED / "cxr-edge" / MANIFEST).read_text())
    digest = hashlib.sha256(NETWORK).hexdigest()

    def folder(version: str, name: str = "tiny") -> Path:
        place = tmp_path / f"{name} {version}"
        place.mkdir(exist_ok=True)
        (place / "model.onnx").write_bytes(NETWORK)
        entries = {"name": name, "version": version, "files": {"model.onnx": digest}, "thresholds_for": digest}
        (place / "manifest.json").write_text(json.dumps(shipped | entries))
        return place

    return folder


def refused(folder: Path, name: str | None = None) -> str:
    with pytest.raises(BundleError) as error:
        store.add_folder(folder, name, replace=True)
    assert error.value.reason == "bundle_rollback"
    assert "--allow-rollback" in error.value.message
    return error.value.message


# The order of versions


@pytest.mark.parametrize(
    ("older", "newer"),
    [("1", "2"), ("0.9", "1"), ("1.9", "1.10"), ("1.2", "1.2.1"), ("2.0.9", "2.1"), ("20251231", "20260101")],
)
def test_older_and_newer(older: str, newer: str) -> None:
    versions.require_no_rollback("m", newer, [older])
    with pytest.raises(BundleError, match=f"expected version {newer} or later"):
        versions.require_no_rollback("m", older, [newer])
    assert versions.highest([older, newer]) == versions.highest([newer, older]) == newer


@pytest.mark.parametrize(("one", "other"), [("1", "1.0"), ("1.2", "01.2.0"), ("0", "0.0")])
def test_two_spellings_of_one_version(one: str, other: str) -> None:
    versions.require_no_rollback("m", one, [other])
    versions.require_no_rollback("m", other, [one])


@pytest.mark.parametrize(
    "odd", ["1.0-rc1", "v1", "", "1.", ".1", "1..2", "-1", "1 ", "1\n", "٣", "1" * 5000, "\x1b[2J"]
)
def test_versions_without_an_order(odd: str) -> None:
    versions.require_no_rollback("m", odd, [])
    versions.require_no_rollback("m", odd, [odd])
    for version, seen in ((odd, "1.0"), ("1.0", odd)):
        with pytest.raises(BundleError, match="no order") as error:
            versions.require_no_rollback("m", version, [seen])
        assert error.value.message.isprintable()
    assert versions.highest([odd, "0.1"]) == versions.highest(["0.1", odd]) == "0.1"


@given(st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=4), min_size=1, max_size=6))
def test_the_highest_is_never_refused(numbers: list[list[int]]) -> None:
    texts = [".".join(map(str, parts)) for parts in numbers]
    versions.require_no_rollback("m", versions.highest(texts), texts)


# The store


@pytest.mark.parametrize("order", list(itertools.permutations(["1.9", "1.10", "2"])))
def test_every_order(make: Make, order: tuple[str, ...]) -> None:
    rank = ["1.9", "1.10", "2"].index
    highest = order[0]
    store.add_folder(make(order[0]))
    for version in order[1:]:
        if rank(version) < rank(highest):
            assert highest in refused(make(version))
        else:
            store.add_folder(make(version), replace=True)
            highest = version
        assert Bundle.open("tiny").version == highest
        assert versions.recorded(store.store_folder()) == {"tiny": highest}


def test_a_model_that_is_gone_is_remembered(make: Make) -> None:
    store.add_folder(make("2.0"))
    store.remove("tiny")
    refused(make("1.0"))
    store.add_folder(make("2.0"))
    shutil.rmtree(store.store_folder() / "tiny")
    refused(make("1.0"))


def test_a_damaged_model_is_remembered(make: Make) -> None:
    path = store.add_folder(make("2.0")).path
    (path / "manifest.json").write_text("")
    refused(make("1.0"))
    store.add_folder(make("2.0"), replace=True)


def test_another_name_is_no_way_around(make: Make) -> None:
    store.add_folder(make("2.0"), "ward")
    for name in ("ward", "other", None):
        refused(make("1.0"), name)
    store.add_folder(make("1.0", name="lungs"))  # another model


def test_what_came_in_by_hand_counts(make: Make) -> None:
    shutil.copytree(make("2.0"), store.store_folder() / "by-hand")
    refused(make("1.0"))
    store.add_folder(make("1.0"), allow_rollback=True)
    shutil.rmtree(store.store_folder() / "by-hand")
    refused(make("1.5"))


def test_a_rollback_that_is_wanted(make: Make) -> None:
    store.add_folder(make("2.0"))
    store.add_folder(make("1.0"), replace=True, allow_rollback=True)
    assert Bundle.open("tiny").version == "1.0"
    refused(make("1.5"))  # wanted once, not for ever
    store.add_folder(make("2.1"), replace=True)


def test_from_a_version_without_an_order(make: Make) -> None:
    store.add_folder(make("1.0-rc1"))
    refused(make("1.0"))
    store.add_folder(make("1.0"), replace=True, allow_rollback=True)
    store.add_folder(make("1.1"), replace=True)
    store.add_folder(make("1.0-rc1"), replace=True, allow_rollback=True)
    assert versions.recorded(store.store_folder()) == {"tiny": "1.1"}


def test_a_refused_bundle_is_not_recorded(make: Make) -> None:
    store.add_folder(make("1.0"))
    broken = make("9.0")
    (broken / "model.onnx").write_bytes(b"other")
    with pytest.raises(BundleError):
        store.add_folder(broken, replace=True)
    store.add_folder(make("1.1"), replace=True)


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{}", b"[]", b"\xff", b"[" * 9999, b'{"schema": "other", "versions": {}}'),
        b'{"schema": "msloc-edge/versions/1", "versions": ["tiny"]}',
        b'{"schema": "msloc-edge/versions/1", "versions": {"tiny": 2}}',
    ],
)
def test_a_damaged_record_is_no_licence(make: Make, content: bytes) -> None:
    store.add_folder(make("2.0"))
    record = store.store_folder() / versions.RECORD
    record.write_bytes(content)
    for allow in (False, True):
        with pytest.raises(BundleError) as error:
            store.add_folder(make("3.0"), replace=True, allow_rollback=allow)
        assert error.value.reason == "bundle_rollback"
        assert str(record) in error.value.message
    assert Bundle.open("tiny").version == "2.0"
    assert record.read_bytes() == content


def test_a_record_that_cannot_be_written(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(versions, "atomic_write", full)
    with pytest.raises(OutputError) as error:
        store.add_folder(make("2.0"))
    assert error.value.reason == "disk_full"
    refused(make("1.0"))  # what is installed speaks for itself
