"""The store of models: what comes in is checked first, and is there whole or not at all."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import lzma
import random
import resource
import shutil
import socket
import ssl
import stat
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from onnx import helper

from msloc_edge import Bundle
from msloc_edge.bundle import installed_models, store
from msloc_edge.bundle.archive import MAX_ENTRIES
from msloc_edge.bundle.versions import RECORD
from msloc_edge.errors import BundleError, MslocError, OutputError

KINDS = ("zip", "gztar", "xztar")
MakeBundle = Callable[..., Path]
Serve = Callable[..., str]


pytestmark = pytest.mark.usefixtures("models")


@pytest.fixture(scope="session")
def small_with(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> MakeBundle:
    """Makes bundles like `tiny_bundle`, with entries of the manifest replaced, whose network is 300 kB of noise: a
    bundle is opened and verified here, but never run."""
    manifest = json.loads((tiny_bundle / "manifest.json").read_text())
    network = helper.make_model(
        helper.make_graph([], "g", [], []), doc_string=random.Random(0).randbytes(300_000).hex()
    )
    files = {"model.onnx": network.SerializeToString(), "model_card.md": b"# tiny\n"}
    hashes = {name: sha256(data) for name, data in files.items()}

    def make(**entries: object) -> Path:
        folder = tmp_path_factory.mktemp("small") / "bundle"
        folder.mkdir()
        for name, data in files.items():
            (folder / name).write_bytes(data)
        changed = {**manifest, "files": hashes, "thresholds_for": hashes["model.onnx"], **entries}
        (folder / "manifest.json").write_text(json.dumps(changed))
        return folder

    return make


@pytest.fixture(scope="session")
def small(small_with: MakeBundle) -> Path:
    """One such bundle, named tiny; copy before changing it."""
    return small_with()


@pytest.fixture(scope="session")
def packed(small: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """`small` as the bytes of a .tar.gz file."""
    target = tmp_path_factory.mktemp("packed") / "tiny"
    return Path(shutil.make_archive(str(target), "gztar", small.parent, small.name)).read_bytes()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a folder and below, hidden ones and links too, and empty folders."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in folder.rglob("*")
        if not path.is_dir() or not any(path.iterdir())
    }


def kept(models: Path) -> list[str]:
    """All that is in the store, hidden or not, beside its record of versions."""
    return sorted(path.name for path in models.iterdir() if path.name != RECORD)


def refused(models: Path, add: Callable[[], Bundle]) -> MslocError:
    """The error of an installation that must change nothing in the store."""
    before = contents(models)
    with pytest.raises(MslocError) as error:
        add()
    assert contents(models) == before
    assert "\n" not in error.value.message
    assert ".msloc-" not in error.value.message  # no name that is gone when the user reads it
    return error.value


def tar_of(path: Path, *members: tuple[tarfile.TarInfo | str, bytes], opener: Callable[..., io.IOBase]) -> Path:
    with opener(path, "wb") as file, tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar:  # type: ignore[call-overload]
        for member, data in members:
            info = tarfile.TarInfo(member) if isinstance(member, str) else member
            if info.isreg() and not info.size:
                info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def tar_gz(path: Path, *members: tuple[tarfile.TarInfo | str, bytes]) -> Path:
    return tar_of(path, *members, opener=gzip.open)


def zip_of(path: Path, *members: tuple[zipfile.ZipInfo | str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, data in members:
            archive.writestr(member, data)
    return path


def members_of(folder: Path, prefix: str = "") -> list[tuple[str, bytes]]:
    return [(f"{prefix}{file.name}", file.read_bytes()) for file in sorted(folder.iterdir())]


# What is taken


def test_a_folder(small: Path, models: Path) -> None:
    bundle = store.add_folder(small)
    assert bundle.path == models / "tiny"
    assert Bundle.open("tiny").id == bundle.id == Bundle.open(small).id
    assert contents(models / "tiny") == contents(small)
    assert kept(models) == ["tiny"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("inside", [True, False])
def test_an_archive(small: Path, tmp_path: Path, models: Path, kind: str, inside: bool) -> None:
    """With the files in one folder, as `tar czf x.tgz bundle` has them, or at the top, as `tar czf x.tgz .` does."""
    root = (small.parent, small.name) if inside else (small,)
    archive = Path(shutil.make_archive(str(tmp_path / "packed"), kind, *root))
    archive = archive.rename(tmp_path / "a name without a suffix")
    bundle = store.add_archive(archive, sha256(archive.read_bytes()).upper())
    assert bundle.path == models / "tiny"
    assert contents(models / "tiny") == contents(small)
    assert kept(models) == ["tiny"]


def test_what_is_not_in_the_bundles_folder_is_left(small: Path, tmp_path: Path, models: Path) -> None:
    more = [("README", b"x"), ("b/notes/deep.txt", b"x"), ("__MACOSX/b/._manifest.json", b"x")]
    store.add_archive(zip_of(tmp_path / "a.zip", *more, *members_of(small, "b/")))
    assert contents(models / "tiny") == contents(small)


def test_a_signature_comes_along(small: Path, tmp_path: Path, models: Path) -> None:
    store.add_archive(tar_gz(tmp_path / "a", *members_of(small), ("manifest.sig", b"signed")))
    assert (models / "tiny" / "manifest.sig").read_bytes() == b"signed"


def test_a_url(packed: bytes, small: Path, models: Path, serve: Serve) -> None:
    heard: list[tuple[int, int | None]] = []
    store.add_url(serve(packed), sha256(packed), progress=lambda done, total: heard.append((done, total)))
    assert kept(models) == ["tiny"]
    assert contents(models / "tiny") == contents(small)
    assert len(heard) > 1
    assert heard == sorted(heard)
    assert heard[-1] == (len(packed), len(packed))


def test_a_url_that_states_no_length(packed: bytes, serve: Serve) -> None:
    heard: list[tuple[int, int | None]] = []
    store.add_url(serve(packed, promised=None), sha256(packed), progress=lambda *told: heard.append(told))
    assert heard[-1] == (len(packed), None)
    assert installed_models() == ("tiny",)


def test_a_file_url(packed: bytes, tmp_path: Path) -> None:
    (tmp_path / "tiny model.tgz").write_bytes(packed)
    store.add_url((tmp_path / "tiny model.tgz").as_uri(), sha256(packed))
    assert installed_models() == ("tiny",)


# Downloads that fail


def test_no_such_address(models: Path, serve: Serve) -> None:
    url = serve(b"") + "/none"
    error = refused(models, lambda: store.add_url(url, "0" * 64))
    assert error.reason == "download_failed"
    assert "404 Not Found" in error.message
    assert url in error.message


def test_another_hash(packed: bytes, models: Path, serve: Serve) -> None:
    error = refused(models, lambda: store.add_url(serve(packed), "0" * 64))
    assert error.reason == "bundle_hash"
    assert sha256(packed) in error.message


def test_the_hash_is_checked_before_anything_is_unpacked(models: Path, serve: Serve) -> None:
    error = refused(models, lambda: store.add_url(serve(b"PK, and then nothing of a zip"), "0" * 64))
    assert error.reason == "bundle_hash"


@contextmanager
def redirecting(target: str, secure: ssl.SSLContext | None = None) -> Iterator[str]:
    """A server that sends everybody on to `target`; gives its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(302)
            self.send_header("Location", target)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            """Silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if secure:
            server.socket = secure.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http{'s' if secure else ''}://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture
def secure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """A server's side of TLS, with a certificate that this process trusts."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    now, address = datetime.now(timezone.utc), x509.IPAddress(ip_address("127.0.0.1"))
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(1), now + timedelta(1))
    builder = builder.add_extension(x509.SubjectAlternativeName([address]), critical=True)
    pem = builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
    (tmp_path / "certificate.pem").write_bytes(pem)
    (tmp_path / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "certificate.pem", tmp_path / "key.pem")
    return context


