"""The configuration of the listener, one TOML file: what each option means, its range, and its default."""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

from msloc_edge._config import check, from_plain, option
from msloc_edge.backends import BACKENDS, DEFAULT_BACKEND
from msloc_edge.bundle import DEFAULT_MODEL
from msloc_edge.doctor.places import DICOM_PORT  # doctor runs without numpy, so the constant stands there
from msloc_edge.errors import ListenError
from msloc_edge.objects import KINDS
from msloc_edge.types import PRECISIONS

MODALITIES = ("CR", "DX", "RG")


def _check_ae_title(title: str) -> None:
    """PS3.5 table 6.2-1, AE: at most 16 characters, no backslash, no control characters, not blank."""
    if not title.strip() or len(title) > 16 or not title.isascii() or not title.isprintable() or "\\" in title:
        raise ValueError(f"expected an AE title of 1 to 16 plain characters, got {title!r}")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class _Checked:
    """A table of which every field is held against its `option`."""

    __slots__ = ()

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True, slots=True)
class Tls:
    """Certificates of one side, PEM files; without `cert` and `key` it has none."""

    cert: str = option("", "Own certificate, with its chain.")
    key: str = option("", "Private key of it.")
    ca: str = option("", "Certificates that the peer's has to come from.")

    def __post_init__(self) -> None:
        if bool(self.cert) != bool(self.key):
            raise ValueError("expected cert and key, got one of them")


@dataclass(frozen=True, slots=True)
class Receive:
    """The side that films come in by."""

    ae_title: str = option("MSLOC_EDGE", "Own AE title, which callers must call.")
    host: str = option("127.0.0.1", "Address to listen on; another than loopback needs calling_ae_titles.")
    port: int = option(DICOM_PORT, "Port to listen on; 0: any free one, which the log tells.", min=0, max=65535)
    calling_ae_titles: tuple[str, ...] = option((), "AE titles that may send; none: any, from this machine.")
    max_associations: int = option(16, "Associations at a time; one more is rejected.", min=1, max=256)
    max_pdu: int = option(131072, "Longest PDU that is asked for, bytes.", min=4096, max=1 << 20)
    max_object_mb: int = option(256, "Largest object; the association of a larger one is closed.", min=1, max=1000)
    timeout_s: float = option(30.0, "Silence after which a peer is given up.", above=0, max=3600)
    tls: Tls | None = None

    def __post_init__(self) -> None:
        check(self)
        for title in (self.ae_title, *self.calling_ae_titles):
            _check_ae_title(title)
        if not self.calling_ae_titles and not _is_loopback(self.host):
            raise ValueError(
                f"expected calling_ae_titles, since other machines reach {self.host!r}, got none; name who may send"
            )
        if self.tls and not self.tls.cert:
            raise ValueError("expected cert and key in tls, got none")


@dataclass(frozen=True, slots=True)
class Take(_Checked):
    """The films that are localized; any other is acknowledged, and passed over."""

    modalities: tuple[str, ...] = option(MODALITIES, "Modalities; films without one are taken, too.", distinct=True)
    body_parts: tuple[str, ...] = option((), "Parts of Body Part Examined, any of which it has to hold; none: all.")
    without_body_part: bool = option(True, "Films that name no body part are taken, too.")


@dataclass(frozen=True, slots=True)
class Model(_Checked):
    """The model, and what runs it."""

    model: str = option(DEFAULT_MODEL, "Name of a model that is here, or bundle folder.")
    backend: str = option(DEFAULT_BACKEND, "Backend.", choices=tuple(BACKENDS))
    device: str | None = option(None, "Device as the backend names it.")
    precision: str = option("fp32", "Arithmetic of the network.", choices=PRECISIONS)
    profile: str | None = option(None, "Threshold profile; the model's default if none.")
    workers: int = option(2, "Films that are read, and whose objects are written, at a time.", min=1, max=64)


@dataclass(frozen=True, slots=True)
class Limits(_Checked):
    """Bounds beyond which a film is answered with A700 (out of resources), so that its sender keeps it."""

    queue_films: int = option(10_000, "Films that wait to be localized.", min=1)
    free_disk_mb: int = option(500, "Free space that has to remain in the spool.", min=0)


@dataclass(frozen=True, slots=True)
class Retry(_Checked):
    """Delivery to a node that does not take an object."""

    first_s: float = option(1.0, "Pause after the first failure; each further one doubles it.", above=0)
    max_s: float = option(600.0, "Longest pause.", above=0)
    give_up_hours: float = option(168.0, "Age at which an object is listed as failed.", above=0)

    def pause(self, failures: int) -> float:
        """Seconds to wait after so many failures in a row.

        >>> Retry(first_s=1.0, max_s=10.0).pause(4)
        8.0
        """
        return min(self.max_s, self.first_s * 2.0 ** min(failures - 1, 60))


@dataclass(frozen=True, slots=True)
class Keep(_Checked):
    """How long things stay after every node has confirmed a film's objects; until then nothing is deleted."""

    files_hours: float = option(0.0, "The film and its objects.", min=0)
    records_days: float = option(30.0, "The film's record, by which it is known when it is sent again.", above=0)


