"""The processes of a job: who am I, and agreeing with the others. gloo on CPUs, NCCL on GPUs, one process a GPU."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn

from videogen_api.recipe import Sharding
from videogen_api.training_run import Reason
from videogen_trainer.failure import Failure
from videogen_trainer.sharding import shard

T = TypeVar("T")

# Rank 0 writes bundles while the others wait; a peer that dies is noticed at once all the same.
_TIMEOUT = timedelta(minutes=30)
_LOST = re.compile(r"connection (closed|reset|refused)|broken pipe|socket|timed out|gloo|nccl|tcpstore|peer", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """This process among all processes of the job."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes to the storage and reports."""
        return self.rank == 0

    def distribute(self, module: nn.Module, sharding: Sharding | None = None) -> nn.Module:
        """The module with the first process' weights in all of them, or with its parameters in shards if wanted.

        Parameters that are in shards are others than they were.
        """
        if self.size == 1:
            return module
        if sharding is Sharding.FULL:
            return shard(module, self.device, self.size)
        for tensor in (*module.parameters(), *module.buffers()):  # drawn from one seed, on machines that may round differently
            dist.broadcast(tensor.detach(), 0)
        return module

    def any(self, flag: bool) -> bool:
        """Whether it is so in any process; the same answer in all."""
        return flag if self.size == 1 else self.mean(torch.tensor([float(flag)], device=self.device))[0] > 0

    def mean(self, values: Tensor) -> list[float]:
        """Mean over all processes of each value; the same numbers everywhere, so all take the same decisions."""
        values = values.to(torch.float64)
        if self.size > 1:
            dist.all_reduce(values)
        return [value / self.size for value in values.tolist()]

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """This process' part of the items: consecutive, in the order of ranks, and never empty for rank 0."""
        first, end = (-(-len(items) * rank // self.size) for rank in (self.rank, self.rank + 1))
        return items[first:end]

    def concatenate(self, rows: Mapping[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
        """Rows [n, ...] of all processes, one after another in the order of ranks; the same to the bit in every process.

        Rank 0 must have all names; a process that had nothing to do has none.
        """
        if self.size == 1:
            return dict(rows)
        shapes = self.from_leader({name: part.shape[1:] for name, part in rows.items()})
        assert isinstance(shapes, dict)
        return {name: self._concatenated(rows.get(name, np.zeros((0, *shape))), shape) for name, shape in shapes.items()}

    def _concatenated(self, part: NDArray[np.float64], shape: list[int]) -> NDArray[np.float64]:
        counts = torch.zeros(self.size, dtype=torch.int64, device=self.device)
        counts[self.rank] = len(part)
        dist.all_reduce(counts)
        start = int(counts[: self.rank].sum())
        whole = torch.zeros((int(counts.sum()), *shape), dtype=torch.float64, device=self.device)
        whole[start : start + len(part)] = torch.from_numpy(np.ascontiguousarray(part))
        dist.all_reduce(whole)  # exact: every row is added to zeros
        return np.asarray(whole.cpu().numpy())

    def from_leader(self, value: object) -> object:
        """Rank 0's value, which must be JSON, in every process. Also a barrier: nobody returns before rank 0 has called."""
        return self.from_rank(0, value)

    def from_rank(self, rank: int, value: object) -> object:
        """As `from_leader`, of any process that all name alike."""
        if self.size == 1:
            return value
        data = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8).to(self.device)
        length = torch.tensor([len(data)], device=self.device)
        dist.broadcast(length, rank)
        if self.rank != rank:
            data = torch.empty(int(length), dtype=torch.uint8, device=self.device)
        dist.broadcast(data, rank)
        return json.loads(bytes(data.tolist()))


def join(environment: Mapping[str, str]) -> World:
    """Join the processes that torch's agent started (RANK, WORLD_SIZE, LOCAL_RANK), or be alone."""
    rank, size, local = (int(environment.get(name, default)) for name, default in (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0)))
    device = _device(local)
    if size > 1:
        if environment.get("LOCAL_WORLD_SIZE") == str(size):  # all are in this pod: gloo and NCCL need not listen to others
            for library in ("GLOO", "NCCL"):
                os.environ.setdefault(f"{library}_SOCKET_IFNAME", "lo")
        dist.init_process_group(
            "nccl" if device.type == "cuda" else "gloo", timeout=_TIMEOUT, device_id=device if device.type == "cuda" else None
        )
    return World(rank=rank, size=size, device=device)


def _device(local_rank: int) -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    if local_rank >= (count := torch.cuda.device_count()):
        raise Failure(
            Reason.INVALID_JOB,
            f"workers.processes: process {local_rank} of this pod has no GPU, the pod has {count};"
            " leave it out, or set it to the GPUs in resources.limits",
        )
    device = torch.device("cuda", local_rank)
    torch.cuda.set_device(device)
    return device


def leave() -> None:
    """End the group of processes, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def is_peer_lost(error: BaseException) -> bool:
    """Whether an error means that another process is gone: torch has types for NCCL and the store, but none for gloo."""
    if not dist.is_initialized():
        return isinstance(error, dist.DistError)
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and bool(_LOST.search(str(error))))


def portions(items: Iterable[T], size: Callable[[T], int], limit: int) -> Iterator[list[T]]:
    """The items in their order, in lists whose sizes come to at most `limit`, or of one item: the same ones in all processes."""
    portion: list[T] = []
    left = limit
    for item in items:
        if portion and size(item) > left:
            yield portion
            portion, left = [], limit
        portion.append(item)
        left -= size(item)
    if portion:
        yield portion
