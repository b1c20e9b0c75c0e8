"""Write the maps of torch-cam or pytorch-grad-cam for `msloc-edge eval --heatmaps MAPS`.

    python examples/cam_maps.py mynets:chexnet features.norm5 MAPS 0=Atelectasis 1=Cardiomegaly -- films/*.png

Change `cam_of` to the method that you use; here it is torch-cam's Grad-CAM. With pytorch-grad-cam:

    GradCAM(network, [layer])(image, [ClassifierOutputTarget(k)])[0]
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import cv2
import numpy as np
import torch


def cam_of(network: torch.nn.Module, layer: str, image: torch.Tensor, k: int) -> np.ndarray:
    from torchcam.methods import GradCAM

    with GradCAM(network, target_layer=layer) as method:
        return np.asarray(method(k, network(image))[0][0].numpy(), np.float32)


def main(factory: str, layer: str, out: Path, classes: dict[int, str], films: list[str], size: int = 224) -> None:
    module, name = factory.split(":")
    network = getattr(importlib.import_module(module), name)().eval()
    for film in films:
        grey = cv2.resize(cv2.imread(film, cv2.IMREAD_GRAYSCALE), (size, size), interpolation=cv2.INTER_AREA) / 255
        image = (torch.tensor(grey, dtype=torch.float32).expand(1, 3, size, size) - 0.449) / 0.226
        folder = out / Path(film).name
        folder.mkdir(parents=True, exist_ok=True)
        for k, label in classes.items():
            np.save(folder / f"{label.replace(' ', '_')}.npy", cam_of(network, layer, image, k))


if __name__ == "__main__":
    words, films = sys.argv[1 : sys.argv.index("--")], sys.argv[sys.argv.index("--") + 1 :]
    named = {int(k): label for k, label in (word.split("=", 1) for word in words[3:])}
    sys.path.insert(0, "")
    main(words[0], words[1], Path(words[2]), named, films)
