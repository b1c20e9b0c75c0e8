"""msloc-edge export: a checkpoint becomes the bundle that devices run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from msloc_edge.errors import BackendError

PARITY_SEED = 3_000_000


@click.command("export")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--name", default=None, help="Name in the manifest.  [default: cxr-BACKBONE]")
@click.option("--model-version", default="0.1", show_default=True, help="Version in the manifest.")
def command(checkpoint: Path, out: Path, name: str | None, model_version: str) -> None:
    """Turn CHECKPOINT (a run folder or a .pt file) into the bundle folder OUT.

    The bundle is written only if torch and onnxruntime agree on logits, maps and boxes over phantoms of every kind.
    """
    try:
        from msloc_edge.train.checkpoint import load_state
    except ImportError as error:
        from msloc_edge.cli.train import NEEDS

        raise BackendError("backend_missing", f"export needs {error.name}; install it with: {NEEDS}") from error
    state = load_state(checkpoint)
    write_bundle(state, out, name or f"cxr-{state['config']['model']['backbone']}", model_version)


def write_bundle(state: Mapping[str, Any], out: Path, name: str, version: str) -> None:
    """Export, and say on stderr what came out."""
    from msloc_edge.export import export_bundle
    from msloc_edge.train.phantom import FINDINGS, generate

    kinds: list[tuple[str, ...]] = [(), *((finding,) for finding in FINDINGS)]
    films = [generate(PARITY_SEED + n, 512, kind).display() for n, kind in enumerate(kinds)]
    films.append(generate(PARITY_SEED, (700, 560)).display())  # not square: the letterbox takes part
    bundle, parity = export_bundle(state, out, films, name, version)
    size = sum(file.stat().st_size for file in bundle.path.iterdir()) / 1e6
    click.echo(
        f"{bundle.path}: {bundle.name} {bundle.version}, {size:.1f} MB, sha256 {bundle.sha256[:12]}...\n"
        f"torch and onnxruntime agree over {parity.films} films: logits {parity.logit:.1e}, maps {parity.map:.1e}, "
        f"{parity.boxes} boxes with IoU >= {parity.iou:.4f}",
        err=True,
    )
