"""The listener as a service that real peers meet."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pydicom
import pytest
from dicom_peers import Listener, Orthanc, StoreScp, made_films

from msloc_edge.listen.config import Tls
from msloc_edge.listen.log import silence_libraries


@pytest.fixture(scope="session", autouse=True)
def silence() -> None:
    """As in the service: what pynetdicom logs of an error would also hold the error's socket."""
    silence_libraries()


@pytest.fixture(scope="session")
def films(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Forty films of forty studies."""
    return list(made_films(tmp_path_factory.mktemp("films"), range(40), size=64))


def needs(*programs: str) -> None:
    """Skip where a program is missing."""
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (Debian: dcmtk, orthanc, orthanc-dicomweb)")


@pytest.fixture
def storescp(tmp_path: Path) -> Iterator[Callable[..., StoreScp]]:
    """Starts nodes: storescp(*options) -> StoreScp."""
    needs("storescp", "storescu")
    started: list[StoreScp] = []

    def start(*options: str, **more: Any) -> StoreScp:
        started.append(StoreScp(tmp_path / f"node{len(started)}", *options, **more))
        return started[-1]

    yield start
    for node in started:
        node.stop()


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[Callable[..., Orthanc]]:
    """Starts archives: orthanc(**configuration) -> Orthanc."""
    needs("Orthanc")
    started: list[Orthanc] = []

    def start(**configuration: Any) -> Orthanc:
        started.append(Orthanc(tmp_path / f"orthanc{len(started)}", **configuration))
        return started[-1]

    yield start
    for archive in started:
        archive.stop()


@pytest.fixture(scope="session")
def one_box(tiny_bundle: Path, bundle_with: Callable[..., Path]) -> Path:
    """A bundle that finds its first class on every film, as one box over all of it, and no other."""
    count = len(json.loads((tiny_bundle / "manifest.json").read_text())["classes"])
    profile = {"score": [0.0] + [1.1] * (count - 1), "map": [-1e6] * count}
    return bundle_with(profiles={"first": profile}, default_profile="first")


@pytest.fixture
def listen(tmp_path: Path, one_box: Path) -> Iterator[Callable[..., Listener]]:
    """Starts listeners, all on one spool: listen(*nodes, die_at=0, **tables) -> Listener."""
    started: list[Listener] = []

    def start(*nodes: dict[str, Any], die_at: int = 0, **tables: Any) -> Listener:
        tables = {"model": {"model": str(one_box)}, "nodes": list(nodes), **tables}
        started.append(Listener(tmp_path / "listener", tables, die_at))
        return started[-1]

    yield start
    for listener in started:
        listener.kill()


@pytest.fixture(scope="session")
def uid_of() -> Callable[[Path], str]:
    """The SOP instance UID of a film."""
    return lambda path: str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Tls]:
    """Makes a certificate that signs itself: certificates(name) -> its files; `ca` is itself, too."""
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    folder = tmp_path_factory.mktemp("certificates")

    def make(name: str) -> Tls:
        key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(timezone.utc)
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        names = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
        builder = x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(now - timedelta(1)).not_valid_after(now + timedelta(1))
        builder = builder.add_extension(names, False).add_extension(x509.BasicConstraints(True, None), True)
        pem = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        (folder / f"{name}.pem").write_bytes(pem)
        (folder / f"{name}.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return Tls(str(folder / f"{name}.pem"), str(folder / f"{name}.key"), str(folder / f"{name}.pem"))

    return make
