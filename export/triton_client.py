"""Films through NVIDIA Triton Inference Server: the network runs there, reading and localizing here.

pip install msloc-edge 'tritonclient[grpc]'
python client.py film.dcm [--url localhost:8001] [--model cxr-edge]

The model is the bundle that the repository was made of: thresholds, temperature and relevance weights are in it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping

import tritonclient.grpc as triton

from msloc_edge import Localizer
from msloc_edge.backends import Backend, Outputs, Search
from msloc_edge.backends.base import Films, host_batch
from msloc_edge.bundle import Bundle
from msloc_edge.errors import BackendError, MslocError


class TritonBackend(Backend):
    """A bundle's network on a server: `url` is host and port of its gRPC service."""

    name = "triton"

    def __init__(self, client: triton.InferenceServerClient, url: str, bundle: Bundle) -> None:
        self._client, self._url, self._bundle = client, url, bundle
        self._names = ["logits", *(f"cams_{stage}" for stage in range(1, len(bundle.stages) + 1))]

    @classmethod
    def load(cls, bundle: Bundle, url: str = "localhost:8001") -> TritonBackend:
        """Connect to a server. Raises BackendError (backend_failed) when it does not serve this bundle."""
        client = triton.InferenceServerClient(url)
        try:
            config = client.get_model_config(bundle.name).config
        except triton.InferenceServerException as error:
            raise BackendError("backend_failed", f"{url} does not serve {bundle.name}: {error}") from error
        served = config.parameters["bundle_sha256"].string_value
        if served != bundle.sha256:
            raise BackendError(
                "backend_failed",
                f"{url}: expected {bundle.name} of the bundle {bundle.sha256[:12]}..., it serves that of "
                f"{served[:12]}...; export it again",
            )
        return cls(client, url, bundle)

    def run(self, films: Films, search: Search | None = None) -> Outputs:
        batch = host_batch(films)
        image = triton.InferInput("image", batch.shape, "FP32")
        image.set_data_from_numpy(batch)
        try:
            found = self._client.infer(
                self._bundle.name, [image], outputs=[triton.InferRequestedOutput(name) for name in self._names]
            )
        except triton.InferenceServerException as error:
            raise BackendError("backend_failed", f"{self._url} failed on a batch of {len(batch)}: {error}") from error
        logits, *cams = (found.as_numpy(name) for name in self._names)
        return Outputs(self._bundle, logits, tuple(cams), search)

    def describe(self) -> Mapping[str, str]:
        return {"engine": self.name, "device": self._url}

    def close(self) -> None:
        self._client.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("films", nargs="+")
    parser.add_argument("--url", default="localhost:8001")
    parser.add_argument("--model", default="cxr-edge", help="bundle folder, or the name of a model")
    chosen = parser.parse_args()
    try:
        backend = TritonBackend.load(Bundle.open(chosen.model), chosen.url)
        with Localizer(chosen.model, backend) as localizer:
            for film in chosen.films:
                print(json.dumps(localizer.localize(film).to_dict()))
    except MslocError as error:
        sys.exit(f"[{error.reason}] {error.message}")


if __name__ == "__main__":
    main()
