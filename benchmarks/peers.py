"""Why not torch-cam or pytorch-grad-cam on the same classifier, and what does localization cost on top of it?

    pip install -e '.[bench]'                        # as a user of this repository does
    pip install torch==2.13.0 torchcam grad-cam      # torch by its version: the newest torchvision would replace it
    python benchmarks/peers.py [--folder DIR] [--model cxr-edge] [--films 8] [--rounds 15] [--threads N]

Milliseconds from one film as the model takes it (batch 1, CPU) to localization maps [J, H, W] of the model's input
resolution, for J = 1, the class with the highest score, and for all classes. All contestants hold the weights of one
bundle, see the same prepared films, use the same number of threads and take turns in shuffled order, in one process. A
contestant whose logits differ by more than 1e-3 ends the run; one whose package is missing is named as absent.

ours ENGINE              the Localizer's engine and fusion: class maps of all stages, upsampled and added by relevance;
                         in logit units. One forward pass, whatever J
plain torch              the same maps, written as one would: eager network, then interpolate, mul, add
torch-cam                one forward pass and a backward pass per class, which ends at the first layer it looks at
pytorch-grad-cam         one forward and one backward pass over J copies of the film, faster than one film J times
    GradCAM              at the deepest stage of the backbone, its usual form
    LayerCAM             at all four stages; each library merges them its own way (maximum; mean)
bare classifier ENGINE   backbone, global average, one linear layer: no neck, no maps. The floor

Both libraries stretch each map to [0, 1], so a normal film's map looks like a sick one's. Their networks are frozen:
gradients of weights, which nobody needs here, would cost pytorch-grad-cam about a third more.
Without --folder the films are those of ../shared/data/nih, or else generated phantoms.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from machine import environment, save
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from msloc_edge.backends import Backend, load_backend
from msloc_edge.bench.classifier import bare_classifier
from msloc_edge.bundle import DEFAULT_MODEL, Bundle
from msloc_edge.cli.inputs import Search
from msloc_edge.errors import DependencyError
from msloc_edge.model import CamNet, ModelConfig, build
from msloc_edge.pipeline import Localizer
from msloc_edge.train.phantom import generate

NIH = Path(__file__).resolve().parents[2] / "shared/data/nih/images"
OURS, BARE = "ours onnxruntime", "bare classifier onnxruntime"
"""What ratios are of."""
TOLERANCE = 1e-3

Film = NDArray[np.float32]
Contestant = Callable[[Film, Sequence[int]], tuple[NDArray[np.float32], NDArray[np.float32] | None]]
"""A film [1, 1, H, W] and J class indices -> logits [K] and maps [J, H, W]; the bare classifier has no maps."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=NIH if NIH.is_dir() else None)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--films", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, help="the cores that this process may use where it is left out")
    args = parser.parse_args()
    machine = environment("torchcam", "grad-cam", "torchvision")
    threads = args.threads or machine["cores"]
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    bundle = Bundle.open(args.model)
    films = prepared(bundle, args.folder, args.films)
    with tempfile.TemporaryDirectory() as scratch:
        contestants, absent = enter(bundle, Path(scratch), threads)
        tops, differences = same_weights(contestants, films, bundle)
        cases = {"top class": tops, "all classes": [list(range(len(bundle.classes)))] * len(films)}
        times = measure(contestants, films, cases, args.rounds)
    source = (
        "phantoms" if args.folder is None else f"films of {'NIH ChestX-ray14' if args.folder == NIH else args.folder}"
    )
    result = {
        "what": f"milliseconds from a prepared film to maps of {bundle.input_size}, batch 1, CPU, {threads} threads; "
        f"{bundle.name} {bundle.version}, {len(films)} {source}, "
        f"{args.rounds} rounds in shuffled order",
        "cases": {case: summary(own) for case, own in times.items()},
        "logits_max_abs_difference": differences,
        "absent": absent,
        "environment": machine,
    }
    for case, rows in result["cases"].items():
        print(table(case, rows), end="\n\n")
    print("largest difference of logits from ours:", differences)
    for name, why in absent.items():
        print(f"absent: {name}: {why}")
    print("->", save("peers", result))


