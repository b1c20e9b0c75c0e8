"""A model repository for Triton Inference Server, and its client against a server that speaks its protocol."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent import futures
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from msloc_edge.backends import load_backend
from msloc_edge.backends.tensorrt.key import Batch
from msloc_edge.bundle import Bundle
from msloc_edge.errors import BackendError
from msloc_edge.export.triton_server import config, repository

grpc = pytest.importorskip("grpc", reason="grpcio is not installed")
pytest.importorskip("tritonclient", reason="tritonclient is not installed")
text_format = pytest.importorskip("google.protobuf.text_format")

from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc  # noqa: E402

from msloc_edge.export.triton_client import TritonBackend  # noqa: E402


def parsed(text: str) -> model_config_pb2.ModelConfig:
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def test_the_config_is_one_of_tritons_schema(opened: Bundle) -> None:
    found = parsed(config(opened, Batch(1, 4, 16)))
    assert (found.name, found.platform, found.max_batch_size) == ("tiny", "onnxruntime_onnx", 16)
    assert list(found.dynamic_batching.preferred_batch_size) == [4, 16]
    (group,) = found.instance_group
    assert (group.count, group.kind) == (1, model_config_pb2.ModelInstanceGroup.KIND_AUTO)
    assert [warm.batch_size for warm in found.model_warmup] == [1, 4, 16]
    assert found.parameters["bundle_sha256"].string_value == opened.sha256


def test_the_config_of_a_plan(opened: Bundle) -> None:
    """A CUDA graph for each batch size of the warm-up, with shapes as Triton has them: without the batch."""
    found = parsed(config(opened, Batch(1, 4, 16), "tensorrt"))
    assert found.platform == "tensorrt_plan"
    (group,) = found.instance_group
    assert (group.count, group.kind) == (1, model_config_pb2.ModelInstanceGroup.KIND_GPU)
    cuda = found.optimization.cuda
    assert cuda.graphs
    assert (
        [spec.batch_size for spec in cuda.graph_spec] == [warm.batch_size for warm in found.model_warmup] == [1, 4, 16]
    )
    assert [list(spec.input["image"].dim) for spec in cuda.graph_spec] == 3 * [[1, 64, 64]]
    assert not parsed(config(opened, Batch(1, 4, 16))).HasField("optimization")


def test_shapes_and_types_are_those_of_the_graph(opened: Bundle, network: onnx.ModelProto) -> None:
    """Without the batch, which Triton adds where max_batch_size is above 0."""
    found = parsed(config(opened, Batch()))
    for told, values in ((found.input, network.graph.input), (found.output, network.graph.output)):
        shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim][1:] for v in values}
        assert {item.name: list(item.dims) for item in told} == shapes
        assert {item.data_type for item in told} == {model_config_pb2.TYPE_FP32}


def test_the_repository(opened: Bundle, network: onnx.ModelProto) -> None:
    files = repository(opened, network.SerializeToString(), Batch())
    assert set(files) == {"tiny/config.pbtxt", "tiny/1/model.onnx", "client.py"}
    assert onnx.load_from_string(files["tiny/1/model.onnx"]) == network
    compile(files["client.py"], "client.py", "exec")


def test_the_repository_of_a_plan(opened: Bundle) -> None:
    files = repository(opened, b"a plan", Batch(), "tensorrt")
    assert files["tiny/1/model.plan"] == b"a plan"
    assert set(files) == {"tiny/config.pbtxt", "tiny/1/model.plan", "client.py"}


class Server(service_pb2_grpc.GRPCInferenceServiceServicer):
    """What Triton does with the repository, by onnxruntime: the two calls that the client makes."""

    def __init__(self, bundle: Bundle) -> None:
        self._config = parsed(config(bundle, Batch()))
        self._session = ort.InferenceSession(str(bundle.onnx), providers=["CPUExecutionProvider"])

    def ModelConfig(self, request: service_pb2.ModelConfigRequest, context: grpc.ServicerContext) -> object:  # noqa: N802
        if request.name != self._config.name:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such model")
        return service_pb2.ModelConfigResponse(config=self._config)

    def ModelInfer(self, request: service_pb2.ModelInferRequest, context: grpc.ServicerContext) -> object:  # noqa: N802
        image = np.frombuffer(request.raw_input_contents[0], np.float32).reshape(request.inputs[0].shape)
        names = [output.name for output in request.outputs]
        response = service_pb2.ModelInferResponse()
        try:
            found = self._session.run(names, {"image": image})
        except Exception as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        for name, value in zip(names, found, strict=True):
            response.outputs.add(name=name, datatype="FP32", shape=value.shape)
            response.raw_output_contents.append(value.tobytes())
        return response


@pytest.fixture(scope="module")
def url(opened: Bundle) -> Iterator[str]:
    server = grpc.server(futures.ThreadPoolExecutor(1))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Server(opened), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


def test_the_client_gives_what_the_backend_gives(opened: Bundle, images: np.ndarray, url: str) -> None:
    client, own = TritonBackend.load(opened, url), load_backend("onnxruntime", opened)
    found, expected = client.run(images), own.run(images)
    np.testing.assert_allclose(found.logits, expected.logits, atol=1e-5)
    for cam, other in zip(found.cams, expected.cams, strict=True):
        np.testing.assert_allclose(cam, other, atol=1e-5)
    with pytest.raises(BackendError, match="failed on a batch of 1"):
        client.run(np.zeros((1, 1, 32, 32), np.float32))
    client.close()


def test_another_bundle_is_refused(opened: Bundle, url: str) -> None:
    with pytest.raises(BackendError, match="it serves that of"):
        TritonBackend.load(replace(opened, sha256="0" * 64), url)
    with pytest.raises(BackendError, match="does not serve other"):
        TritonBackend.load(replace(opened, name="other"), url)
