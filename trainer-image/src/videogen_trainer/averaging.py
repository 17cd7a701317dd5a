"""Gradients averaged over all processes, while the backward pass still makes others (Li et al., 2020, arXiv 2006.15704).

As DistributedDataParallel does it, but that the same gradients are sent together in every step of every attempt. Three processes or
more add numbers up in an order that follows from their place in what is sent, and DistributedDataParallel sends others together after its
first step: a training that goes on from a checkpoint would not come to the same weights to the bit.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor, nn

BUCKET_BYTES = 25 << 20  # DistributedDataParallel's


class GradientAverage:
    """Averages the gradients of parameters that have the same names, sizes and order in all processes."""

    def __init__(self, parameters: Iterable[nn.Parameter], size: int) -> None:
        self._size = size
        self._buckets = list(buckets(parameters, BUCKET_BYTES))
        self._awaited: list[int] | None = None  # gradients of each bucket that are still to be made; None: nothing is sent meanwhile
        self._sent: list[dist.Work | None] = []  # for each bucket, in their order
        made = weakref.WeakMethod(self._made)  # else parameters, which hold their hooks, would hold each other beyond the training
        for number, bucket in enumerate(self._buckets):
            for parameter in bucket:
                parameter.register_post_accumulate_grad_hook(partial(_tell, made, number))

    @contextmanager
    def meanwhile(self) -> Iterator[None]:
        """The one backward pass in here sends gradients as they are made; at its end all are averages."""
        self._awaited = [len(bucket) for bucket in self._buckets]
        yield
        self._awaited = None
        self.average()

    def average(self) -> None:
        """Every process must call it: all gradients that there are, in all of them the same ones, become averages."""
        while len(self._sent) < len(self._buckets):
            self._send()
        for work in filter(None, self._sent):
            work.wait()
        self._sent.clear()

    def _made(self, number: int) -> None:
        if self._awaited is None:
            return
        self._awaited[number] -= 1
        while len(self._sent) < len(self._buckets) and not self._awaited[len(self._sent)]:  # in all processes in one order
            self._send()

    def _send(self) -> None:
        made = {parameter: parameter.grad for parameter in self._buckets[len(self._sent)] if parameter.grad is not None}
        if not made:
            self._sent.append(None)
            return
        sent = torch.cat([gradient.flatten() for gradient in made.values()])
        sent.div_(self._size)  # before the sum, as DistributedDataParallel does it
        for parameter, part in zip(made, sent.split([gradient.numel() for gradient in made.values()]), strict=True):
            parameter.grad = part.view_as(parameter)  # no second copy stays
        self._sent.append(dist.all_reduce(sent, async_op=True))


def _tell(made: Callable[[], Callable[[int], None] | None], number: int, _parameter: Tensor) -> None:
    if (call := made()) is not None:
        call(number)


def buckets(parameters: Iterable[nn.Parameter], limit: int) -> Iterator[list[nn.Parameter]]:
    """Those that learn, in parts of at most `limit` bytes or of one parameter; the last first, whose gradients are made first."""
    bucket: list[nn.Parameter] = []
    size = 0
    for parameter in reversed([parameter for parameter in parameters if parameter.requires_grad]):
        if bucket and size + parameter.nbytes > limit:
            yield bucket
            bucket, size = [], 0
        bucket.append(parameter)
        size += parameter.nbytes
    if bucket:
        yield bucket