def test_a_redirect_is_followed(packed: bytes, serve: Serve, secure: ssl.SSLContext) -> None:
    with redirecting(serve(packed)) as http:
        assert store.add_url(http, sha256(packed)).name == "tiny"
        with (
            redirecting(http, secure) as https,
            redirecting(https) as first,  # up, and down again
            pytest.raises(BundleError, match=r"answers 302 and sends on to http://.*, which is no https") as error,
        ):
            store.add_url(first, sha256(packed), name="other")
    assert error.value.reason == "download_failed"


@pytest.mark.parametrize("target", ["ftp://127.0.0.1/a.zip", "file:///etc/hostname", "data:,x"])
def test_a_redirect_to_anything_else_is_refused(models: Path, serve: Serve, target: str) -> None:
    with redirecting(target) as url:
        error = refused(models, lambda: store.add_url(url, "0" * 64))
    assert error.reason == "download_failed"


def test_a_body_that_ends_early(packed: bytes, models: Path, serve: Serve) -> None:
    cut = packed[: len(packed) // 2]
    error = refused(models, lambda: store.add_url(serve(cut, promised=len(packed)), sha256(packed)))
    assert error.reason == "download_failed"
    assert f"{len(cut)} of {len(packed)}" in error.message


def test_a_server_that_falls_silent(packed: bytes, models: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "TIMEOUT", 0.2)
    url = serve(packed[:1000], promised=len(packed), hang=True)
    error = refused(models, lambda: store.add_url(url, sha256(packed)))
    assert error.reason == "download_failed"
    assert "timed out" in error.message


@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}/x", "http://127.0.0.1:port/x", "http:///x", "file:///none/x"])
def test_nobody_there(models: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        url = url.format(port=taken.getsockname()[1])
        error = refused(models, lambda: store.add_url(url, "0" * 64))
    assert error.reason == "download_failed"
    assert error.message.startswith(f"{url}: cannot be fetched (")


@pytest.mark.parametrize("promised", [-1, None])
def test_a_download_that_is_too_large(
    packed: bytes, models: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch, promised: int | None
) -> None:
    monkeypatch.setattr(store, "MAX_ARCHIVE", 100_000)
    assert len(packed) > 200_000
    heard: list[int] = []
    url = serve(packed, promised=promised)
    error = refused(models, lambda: store.add_url(url, sha256(packed), progress=lambda done, total: heard.append(done)))
    assert error.reason == "archive_refused"
    assert max(heard, default=0) <= 100_000  # given up on the way, or before


# Archives that are no bundle


@pytest.mark.parametrize("data", [b"", b"P", b"This is a letter.\n" * 40, b"<html>404</html>", bytes(10240)])
def test_a_file_that_is_no_archive(tmp_path: Path, models: Path, data: bytes) -> None:
    (tmp_path / "a.zip").write_bytes(data)
    assert refused(models, lambda: store.add_archive(tmp_path / "a.zip")).reason == "archive_refused"


def test_a_missing_file(tmp_path: Path, models: Path) -> None:
    for given in (None, "0" * 64):
        error = refused(models, lambda given=given: store.add_archive(tmp_path / "none.zip", given))  # type: ignore[misc]
        assert error.reason == "bundle_missing"
        assert "none.zip" in error.message


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_an_archive_that_is_cut(small: Path, tmp_path: Path, models: Path, kind: str, share: float) -> None:
    archive = Path(shutil.make_archive(str(tmp_path / "packed"), kind, small))
    data = archive.read_bytes()
    archive.write_bytes(data[: int(share * len(data))])
    error = refused(models, lambda: store.add_archive(archive))
    assert error.reason == "bundle_damaged"
    assert str(archive) in error.message


def test_a_zip_with_a_password(small: Path, tmp_path: Path, models: Path) -> None:
    archive = zip_of(tmp_path / "a.zip", *members_of(small))
    data = bytearray(archive.read_bytes())
    for signature, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):  # local and central header
        at = data.find(signature)
        while at >= 0:
            data[at + flags] |= 1
            at = data.find(signature, at + 1)
    archive.write_bytes(data)
    error = refused(models, lambda: store.add_archive(archive))
    assert error.reason == "bundle_damaged"
    assert "encrypted" in error.message


