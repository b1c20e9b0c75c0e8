"""Signatures of bundles: what was signed by a trusted key is taken, and every other byte of it refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msloc_edge import Bundle
from msloc_edge.bundle import signature, store
from msloc_edge.errors import BundleError

pytest.importorskip("cryptography", reason="cryptography is not installed")

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

MANIFEST = b'{"schema": "msloc-edge/bundle/1", "files": {}}'
SEED = bytes(range(32))


def never() -> str:
    raise AssertionError("no passphrase is needed")


def write_keys(folder: Path, name: str, private: Any, passphrase: str | None = None) -> tuple[Path, Path]:
    """A private and a public key in PEM, as openssl writes them: name.key.pem, name.pem."""
    lock = BestAvailableEncryption(passphrase.encode()) if passphrase else NoEncryption()
    files = folder / f"{name}.key.pem", folder / f"{name}.pem"
    files[0].write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, lock))
    files[1].write_bytes(private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    files[0].chmod(0o600)
    return files


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ours and theirs (Ed25519), locked (passphrase "open"), rsa."""
    folder = tmp_path_factory.mktemp("keys")
    write_keys(folder, "ours", Ed25519PrivateKey.from_private_bytes(SEED))
    write_keys(folder, "theirs", Ed25519PrivateKey.generate())
    write_keys(folder, "locked", Ed25519PrivateKey.from_private_bytes(SEED), "open")
    write_keys(folder, "rsa", rsa.generate_private_key(65537, 2048))
    return folder


