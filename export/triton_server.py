"""A model repository for NVIDIA Triton Inference Server: the network there, films and localization at the client.

NAME/config.pbtxt   dynamic batching, instances, warm-up
NAME/1/model.onnx   logits and class maps; the client fuses the maps of the classes it wants, so that no full-size
                    map travels; or model.plan, TensorRT's engine of it
client.py           an example: the server as a backend of msloc_edge

Preprocessing is no step of an ensemble there: it is letterbox and table of each film's own size, so it would need
ragged batches and a Python or C++ backend that brings this package to the server, while the client has both, and sends
0.26 MB for the 7.5 or 15 MB of a film of 3000 x 2500 pixels.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from msloc_edge.backends.tensorrt.key import Batch
from msloc_edge.bundle import Bundle

CLIENT = Path(__file__).with_name("triton_client.py")
DELAY_US = 2000
"""Microseconds that the server may wait for more films to fill a batch."""


PLATFORMS = {"onnxruntime": ("onnxruntime_onnx", "model.onnx"), "tensorrt": ("tensorrt_plan", "model.plan")}
"""Runtime of the network -> Triton's platform, and the file of the model."""


def repository(bundle: Bundle, model: bytes, batch: Batch, engine: str = "onnxruntime") -> dict[str, bytes]:
    """Make the files of a repository: path -> content.

    model   the network as an ONNX file, or as a plan of TensorRT
    engine  of PLATFORMS
    """
    return {
        f"{bundle.name}/config.pbtxt": config(bundle, batch, engine).encode(),
        f"{bundle.name}/1/{PLATFORMS[engine][1]}": model,
        "client.py": CLIENT.read_bytes(),
    }


def config(bundle: Bundle, batch: Batch, engine: str = "onnxruntime") -> str:
    """Write config.pbtxt, in the text form of Triton's ModelConfig."""
    height, width = bundle.input_size
    classes = len(bundle.classes)
    shapes = {"logits": [classes]}
    shapes |= {f"cams_{at}": [classes, s.height, s.width] for at, s in enumerate(bundle.stages, start=1)}
    outputs = ",\n".join(
        f'  {{ name: "{name}" data_type: TYPE_FP32 dims: {json.dumps(dims)} }}' for name, dims in shapes.items()
    )
    image = f"data_type: TYPE_FP32 dims: [1, {height}, {width}]"
    sizes = tuple(dict.fromkeys((1, batch.best, batch.most)))
    warm = ",\n".join(
        f'  {{ name: "batch of {count}" batch_size: {count} '
        f'inputs {{ key: "image" value {{ {image} random_data: true }} }} }}'
        for count in sizes
    )
    preferred = json.dumps(list(dict.fromkeys((batch.best, batch.most))))
    return f"""\
# {bundle.name} {bundle.version}: films letterboxed to {width} x {height}, in [0, 1] -> logits, class maps (client.py)
name: {json.dumps(bundle.name)}
platform: "{PLATFORMS[engine][0]}"
max_batch_size: {batch.most}
input [ {{ name: "image" {image} }} ]
output [
{outputs}
]
dynamic_batching {{ preferred_batch_size: {preferred} max_queue_delay_microseconds: {DELAY_US} }}
instance_group [ {{ count: 1 kind: {"KIND_GPU" if engine == "tensorrt" else "KIND_AUTO"} }} ]
{_graphs(sizes, (1, height, width)) if engine == "tensorrt" else ""}\
model_warmup [
{warm}
]
parameters {{ key: "bundle_sha256" value {{ string_value: "{bundle.sha256}" }} }}
"""


def _graphs(sizes: Sequence[int], image: Sequence[int]) -> str:
    """Write the batch sizes that get a CUDA graph each; the server enqueues the others."""
    specs = ",\n".join(
        f'    {{ batch_size: {count} input {{ key: "image" value {{ dim: {json.dumps(image)} }} }} }}'
        for count in sizes
    )
    return f"optimization {{ cuda {{ graphs: true graph_spec [\n{specs}\n] }} }}\n"
