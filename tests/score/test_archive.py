"""Films of folders, manifests and shards, and how they are shared out."""

from __future__ import annotations

import os
import pickle
import tarfile
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from msloc_edge.errors import InputError
from msloc_edge.score.archive import Film, Shard, list_films


def names(*paths: Path) -> list[str]:
    return [film.input for film in list_films(map(str, paths))]


def test_a_film_is_itself_and_listed_once(tmp_path: Path) -> None:
    assert list(list_films(["a.png", "b.dcm", "a.png"])) == [Film("a.png", "a.png"), Film("b.dcm", "b.dcm")]


def test_a_name_that_is_no_text_becomes_one(made: Path, tmp_path: Path) -> None:
    odd = os.fsdecode(bytes(tmp_path) + b"/f\xe9.png")
    os.link(made / "00.png", odd)
    (film,) = list_films([odd])
    assert film.input == f"{tmp_path}/f\\xe9.png"
    assert Path(film.path).read_bytes() == (made / "00.png").read_bytes()


@pytest.mark.parametrize("form", ["csv", "parquet", "txt"])
def test_a_manifest_names_films_beside_it(tmp_path: Path, form: str) -> None:
    manifest = tmp_path / f"list.{form}"
    if form == "csv":
        manifest.write_text('view,path\nPA,a.png\nAP,"sub/b, c.png"\nAP,\n', encoding="utf-8-sig")
    elif form == "txt":
        manifest.write_text("a.png\n\nsub/b, c.png\n", encoding="utf-8-sig")
    else:
        parquet.write_table(pa.table({"view": ["PA", "AP", "AP"], "path": ["a.png", "sub/b, c.png", None]}), manifest)
    assert names(manifest) == [str(tmp_path / "a.png"), str(tmp_path / "sub/b, c.png")]


def test_a_manifest_may_be_another_dataset(scored: Path) -> None:
    part = min((scored / "films").iterdir())
    assert names(part) == parquet.read_table(part).column("input").to_pylist()


@pytest.mark.parametrize(
    ("name", "content", "reason", "says"),
    [
        ("list.csv", None, "missing", "there is none"),
        ("list.csv", b"file\na.png\n", "corrupt", "no column path, image or input"),
        ("list.csv", b"path\nf\xe9.png\n", "corrupt", "a manifest in UTF-8"),
        ("list.parquet", b"none", "corrupt", "write it again"),
    ],
)
def test_a_manifest_that_cannot_be_used(
    tmp_path: Path, name: str, content: bytes | None, reason: str, says: str
) -> None:
    if content:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=says) as caught:
        names(tmp_path / name)
    assert caught.value.reason == reason


def test_films_of_a_shard_are_read_where_they_lie(shard: Path, made: Path) -> None:
    films = list(list_films([str(shard)]))
    assert [film.input for film in films] == [f"{shard}#{film.name}" for film in sorted(made.iterdir())]
    assert [film.read() for film in films] == [film.read_bytes() for film in sorted(made.iterdir())]


def test_members_that_are_films(tmp_path: Path) -> None:
    path = tmp_path / "s.tar"
    members = ["a/1.png", "1.2.840.10008", "x.cls", ".hidden.png", "b.DCM", "folder.png"]
    with tarfile.open(path, "w") as tar:
        for name in members:
            info = tarfile.TarInfo(name)
            info.type = tarfile.DIRTYPE if name == "folder.png" else tarfile.REGTYPE
            tar.addfile(info)
    assert [name.partition("#")[2] for name in names(path)] == ["a/1.png", "1.2.840.10008", "b.DCM"]


def test_a_shard_that_was_cut_gives_what_is_before_the_cut(shard: Path, tmp_path: Path) -> None:
    whole = list(list_films([str(shard)]))
    cut = tmp_path / "cut.tar"
    offset, length = whole[3].part or (0, 0)
    cut.write_bytes(shard.read_bytes()[: offset + length // 2])
    *films, broken = list_films([str(cut)])
    assert broken.error
    assert broken.error.reason == "corrupt"
    assert broken.input == str(cut)
    assert [film.read() for film in films[:3]] == [film.read() for film in whole[:3]]
    with pytest.raises(InputError, match="its shard ends"):
        Film("x", str(cut), (offset, length)).read()


@pytest.mark.parametrize(("content", "reason"), [(None, "missing"), (b"no tar" * 200, "corrupt")])
def test_a_shard_that_is_none(tmp_path: Path, content: bytes | None, reason: str) -> None:
    path = tmp_path / "s.tar"
    if content:
        path.write_bytes(content)
    (film,) = list_films([str(path)])
    with pytest.raises(InputError) as caught:
        film.read()
    assert caught.value.reason == reason


def test_shares_are_whole_even_and_the_same_everywhere() -> None:
    films = [f"archive/{number}.png" for number in range(3000)] + [os.fsdecode(b"\xff.png")]
    shares = [[film for film in films if Shard(number, 4).holds(film)] for number in range(1, 5)]
    assert sorted(film for share in shares for film in share) == sorted(films)
    assert all(650 < len(share) < 850 for share in shares)
    assert Shard(1, 2).holds("a") is (int.from_bytes(bytes.fromhex("ca978112ca1bbdca"), "big") % 2 == 0)  # sha256("a")


def test_a_film_travels_between_processes() -> None:
    film = Film("a#b", "a", (1, 2), InputError("corrupt", "a: damaged"))
    again = pickle.loads(pickle.dumps(film))
    assert (again.input, again.part, again.error.reason) == ("a#b", (1, 2), "corrupt")
