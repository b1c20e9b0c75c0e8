"""Signatures of bundles: Ed25519 (RFC 8032) over the manifest, and the public keys that this machine trusts.

    manifest.sig   {"schema": "msloc-edge/signature/1", "key": KEYID, "signature": base64 of 64 bytes}
    KEYID          sha256 of the public key's DER form (SubjectPublicKeyInfo): which key, without the key
    signed         the schema's name, a newline, then the bytes of manifest.json, which holds all other hashes

The schema's name comes first so that a key that also signs other documents cannot be made to sign a bundle by way of
one of them. A signature file has one spelling: every other byte in it is damage.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msloc_edge.errors import BundleError, DependencyError, MslocError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SIGNATURE = "manifest.sig"
SCHEMA = "msloc-edge/signature/1"

_KEY_ID = re.compile(r"[0-9a-f]{64}")


def trusted_keys() -> list[Path]:
    """The public keys that this machine trusts: *.pem in MSLOC_TRUSTED_KEYS, or in the user's data folder.

    An empty list where the user's folder is not there. Raises BundleError (key_unusable) for a folder that cannot be
    read or holds no key, or that MSLOC_TRUSTED_KEYS names and is not there: keys under a mistyped name must not mean
    that everything is trusted.
    """
    named = os.environ.get("MSLOC_TRUSTED_KEYS")
    data = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    folder = Path(named) if named else Path(data) / "msloc-edge" / "trusted_keys"
    try:
        keys = sorted(path for path in folder.iterdir() if path.suffix == ".pem")
    except FileNotFoundError:
        keys = []
    except OSError as error:
        raise BundleError(
            "key_unusable", f"{folder}: cannot be read ({error.strerror}); expected a folder with trusted keys"
        ) from error
    if not keys and (named or os.path.lexists(folder)):
        raise BundleError("key_unusable", f"{folder}: expected a folder with trusted keys (*.pem), and found none")
    return keys


def require_trusted(folder: Path, manifest: bytes) -> None:
    """Hold a bundle to the policy: where a key is trusted, its signature is needed; where none is, none is.

    It is asked for models that are, or are to be, installed. A shipped model is part of the package, as this line is.
    Raises what `signer` and `trusted_keys` raise.
    """
    if keys := trusted_keys():
        signer(folder, manifest, keys)


def signer(folder: Path, manifest: bytes, keys: Sequence[Path]) -> str:
    """The id of the key, one of the public `keys`, that signed the manifest of the bundle in `folder`.

    Raises BundleError: signature_missing, signature_wrong, key_unknown, key_unusable; DependencyError: package_missing.
    """
    found = read(folder)
    if found is None:
        raise BundleError("signature_missing", f"{folder}: is not signed; expected a {SIGNATURE} of a trusted key")
    key, signature = found
    known = {}
    for file in keys:
        public = _public_key(file)
        known[_key_id(public)] = public
    if key not in known:
        raise BundleError(
            "key_unknown",
            f"{folder}: signed by the key {key[:12]}..., expected one of {', '.join(k[:12] for k in known) or 'none'}; "
            "ask who signed it, and trust that key or do not use it",
        )
    from cryptography.exceptions import InvalidSignature

    try:
        known[key].verify(signature, _signed(manifest))
    except InvalidSignature as error:
        raise BundleError(
            "signature_wrong",
            f"{folder}: its manifest is not the one that the key {key[:12]}... signed; copy the bundle again, and do "
            "not use this one",
        ) from error
    return key


def state(folder: Path, manifest: bytes, keys: Sequence[Path] | None = None) -> tuple[str | None, str]:
    """The key id that a bundle's signature states, if any, and "verified", or the reason why it is not.

    The keys are the trusted ones by default.
    """
    key = None
    try:
        if found := read(folder):
            key = found[0]
        signer(folder, manifest, trusted_keys() if keys is None else keys)
    except MslocError as error:
        return key, error.reason
    return key, "verified"


def read(folder: Path) -> tuple[str, bytes] | None:
    """Key id and signature as a bundle's signature file states them, unchecked; None without one.

    Raises BundleError: signature_wrong.
    """
    try:
        with (folder / SIGNATURE).open("rb") as file:
            content = file.read(1024)  # more than one ever has
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BundleError(
            "signature_wrong", f"{folder / SIGNATURE}: cannot be read ({error.strerror}); copy the bundle again"
        ) from error
    try:
        record = json.loads(content)
        key, signature = str(record["key"]), base64.b64decode(record["signature"])
        if not _KEY_ID.fullmatch(key) or len(signature) != 64 or content != _content(key, signature):
            raise ValueError
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BundleError(
            "signature_wrong", f"{folder / SIGNATURE}: expected a {SCHEMA}, got something else; copy the bundle again"
        ) from error
    return key, signature


def sign(manifest: bytes, key: Path, passphrase: Callable[[], str]) -> bytes:
    """The signature file for a manifest, by the private key in a PEM file; `passphrase` is asked if it needs one.

    Raises BundleError: key_unusable; DependencyError: package_missing.
    """
    private = _private_key(key, passphrase)
    return _content(_key_id(private.public_key()), private.sign(_signed(manifest)))


def _signed(manifest: bytes) -> bytes:
    return SCHEMA.encode() + b"\n" + manifest


def _content(key: str, signature: bytes) -> bytes:
    record = {"schema": SCHEMA, "key": key, "signature": base64.b64encode(signature).decode()}
    return json.dumps(record, indent=1).encode() + b"\n"


def _key_id(key: Ed25519PublicKey) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def _public_key(file: Path) -> Ed25519PublicKey:
    pem = _pem(file)
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _unusable(file, "public", "a private one" if b"PRIVATE KEY" in pem else "something else") from error
    if not isinstance(key, Ed25519PublicKey):
        raise _unusable(file, "public", "one of another kind")
    return key


def _private_key(file: Path, passphrase: Callable[[], str]) -> Ed25519PrivateKey:
    pem = _pem(file)
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    locked = b"ENCRYPTED" in pem  # in the first line of PKCS #8, in a header of older forms
    password = passphrase().encode() if locked else None
    try:
        key = load_pem_private_key(pem, password)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        if locked:
            raise BundleError("key_unusable", f"{file}: cannot be opened with this passphrase; check both") from error
        raise _unusable(file, "private", "a public one" if b"PUBLIC KEY" in pem else "something else") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise _unusable(file, "private", "one of another kind")
    return key


def _pem(file: Path) -> bytes:
    """Bytes of a key's file, once the package is here that reads them."""
    try:
        import cryptography  # noqa: F401
    except ImportError as error:
        raise DependencyError(
            "package_missing",
            f"{error}: signatures need the package cryptography; install it with: pip install 'msloc-edge[sign]'",
        ) from error
    try:
        return file.read_bytes()
    except OSError as error:
        raise BundleError(
            "key_unusable", f"{file}: cannot be read ({error.strerror}); expected a key in PEM"
        ) from error


def _unusable(file: Path, kind: str, found: str) -> BundleError:
    return BundleError("key_unusable", f"{file}: expected an Ed25519 {kind} key in PEM, got {found}")