@dataclass(frozen=True, slots=True)
class Metrics(_Checked):
    """The local port for /metrics (Prometheus) and /health."""

    host: str = option("127.0.0.1", "Address.")
    port: int = option(9112, "Port; 0: any free one, which the log tells.", min=0, max=65535)


@dataclass(frozen=True, slots=True)
class Node:
    """A receiver of objects: by C-STORE (ae_title, host, port), or by STOW-RS (url)."""

    name: str = option(MISSING, "Name in logs and lists.")
    objects: tuple[str, ...] = option(MISSING, f"Kinds of objects it gets: {', '.join(KINDS)}.", distinct=True)
    ae_title: str = option("", "Its AE title.")
    host: str = option("", "Its address.")
    port: int = option(0, "Its port.", min=0, max=65535)
    url: str = option("", "Its DICOMweb root, such as https://pacs/dicom-web.")
    timeout_s: float = option(30.0, "Silence after which it is given up.", above=0, max=3600)
    tls: Tls | None = None

    def __post_init__(self) -> None:
        check(self)
        if unknown := sorted(set(self.objects) - set(KINDS)):
            raise ValueError(f"expected objects to be some of {', '.join(KINDS)}, got {', '.join(unknown)}")
        dimse = bool(self.ae_title and self.host and self.port)
        if bool(self.url) == dimse or (self.url and (self.ae_title or self.host or self.port)):
            raise ValueError("expected ae_title, host and port, or url")
        if self.url and not self.url.startswith(("http://", "https://")):
            raise ValueError(f"expected url to begin with http:// or https://, got {self.url!r}")
        if dimse:
            _check_ae_title(self.ae_title)


@dataclass(frozen=True, slots=True)
class Archive:
    """The archive that `listen --pull` asks for films: it knows our AE title, and sends them to it."""

    ae_title: str = option(MISSING, "Its AE title.")
    host: str = option(MISSING, "Its address.")
    port: int = option(MISSING, "Its port.", min=1, max=65535)
    timeout_s: float = option(60.0, "Silence after which it is given up.", above=0, max=3600)
    tls: Tls | None = None

    def __post_init__(self) -> None:
        check(self)
        _check_ae_title(self.ae_title)


@dataclass(frozen=True, slots=True)
class ListenConfig:
    """A listener: where films come from, what is done with them, where objects go."""

    spool: str = option(MISSING, "Folder for films, objects and the journal.")
    receive: Receive = Receive()
    take: Take = Take()
    model: Model = Model()
    limits: Limits = Limits()
    retry: Retry = Retry()
    keep: Keep = Keep()
    metrics: Metrics = Metrics()
    nodes: tuple[Node, ...] = ()
    archive: Archive | None = None

    def __post_init__(self) -> None:
        names = [node.name for node in self.nodes]
        if len(set(names)) != len(names):
            raise ValueError(f"expected nodes of distinct names, got {', '.join(names)}")
        if not self.nodes:
            raise ValueError("expected a table [[nodes]] at least, got none: objects would go nowhere")

    @property
    def objects(self) -> tuple[str, ...]:
        """Kinds of objects that some node gets."""
        wanted = {kind for node in self.nodes for kind in node.objects}
        return tuple(kind for kind in KINDS if kind in wanted)


def read_config(path: Path) -> ListenConfig:
    """Read a TOML file of options, tables as the fields of ListenConfig.

    Raises ListenError (config_invalid) for the first thing in it that cannot be.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        config: ListenConfig = _build(ListenConfig, tomllib.loads(path.read_text(encoding="utf-8")), "")
    except OSError as error:
        raise ListenError("config_invalid", f"{path}: cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ListenError("config_invalid", f"{path}: expected a TOML file ({error})") from error
    except ValueError as error:
        raise ListenError("config_invalid", f"{path}: {error}") from error
    return config


def _build(cls: Any, values: Any, where: str) -> Any:
    """Build a dataclass of a table, whose tables are built first; `where` names it in the ValueError."""
    if not isinstance(values, Mapping):
        raise ValueError(f"expected {where.lstrip('.')} to be a table, got {values!r}")
    hints = get_type_hints(cls)
    tables = {name for name in values if table_of(hints.get(name))}
    built = {name: _table(hints[name], values[name], f"{where}.{name}") for name in values if name in tables}
    try:
        return cls(**from_plain(cls, {name: values[name] for name in values if name not in tables}), **built)
    except ValueError as error:
        raise ValueError(f"{where.lstrip('.')}: {error}" if where else str(error)) from None


def table_of(kind: Any) -> Any:
    """Find the dataclass in the type of a field that is a table, or a list of tables; None for another field."""
    return next((part for part in (kind, *get_args(kind)) if is_dataclass(part)), None)


def _table(kind: Any, value: Any, where: str) -> Any:
    inner = table_of(kind)
    if Ellipsis not in get_args(kind):
        return _build(inner, value, where)
    if not isinstance(value, list):
        raise ValueError(f"expected tables [[{where.lstrip('.')}]], got {value!r}")
    return tuple(_build(inner, item, f"{where}[{index}]") for index, item in enumerate(value))
