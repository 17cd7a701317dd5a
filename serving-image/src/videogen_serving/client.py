"""`python -m videogen_serving.client --url http://... --prompt "..." --out x.mp4`: one video from a gateway or a pod.

`--template flood` instead of a prompt gets a stored video.

Speaks the Open Inference Protocol with Triton's binary tensor extension (docs/protocol/extension_binary_data.md in
triton-inference-server/server), because JSON cannot carry an mp4 file. Needs nothing but the standard library.
"""

from __future__ import annotations

import argparse
import json
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

INFER = "/v2/models/video/infer"
HEADER_LENGTH = "Inference-Header-Content-Length"


def request_body(prompt: str, seed: int | None = None, steps: int | None = None) -> bytes:
    """The JSON body of one inference request that asks for binary outputs."""
    return _body({"PROMPT": ("BYTES", prompt), "SEED": ("INT64", seed), "STEPS": ("INT32", steps)})


def template_body(category: str, variation: int | None = None) -> bytes:
    """The JSON body of a request for a stored video."""
    return _body({"TEMPLATE": ("BYTES", category), "VARIATION": ("INT32", variation)})


def _body(values: Mapping[str, tuple[str, str | int | None]]) -> bytes:
    inputs = [
        {"name": name, "datatype": kind, "shape": [1], "data": [value]} for name, (kind, value) in values.items() if value is not None
    ]
    outputs = [{"name": name, "parameters": {"binary_data": True}} for name in ("VIDEO", "METADATA")]
    return json.dumps({"inputs": inputs, "outputs": outputs}).encode()


def read_response(body: bytes, header_length: int) -> tuple[bytes, dict[str, Any]]:
    """The mp4 file and the metadata in a response of which the first `header_length` bytes are JSON.

    Raises ValueError if an output is absent.
    """
    binary = _binary_outputs(json.loads(body[:header_length])["outputs"], body[header_length:])
    if missing := {"VIDEO", "METADATA"} - binary.keys():
        raise ValueError(f"the response lacks the output {min(missing)}; is {INFER} served by videogen_serving?")
    return binary["VIDEO"], json.loads(binary["METADATA"])


def _binary_outputs(outputs: list[Mapping[str, Any]], tail: bytes) -> dict[str, bytes]:
    values, offset = {}, 0
    for output in outputs:
        size = int(output["parameters"]["binary_data_size"])
        values[str(output["name"])] = tail[offset + 4 : offset + size]  # a BYTES element is 4 bytes of length and the bytes
        offset += size
    return values


def generate(url: str, body: bytes, headers: Mapping[str, str], timeout_seconds: float) -> tuple[bytes, dict[str, Any]]:
    """Ask the server; raises RuntimeError with the server's own sentence if it refuses."""
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"the URL {url!r} has no scheme that is known; accepted are http:// and https://")
    headers = {"Content-Type": "application/json", **headers}
    request = urllib.request.Request(url.rstrip("/") + INFER, data=body, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=timeout_seconds) as response:
            return read_response(response.read(), int(response.headers[HEADER_LENGTH]))
    except urllib.error.HTTPError as error:
        with error:
            raise RuntimeError(f"HTTP {error.code}: {_message(error.read())}") from None


def _message(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return body.decode(errors="replace").strip() or "no explanation"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m videogen_serving.client", description="Generate one video.")
    parser.add_argument("--url", required=True, help="gateway or pod, for example http://127.0.0.1:8000")
    wanted = parser.add_mutually_exclusive_group(required=True)
    wanted.add_argument("--prompt", help="what the video shows, 1 to 500 characters")
    wanted.add_argument("--template", metavar="CATEGORY", help="a stored video of the release, for example flood")
    parser.add_argument("--variation", type=int, help="which of the category's stored videos; any if not given")
    parser.add_argument("--seed", type=int, help="the same seed gives the same video")
    parser.add_argument("--steps", type=int, help="denoising steps, at most its maximumSteps; the release's own if not given")
    parser.add_argument("--out", type=Path, required=True, help="mp4 file to write")
    parser.add_argument("--host-header", help="host name that the gateway routes by")
    parser.add_argument("--header", action="append", default=[], metavar="NAME=VALUE", help="for example x-user-id=anna")
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds to wait for the answer")
    return parser.parse_args()


def _asked(options: argparse.Namespace) -> bytes:
    if options.template is not None:
        return template_body(options.template, options.variation)
    return request_body(options.prompt, options.seed, options.steps)


def main() -> int:
    """Write the video, print its metadata as JSON; 1 and one sentence on standard error if there is none."""
    options = _arguments()
    headers = dict(header.partition("=")[::2] for header in options.header)
    if options.host_header:
        headers["Host"] = options.host_header
    try:
        video, metadata = generate(options.url, _asked(options), headers, options.timeout)
    except (OSError, RuntimeError, ValueError) as error:
        print(f"no video from {options.url}: {error}", file=sys.stderr)
        return 1
    options.out.write_bytes(video)
    print(json.dumps(metadata, indent=2, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
