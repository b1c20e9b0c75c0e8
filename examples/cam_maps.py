"""Write the maps of torch-cam or pytorch-grad-cam for `msloc-edge eval --heatmaps MAPS`.

    python examples/cam_maps.py mynets:chexnet features.norm5 MAPS 0=Atelectasis 1=Cardiomegaly --films films/*.png

FACTORY makes the network, LAYER is the module whose maps are taken, each K=LABEL an output and its finding. The films
are read as msloc-edge reads them, and stretched to the network's square input; a map goes back to its film's shape.
"""

import argparse
import importlib
import operator
import sys
from pathlib import Path

import cv2
import numpy as np
import torch

from msloc_edge.imaging.reading import read_frame

SIDE = 512  # longest side of a map that is written


def torch_cam(network: torch.nn.Module, layer: str, image: torch.Tensor, k: int) -> torch.Tensor:
    from torchcam.methods import GradCAM  # or LayerCAM, GradCAMpp, ...

    with GradCAM(network, target_layer=layer) as method:
        return method(k, network(image))[0][0]


def pytorch_grad_cam(network: torch.nn.Module, layer: str, image: torch.Tensor, k: int) -> np.ndarray:
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    with GradCAM(network, [operator.attrgetter(layer)(network)]) as method:
        return method(image, [ClassifierOutputTarget(k)])[0]


METHODS = {"torch-cam": torch_cam, "pytorch-grad-cam": pytorch_grad_cam}

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("factory", metavar="MODULE:FACTORY")
parser.add_argument("layer")
parser.add_argument("maps", type=Path)
parser.add_argument("classes", nargs="+", metavar="K=LABEL")
parser.add_argument("--films", nargs="+", required=True)
parser.add_argument("--library", choices=METHODS, default="torch-cam")
parser.add_argument("--size", type=int, default=224, help="side of the network's input")
args = parser.parse_args()

sys.path.insert(0, "")
module, name = args.factory.split(":")
network = getattr(importlib.import_module(module), name)().eval()
for film in args.films:
    display = np.asarray(read_frame(film).display(), np.float32)  # [0, 1]
    square = cv2.resize(display, (args.size, args.size), interpolation=cv2.INTER_AREA)
    image = (torch.from_numpy(square).expand(1, 3, -1, -1) - 0.449) / 0.226  # ImageNet's, of grey
    height, width = np.ceil(np.array(display.shape) * min(1, SIDE / max(display.shape))).astype(int).tolist()
    for k, label in (word.split("=", 1) for word in args.classes):
        cam = np.asarray(METHODS[args.library](network, args.layer, image, int(k)), np.float32)
        file = args.maps / Path(film).name / f"{label.replace(' ', '_')}.npy"
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, cv2.resize(cam, (width, height)))