def prepared(bundle: Bundle, folder: Path | None, count: int) -> list[Film]:
    """Model inputs [1, 1, H, W] of films spread over a folder, or of phantoms."""
    if folder is None:
        films = [np.round(generate(seed, 1024).display() * 255).astype(np.uint8) for seed in range(count)]
    else:
        found = Search().films_in(folder) or sys.exit(f"{folder} holds no film")
        films = found[:: max(1, len(found) // count)][:count]
    with Localizer(bundle.path) as localizer:
        return [localizer.prepare(film).batch for film in films]


def enter(bundle: Bundle, scratch: Path, threads: int) -> tuple[dict[str, Contestant], dict[str, str]]:
    """The contestants that are installed, ready to run, and why the others are not here."""
    makers: dict[str, Callable[[], Contestant]] = {
        OURS: lambda: ours(load_backend("onnxruntime", bundle, threads=threads), bundle),
        "ours openvino": lambda: ours(load_backend("openvino", bundle, threads=threads), bundle),
        "ours torch": lambda: ours(load_backend("torch", bundle, threads=threads), bundle),
        "plain torch": lambda: plain_torch(network(bundle)),
        **libraries(bundle),
        BARE: lambda: bare(bare_classifier(bundle, "onnxruntime", None, scratch, threads)),
        "bare classifier torch": lambda: bare(bare_classifier(bundle, "torch", None, scratch, threads)),
    }
    return open_all(makers)


def libraries(bundle: Bundle) -> dict[str, Callable[[], Contestant]]:
    """Makers of both libraries' methods on the bundle's network."""
    return {
        "torch-cam GradCAM": lambda: torch_cam("GradCAM", network(bundle), 1),
        "torch-cam LayerCAM": lambda: torch_cam("LayerCAM", network(bundle), 4),
        "pytorch-grad-cam GradCAM": lambda: pytorch_grad_cam("GradCAM", network(bundle), 1),
        "pytorch-grad-cam LayerCAM": lambda: pytorch_grad_cam("LayerCAM", network(bundle), 4),
    }


def open_all(makers: dict[str, Callable[[], Contestant]]) -> tuple[dict[str, Contestant], dict[str, str]]:
    """The contestants that are installed, and why the others are not here."""
    ready, absent = {}, {}
    for name, make in makers.items():
        try:
            ready[name] = make()
        except (ImportError, DependencyError) as error:
            absent[name] = str(error)
    return ready, absent


def ours(backend: Backend, bundle: Bundle) -> Contestant:
    def run(film: Film, classes: Sequence[int]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        outputs = backend.run(film)
        return outputs.logits[0], outputs.fuse(0, classes).dense()

    return run


def bare(backend: Backend) -> Contestant:
    return lambda film, classes: (backend.run(film).logits[0], None)


def plain_torch(net: CamNet) -> Contestant:
    @torch.inference_mode()
    def run(film: Film, classes: Sequence[int]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        logits, cams = net(torch.from_numpy(film))
        weights = net.head.relevance[classes][:, :, None, None]
        maps = torch.zeros(len(classes), *film.shape[2:])
        for stage, cam in enumerate(cams):
            maps += weights[:, stage] * upsampled(cam[0, classes], film)
        return logits[0].numpy(), maps.numpy()

    return run


def torch_cam(method: str, net: CamNet, deepest: int) -> Contestant:
    """`method` of torch-cam at the deepest stages of the backbone."""
    from torchcam import methods

    model = Logits(net)
    extractor = getattr(methods, method)(model, stage_layers(net)[-deepest:])

    def run(film: Film, classes: Sequence[int]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        scores = model(torch.from_numpy(film).requires_grad_())
        cams = [extractor.fuse_cams(extractor(k, scores, retain_graph=k != classes[-1])) for k in classes]
        return scores[0].detach().numpy(), upsampled(torch.cat(cams), film).numpy()

    return run


def pytorch_grad_cam(method: str, net: CamNet, deepest: int) -> Contestant:
    """`method` of pytorch-grad-cam at the deepest stages of the backbone."""
    library = import_grad_cam()
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    extractor = getattr(library, method)(Logits(net), stage_layers(net)[-deepest:])

    def run(film: Film, classes: Sequence[int]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        copies = torch.from_numpy(film).repeat(len(classes), 1, 1, 1).requires_grad_()
        maps = extractor(copies, [ClassifierOutputTarget(k) for k in classes])
        return extractor.outputs[0].detach().numpy(), maps

    return run


def import_grad_cam() -> Any:
    """The package, also where torchvision cannot load its operators: built for CUDA, beside a torch that is not."""
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        # It describes two operators that it did not bring. Nothing here calls them: that they are declared is enough.
        global declared  # a library that is freed takes its operators with it
        declared = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            declared.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import pytorch_grad_cam

    return pytorch_grad_cam


class Logits(nn.Module):
    """The network as a classifier, which is what the libraries take."""

    def __init__(self, net: CamNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.net(image).logits
        return logits


def network(bundle: Bundle) -> CamNet:
    """The bundle's network for one contestant, since hooks stay on it; frozen."""
    net = build(ModelConfig.from_dict(bundle.manifest["architecture"]))
    net.load_state_dict(load_file(bundle.weights))
    return net.eval().requires_grad_(False)


def stage_layers(net: CamNet) -> list[nn.Module]:
    """What ends each of the backbone's four stages, shallow first."""
    names = {
        "densenet121": [f"features.denseblock{stage}" for stage in (1, 2, 3, 4)],
        "edge": [f"layer{stage}" for stage in (1, 2, 3, 4)],
        "efficientnet_lite0": [f"norms.{stage}" for stage in range(4)],
    }
    return [net.backbone.get_submodule(name) for name in names[net.config.backbone]]


def upsampled(maps: Tensor, film: Film) -> Tensor:
    """[J, h, w] -> [J, H, W]."""
    return F.interpolate(maps[None], film.shape[2:], mode="bilinear", align_corners=False)[0]


def same_weights(
    contestants: dict[str, Contestant], films: Sequence[Film], bundle: Bundle
) -> tuple[list[list[int]], dict[str, float]]:
    """Each film's class with the highest score, and each contestant's largest difference of logits from ours."""
    expected = [contestants[OURS](film, [0])[0] for film in films]
    tops = [[int(bundle.probabilities(logits).argmax())] for logits in expected]
    differences = {}
    for name, run in contestants.items():
        answers = [run(film, top) for film, top in zip(films, tops, strict=True)]
        if all(maps is None for _, maps in answers):
            continue
        assert all(maps is not None and maps.shape == (1, *bundle.input_size) for _, maps in answers), name
        differences[name] = max(
            float(np.abs(logits - own).max()) for (logits, _), own in zip(answers, expected, strict=True)
        )
        if not differences[name] <= TOLERANCE:
            sys.exit(f"{name}: its logits differ by {differences[name]:.2g} from those of {OURS}: not the same network")
    return tops, differences


def measure(
    contestants: dict[str, Contestant], films: Sequence[Film], cases: dict[str, list[list[int]]], rounds: int
) -> dict[str, dict[str, NDArray[np.float64]]]:
    """Milliseconds by case and contestant, [rounds, films]."""
    times = {case: {name: np.zeros((rounds, len(films))) for name in contestants} for case in cases}
    turns = list(product(cases, contestants))
    for number in range(-1, rounds):  # the round before the first one warms up
        random.shuffle(turns)
        for case, name in turns:
            for at, (film, classes) in enumerate(zip(films, cases[case], strict=True)):
                start = time.perf_counter()
                contestants[name](film, classes)
                elapsed = time.perf_counter() - start
                if number >= 0:
                    times[case][name][number, at] = elapsed * 1e3
    return times


def summary(times: dict[str, NDArray[np.float64]]) -> dict[str, dict[str, dict[str, float]]]:
    """Quartiles of the milliseconds per film, and of each round's ratio to what ratios are of."""
    by_round = {name: np.median(own, axis=1) for name, own in times.items()}
    return {
        name: {"ms": quartiles(own)}
        | {f"times {base}": quartiles(by_round[name] / by_round[base]) for base in (OURS, BARE) if base in times}
        for name, own in times.items()
    }


def quartiles(values: NDArray[np.float64]) -> dict[str, float]:
    low, median, high = np.quantile(values, (0.25, 0.5, 0.75))
    return {"median": round(float(median), 2), "q1": round(float(low), 2), "q3": round(float(high), 2)}


def table(case: str, rows: dict[str, dict[str, dict[str, float]]]) -> str:
    """Medians with their quartiles in brackets, as text."""
    columns = list(rows[OURS])
    lines = [[case, *columns]]
    for name, row in rows.items():
        lines.append([name, *("{median} ({q1}-{q3})".format(**row[column]) for column in columns)])
    widths = [max(len(line[at]) for line in lines) for at in range(len(lines[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


if __name__ == "__main__":
    main()
