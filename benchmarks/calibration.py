"""A fault that is one on every machine: how many denoising steps are far too slow here, and by which limit."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.figures import percentile

FAST_STEPS = 1  # denoising steps of a good release's video
MANY_STEPS = 41  # enough to tell the time of a step from what every video costs
UNDER = 2.0  # the limit is this many times a fast video, so that the good release would keep it
OVER = 5.0  # a slow video takes at least this many limits
AIM = 6.0  # and is meant to take this many
MOST_STEPS = 1000  # what the API allows
LEAST_LIMIT = 0.02  # seconds; below, a histogram whose first bound is 0.05 s takes every video for too slow
REPEATS = 10
TRIES = 4


@dataclass(frozen=True, slots=True)
class Fault:
    """A latency limit in seconds, and how long a video takes that keeps it and one that does not."""

    limit: float
    steps: int  # of the slow release
    fast: float
    slow: float


def fault(seconds_of: Callable[[int], float]) -> Fault:
    """Ask for videos of several numbers of steps, one after the other. `seconds_of` gets the steps and waits for the video.

    The fast release is judged by its slower videos, the slow one by its fastest. Raises ValueError if no number of steps is slow
    enough.
    """
    seconds_of(FAST_STEPS)  # warm-up: the first video of a server and of a connection takes longer
    all_fast = [seconds_of(FAST_STEPS) for _ in range(REPEATS)]
    fast = percentile(all_fast, 0.8)  # one that met something else on the machine is not what videos take here
    step = (min(seconds_of(MANY_STEPS) for _ in range(3)) - min(all_fast)) / (MANY_STEPS - FAST_STEPS)
    limit = max(LEAST_LIMIT, UNDER * fast)
    steps = MOST_STEPS if step <= 0 else min(MOST_STEPS, math.ceil((AIM * limit - min(all_fast)) / step) + FAST_STEPS)
    slow = 0.0
    for _ in range(TRIES):
        slow = min(seconds_of(steps) for _ in range(3))
        if slow >= OVER * limit:
            return Fault(limit=round(limit, 4), steps=steps, fast=fast, slow=slow)
        steps = min(MOST_STEPS, math.ceil(steps * AIM * limit / slow))
    raise ValueError(f"a video of {steps} steps takes {slow:.3f} s, one of {FAST_STEPS} {fast:.3f} s; no fault can be made of that")
