"""Gradients averaged over all processes, while the backward pass still makes others (Li et al., 2020, arXiv 2006.15704).

As DistributedDataParallel does it, but that the same gradients are sent together in every step of every attempt. Three processes or
more add numbers up in an order that follows from their place in what is sent, and DistributedDataParallel sends others together after its
first step: a training that resumes from a checkpoint would not come to the same weights to the bit.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor, nn

from videogen_trainer.distributed import portions

BUCKET_BYTES = 25 << 20  # DistributedDataParallel's


class GradientAverage:
    """Averages the gradients of parameters that have the same names, sizes and order in all processes.

    Each process calls `finish` at the end of a step, and may call `begin` ahead of the step's last backward pass.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], size: int) -> None:
        self._size = size
        learned = reversed([parameter for parameter in parameters if parameter.requires_grad])  # the last one's gradient is made first
        self._buckets = list(portions(learned, lambda parameter: parameter.nbytes, BUCKET_BYTES))
        self._awaited: list[int] = []  # gradients of each bucket that are still to be made; empty: nothing is sent meanwhile
        self._sent: list[dist.Work] = []  # for each bucket, in their order
        made = weakref.WeakMethod(self._made)  # else parameters, which hold their hooks, would hold each other beyond the training
        for number, bucket in enumerate(self._buckets[:-1]):
            for parameter in bucket:
                parameter.register_post_accumulate_grad_hook(partial(_tell, made, number))

    def begin(self) -> None:
        """Let the backward pass that follows send gradients as they are made, but the last bucket's: it also says how the pass ended."""
        self._awaited = [len(bucket) for bucket in self._buckets[:-1]]

    def finish(self, *, complete: bool = True) -> bool:
        """Make all gradients that there are, in all processes the same ones, averages -> whether the step is complete in each process;
        if it is not, they are worth nothing. A process that has given up calls it too, wherever it was: the others wait for its part.
        """
        self._awaited = []
        if not self._buckets:
            return complete
        while len(self._sent) < len(self._buckets) - 1:
            self._send()
        last = self._send(gave_up=not complete)
        for work in self._sent:
            work.wait()
        self._sent.clear()
        return not last[-1].item()

    def _made(self, number: int) -> None:
        if not self._awaited:
            return
        self._awaited[number] -= 1
        while len(self._sent) < len(self._awaited) and not self._awaited[len(self._sent)]:  # in all processes in one order
            self._send()

    def _send(self, *, gave_up: bool = False) -> Tensor:
        """The next bucket, with 0 for a gradient that there is not -> what is sent: gradients, and at its end whether somebody gave up."""
        bucket = self._buckets[len(self._sent)]
        parts = [torch.zeros_like(one) if one.grad is None else one.grad for one in bucket]
        sent = torch.cat([*(part.flatten() for part in parts), parts[0].new_full((1,), float(gave_up))])
        sent.div_(self._size)  # before the sum, as DistributedDataParallel does it
        for parameter, part in zip(bucket, sent[:-1].split([part.numel() for part in parts]), strict=True):
            if parameter.grad is not None:
                parameter.grad = part.view_as(parameter)  # no second copy stays
        self._sent.append(dist.all_reduce(sent, async_op=True))
        return sent


def _tell(made: Callable[[], Callable[[int], None] | None], number: int, _parameter: Tensor) -> None:
    if (call := made()) is not None:
        call(number)