@pytest.fixture(scope="module")
def signed(keys: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with nothing but a manifest and its signature; copy before changing it."""
    folder = tmp_path_factory.mktemp("signed")
    (folder / "manifest.json").write_bytes(MANIFEST)
    (folder / "manifest.sig").write_bytes(signature.sign(MANIFEST, keys / "ours.key.pem", never))
    return folder


@pytest.fixture
def bundle(tiny_bundle: Path, keys: Path, tmp_path: Path) -> Path:
    """A real bundle with our signature, which a test may change."""
    folder = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    (folder / "manifest.sig").write_bytes(
        signature.sign((folder / "manifest.json").read_bytes(), keys / "ours.key.pem", never)
    )
    return folder


@pytest.fixture
def trusted(keys: Path, tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of trusted keys with ours in it, on a machine with an empty store."""
    folder = tmp_path / "trusted"
    folder.mkdir()
    shutil.copy(keys / "ours.pem", folder)
    monkeypatch.setenv("MSLOC_TRUSTED_KEYS", str(folder))
    return folder


def reason_of(folder: Path, manifest: bytes, *public: Path) -> str:
    with pytest.raises(BundleError) as error:
        signature.signer(folder, manifest, public)
    assert "\n" not in error.value.message
    return error.value.reason


# The signature


def test_whose_it_is(signed: Path, keys: Path) -> None:
    ours = signature.signer(signed, MANIFEST, [keys / "theirs.pem", keys / "ours.pem"])
    assert ours == json.loads((signed / "manifest.sig").read_text())["key"]
    assert signature.state(signed, MANIFEST, [keys / "ours.pem"]) == (ours, "verified")
    assert signature.state(signed, MANIFEST, [keys / "theirs.pem"]) == (ours, "key_unknown")
    assert signature.state(signed, MANIFEST, []) == (ours, "key_unknown")
    assert signature.state(signed, MANIFEST + b" ", [keys / "ours.pem"]) == (ours, "signature_wrong")
    assert signature.state(keys, MANIFEST, [keys / "ours.pem"]) == (None, "signature_missing")


def test_the_format_stays(signed: Path) -> None:
    """Ed25519 gives one signature for a key and a message: these bytes were written by the first version."""
    assert json.loads((signed / "manifest.sig").read_text()) == {
        "schema": "msloc-edge/signature/1",
        "key": "a050837d85070582ccf7394b0988847cc312cb88259b894899f6f239cf1791a5",
        "signature": "gq99g1XKhkYeeI29G2SbVKN1dtPGVGXfLZ06z9Wav/jNuI7idNS/jiSTj2mqpeG00n65oO///KKAgXH+FLiTDA==",
    }


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not installed")
def test_openssl_agrees(signed: Path, keys: Path, tmp_path: Path) -> None:
    """Key id and signature by another implementation, from what the documentation says of them."""
    import base64
    import hashlib

    record = json.loads((signed / "manifest.sig").read_text())
    der = subprocess.run(
        ["openssl", "pkey", "-pubin", "-in", keys / "ours.pem", "-outform", "DER"], capture_output=True, check=True
    )
    assert hashlib.sha256(der.stdout).hexdigest() == record["key"]
    (tmp_path / "message").write_bytes(b"msloc-edge/signature/1\n" + MANIFEST)
    (tmp_path / "raw").write_bytes(base64.b64decode(record["signature"]))
    verify = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", keys / "ours.pem", "-rawin"]
    done = subprocess.run([*verify, "-in", tmp_path / "message", "-sigfile", tmp_path / "raw"], capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (tmp_path / "message").write_bytes(MANIFEST)
    done = subprocess.run([*verify, "-in", tmp_path / "message", "-sigfile", tmp_path / "raw"], capture_output=True)
    assert done.returncode == 1, "a signature of the bare manifest is no signature of the bundle"


@settings(max_examples=60)
@given(st.integers(0, len(MANIFEST) * 8 - 1))
def test_one_bit_of_the_manifest(signed: Path, keys: Path, bit: int) -> None:
    changed = bytearray(MANIFEST)
    changed[bit // 8] ^= 1 << bit % 8
    assert reason_of(signed, bytes(changed), keys / "ours.pem") == "signature_wrong"


@settings(max_examples=120)
@given(st.data())
def test_one_bit_of_the_signature(
    signed: Path, keys: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray((signed / "manifest.sig").read_bytes())
    bit = data.draw(st.integers(0, len(content) * 8 - 1))
    content[bit // 8] ^= 1 << bit % 8
    folder = tmp_path_factory.mktemp("flipped")
    (folder / "manifest.sig").write_bytes(content)
    assert reason_of(folder, MANIFEST, keys / "ours.pem") in ("signature_wrong", "key_unknown")


def spelled(**entries: Any) -> bytes:
    """A signature file with entries replaced; one of None goes."""
    record = {"schema": "msloc-edge/signature/1", "key": "0" * 64, "signature": "A" * 86 + "=="} | entries
    return json.dumps({key: value for key, value in record.items() if value is not None}, indent=1).encode() + b"\n"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"signed",
        b"\xff\xfe",
        b"[]",
        b"null",
        bytes(100_000),
        b"[" * 1024,
        spelled()[:-20],
        spelled()[:-1],
        spelled() + b"\n",
        spelled().replace(b"\n", b"\r\n"),
        spelled(schema="msloc-edge/signature/2"),
        spelled(schema=None),
        spelled(key=None),
        spelled(key=0),
        spelled(key="0" * 63),
        spelled(key="A" * 64),
        spelled(key="\x1b[31m" + "0" * 59),
        spelled(signature=None),
        spelled(signature=5),
        spelled(signature=""),
        spelled(signature="A" * 84),
        spelled(signature="A" * 85 + "B=="),  # bits that base64 ignores
        spelled(signature="é" * 88),
        spelled(more=1),
    ],
)
def test_a_signature_that_is_none(tmp_path: Path, keys: Path, content: bytes) -> None:
    (tmp_path / "manifest.sig").write_bytes(content)
    assert reason_of(tmp_path, MANIFEST, keys / "ours.pem") == "signature_wrong"


def test_the_spelling_itself_is_right(tmp_path: Path, keys: Path) -> None:
    (tmp_path / "manifest.sig").write_bytes(spelled())
    assert reason_of(tmp_path, MANIFEST, keys / "ours.pem") == "key_unknown"


def test_a_signature_that_is_a_folder(tmp_path: Path, keys: Path) -> None:
    (tmp_path / "manifest.sig").mkdir()
    assert reason_of(tmp_path, MANIFEST, keys / "ours.pem") == "signature_wrong"


# Keys


@pytest.mark.parametrize(
    ("name", "reason", "says"),
    [
        ("ours.key.pem", "key_unusable", "got a private one"),
        ("rsa.pem", "key_unusable", "got one of another kind"),
        ("garbage.pem", "key_unusable", "got something else"),
        ("none.pem", "key_unusable", "No such file"),
        (".", "key_unusable", "Is a directory"),
    ],
)
def test_public_keys_that_cannot_be(signed: Path, keys: Path, name: str, reason: str, says: str) -> None:
    (keys / "garbage.pem").write_bytes(b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")
    with pytest.raises(BundleError, match=says) as error:
        signature.signer(signed, MANIFEST, [keys / name])
    assert error.value.reason == reason


@pytest.mark.parametrize(
    ("name", "reason", "says"),
    [
        ("ours.pem", "key_unusable", "got a public one"),
        ("rsa.key.pem", "key_unusable", "got one of another kind"),
        ("cut.key.pem", "key_unusable", "got something else"),
        ("none.key.pem", "key_unusable", "No such file"),
    ],
)
def test_private_keys_that_cannot_be(keys: Path, name: str, reason: str, says: str) -> None:
    (keys / "cut.key.pem").write_bytes((keys / "ours.key.pem").read_bytes()[:60])
    with pytest.raises(BundleError, match=says) as error:
        signature.sign(MANIFEST, keys / name, never)
    assert error.value.reason == reason


def test_a_locked_key(keys: Path) -> None:
    unlocked = signature.sign(MANIFEST, keys / "ours.key.pem", never)
    assert signature.sign(MANIFEST, keys / "locked.key.pem", lambda: "open") == unlocked
    for wrong in ("shut", ""):
        with pytest.raises(BundleError) as error:
            signature.sign(MANIFEST, keys / "locked.key.pem", lambda wrong=wrong: wrong)  # type: ignore[misc]
        assert error.value.reason == "key_unusable"


def test_where_trusted_keys_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MSLOC_TRUSTED_KEYS", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert signature.trusted_keys() == []
    home, named = tmp_path / "msloc-edge" / "trusted_keys", tmp_path / "named"
    for folder in (home, named):
        folder.mkdir(parents=True)
        (folder / "README").write_text("not a key")
    with pytest.raises(BundleError, match="expected a folder with trusted keys") as error:
        signature.trusted_keys()
    assert error.value.reason == "key_unusable"
    (home / "b.pem").write_text("")
    (home / "a.pem").write_text("")
    assert signature.trusted_keys() == [home / "a.pem", home / "b.pem"]
    (named / "c.pem").write_text("")
    monkeypatch.setenv("MSLOC_TRUSTED_KEYS", str(named))
    assert signature.trusted_keys() == [named / "c.pem"]


@pytest.mark.parametrize("what", ["missing", "empty", "a file"])
def test_a_named_folder_without_keys_is_no_licence(
    bundle: Path, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    folder = tmp_path / "keys"
    if what == "empty":
        folder.mkdir()
    elif what == "a file":
        folder.write_text("")
    monkeypatch.setenv("MSLOC_TRUSTED_KEYS", str(folder))
    with pytest.raises(BundleError) as error:
        store.add_folder(bundle)
    assert error.value.reason == "key_unusable"
    assert str(folder) in error.value.message


# The policy


def test_a_signed_bundle_is_installed_and_opened(bundle: Path, trusted: Path, models: Path) -> None:
    archive = Path(shutil.make_archive(str(bundle.parent / "packed"), "zip", bundle))
    for installed in (store.add_folder(bundle), store.add_archive(archive, replace=True)):
        assert (installed.path / "manifest.sig").read_bytes() == (bundle / "manifest.sig").read_bytes()
        assert Bundle.open("tiny").sha256 == installed.sha256


def test_other_models_stay_open(tiny_bundle: Path, trusted: Path) -> None:
    """What ships with the package, and a folder that is named by its path: nobody installed it."""
    assert Bundle.open("cxr-edge").name == "cxr-edge"
    assert Bundle.open(tiny_bundle).name == "tiny"


def change(bundle: Path, how: str, keys: Path) -> None:
    manifest = bundle / "manifest.json"
    if how == "unsigned":
        (bundle / "manifest.sig").unlink()
    elif how == "signed by others":
        content = signature.sign(manifest.read_bytes(), keys / "theirs.key.pem", never)
        (bundle / "manifest.sig").write_bytes(content)
    elif how == "other manifest":
        manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"version": "9.9"}))
    elif how == "cut signature":
        (bundle / "manifest.sig").write_bytes((bundle / "manifest.sig").read_bytes()[:-30])
    elif how == "other file":
        (bundle / "model_card.md").write_bytes(b"# other\n")
    elif how == "signature among the files":
        record = json.loads(manifest.read_text())
        record["files"]["manifest.sig"] = "0" * 64
        manifest.write_text(json.dumps(record))
        (bundle / "manifest.sig").write_bytes(signature.sign(manifest.read_bytes(), keys / "ours.key.pem", never))


CHANGES = [
    ("unsigned", "signature_missing"),
    ("signed by others", "key_unknown"),
    ("other manifest", "signature_wrong"),
    ("cut signature", "signature_wrong"),
    ("other file", "bundle_hash"),
    ("signature among the files", "bundle_damaged"),
]


@pytest.mark.parametrize(("how", "reason"), CHANGES)
def test_what_is_not_installed(bundle: Path, trusted: Path, models: Path, keys: Path, how: str, reason: str) -> None:
    change(bundle, how, keys)
    with pytest.raises(BundleError) as error:
        store.add_folder(bundle)
    assert error.value.reason == reason
    assert str(bundle) in error.value.message
    assert ".msloc-" not in error.value.message
    assert list(models.iterdir()) == []


@pytest.mark.parametrize(("how", "reason"), CHANGES)
@pytest.mark.parametrize("way", ["name", "path", "relative", "inside", "link"])
def test_what_is_not_opened(
    bundle: Path,
    trusted: Path,
    models: Path,
    keys: Path,
    monkeypatch: pytest.MonkeyPatch,
    way: str,
    how: str,
    reason: str,
) -> None:
    """An installed model that changed later, whatever way leads to it."""
    if way == "link":
        models.mkdir()
        (models / "tiny").symlink_to(bundle)
        change(bundle, how, keys)
    else:
        change(store.add_folder(bundle).path, how, keys)
    models.with_name("way").symlink_to(models)
    monkeypatch.chdir(models / "tiny" if way == "inside" and not (models / "tiny").is_symlink() else models.parent)
    model = {"path": models / "tiny", "relative": Path("way/../models/tiny"), "inside": Path()}.get(way, "tiny")
    with pytest.raises(BundleError) as error:
        Bundle.open(model)
    assert error.value.reason == reason


def test_trust_that_comes_later(bundle: Path, models: Path, keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.add_folder(bundle)
    change(models / "tiny", "unsigned", keys)
    assert Bundle.open("tiny").name == "tiny"
    monkeypatch.setenv("MSLOC_TRUSTED_KEYS", str(keys / "trusted"))
    (keys / "trusted").mkdir()
    shutil.copy(keys / "theirs.pem", keys / "trusted")
    with pytest.raises(BundleError) as error:
        Bundle.open("tiny")
    assert error.value.reason == "signature_missing"


def test_two_trusted_keys(bundle: Path, trusted: Path, keys: Path) -> None:
    """As while one is replaced by another."""
    shutil.copy(keys / "theirs.pem", trusted)
    store.add_folder(bundle)
    change(bundle, "signed by others", keys)
    assert store.add_folder(bundle, replace=True).name == "tiny"


@pytest.mark.parametrize("unusable", ["rsa.pem", "ours.key.pem"])
def test_an_unusable_trusted_key_is_no_licence(bundle: Path, trusted: Path, keys: Path, unusable: str) -> None:
    shutil.copy(keys / unusable, trusted)
    with pytest.raises(BundleError) as error:
        store.add_folder(bundle)
    assert error.value.reason == "key_unusable"
    assert unusable in error.value.message


# The package


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_without_trust_the_package_is_not_loaded(bundle: Path, models: Path) -> None:
    store.add_folder(bundle)
    code = "import sys; from msloc_edge import Bundle; Bundle.open('tiny'); print('cryptography' in sys.modules)"
    assert run(code) == "False"


def test_without_the_package(bundle: Path, trusted: Path) -> None:
    store.add_folder(bundle)
    code = (
        "import sys; sys.modules['cryptography'] = None\n"
        "from msloc_edge import Bundle\nfrom msloc_edge.errors import DependencyError\n"
        "Bundle.open('cxr-edge')\n"
        "try:\n    Bundle.open('tiny')\nexcept DependencyError as error:\n    print(error.reason, error.message)"
    )
    said = run(code)
    assert said.startswith("package_missing ")
    assert said.endswith("pip install 'msloc-edge[sign]'")
