"""msloc-edge models sign and verify, and what the other commands say of signatures, as a user runs them."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("cryptography", reason="cryptography is not installed")
pytestmark = [
    pytest.mark.usefixtures("models"),
    pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not installed"),
]

Run = Callable[..., Any]
PATIENCE = 120  # seconds until something that should happen counts as lost


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keys as docs/models.md has them made: vendor and other, each vendor.key.pem and vendor.pem; locked, by "open"."""
    folder = tmp_path_factory.mktemp("keys")
    openssl("genpkey", "-algorithm", "ed25519", "-out", folder / "vendor.key.pem")
    openssl("genpkey", "-algorithm", "ed25519", "-out", folder / "other.key.pem")
    openssl(
        *("pkey", "-in", folder / "vendor.key.pem", "-aes256", "-passout", "pass:open"),
        *("-out", folder / "locked.key.pem"),
    )
    for name in ("vendor", "other"):
        openssl("pkey", "-in", folder / f"{name}.key.pem", "-pubout", "-out", folder / f"{name}.pem")
    return folder


def openssl(*arguments: object) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


@pytest.fixture
def folder(bundle: Path, tmp_path: Path) -> Path:
    """A bundle named tiny that may be signed."""
    return shutil.copytree(bundle, tmp_path / "tiny")


