"""One function over many videos in several processes of the pod, the answers in the videos' order."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from typing import TypeVar

from videogen_api.training_run import Reason
from videogen_trainer.failure import Failure

AHEAD = 4  # answers for each process that may wait for one before them

Item = TypeVar("Item")
Answer = TypeVar("Answer")


def in_order(function: Callable[[Item], Answer], items: Iterable[Item], processes: int) -> Iterator[Answer]:
    """`function` of each item, in order; with one process in this one. Raises Failure(OutOfMemory) if a process is killed."""
    if processes == 1:
        yield from map(function, items)
        return
    context = multiprocessing.get_context("spawn")  # forking a process that has threads may hang
    pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_end_with_parent)
    try:
        yield from _answers(pool, function, items, AHEAD * processes)
    except BrokenProcessPool as error:
        said = f"one of {processes} processes that read videos was killed, most likely for memory"
        raise Failure(Reason.OUT_OF_MEMORY, f"{said}; raise memory in resources.limits or lower workers.processes") from error
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _answers(pool: ProcessPoolExecutor, function: Callable[[Item], Answer], items: Iterable[Item], most: int) -> Iterator[Answer]:
    waiting: deque[Future[Answer]] = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) == most:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _end_with_parent() -> None:
    """A process whose parent is killed would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "a process of a pool"

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="watch-parent").start()
