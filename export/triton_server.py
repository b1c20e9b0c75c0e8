"""A model repository for NVIDIA Triton Inference Server: the network there, films and localization at the client.

NAME/config.pbtxt   dynamic batching, instances, warm-up
NAME/1/model.onnx   logits and class maps; the client fuses the maps of the classes it wants, so that no full-size
                    map travels
client.py           an example: the server as a backend of msloc_edge
"""

from __future__ import annotations

import json
from pathlib import Path

import onnx

from msloc_edge.backends.tensorrt.key import Batch
from msloc_edge.bundle import Bundle

CLIENT = Path(__file__).with_name("triton_client.py")
DELAY_US = 2000
"""Microseconds that the server may wait for more films to fill a batch."""


def repository(bundle: Bundle, network: onnx.ModelProto, batch: Batch) -> dict[str, bytes]:
    """Make the files of a repository: path -> content."""
    return {
        f"{bundle.name}/config.pbtxt": config(bundle, batch).encode(),
        f"{bundle.name}/1/model.onnx": network.SerializeToString(),
        "client.py": CLIENT.read_bytes(),
    }


def config(bundle: Bundle, batch: Batch) -> str:
    """Write config.pbtxt, in the text form of Triton's ModelConfig."""
    height, width = bundle.input_size
    classes = len(bundle.classes)
    shapes = {"logits": [classes]}
    shapes |= {f"cams_{at}": [classes, s.height, s.width] for at, s in enumerate(bundle.stages, start=1)}
    outputs = ",\n".join(
        f'  {{ name: "{name}" data_type: TYPE_FP32 dims: {json.dumps(dims)} }}' for name, dims in shapes.items()
    )
    image = f"data_type: TYPE_FP32 dims: [1, {height}, {width}]"
    warm = ",\n".join(
        f'  {{ name: "batch of {count}" batch_size: {count} '
        f'inputs {{ key: "image" value {{ {image} random_data: true }} }} }}'
        for count in dict.fromkeys((1, batch.best, batch.most))
    )
    preferred = json.dumps(list(dict.fromkeys((batch.best, batch.most))))
    return f"""\
# {bundle.name} {bundle.version}: films letterboxed to {width} x {height}, in [0, 1] -> logits, class maps (client.py)
name: {json.dumps(bundle.name)}
platform: "onnxruntime_onnx"
max_batch_size: {batch.most}
input [ {{ name: "image" {image} }} ]
output [
{outputs}
]
dynamic_batching {{ preferred_batch_size: {preferred} max_queue_delay_microseconds: {DELAY_US} }}
instance_group [ {{ count: 1 kind: KIND_AUTO }} ]
model_warmup [
{warm}
]
parameters {{ key: "bundle_sha256" value {{ string_value: "{bundle.sha256}" }} }}
"""
