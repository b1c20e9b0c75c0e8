"""The built library: what it exports and needs, its own tests, real bundles that are damaged, threads, audit."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Callable
from contextlib import nullcontext
from ctypes import byref
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from msloc_edge.backends import load_backend
from msloc_edge.bundle import Bundle
from msloc_edge.errors import MslocError
from msloc_edge.train.phantom import generate

NETWORK = {"socket", "connect", "bind", "listen", "accept", "send", "sendto", "recv", "recvfrom", "getaddrinfo"}


def symbols(path: Path, which: str) -> set[str]:
    """Names, without versions, of a library's dynamic symbols."""
    if not shutil.which("nm"):
        pytest.skip("no nm here: binutils is missing")
    listing = subprocess.run(["nm", "-D", which, path], capture_output=True, text=True, check=True).stdout
    return {line.split()[-1].partition("@")[0] for line in listing.splitlines()}


@pytest.fixture
def film() -> np.ndarray:
    return generate(920, 256).stored


def test_unit_tests(capi: Any, structs: dict[str, Any]) -> None:
    structs["run"]("ctest", "--test-dir", capi.build, "--output-on-failure", "--no-tests=error")


def test_exports_are_the_header(capi: Any, structs: dict[str, Any]) -> None:
    header = (structs["ROOT"] / "msloc_edge" / "capi" / "include" / "msloc_edge.h").read_text()
    declared = {line.split("(")[0].split()[-1].lstrip("*") for line in header.splitlines() if "MSLOC_API " in line}
    declared -= {"MSLOC_API", "__attribute__"}
    assert symbols(capi.path, "--defined-only") == {name for name in declared if name.startswith("msloc_")}


def test_it_never_opens_a_connection(capi: Any) -> None:
    assert not symbols(capi.path, "--undefined-only") & NETWORK


def test_version_is_that_of_cmake(capi: Any, structs: dict[str, Any]) -> None:
    text = (structs["ROOT"] / "CMakeLists.txt").read_text()
    major, minor, patch = map(int, text.split("project(msloc_edge VERSION ")[1].split()[0].split("."))
    assert capi.library.msloc_version() == 10000 * major + 100 * minor + patch


def test_model(edge: Any, bundle: Path) -> None:
    opened, model = Bundle.open(bundle), edge.model()
    assert (model.name.decode(), model.version.decode()) == (opened.name, opened.version)
    assert model.sha256.decode() == opened.sha256
    assert (model.classes, model.stages) == (len(opened.classes), len(opened.stages))
    assert (model.input_height, model.input_width) == opened.input_size
    assert model.profile.decode() == opened.default_profile
    assert model.engine.decode().startswith("openvino ")


def test_self_test(edge: Any, structs: dict[str, Any]) -> None:
    deviation = structs["Deviation"]()
    edge.call("self_test", byref(deviation))
    assert deviation.classes_beyond == 0
    assert deviation.logit < 1e-4
    assert deviation.iou >= 0.99


def test_self_test_of_a_model_that_changed(capi: Any, bundle: Path, tmp_path: Path, structs: dict[str, Any]) -> None:
    folder = shutil.copytree(bundle, tmp_path / "bundle")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["golden"]["findings"]["Mass"]["logit"] += 0.002
    (folder / "manifest.json").write_text(json.dumps(manifest))
    deviation = structs["Deviation"]()
    with capi.open(folder) as handle, pytest.raises(structs["StatusError"], match="1 classes") as error:
        handle.call("self_test", byref(deviation))
    assert error.value.status == "self_test"
    assert deviation.logit == pytest.approx(0.002, abs=1e-4)


@pytest.mark.parametrize(("golden", "within"), [(0.5, True), (0.4995, True), (0.4985, False), (1.0, False)])
def test_self_test_compares_abnormal(
    golden: float, within: bool, capi: Any, bundle: Path, tmp_path: Path, structs: dict[str, Any]
) -> None:
    """The bias is chosen so that p_abnormal of the built-in film is a half."""
    folder = shutil.copytree(bundle, tmp_path / "bundle")
    manifest = json.loads((folder / "manifest.json").read_text())
    logits = np.array([finding["logit"] for finding in manifest["golden"]["findings"].values()])
    evidence = np.logaddexp(0, logits / manifest["temperature"]).sum()
    manifest["abnormal"] = {"weights": [1.0] * len(logits), "bias": -float(evidence)}
    manifest["golden"]["abnormal"] = golden
    (folder / "manifest.json").write_text(json.dumps(manifest))
    deviation = structs["Deviation"]()
    refused = nullcontext() if within else pytest.raises(structs["StatusError"], match=r"self_test: .* differs by 0")
    with capi.open(folder) as handle, refused:
        handle.call("self_test", byref(deviation))
    assert deviation.classes_beyond == 0
    assert deviation.abnormal == pytest.approx(abs(golden - 0.5), abs=1e-4)


