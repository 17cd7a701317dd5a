"""One line per step, with the time since the start and the time of the step."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

STARTED = time.monotonic()


def say(text: str) -> None:
    """A line with the elapsed time in front."""
    print(f"[{time.monotonic() - STARTED:6.1f} s] {text}", flush=True)


@contextmanager
def step(name: str) -> Iterator[None]:
    """Announces a step on a terminal, and says how long it took."""
    started = time.monotonic()
    if sys.stdout.isatty():
        print(f"[{started - STARTED:6.1f} s] {name} ...", end="\r", flush=True)
    yield
    took = time.monotonic() - started
    say(f"{name}: {took:.1f} s" if took >= 0.05 else f"{name}: in place")