@pytest.mark.parametrize("pack", [tar_gz, zip_of])
@pytest.mark.parametrize(
    ("homes", "found"),
    [((), "none"), (("a/", "b/"), "'a/manifest.json', 'b/manifest.json'"), (("", "b/"), "'b/manifest.json'")],
)
def test_not_exactly_one_bundle(
    small: Path, tmp_path: Path, models: Path, pack: Callable[..., Path], homes: tuple[str, ...], found: str
) -> None:
    files = [member for home in homes for member in members_of(small, home)]
    error = refused(models, lambda: store.add_archive(pack(tmp_path / "a", ("README", b"x"), *files)))
    assert error.reason == "archive_refused"
    assert found in error.message


def test_a_bundle_that_is_too_deep(small: Path, tmp_path: Path, models: Path) -> None:
    archive = tar_gz(tmp_path / "a", *members_of(small, "home/out/"))
    assert refused(models, lambda: store.add_archive(archive)).reason == "archive_refused"


@pytest.mark.parametrize("name", ["model.onnx", "model_card.md"])
def test_a_damaged_bundle(small_with: MakeBundle, tmp_path: Path, models: Path, name: str) -> None:
    folder = small_with()
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    archive = zip_of(tmp_path / "a.zip", *members_of(folder))
    for source, add in ((archive, store.add_archive), (folder, store.add_folder)):
        error = refused(models, lambda source=source, add=add: add(source))  # type: ignore[misc]
        assert error.reason == "bundle_hash"
        assert f"{source}/{name}" in error.message


