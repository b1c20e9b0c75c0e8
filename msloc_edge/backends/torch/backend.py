"""PyTorch: the reference backend, from the bundle's safetensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import nn

from msloc_edge.backends.base import Backend, Films, Outputs, Search, host_batch
from msloc_edge.backends.found import FoundOutputs
from msloc_edge.backends.torch.cuda import CudaNetwork
from msloc_edge.backends.torch.fold import fold_batchnorm
from msloc_edge.backends.torch.precision import DTYPES, Predict, in_precision
from msloc_edge.backends.torch.window import CudaWindow
from msloc_edge.bundle import ONNX, WEIGHTS, Bundle
from msloc_edge.errors import BackendError, BundleError, DependencyError
from msloc_edge.imaging.geometry import Geometry
from msloc_edge.kernels.ops import fuse_cams
from msloc_edge.maps.fuse import Maps
from msloc_edge.model import CamNet, ModelConfig, build
from msloc_edge.model.config import is_own
from msloc_edge.types import Frame


@dataclass(frozen=True, slots=True, eq=False)
class TorchOutputs(FoundOutputs):
    """Outputs whose class maps stay on the device; what is asked for of them is copied.

    tensors  S stages of class maps [B, K, h_s, w_s]
    """

    tensors: tuple[torch.Tensor, ...] = ()

    def stage_maps(self, image: int, k: int) -> tuple[NDArray[np.float32], ...]:
        return tuple(cam[image, k].cpu().numpy() for cam in self.tensors)

    def fuse(self, image: int, classes: Sequence[int]) -> Maps:
        cams = [cam[image : image + 1] for cam in self.tensors]
        device = cams[0].device
        wanted = torch.tensor([list(classes)], dtype=torch.long, device=device)
        relevance = torch.from_numpy(self.bundle.relevance).to(device)
        maps = fuse_cams(cams, relevance, *self.bundle.input_size, wanted)[0]
        return Maps(np.asarray(maps.cpu().numpy(), np.float32))


class TorchBackend(Backend):
    """A network on a CPU or on a CUDA device, where films are windowed and regions are found, too."""

    name = "torch"

    def __init__(
        self,
        bundle: Bundle,
        net: nn.Module,
        device: torch.device,
        precision: str,
        predict: Predict,
    ) -> None:
        """predict  runs `net`, or what of it is wanted"""
        self._bundle, self._net, self._device, self._precision = bundle, net, device, precision
        self._predict = predict
        on_cuda = device.type == "cuda"
        self._cuda = CudaNetwork(bundle, net.to(device), predict, device) if on_cuda else None
        self._window = CudaWindow(device) if on_cuda else None

    @property
    def net(self) -> nn.Module:
        """The network that runs; whoever changes its weights changes what comes out, on a CPU."""
        return self._net

    def preprocess(self, frame: Frame, geometry: Geometry) -> ArrayLike:
        return self._window(frame, geometry) if self._window else super().preprocess(frame, geometry)

    def run(self, films: Films, search: Search | None = None) -> Outputs:
        return self._run_cuda(self._cuda, films, search) if self._cuda else self._run_cpu(films, search)

    @torch.inference_mode()
    def _run_cpu(self, films: Films, search: Search | None) -> Outputs:
        batch = host_batch(films)
        self._check_shape(batch.shape)
        try:
            prediction = self._predict(torch.from_numpy(batch).contiguous(memory_format=torch.channels_last))
        except RuntimeError as error:
            raise BackendError("backend_failed", f"torch failed on a batch of shape {batch.shape}: {error}") from error
        cams = tuple(cam.numpy() for cam in prediction.cams)
        return TorchOutputs(self._bundle, prediction.logits.numpy(), cams, search, tensors=prediction.cams)

    def _run_cuda(self, cuda: CudaNetwork, films: Films, search: Search | None) -> Outputs:
        each = self._each(films)
        try:
            logits, cams, timing_ms, found = cuda.run(each, search)
        except (RuntimeError, ValueError) as error:
            raise BackendError("backend_failed", f"torch failed on {len(each)} films: {error}") from error
        return TorchOutputs(self._bundle, logits, (), search, timing_ms, found, cams)

    def _each(self, films: Films) -> Sequence[ArrayLike]:
        """Films [H, W] of a batch, each where it is."""
        if isinstance(films, (list, tuple)):
            return films
        batch = films if isinstance(films, np.ndarray) else torch.as_tensor(films, device=self._device)
        self._check_shape(tuple(batch.shape))
        return list(batch[:, 0])

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        """Raise BackendError for another size, which torch would take, to give maps of another grid."""
        height, width = self._bundle.input_size
        if shape[1:] != (1, height, width):
            raise BackendError(
                "backend_failed",
                f"torch failed on a batch of shape {shape}: expected films of {height} x {width} pixels, [B, 1, H, W]",
            )

    def describe(self) -> Mapping[str, str]:
        facts = {"engine": self.name, "version": torch.__version__, "device": str(self._device)}
        facts["precision"] = self._precision
        if self._cuda and self._cuda.eager_because:
            facts["eager_because"] = self._cuda.eager_because
        return facts


def load(
    bundle: Bundle, device: str | None = None, precision: str = "fp32", threads: int | None = None
) -> TorchBackend:
    """Load a bundle on cpu (default), cuda or cuda:N; `threads` becomes torch's own number, of the whole process."""
    device = device or "cpu"
    available = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
    if device.split(":")[0] not in available:
        raise BackendError("backend_device", f"torch: expected a device of {', '.join(available)}, got {device!r}")
    if threads:
        torch.set_num_threads(threads)
    open_network = _own if is_own(bundle) else _from_graph
    net, predict = open_network(bundle, precision)
    return TorchBackend(bundle, net, torch.device(device), precision, predict)


def _own(bundle: Bundle, precision: str) -> tuple[nn.Module, Predict]:
    net = _network(bundle, bundle.read(WEIGHTS))
    net.backbone = fold_batchnorm(net.eval().backbone)  # type: ignore[assignment]
    return net, in_precision(net, DTYPES[precision])


def _from_graph(bundle: Bundle, precision: str) -> tuple[nn.Module, Predict]:
    """Run the graph itself: a bundle must not make a device import the code that its author had."""
    if precision != "fp32":
        raise BackendError("backend_device", f"torch: expected fp32 for the graph of {bundle.name}, got {precision}")
    try:
        import onnx

        from msloc_edge.backends.torch.graph import OnnxNetwork
    except ImportError as error:
        install = "pip install 'msloc-edge[export]'"
        raise DependencyError("backend_missing", f"torch: {error}; install it with: {install}") from error
    net = OnnxNetwork(onnx.load_model_from_string(bundle.read(ONNX)))
    return net, net


def _network(bundle: Bundle, weights: bytes) -> CamNet:
    """Build the network of a bundle. Raises BundleError (bundle_damaged) for one that is not as the manifest says."""
    try:
        net = build(ModelConfig.from_dict(bundle.manifest["architecture"]))
        net.load_state_dict(load_tensors(weights))
    except (KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        why = str(error).splitlines()[0]
        raise BundleError(
            "bundle_damaged", f"{bundle.weights}: no weights of its network: {why}; export it again"
        ) from error
    size = net.config.size
    found = net.config.classes, (size, size), [(size // stride, size // stride) for stride in net.strides]
    if found != (bundle.classes, bundle.input_size, [(stage.height, stage.width) for stage in bundle.stages]):
        raise BundleError(
            "bundle_damaged",
            f"{bundle.path}: expected an architecture of the classes, input and stages of its manifest, got another; "
            "export it again",
        )
    return net