@pytest.fixture
def trusted(keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "trusted_keys"
    place.mkdir()
    shutil.copy(keys / "vendor.pem", place)
    monkeypatch.setenv("MSLOC_TRUSTED_KEYS", str(place))
    return place


def test_the_documentations_commands(folder: Path, tmp_path: Path) -> None:
    """Each line of docs/models.md from the making of keys to the verifying of a signature, as a reader types them."""
    page = (Path(__file__).parents[2] / "docs" / "models.md").read_text()
    lines = [line.strip() for line in page.splitlines() if line.startswith(("    openssl ", "    msloc-edge "))]
    first = next(number for number, line in enumerate(lines) if line.startswith("openssl genpkey"))
    commands = lines[first : first + 4]
    assert [command.split()[:3][-1] for command in commands] == ["-algorithm", "-in", "sign", "verify"]
    shutil.copytree(folder, tmp_path / "out" / "bundle")
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for command in commands:
        done = subprocess.run(command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert '"state": "verified"' in done.stdout
    assert (tmp_path / "vendor.key.pem").stat().st_mode & 0o077 == 0  # openssl sees to it
    assert "chmod" not in done.stderr


def test_sign_then_verify(msloc: Run, folder: Path, keys: Path) -> None:
    signed = msloc("models", "sign", folder, "--key", keys / "vendor.key.pem")
    assert signed.code == 0
    [line] = signed.lines
    key = line["signature"]["key"]
    assert line["signature"] == {"key": key, "state": "key_unknown"}  # nobody is trusted here
    assert signed.err == f"signed {folder}: key {key}\n"
    ran = msloc("models", "verify", folder, "--trusted-key", keys / "other.pem", "--trusted-key", keys / "vendor.pem")
    assert (ran.code, ran.lines[0]["signature"]) == (0, {"key": key, "state": "verified"})
    assert f"whole, by {key[:12]}, sha256" in ran.err
    foreign = msloc("models", "verify", folder, "--trusted-key", keys / "other.pem")
    assert (foreign.code, foreign.reasons, foreign.lines[0]["whole"]) == (1, ["key_unknown"], False)
    unasked = msloc("models", "verify", folder)
    assert unasked.code == 0
    assert f"whole, by {key[:12]}, unknown, sha256" in unasked.err


def test_a_named_key_asks_every_model(msloc: Run, folder: Path, keys: Path) -> None:
    msloc("models", "sign", folder, "--key", keys / "vendor.key.pem")
    ran = msloc("models", "verify", "cxr-edge", folder, "--trusted-key", keys / "vendor.pem")
    assert (ran.code, ran.reasons) == (1, ["signature_missing"])
    assert [line["whole"] for line in ran.lines] == [False, True]
    missing = msloc("models", "verify", folder, "--trusted-key", keys / "none.pem")
    assert (missing.code, missing.reasons) == (1, ["key_unusable"])


def test_a_bad_signature_fails_unasked(msloc: Run, folder: Path, keys: Path, trusted: Path) -> None:
    msloc("models", "sign", folder, "--key", keys / "vendor.key.pem")
    content = (folder / "manifest.json").read_bytes()
    (folder / "manifest.json").write_bytes(content + b"\n")
    ran = msloc("models", "verify", folder)
    assert (ran.code, ran.reasons) == (1, ["signature_wrong"])
    shown = msloc("models", "show", folder)
    assert (shown.code, shown.lines[0]["signature"]["state"]) == (0, "signature_wrong")
    assert "signature: signature_wrong" in shown.err
    (folder / "manifest.sig").write_bytes(b"{")
    assert msloc("models", "verify", folder).reasons == ["signature_wrong"]


def test_where_a_key_is_trusted(msloc: Run, folder: Path, keys: Path, trusted: Path, films: Path, models: Path) -> None:
    unsigned = msloc("models", "add", folder)
    assert (unsigned.code, unsigned.lines, unsigned.reasons) == (1, [], ["signature_missing"])
    msloc("models", "sign", folder, "--key", keys / "vendor.key.pem")
    added = msloc("models", "add", folder)
    assert (added.code, added.lines[0]["signature"]["state"]) == (0, "verified")
    assert msloc("infer", films / "b.png", "--model", "tiny").code == 0
    (models / "tiny" / "manifest.sig").unlink()
    refused = msloc("infer", films / "b.png", "--model", "tiny")
    assert (refused.code, refused.lines, refused.reasons) == (1, [], ["signature_missing"])
    listed = msloc("models", "list")
    assert listed.code == 0
    assert listed.lines[0]["signature"] == {
        "key": None,
        "state": "signature_missing",
    }  # cxr-edge is part of the package
    assert (listed.lines[1]["whole"], listed.lines[1]["reason"]) == (False, "signature_missing")
    assert "unsigned" in listed.err
    assert "signature_missing" in listed.err


def test_list_and_show_say_whose(msloc: Run, folder: Path, keys: Path, trusted: Path) -> None:
    key = msloc("models", "sign", folder, "--key", keys / "vendor.key.pem").lines[0]["signature"]["key"]
    msloc("models", "add", folder)
    for ran in (msloc("models", "list"), msloc("models", "show", "tiny")):
        assert ran.lines[-1]["signature"] == {"key": key, "state": "verified"}
        assert f"by {key[:12]}" in ran.err


def test_signing_again_replaces(msloc: Run, folder: Path, keys: Path) -> None:
    for name in ("other", "vendor"):
        assert msloc("models", "sign", folder, "--key", keys / f"{name}.key.pem", "--quiet").err == ""
    assert msloc("models", "verify", folder, "--trusted-key", keys / "vendor.pem").code == 0


def test_a_damaged_bundle_is_not_signed(msloc: Run, folder: Path, keys: Path) -> None:
    (folder / "model_card.md").write_text("other")
    ran = msloc("models", "sign", folder, "--key", keys / "vendor.key.pem")
    assert (ran.code, ran.lines, ran.reasons) == (1, [], ["bundle_hash"])
    assert not (folder / "manifest.sig").exists()


@pytest.mark.parametrize(
    ("key", "reason"),
    [("vendor.pem", "key_unusable"), ("none.pem", "key_unusable"), ("locked.key.pem", "key_unusable")],
)
def test_keys_that_do_not_sign(
    msloc: Run, folder: Path, keys: Path, monkeypatch: pytest.MonkeyPatch, key: str, reason: str
) -> None:
    monkeypatch.delenv("MSLOC_KEY_PASSPHRASE", raising=False)
    ran = msloc("models", "sign", folder, "--key", keys / key)
    assert (ran.code, ran.lines, ran.reasons) == (1, [], [reason])
    assert not (folder / "manifest.sig").exists()


def test_a_locked_key(msloc: Run, folder: Path, keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MSLOC_KEY_PASSPHRASE", "open")
    assert msloc("models", "sign", folder, "--key", keys / "locked.key.pem").code == 0
    assert msloc("models", "verify", folder, "--trusted-key", keys / "vendor.pem").code == 0
    monkeypatch.setenv("MSLOC_KEY_PASSPHRASE", "shut")
    assert msloc("models", "sign", folder, "--key", keys / "locked.key.pem").reasons == ["key_unusable"]


def test_a_passphrase_that_is_asked_for(folder: Path, keys: Path) -> None:
    """On a terminal, and not shown there."""
    script = Path(sys.executable).with_name("msloc-edge")
    environment = {name: value for name, value in os.environ.items() if name != "MSLOC_KEY_PASSPHRASE"}
    terminal, own = pty.openpty()
    ends = {"stdin": own, "stdout": own, "stderr": own}
    command = [script, "models", "sign", folder, "--key", keys / "locked.key.pem"]
    process = subprocess.Popen(command, **ends, env=environment, start_new_session=True)
    os.close(own)
    seen = b""
    while b"passphrase of the key: " not in seen:
        seen += os.read(terminal, 1 << 10)
    os.write(terminal, b"open\n")
    try:
        while block := os.read(terminal, 1 << 10):
            seen += block
    except OSError:  # Linux says so when nobody is left at the other end
        pass
    os.close(terminal)
    assert process.wait() == 0
    assert b"signed" in seen
    assert b"open\r" not in seen
    assert (folder / "manifest.sig").is_file()


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o400, False), (0o640, True), (0o644, True)])
def test_a_key_that_others_may_read(
    msloc: Run, folder: Path, keys: Path, tmp_path: Path, mode: int, warned: bool
) -> None:
    key = Path(shutil.copy(keys / "vendor.key.pem", tmp_path))
    key.chmod(mode)
    ran = msloc("models", "sign", folder, "--key", key)
    assert ran.code == 0
    assert (f"chmod 600 {key}" in ran.err) is warned


def test_a_signature_that_cannot_be_written(msloc: Run, folder: Path, keys: Path) -> None:
    (folder / "manifest.sig").mkdir()
    ran = msloc("models", "sign", folder, "--key", keys / "vendor.key.pem")
    assert (ran.code, ran.reasons) == (1, ["out_unwritable"])


def test_rollback(msloc: Run, bundle_with: Callable[..., Path]) -> None:
    new, old = bundle_with(version="2.0"), bundle_with(version="1.0")
    assert msloc("models", "add", new).code == 0
    refused = msloc("models", "add", old, "--replace")
    assert (refused.code, refused.lines, refused.reasons) == (1, [], ["bundle_rollback"])
    msloc("models", "remove", "tiny")
    assert msloc("models", "add", old).reasons == ["bundle_rollback"]
    allowed = msloc("models", "add", old, "--allow-rollback")
    assert (allowed.code, allowed.lines[0]["model"]["version"]) == (0, "1.0")
