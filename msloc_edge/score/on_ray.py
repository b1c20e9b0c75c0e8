"""The same job on Ray Data: tasks that decode, actors that localize, blocks that stream between them. On CPUs Ray makes
one actor of the two, so that no pixels travel.

Ray schedules, holds back what is too fast, and does again what a lost worker or node had in hand. Rows come to the
program that started the job, which writes the parts: what it has written is never done again.
"""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Generator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing of an archive is told to anybody

import ray
import ray.data

from msloc_edge.errors import MslocError
from msloc_edge.imaging.preprocess import Prepared
from msloc_edge.pipeline import Localizer, guarded
from msloc_edge.score.archive import Film
from msloc_edge.score.dataset import Row, to_row
from msloc_edge.score.feeder import read_film
from msloc_edge.score.job import Source, unless_broken

BLOCK = 64
"""Films that travel and are lost together."""

_WINDOWED_BY_US = ("onnxruntime", "openvino")
"""Backends that take a windowed film; to others the stored pixels are sent, as they may window on their device."""

_Block = Mapping[str, Any]


def on_ray(
    options: Mapping[str, Any], input_size: tuple[int, int], actors: int | None, batch: int, maps: bool
) -> Source:
    """Localize films on the cluster of RAY_ADDRESS, or on one that is started here.

    options  arguments of Localizer, whose model each node must have
    actors   that localize, at most; None: one for each GPU, or `threads` cores
    """

    def source(films: Sequence[Film]) -> Generator[Row, None, None]:
        if not ray.is_initialized():
            ray.init(log_to_driver=False, logging_level=logging.WARNING)
        logging.getLogger("ray.data").setLevel(logging.WARNING)
        ray.data.DataContext.get_current().enable_progress_bars = False
        need = {"num_gpus": 1} if _on_gpu(options) else {"num_cpus": options["threads"] or 1}
        count = max(1, -(-len(films) // BLOCK))
        blocks = ray.data.from_items([{"film": pickle.dumps(film)} for film in films], override_num_blocks=count)
        windowed = input_size if options["backend"] in _WINDOWED_BY_US else None
        rows = blocks.map_batches(partial(_decode, windowed), batch_size=BLOCK, num_cpus=1).map_batches(
            _Localize,
            fn_constructor_args=({"threads": 1} | {k: v for k, v in options.items() if v is not None}, batch, maps),
            batch_size=BLOCK,
            compute=ray.data.ActorPoolStrategy(size=min(actors or _actors(options), count)),
            **need,
        )
        for row in rows.iter_rows():
            yield pickle.loads(row["row"])

    return source


def _on_gpu(options: Mapping[str, Any]) -> bool:
    return options["backend"] == "tensorrt" or str(options["device"]).startswith("cuda")


def _actors(options: Mapping[str, Any]) -> int:
    cluster = ray.cluster_resources()
    return max(1, int(cluster.get("GPU", 1) if _on_gpu(options) else cluster["CPU"] / (options["threads"] or 1)))


def _pickled(values: Sequence[object]) -> np.ndarray[Any, Any]:
    column = np.empty(len(values), object)
    column[:] = [pickle.dumps(value) for value in values]
    return column


def _decode(input_size: tuple[int, int] | None, block: _Block) -> _Block:
    """Decode the films of a block; one that fails becomes its error."""
    films: list[Film] = [pickle.loads(film) for film in block["film"]]
    return {"read": _pickled([(film, guarded(partial(read_film, input_size))(film)) for film in films])}


class _Localize:
    """An actor: a localizer that stays, through which blocks go."""

    def __init__(self, options: Mapping[str, Any], batch: int, maps: bool) -> None:
        self._localizer = Localizer(**options)
        self._batch, self._maps = batch, maps

    def __call__(self, block: _Block) -> _Block:
        read = [pickle.loads(film) for film in block["read"]]
        found = dict(read)

        def load(film: Film) -> Prepared:
            what = found[film]
            if isinstance(what, MslocError):
                raise what
            return what if isinstance(what, Prepared) else self._localizer.prepare(what)

        outcomes = self._localizer.stream([film for film, _ in read], load, self._batch, workers=1)
        return {"row": _pickled([to_row(outcome, self._maps) for outcome in unless_broken(outcomes)])}