def test_the_example_of_the_header_logs_no_error(
    capi: Any, bundle: Path, tmp_path: Path, structs: dict[str, Any]
) -> None:
    root = structs["ROOT"]
    header = root / "msloc_edge" / "capi" / "include" / "msloc_edge.h"
    comment = header.read_text("utf-8").partition(" * Example\n * -------\n")[2].partition("\n *\n * Coordinates")[0]
    example = "\n".join(line.removeprefix(" *") for line in comment.splitlines())
    assert example.count('"/opt/models/cxr-edge";') == 1
    opened = example.replace('"/opt/models/cxr-edge";', f'"{bundle}", options.log = count_errors;')
    (tmp_path / "example.c").write_text(
        "#include <msloc_edge.h>\n#include <stdio.h>\n"
        "static int errors = 0;\n"
        "static void count_errors(void *user, int32_t level, const char *message) {\n"
        "    (void)user, errors += level == MSLOC_LOG_ERROR ? (puts(message), 1) : 0;\n}\n"
        "static uint16_t samples[2500 * 3000];\n"
        "int main(void) {\n    for (int i = 0; i < 2500 * 3000; i++) samples[i] = i % 4096;\n"
        f"{opened}\n    return errors;\n}}\n"
    )
    built, program = capi.path.parent, tmp_path / "example"
    run = structs["run"]
    flags = ("-std=c99", f"-I{header.parent}", f"-L{built}", "-lmsloc_edge", f"-Wl,-rpath,{built}")
    run("cc", tmp_path / "example.c", "-o", program, *flags)
    run(program)


