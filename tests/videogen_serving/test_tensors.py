"""Tensors to requests and results to tensors."""

from __future__ import annotations

import json

import numpy as np
import pytest

from videogen_api.recipe import Resolution
from videogen_serving.request import InvalidRequestError, Metadata, Request, Result
from videogen_serving.tensors import Tensor, read_request, write_result


def text(*values: bytes) -> Tensor:
    return np.array(values, dtype=np.object_)


def number(value: int) -> Tensor:
    return np.array([value], dtype=np.int64)


READ = {
    "a prompt alone": ({"PROMPT": text(b"a red square")}, Request(prompt="a red square")),
    "a seed": ({"PROMPT": text(b"x"), "SEED": number(7)}, Request(prompt="x", seed=7)),
    "seed 0 is a seed": ({"PROMPT": text(b"x"), "SEED": number(0)}, Request(prompt="x", seed=0)),
    "steps of 32 bits": ({"PROMPT": text(b"x"), "STEPS": np.array([9], np.int32)}, Request(prompt="x", steps=9)),
    "UTF-8": ({"PROMPT": text("गंगा".encode())}, Request(prompt="गंगा")),
    "a scalar instead of a list": ({"PROMPT": text(b"x"), "SEED": np.array(3, np.int64)}, Request(prompt="x", seed=3)),
}

REFUSED = {
    "no prompt": ({"SEED": number(7)}, "the input PROMPT is missing; send one BYTES element"),
    "two prompts": ({"PROMPT": text(b"x", b"y")}, r"PROMPT has shape \[2\]; accepted is one element, shape \[1\]"),
    "an empty list": ({"PROMPT": text()}, r"PROMPT has shape \[0\]"),
    "two seeds": ({"PROMPT": text(b"x"), "SEED": np.zeros((2, 1), np.int64)}, r"SEED has shape \[2, 1\]"),
    "Latin-1": ({"PROMPT": text("Müller".encode("latin-1"))}, "PROMPT is not UTF-8: invalid start byte at byte 1"),
}


@pytest.mark.parametrize("inputs, expected", READ.values(), ids=READ.keys())
def test_read(inputs: dict[str, Tensor], expected: Request) -> None:
    assert read_request(inputs) == expected


@pytest.mark.parametrize("inputs, message", REFUSED.values(), ids=REFUSED.keys())
def test_refused(inputs: dict[str, Tensor], message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        read_request(inputs)


def test_a_result_becomes_two_tensors_of_one_element_and_keeps_zero_bytes() -> None:
    metadata = Metadata.model_validate(
        {
            "release": "pib-videogen-videofusion-v1.0.0-base",
            "model": {"family": "VideoFusion", "version": "1.0.0"},
            "bundleDigest": "sha256:" + "0" * 64,
            "prompt": "गंगा",
            "seed": 1,
            "steps": 2,
            "frames": 8,
            "frameRate": 8,
            "resolution": Resolution(height=32, width=32),
            "seconds": 0.5,
        }
    )
    tensors = write_result(Result(video=b"\x00mp4\x00", metadata=metadata))
    assert {name: tensor.shape for name, tensor in tensors.items()} == {"VIDEO": (1,), "METADATA": (1,)}
    assert tensors["VIDEO"][0] == b"\x00mp4\x00"
    assert Metadata.model_validate(json.loads(tensors["METADATA"][0])) == metadata
    assert json.loads(tensors["METADATA"][0])["bundleDigest"] == "sha256:" + "0" * 64
