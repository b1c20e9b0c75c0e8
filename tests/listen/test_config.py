"""One TOML file, checked before anything starts: what may stand in it, and the sentence for what may not."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from msloc_edge.errors import ListenError
from msloc_edge.listen.config import Retry, read_config
from msloc_edge.listen.service import check

ROOT = Path(__file__).parents[2]
SCRIPT = Path(sys.executable).with_name("msloc-edge")
NODE = """
[[nodes]]
name = "pacs"
objects = ["sr"]
"""
SMALL = f'spool = "spool"\n{NODE}ae_title = "PACS"\nhost = "10.0.0.5"\nport = 104\n'


def write(folder: Path, text: str) -> Path:
    path = folder / "listen.toml"
    path.write_text(text)
    return path


def test_a_small_file_takes_the_defaults(tmp_path: Path) -> None:
    config = read_config(write(tmp_path, SMALL))
    assert (config.receive.host, config.receive.port, config.receive.tls) == ("127.0.0.1", 11112, None)
    assert config.take.modalities == ("CR", "DX", "RG")
    assert config.nodes[0].ae_title == "PACS"
    assert config.objects == ("sr",)


def test_tables_inside_tables(tmp_path: Path) -> None:
    text = SMALL + 'tls.ca = "node.pem"\n' + '[receive]\nport = 104\ntls = {cert = "c", key = "k", ca = "a"}\n'
    config = read_config(write(tmp_path, text))
    assert config.receive.tls
    assert config.receive.tls.ca == "a"
    assert config.nodes[0].tls
    assert config.nodes[0].tls.ca == "node.pem"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("spool = ", "expected a TOML file"),
        (NODE + 'url = "http://pacs"', "expected 'spool', which is missing"),
        ('spool = "s"', r"expected a table \[\[nodes\]\] at least"),
        (SMALL + "[recieve]\nport = 1", "unknown option 'recieve'; expected one of archive, keep, limits"),
        (SMALL + "[receive]\nprot = 1", "receive: unknown option 'prot'"),
        (SMALL + '[receive]\nport = "104"', "receive: expected port to be a whole number, got '104'"),
        (SMALL + "[receive]\nport = 70000", "receive: expected port to be at least 0 and at most 65535, got 70000"),
        (SMALL + "[receive]\nmax_associations = 0", "receive: expected max_associations to be at least 1"),
        (SMALL + '[receive]\nhost = "0.0.0.0"', "receive: expected calling_ae_titles, since other machines reach"),
        (SMALL + '[receive]\nae_title = "A TITLE THAT IS TOO LONG"', "receive: expected an AE title of 1 to 16"),
        (SMALL + '[receive]\ncalling_ae_titles = ["A\\\\B"]', "receive: expected an AE title"),
        (SMALL + '[receive.tls]\ncert = "c"', "receive.tls: expected cert and key"),
        (SMALL + '[receive.tls]\nca = "c"', "receive: expected cert and key in tls"),
        (SMALL + "receive = 1", r"nodes\[0\]: unknown option 'receive'"),
        ("receive = 1\n" + SMALL, "expected receive to be a table, got 1"),
        ('spool = "s"\nnodes = {name = "a"}', r"expected tables \[\[nodes\]\]"),
        (SMALL + NODE + 'url = "http://pacs"', "expected nodes of distinct names, got pacs, pacs"),
        (SMALL + 'url = "http://pacs"', r"nodes\[0\]: expected ae_title, host and port, or url"),
        (f'spool = "s"\n{NODE}host = "pacs"', r"nodes\[0\]: expected ae_title, host and port, or url"),
        (f'spool = "s"\n{NODE}url = "pacs"', r"nodes\[0\]: expected url to begin with http"),
        (SMALL.replace('"sr"', '"sr", "pdf"'), r"nodes\[0\]: expected objects to be some of sr, seg, .*, got pdf"),
        (SMALL.replace('"sr"', ""), r"nodes\[0\]: expected objects to be distinct names, at least one"),
        (SMALL + '[model]\nbackend = "caffe"', "model: expected backend to be one of"),
        (SMALL + "[retry]\nfirst_s = 0", "retry: expected first_s to be above 0"),
        (SMALL + "[limits]\nqueue_films = 0", "limits: expected queue_films to be at least 1, got 0"),
        (SMALL + '[take]\nmodalities = ["DX", "DX"]', "take: expected modalities to be distinct names"),
        (SMALL + "[keep]\nfiles_hours = nan", "keep: expected files_hours to be finite"),
    ],
)
def test_what_cannot_be(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(ListenError, match=sentence) as raised:
        read_config(write(tmp_path, text))
    assert raised.value.reason == "config_invalid"


def test_certificates_are_loaded(tmp_path: Path) -> None:
    (tmp_path / "c.pem").write_text("no certificate")
    tls = f'[receive.tls]\ncert = "{tmp_path}/c.pem"\nkey = "{tmp_path}/c.pem"'
    with pytest.raises(ListenError, match=re.escape("c.pem: expected certificates and a key in PEM")):
        check(read_config(write(tmp_path, SMALL + tls)))


def test_pauses_double_up_to_the_longest() -> None:
    retry = Retry(first_s=0.5, max_s=3.0)
    assert [retry.pause(failures) for failures in (1, 2, 3, 4, 100_000)] == [0.5, 1.0, 2.0, 3.0, 3.0]


def run(*arguments: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([SCRIPT, "listen", *map(str, arguments)], capture_output=True, text=True, check=False)


def test_check_from_the_command_line(tmp_path: Path) -> None:
    ran = run("--check", ROOT / "examples" / "deploy" / "listen.toml")
    assert (ran.returncode, ran.stdout) == (0, "")
    assert "as it should be" in ran.stderr
    ran = run("--check", write(tmp_path, SMALL + "[receive]\nport = -1"))
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.startswith("msloc-edge: [config_invalid]")
    assert "port to be at least 0" in ran.stderr
