"""CPU time of the edge backbone against DenseNet-121's: both networks with their heads, interleaved in one run.

    python benchmarks/backbones.py [--size 512] [--runs 30]

Fresh weights: time does not depend on them. The bar is a ratio of at least 6.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import onnxruntime as ort
import torch
from machine import environment, save

from msloc_edge.export.onnx import to_onnx
from msloc_edge.model import ModelConfig, build

CLASSES = tuple(f"class {k}" for k in range(14))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--runs", type=int, default=30)
    args = parser.parse_args()
    torch.manual_seed(0)
    sessions, parameters = {}, {}
    for backbone in ("densenet121", "edge"):
        net = build(ModelConfig(CLASSES, backbone, args.size))
        net.train()(torch.rand(4, 1, 64, 64))  # batch statistics that keep activations finite
        sessions[backbone] = ort.InferenceSession(to_onnx(net), providers=["CPUExecutionProvider"])
        parameters[backbone] = sum(p.numel() for p in net.parameters())
    film = np.random.default_rng(0).random((1, 1, args.size, args.size), np.float32)
    times: dict[str, list[float]] = {name: [] for name in sessions}
    for run in range(args.runs + 3):
        for name, session in sessions.items():
            start = time.perf_counter()
            session.run(None, {"image": film})
            if run >= 3:
                times[name].append((time.perf_counter() - start) * 1e3)
    ratios = np.array(times["densenet121"]) / np.array(times["edge"])
    result = {
        "what": f"onnxruntime, CPU, one film of {args.size} x {args.size}, 14 classes, four stages, milliseconds",
        "median_ms": {name: round(float(np.median(values)), 2) for name, values in times.items()},
        "parameters": parameters,
        "ratio": {
            name: round(float(np.quantile(ratios, q)), 2) for name, q in (("p10", 0.1), ("median", 0.5), ("p90", 0.9))
        },
        "runs": args.runs,
        "environment": environment("onnxruntime", "torch", "numpy"),
    }
    print(result["median_ms"], "ratio", result["ratio"], "->", save("backbones", result))


if __name__ == "__main__":
    main()
