"""The wire format of the small client."""

from __future__ import annotations

import json

import pytest

from videogen_serving.client import generate, read_response, request_body


def response(outputs: dict[str, bytes]) -> tuple[bytes, int]:
    """As Triton writes it: JSON, then for each output 4 bytes of length and the bytes."""
    entries = [{"name": name, "parameters": {"binary_data_size": len(value) + 4}} for name, value in outputs.items()]
    head = json.dumps({"outputs": entries}).encode()
    return head + b"".join(len(value).to_bytes(4, "little") + value for value in outputs.values()), len(head)


@pytest.mark.parametrize("order", [("VIDEO", "METADATA"), ("METADATA", "VIDEO")])
def test_outputs_are_found_by_name_in_any_order(order: tuple[str, str]) -> None:
    values = {"VIDEO": b"\x00mp4\xff", "METADATA": b'{"seed": 3}'}
    assert read_response(*response({name: values[name] for name in order})) == (b"\x00mp4\xff", {"seed": 3})


def test_a_response_without_a_video_is_refused() -> None:
    with pytest.raises(ValueError, match="the response lacks the output VIDEO"):
        read_response(*response({"METADATA": b"{}"}))


def test_only_what_is_given_is_sent() -> None:
    assert [entry["name"] for entry in json.loads(request_body("x"))["inputs"]] == ["PROMPT"]
    inputs = json.loads(request_body("x", seed=0, steps=5))["inputs"]
    assert [(entry["name"], entry["data"]) for entry in inputs] == [("PROMPT", ["x"]), ("SEED", [0]), ("STEPS", [5])]


def test_a_url_without_a_scheme_is_refused() -> None:
    with pytest.raises(ValueError, match="the URL 'localhost:8000' has no scheme that is known; accepted are http:// and https://"):
        generate("localhost:8000", b"{}", {}, 1.0)