def test_a_small_without_one_of_its_files(small: Path, tmp_path: Path, models: Path) -> None:
    files = [member for member in members_of(small) if member[0] != "model.onnx"]
    assert refused(models, lambda: store.add_archive(tar_gz(tmp_path / "a", *files))).reason == "bundle_file_missing"


# Archives that mean harm


def special(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def zip_special(name: str, mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, (mode | 0o777) << 16
    return info


OUTSIDE = ("../evil", "b/../../evil", "/tmp/evil", "..", "b\\..\\..\\evil", "C:evil", "/", "model.onnx")


@pytest.mark.parametrize("pack", [tar_gz, zip_of])
@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_names_that_lead_outside_or_come_twice(
    small: Path, tmp_path: Path, models: Path, pack: Callable[..., Path], name: str
) -> None:
    archive = pack(tmp_path / "a", *members_of(small), (name, b"evil"))
    before = set(contents(tmp_path))
    error = refused(models, lambda: store.add_archive(archive))
    assert error.reason == "archive_refused"
    assert repr(name) in error.message
    assert set(contents(tmp_path)) - before <= {"models"}


@pytest.mark.parametrize(
    "member",
    [
        special("model_card.md", tarfile.SYMTYPE, "/etc/passwd"),
        special("b", tarfile.SYMTYPE, "/tmp"),
        special("copy", tarfile.LNKTYPE, "model.onnx"),
        special("pipe", tarfile.FIFOTYPE),
        special("device", tarfile.CHRTYPE),
        special("disk", tarfile.BLKTYPE),
    ],
    ids=lambda member: member.name,
)
def test_a_tar_with_links_and_devices(small: Path, tmp_path: Path, models: Path, member: tarfile.TarInfo) -> None:
    archive = tar_gz(tmp_path / "a", *members_of(small), (member, b""))
    error = refused(models, lambda: store.add_archive(archive))
    assert error.reason == "archive_refused"
    assert repr(member.name) in error.message


@pytest.mark.parametrize("mode", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_a_zip_with_links_and_devices(small: Path, tmp_path: Path, models: Path, mode: int) -> None:
    archive = zip_of(tmp_path / "a.zip", *members_of(small), (zip_special("odd", mode), b"/etc/passwd"))
    assert refused(models, lambda: store.add_archive(archive)).reason == "archive_refused"


@pytest.mark.parametrize("opener", [gzip.open, lzma.open])
def test_a_tar_that_says_it_is_huge(tmp_path: Path, models: Path, opener: Callable[..., io.IOBase]) -> None:
    """By its header alone: it is refused before its content is looked for, which would be 'cut'."""
    info = tarfile.TarInfo("manifest.json")
    info.size = 10**13
    with opener(tmp_path / "a", "wb") as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    error = refused(models, lambda: store.add_archive(tmp_path / "a"))
    assert error.reason == "archive_refused"


def test_a_tar_that_walks_backwards(tmp_path: Path, models: Path) -> None:
    """A negative size sends a naive reader round in circles."""
    info = tarfile.TarInfo("manifest.json")
    info.size = -512
    (tmp_path / "a").write_bytes(gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024)))
    assert refused(models, lambda: store.add_archive(tmp_path / "a")).reason in ("archive_refused", "bundle_damaged")


def test_a_tar_whose_header_is_a_bomb(tmp_path: Path, models: Path) -> None:
    """An extended header is read into memory as a whole: 64 MB of it here, in an archive of 64 kB."""
    info = special("x", tarfile.XHDTYPE)
    info.size = 64 << 20
    (tmp_path / "a").write_bytes(gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(info.size + 1024)))
    error = refused(models, lambda: store.add_archive(tmp_path / "a"))
    assert error.reason == "bundle_damaged"
    assert "a header of" in error.message


