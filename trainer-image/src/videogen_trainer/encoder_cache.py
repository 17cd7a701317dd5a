"""What frozen encoders make of a clip or a caption: computed once, instead of in every step that sees it.

An encoding is a function of the clip or the caption alone, made one by one: it depends neither on a batch nor on the number of processes,
and so a resumed training goes on to the bit. Each lies in a file of its own with its sum, which is looked at when it is read; the newest
also stay in memory. All processes share the files: a file appears whole, and who writes it a second time writes the same.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

_LOG = logging.getLogger(__name__)
MEMORY_BYTES = 256 * 2**20  # of a process
_KEY = "encoding"


class EncoderCache:
    """Encodings by name, of encoders that `encoders` identifies (`weights_digest`)."""

    def __init__(self, folder: Path, encoders: str) -> None:
        self._root = folder
        self._folder = folder / encoders[:16]
        self._memory: OrderedDict[str, Tensor] = OrderedDict()
        self._bytes = 0
        self._writes = True

    def get(self, name: str, make: Callable[[], Tensor]) -> Tensor:
        """The encoding of that name, on the CPU; made, and kept, if it is not there."""
        found = self._memory.get(name)
        if found is None:
            found = self._read(name)
            if found is None:
                found = make().detach().cpu().contiguous()
                self._write(name, found)
            self._remember(name, found)
        return found

    def text(self, caption: str, make: Callable[[], Tensor]) -> Tensor:
        """The encoding of a caption."""
        return self.get("text-" + hashlib.sha256(caption.encode()).hexdigest()[:32], make)

    def remove(self) -> None:
        """Delete all of them: training has ended."""
        shutil.rmtree(self._root, ignore_errors=True)

    def _remember(self, name: str, encoding: Tensor) -> None:
        self._memory[name] = encoding
        self._bytes += encoding.nbytes
        while self._bytes > MEMORY_BYTES:
            _, oldest = self._memory.popitem(last=False)
            self._bytes -= oldest.nbytes

    def _read(self, name: str) -> Tensor | None:
        """None if there is none, or only a damaged one."""
        path = self._folder / f"{name}.safetensors"
        try:
            with safe_open(path, "pt") as file:
                encoding, told = file.get_tensor(_KEY), (file.metadata() or {}).get("sha256")
        except FileNotFoundError:
            return None
        except (SafetensorError, OSError) as error:
            _LOG.warning("%s cannot be read and is made again: %s", path, error)
            return None
        if told == _sum(encoding):
            return encoding
        _LOG.warning("%s is damaged and is made again", path)
        return None

    def _write(self, name: str, encoding: Tensor) -> None:
        if not self._writes:
            return
        part = self._folder / f".{name}.{os.getpid()}"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            part.write_bytes(save({_KEY: encoding}, {"sha256": _sum(encoding)}))
            os.rename(part, self._folder / f"{name}.safetensors")
        except OSError as error:
            self._writes = False
            _LOG.warning("%s: no encodings are kept in the storage from here on: %s; training goes on, only slower", self._folder, error)


def _sum(encoding: Tensor) -> str:
    return hashlib.sha256(encoding.numpy().tobytes()).hexdigest()


def weights_digest(*modules: nn.Module, settings: object = None) -> str:
    """SHA-256, hex, over names, types, shapes and values of all weights, and over what else matters of a configuration."""
    found = hashlib.sha256(repr(settings).encode())
    for part in (part for module in modules for part in _described(module)):
        found.update(part)
    return found.hexdigest()


def _described(module: nn.Module) -> Iterator[bytes]:
    for name, tensor in module.state_dict().items():
        yield f"{name} {tensor.dtype} {list(tensor.shape)}".encode()
        yield tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes() if tensor.ndim else str(tensor.item()).encode()
