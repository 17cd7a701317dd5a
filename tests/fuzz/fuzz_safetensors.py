"""Weights: files whose safetensors header says anything give finite tensors of the file's own bytes, or one sentence."""

from __future__ import annotations

import json

from videogen_testing.fuzzing import fuzz, instrumented, scratch

with instrumented("videogen_models.quantization", "safetensors"):
    from videogen_models.quantization import read_weights

from videogen_models.sealed import CorruptError

FILE = scratch() / "base.safetensors"


def one(data: bytes) -> None:
    """The first bit says whether the length of the header is mended: chance does not find one that fits."""
    if not data:
        return
    header, end, tensors = data[1:].partition(b"\n")
    whole = len(header).to_bytes(8, "little") + header + tensors if data[0] & 1 and end else data[1:]
    FILE.write_bytes(whole)
    try:
        found = read_weights(FILE)
    except CorruptError:
        return
    for tensor in found.values():
        assert tensor.nbytes <= 4 * len(whole), "a value has at least a byte in the file"
        tensor.sum()


def written(tensors: bytes, **said: object) -> bytes:
    return b"\1" + json.dumps(said).encode() + b"\n" + tensors


SEEDS = [
    written(bytes(8), a={"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, __metadata__={"format": "pt"}),
    written(bytes(4), a={"dtype": "F16", "shape": [2, 1], "data_offsets": [0, 4]}, b={"dtype": "F16", "shape": [], "data_offsets": [4, 4]}),
    written(
        bytes(6),
        **{
            "a.weight": {"dtype": "I8", "shape": [1, 2], "data_offsets": [4, 6]},
            "a.weight.scale": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
        },
    ),
]
WORDS = [
    *(
        f'"{kind}"'.encode()
        for kind in ("BOOL", "U8", "I8", "BF16", "F16", "F8_E4M3", "F8_E5M2", "I64", "F64", "C64", "U64", "F4", "F6_E2M3")
    ),
    b"18446744073709551615",
    b"9223372036854775807",
    b"[0, 0]",
    b'"shape"',
    b'"data_offsets"',
    b"[" * 64,
    b"\xff\xff\xff\xff\xff\xff\xff\xff",
]

if __name__ == "__main__":
    fuzz(one, SEEDS, WORDS)