def drop(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def edit(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        manifest = json.loads((folder / "manifest.json").read_text())
        change(manifest)
        (folder / "manifest.json").write_text(json.dumps(manifest))

    return apply


def gate(manifest: dict[str, Any], **values: Any) -> dict[str, Any]:
    return {"weights": [0.1] * len(manifest["classes"]), "bias": -1.0} | values


def ungated(manifest: dict[str, Any]) -> dict[str, Any]:
    """The manifest without anything that a film gate brings."""
    for entry in (manifest, manifest["golden"]):
        entry.pop("abnormal", None)
    for profile in manifest["profiles"].values():
        profile.pop("film", None)
    return manifest


def put_folder(name: str) -> Callable[[Path], None]:
    """Put a folder in a file's place."""
    return lambda folder: (folder / name).unlink() or (folder / name).mkdir()


def flip(name: str) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        data = bytearray((folder / name).read_bytes())
        data[len(data) // 2] ^= 1
        (folder / name).write_bytes(data)

    return apply


def manifest_of(data: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / "manifest.json").write_bytes(data) and None


@pytest.mark.parametrize(
    ("damage", "status"),
    [
        (shutil.rmtree, "bundle_missing"),
        (drop("manifest.json"), "bundle_file_missing"),
        (drop("model.onnx"), "bundle_file_missing"),
        (drop("model_card.md"), "bundle_file_missing"),
        (put_folder("manifest.json"), "bundle_file_missing"),
        (put_folder("model_card.md"), "bundle_file_missing"),
        (flip("model.onnx"), "bundle_hash"),
        (flip("model_card.md"), "bundle_hash"),
        (edit(lambda m: m.update(thresholds_for="0" * 64)), "bundle_hash"),
        (edit(lambda m: m.update(schema="msloc-edge/bundle/2")), "bundle_schema"),
        (manifest_of(b""), "bundle_damaged"),
        (manifest_of(b"\xff\xfe{"), "bundle_damaged"),
        (manifest_of(b"[" * 100000), "bundle_damaged"),
        (manifest_of(b"[]"), "bundle_damaged"),
        (edit(lambda m: m.pop("relevance")), "bundle_damaged"),
        (edit(lambda m: m["relevance"][0].reverse() or m["relevance"][0].append(0)), "bundle_damaged"),
        (edit(lambda m: m["relevance"].pop()), "bundle_damaged"),
        (edit(lambda m: m["relevance"][3].__setitem__(0, 0.9)), "bundle_damaged"),
        (edit(lambda m: m.update(temperature=0)), "bundle_damaged"),
        (edit(lambda m: m.update(temperature="warm")), "bundle_damaged"),
        (edit(lambda m: m["classes"].__setitem__(0, "Mass")), "bundle_damaged"),
        (edit(lambda m: m["profiles"]["youden"]["map"].pop()), "bundle_damaged"),
        (edit(lambda m: m.update(default_profile="none")), "bundle_damaged"),
        (edit(lambda m: m["input"].update(width=10**9)), "bundle_damaged"),
        (edit(lambda m: m["input"].update(width=-1)), "bundle_damaged"),
        (edit(lambda m: m["stages"].pop()), "bundle_damaged"),
        (edit(lambda m: m["stages"][0].update(height=32)), "bundle_damaged"),
        (edit(lambda m: m["files"].update({"../x": "0"})), "bundle_damaged"),
        (edit(lambda m: m["files"].pop("model.onnx")), "bundle_damaged"),
        (edit(lambda m: m["golden"]["findings"].pop("Mass")), "bundle_damaged"),
        (edit(lambda m: m.update(name="two\nlines")), "bundle_damaged"),
        (edit(lambda m: m["classes"].__setitem__(0, "nul\0")), "bundle_damaged"),
        (edit(lambda m: m["profiles"]["youden"]["map"].__setitem__(0, 1e300)), "bundle_damaged"),
        (edit(lambda m: m["files"].update({"model.onnx": "no hash"})), "bundle_damaged"),
        (edit(lambda m: m.update(abnormal=gate(m, weights=[0.1] * 3))), "bundle_damaged"),
        (edit(lambda m: m.update(abnormal=gate(m, weights=[-0.1] + [0.1] * 13))), "bundle_damaged"),
        (edit(lambda m: m.update(abnormal=gate(m, weights=[1e300] + [0.1] * 13))), "bundle_damaged"),
        (edit(lambda m: m.update(abnormal=gate(m, weights=[float("nan")] * 14))), "bundle_damaged"),
        (edit(lambda m: m.update(abnormal=gate(m, weights=0.1))), "bundle_damaged"),
        (edit(lambda m: m.update(abnormal=gate(m, bias=float("inf")))), "bundle_damaged"),
        (edit(lambda m: m.update(abnormal=gate(m, bias=None))), "bundle_damaged"),
        (edit(lambda m: m.update(abnormal=[])), "bundle_damaged"),
        (edit(lambda m: m.update(regions={"min_area": 0.5})), "bundle_damaged"),
        (edit(lambda m: m.update(regions={"min_area": "large"})), "bundle_damaged"),
        (edit(lambda m: m.update(regions={"min_share": -0.1})), "bundle_damaged"),
        (edit(lambda m: m.update(regions={"min_share": 1.1})), "bundle_damaged"),
        (edit(lambda m: m.update(regions=16)), "bundle_damaged"),
        (edit(lambda m: m.update(abnormal=gate(m)) or m["profiles"]["youden"].update(film=1.1)), "bundle_damaged"),
        (edit(lambda m: m.update(abnormal=gate(m)) or m["profiles"]["youden"].update(film=-0.1)), "bundle_damaged"),
        (edit(lambda m: m.update(abnormal=gate(m)) or m["profiles"]["youden"].update(film="half")), "bundle_damaged"),
        (edit(lambda m: ungated(m)["profiles"]["sensitivity-90"].update(film=0)), "bundle_damaged"),
        (edit(lambda m: ungated(m)["golden"].update(abnormal=0.5)), "bundle_damaged"),
        (edit(lambda m: m.update(abnormal=gate(m)) or m["golden"].update(abnormal=1.5)), "bundle_damaged"),
    ],
)
def test_damaged_bundles(
    damage: Callable[[Path], None], status: str, capi: Any, bundle: Path, tmp_path: Path, structs: dict[str, Any]
) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(bundle, folder, ignore=shutil.ignore_patterns("weights.safetensors"))
    edit(lambda m: m["files"].pop("weights.safetensors"))(folder)
    damage(folder)
    with pytest.raises(structs["StatusError"]) as error, capi.open(folder):
        pass
    assert error.value.status == status
    assert ";" in error.value.sentence


def inner(network: ModelProto, name: str, *makers: NodeProto) -> None:
    """Put nodes that make the output `name` of "inner" behind what made it."""
    for node in network.graph.node:
        node.output[:] = ["inner" if output == name else output for output in node.output]
        node.input[:] = ["inner" if used == name else used for used in node.input]
    network.graph.node.extend(makers)


def rename(network: ModelProto) -> None:
    network.graph.node.append(helper.make_node("Identity", ["logits"], ["l2"]))
    network.graph.output[0].name = "l2"


def widen(network: ModelProto) -> None:
    inner(network, "cams_2", helper.make_node("Concat", ["inner", "inner"], ["cams_2"], axis=3))
    network.graph.output[2].type.tensor_type.ClearField("shape")


def overflow(name: str, value: float) -> Callable[[ModelProto], None]:
    def change(network: ModelProto) -> None:
        network.graph.initializer.append(numpy_helper.from_array(np.float32([value]), "one"))
        inner(network, name, helper.make_node("Add", ["inner", "one"], [name]))

    return change


def send_out(network: ModelProto) -> None:
    tensor = network.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="model_card.md")


def loop(network: ModelProto) -> None:
    body = helper.make_graph([], "body", [], [])
    network.graph.node.append(helper.make_node("Loop", ["", ""], ["never"], body=body))


def call(network: ModelProto) -> None:
    node = helper.make_node("Identity", ["a"], ["b"])
    network.functions.append(helper.make_function("local", "F", ["a"], ["b"], [node], network.opset_import))


@pytest.mark.parametrize(
    ("change", "status", "says"),
    [
        (rename, "bundle_damaged", "outputs logits, cams_1"),
        (lambda network: network.graph.output.pop(), "bundle_damaged", "outputs logits, cams_1"),
        (widen, "bundle_damaged", "outputs of the classes and stages"),
        (overflow("logits", np.inf), "backend_failed", "finite logits"),
        (overflow("cams_3", np.nan), "backend_failed", "finite maps"),
        (send_out, "bundle_damaged", "weights in another file"),
        (loop, "bundle_damaged", "a graph inside a node"),
        (call, "bundle_damaged", "functions"),
        (lambda network: setattr(network.graph.node[0], "domain", "a.b"), "bundle_damaged", "are not standard"),
    ],
)
def test_networks_that_are_not_the_manifests(
    change: Callable[[ModelProto], Any],
    status: str,
    says: str,
    capi: Any,
    bundle: Path,
    tmp_path: Path,
    structs: dict[str, Any],
) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(bundle, folder, ignore=shutil.ignore_patterns("weights.safetensors"))
    network = onnx.load(folder / "model.onnx")
    change(network)
    model = network.SerializeToString()
    (folder / "model.onnx").write_bytes(model)
    digest = hashlib.sha256(model).hexdigest()
    edit(lambda m: m["files"].pop("weights.safetensors"))(folder)
    edit(lambda m: m["files"].update({"model.onnx": digest}) or m.update(thresholds_for=digest))(folder)
    with pytest.raises(structs["StatusError"], match=says) as error, capi.open(folder):
        pass
    assert error.value.status == status


def test_a_file_that_the_manifest_does_not_list(
    capi: Any, bundle: Path, tmp_path: Path, structs: dict[str, Any]
) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(bundle, folder)
    (folder / ".DS_Store").write_bytes(b"of a desktop")
    with capi.open(folder):
        pass
    (folder / "w\nbin").write_bytes(b"weights")
    with (
        pytest.raises(structs["StatusError"], match=r"that manifest.json lists, got w\?bin; remove it") as error,
        capi.open(folder),
    ):
        pass
    assert error.value.status == "bundle_hash"


@pytest.mark.parametrize("name", ["ext_unlisted", "loop", "missing_cam", "out_inf", "wrong_shape"])
def test_hostile_bundles(name: str, capi: Any, tmp_path: Path, structs: dict[str, Any]) -> None:
    """In the C library as in Python; the files that they leave out to be small are not asked for."""
    case = structs["ROOT"].parent / "shared" / "cases" / "hostile" / "bundles" / name
    if not case.is_dir():
        pytest.skip(f"the cases are not here: {case}")
    folder = tmp_path / name
    shutil.copytree(case, folder)
    edit(lambda m: [m["files"].pop(file) for file in ("weights.safetensors", "model_card.md")])(folder)
    with pytest.raises(structs["StatusError"]) as error, capi.open(folder):
        pass
    with pytest.raises(MslocError) as python:
        load_backend("onnxruntime", Bundle.open(folder))
    reasons = {"ext_unlisted": "bundle_hash", "out_inf": "backend_failed"}
    assert error.value.status == python.value.reason == reasons.get(name, "bundle_damaged")


@pytest.mark.parametrize(
    ("options", "status", "part"),
    [
        ({"profile": b"none"}, "profile_unknown", "sensitivity-90"),
        ({"engine": b"none"}, "backend_unknown", "openvino"),
        ({"device": b"TPU"}, "backend_device", "CPU"),
    ],
)
def test_unknown_names_are_answered_with_the_known(
    options: dict[str, Any], status: str, part: str, capi: Any, bundle: Path, structs: dict[str, Any]
) -> None:
    with pytest.raises(structs["StatusError"], match=part) as error, capi.open(bundle, **options):
        pass
    assert error.value.status == status


def test_profile_decides(capi: Any, bundle: Path, film: np.ndarray) -> None:
    with capi.open(bundle, profile=b"sensitivity-90", device=b"cpu", threads=1) as handle:
        handle.localize(film, bits_stored=12)
        thresholds = [finding.threshold for finding in handle.findings()]
    assert thresholds == list(Bundle.open(bundle).profile("sensitivity-90").score)


def test_model_cache(capi: Any, bundle: Path, film: np.ndarray, tmp_path: Path) -> None:
    logits = []
    for _ in range(2):
        with capi.open(bundle, cache_folder=str(tmp_path / "cache").encode()) as handle:
            handle.localize(film, bits_stored=12)
            logits.append([finding.logit for finding in handle.findings()])
    assert any((tmp_path / "cache").iterdir())
    assert logits[0] == pytest.approx(logits[1], abs=1e-6)


def test_two_localizers_in_two_threads(capi: Any, bundle: Path) -> None:
    films = [generate(seed, 200).stored for seed in (921, 922)]
    found: dict[tuple[int, int], list[float]] = {}

    def work(thread: int) -> None:
        with capi.open(bundle, threads=1) as handle:
            for round_ in range(8):
                at = (thread + round_) % 2
                handle.localize(films[at], bits_stored=12)
                found[thread, round_] = [at, *(finding.logit for finding in handle.findings())]

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for at in range(2):
        rows = np.array([row[1:] for row in found.values() if row[0] == at])
        assert len(rows) == 8
        np.testing.assert_allclose(rows, rows[:1].repeat(8, axis=0), atol=1e-5)


def test_audit_and_log(capi: Any, bundle: Path, film: np.ndarray, structs: dict[str, Any]) -> None:
    audit: list[dict[str, Any]] = []
    log: list[str] = []
    audit_fn = structs["AuditFn"](lambda _, line: audit.append(json.loads(line)))
    log_fn = structs["LogFn"](lambda _, level, line: log.append(f"{level} {line.decode()}"))
    with capi.open(bundle, audit=audit_fn, log=log_fn) as handle:
        handle.localize(film, bits_stored=12)
        with pytest.raises(structs["StatusError"], match="NaN"):
            handle.localize(film, bits_stored=12, voi=1, window_center=float("nan"), window_width=1.0)
        findings = None
        with pytest.raises(structs["StatusError"]) as error:
            findings = handle.findings()
        assert (error.value.status, findings) == ("no_result", None)
        handle.localize(film, bits_stored=12)
        scores = {finding.label.decode(): finding.score for finding in handle.findings()}
    good, bad, _ = audit
    assert (good["status"], bad["status"]) == ("ok", "bad_window")
    assert good["model"]["sha256"] == bad["model"]["sha256"] == Bundle.open(bundle).sha256
    assert good["image"] == {"width": 256, "height": 256}
    assert good["scores"] == pytest.approx(scores, abs=1e-6)
    assert set(good["timing_ms"]) == {"preprocess", "network", "localize", "total"}
    assert "scores" not in bad
    assert log[0].startswith("0 opened cxr-edge")
    assert log[1].startswith("2 ")


def test_nothing_leaks_over_many_films(edge: Any, film: np.ndarray) -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    if not Path("/proc/self/statm").exists():
        pytest.skip("no /proc here")
    edge.localize(film, bits_stored=12)
    before = resident()
    for _ in range(150):
        edge.localize(film, bits_stored=12)
    assert resident() - before < 4 << 20