def test_a_zip_that_unpacks_to_more_than_allowed(
    small: Path, tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("msloc_edge.bundle.archive.MAX_UNPACKED", 2_000_000)
    bomb = [(f".zeros{number}", bytes(900_000)) for number in range(3)]
    archive = zip_of(tmp_path / "a.zip", *members_of(small), *bomb)
    assert refused(models, lambda: store.add_archive(archive)).reason == "archive_refused"
    store.add_archive(zip_of(tmp_path / "b.zip", *members_of(small), bomb[0]))


def test_a_zip_that_lies_about_its_size(small: Path, tmp_path: Path, models: Path) -> None:
    """No more than what it declares is unpacked, and that has another checksum."""
    archive = zip_of(tmp_path / "a.zip", ("manifest.json", bytes(5_000_000)))
    data = archive.read_bytes().replace((5_000_000).to_bytes(4, "little"), (1000).to_bytes(4, "little"))
    archive.write_bytes(data)
    assert refused(models, lambda: store.add_archive(archive)).reason == "bundle_damaged"


@pytest.mark.parametrize("pack", [tar_gz, zip_of])
def test_too_many_files(small: Path, tmp_path: Path, models: Path, pack: Callable[..., Path]) -> None:
    many = [(f"{number}", b"") for number in range(MAX_ENTRIES)]
    archive = pack(tmp_path / "a", *members_of(small), *many)
    assert refused(models, lambda: store.add_archive(archive)).reason == "archive_refused"


# Names


def test_a_name_of_ones_own(small: Path, models: Path) -> None:
    bundle = store.add_folder(small, "ward-3_v1.0")
    assert (bundle.path, bundle.name) == (models / "ward-3_v1.0", "tiny")
    assert Bundle.open("ward-3_v1.0").sha256 == bundle.sha256


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", "..", "-x", "a b", "é", "x" * 65, "a\n", "\x1b[31m"])
def test_a_name_that_cannot_be(small: Path, models: Path, name: str) -> None:
    error = refused(models, lambda: store.add_folder(small, name))
    assert error.reason == "option_invalid"
    assert repr(name) in error.message


@pytest.mark.parametrize("name", ["../evil", "My Model"])
def test_a_bundle_whose_own_name_cannot_be(small_with: MakeBundle, models: Path, name: str) -> None:
    folder = small_with(name=name)
    assert refused(models, lambda: store.add_folder(folder)).reason == "option_invalid"
    assert store.add_folder(folder, "mine").path == models / "mine"


@pytest.mark.parametrize("replace", [False, True])
def test_a_shipped_models_name_is_taken(small: Path, models: Path, replace: bool) -> None:
    error = refused(models, lambda: store.add_folder(small, "cxr-edge", replace))
    assert error.reason == "out_occupied"


def test_a_name_is_taken_until_it_is_replaced(small: Path, small_with: MakeBundle, models: Path) -> None:
    other = small_with(version="9.9")
    store.add_folder(small)
    error = refused(models, lambda: store.add_folder(other))
    assert error.reason == "out_occupied"
    assert "--replace" in error.message
    store.add_folder(other, replace=True)
    assert Bundle.open("tiny").version == "9.9"
    assert kept(models) == ["tiny"]


def test_a_taken_name_is_refused_before_the_download(packed: bytes, small: Path, models: Path, serve: Serve) -> None:
    store.add_folder(small)
    heard: list[int] = []
    error = refused(
        models,
        lambda: store.add_url(serve(packed), sha256(packed), "tiny", progress=lambda *told: heard.append(told[0])),
    )
    assert (error.reason, heard) == ("out_occupied", [])


def test_a_damaged_replacement_leaves_the_old_one(small: Path, small_with: MakeBundle, models: Path) -> None:
    store.add_folder(small)
    damaged = small_with(temperature=-1)
    assert refused(models, lambda: store.add_folder(damaged, replace=True)).reason == "bundle_damaged"
    assert Bundle.open("tiny").id == Bundle.open(small).id


# Ends midway


def test_ctrl_c_in_a_download(packed: bytes, models: Path, serve: Serve) -> None:
    def stop(done: int, total: int | None) -> None:
        assert [path.name[:7] for path in models.iterdir()] == [".msloc-"]
        assert installed_models() == ()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.add_url(serve(packed), sha256(packed), progress=stop)
    assert list(models.iterdir()) == []


@pytest.mark.parametrize("failing", [1, 2])
def test_ctrl_c_between_the_renames(
    small: Path, small_with: MakeBundle, models: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    store.add_folder(small)
    before = contents(models)
    rename, calls = Path.rename, []

    def stopped(path: Path, target: Path) -> Path:
        calls.append(path)
        if len(calls) == failing:
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", stopped)
    with pytest.raises(KeyboardInterrupt):
        store.add_folder(small_with(version="9.9"), replace=True)
    assert contents(models) == before


def test_a_file_that_may_not_grow(small: Path, models: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OutputError) as error:
            store.add_folder(small)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert error.value.reason == "out_unwritable"
    assert "MSLOC_MODELS" in error.value.message
    assert list(models.iterdir()) == []


def test_a_store_that_is_a_file(small: Path, models: Path) -> None:
    models.write_text("in the way")
    with pytest.raises(OutputError) as error:
        store.add_folder(small)
    assert error.value.reason == "out_unwritable"
    assert models.read_text() == "in the way"
    assert [known.where for known in store.known_models()] == ["shipped"]


def test_a_file_of_the_models_name(small: Path, models: Path) -> None:
    models.mkdir()
    (models / "tiny").write_text("in the way")
    for replace in (False, True):
        with pytest.raises(OutputError) as error:
            store.add_folder(small, replace=replace)
        assert error.value.reason == "out_unwritable"
    assert contents(models) == {"tiny": b"in the way"}


# What is known, and what goes


def test_known_models_with_a_damaged_one(small: Path, models: Path) -> None:
    store.add_folder(small, "a-whole-one")
    store.add_folder(small, "b-damaged")
    (models / "b-damaged" / "model.onnx").write_bytes(b"other")
    (models / "c-empty").mkdir()
    (models / "a file").write_text("")
    known = store.known_models()
    assert [(model.name, model.where) for model in known] == [
        ("cxr-edge", "shipped"),
        ("a-whole-one", "installed"),
        ("b-damaged", "installed"),
        ("c-empty", "installed"),
    ]
    reasons = [model.opened.reason if isinstance(model.opened, MslocError) else None for model in known]
    assert reasons == [None, None, "bundle_hash", "bundle_file_missing"]


def test_look_at_names_and_folders(small: Path, tmp_path: Path, models: Path) -> None:
    store.add_folder(small)
    assert [store.look_at(name).where for name in ("cxr-edge", "tiny", str(small))] == [
        "shipped",
        "installed",
        "folder",
    ]
    missing = store.look_at(str(tmp_path / "none"))
    assert isinstance(missing.opened, BundleError)
    assert missing.opened.reason == "bundle_missing"


def test_remove(small: Path, models: Path) -> None:
    store.add_folder(small)
    store.add_folder(small, "other")
    assert store.remove("tiny") == models / "tiny"
    assert kept(models) == ["other"]


@pytest.mark.parametrize("name", ["none", "cxr-edge", "..", ".", "", "../victim", "{absolute}"])
def test_remove_takes_only_names_of_installed_models(small: Path, tmp_path: Path, models: Path, name: str) -> None:
    store.add_folder(small)
    shutil.copytree(small, tmp_path / "victim")
    before = contents(tmp_path)
    with pytest.raises(BundleError) as error:
        store.remove(name.format(absolute=tmp_path / "victim"))
    assert error.value.reason == "bundle_missing"
    assert "(tiny)" in error.value.message
    assert contents(tmp_path) == before
    assert Bundle.open("cxr-edge").name == "cxr-edge"


def test_remove_takes_a_link_and_not_what_it_points_to(small: Path, models: Path) -> None:
    models.mkdir()
    (models / "linked").symlink_to(small)
    assert installed_models() == ("linked",)
    store.remove("linked")
    assert installed_models() == ()
    assert json.loads((small / "manifest.json").read_text())["name"] == "tiny"
