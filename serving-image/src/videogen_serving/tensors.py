"""Triton's tensors to a Request and from a Result: pure, on NumPy arrays by tensor name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from videogen_serving.request import InvalidRequestError, Request, Result

PROMPT, SEED, STEPS = "PROMPT", "SEED", "STEPS"
TEMPLATE, VARIATION = "TEMPLATE", "VARIATION"
VIDEO, METADATA = "VIDEO", "METADATA"

Tensor = npt.NDArray[Any]


def read_request(inputs: Mapping[str, Tensor]) -> Request:
    """The request in PROMPT (BYTES, one element), SEED (INT64, optional) and STEPS (INT32, optional); or in TEMPLATE (BYTES) and
    VARIATION (INT32, optional).

    Raises InvalidRequestError if both are absent, a text is not UTF-8, or a tensor has not exactly one element.
    """
    if PROMPT not in inputs and TEMPLATE not in inputs:
        raise InvalidRequestError(f"the input {PROMPT} is missing; send one BYTES element with the text, or {TEMPLATE} with a category")
    return Request(
        prompt=_text(inputs, PROMPT) or "",
        seed=_number(inputs, SEED),
        steps=_number(inputs, STEPS),
        template=_text(inputs, TEMPLATE),
        variation=_number(inputs, VARIATION),
    )


def write_result(result: Result) -> dict[str, Tensor]:
    """The tensors VIDEO (BYTES: an mp4 file) and METADATA (BYTES: JSON), one element each."""
    return {VIDEO: _bytes(result.video), METADATA: _bytes(result.metadata.model_dump_json(by_alias=True, exclude_none=True).encode())}


def _text(inputs: Mapping[str, Tensor], name: str) -> str | None:
    if name not in inputs:
        return None
    try:
        return bytes(_only_element(name, inputs[name])).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidRequestError(f"{name} is not UTF-8: {error.reason} at byte {error.start}; send it as UTF-8") from None


def _number(inputs: Mapping[str, Tensor], name: str) -> int | None:
    return int(_only_element(name, inputs[name])) if name in inputs else None


def _only_element(name: str, tensor: Tensor) -> Any:
    if tensor.size != 1:
        raise InvalidRequestError(f"{name} has shape {list(tensor.shape)}; accepted is one element, shape [1]")
    return tensor.reshape(-1)[0]


def _bytes(value: bytes) -> Tensor:
    return np.array([value], dtype=np.object_)
