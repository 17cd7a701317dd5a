"""How long `benchmarks.reproduce` will take, from a few steps and a few clips of each family on this machine."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace

from benchmarks.reproduce_cases import IMAGE, LATENTS, SHARED, TEMPORAL, VIDEOFUSION, ZERO, Case
from benchmarks.reproduce_workshop import Ended, Workshop
from videogen_api.evaluation import Metric
from videogen_api.meta import ModelFamily

STEPS, SAMPLES = 8, 8  # one batch of clips: a smaller one would be slower a clip
_OF = {VIDEOFUSION: SHARED, ZERO: IMAGE, LATENTS: TEMPORAL}


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds that a family's jobs take, each with a process of its own."""

    start: float  # of a training without its steps
    step: float
    look: float  # of an evaluation without the clips that it generates
    clip: float

    def seconds(self, steps: int, samples: int) -> float:
        """Of a training and its evaluation."""
        return self.start + steps * self.step + self.look + samples * self.clip


def probes(families: Sequence[ModelFamily]) -> list[Case]:
    """Short trainings of the families, an image model's before that of the one that begins with it."""
    short = {family: replace(case, name="probe", steps=STEPS) for family, case in _OF.items()}
    short[LATENTS] = replace(short[LATENTS], image=short[ZERO])
    wanted = [family for family in _OF if family in families or (family is ZERO and LATENTS in families)]
    return [short[family] for family in wanted]


def measured_costs(workshop: Workshop, families: Sequence[ModelFamily], pool: Executor) -> dict[ModelFamily, Cost]:
    """Train and evaluate each family for a moment. All at once, as later: the processes share the machine's memory.

    Raises JobError.
    """
    cases = probes(families)
    chains = [[case for case in cases if (case.family is VIDEOFUSION) is alone] for alone in (True, False)]
    parts = list(pool.map(lambda chain: {case.family: _cost(workshop, case) for case in chain}, chains))
    return parts[0] | parts[1]


def _cost(workshop: Workshop, case: Case) -> Cost:
    trained, evaluated = workshop.train(case, 0), workshop.evaluate(case, 0, SAMPLES)
    return cost_of(trained, evaluated)


def cost_of(trained: Ended, evaluated: Ended) -> Cost:
    """From a training of STEPS steps and an evaluation of SAMPLES clips."""
    assert trained.report.goodput
    steps = float(trained.report.goodput.productive_seconds) + float(trained.report.goodput.data_wait_seconds)
    (clip,) = (float(result.value) for result in evaluated.report.results if result.metric is Metric.GENERATION_SECONDS)
    return Cost(max(0.0, trained.seconds - steps), steps / STEPS, max(0.0, evaluated.seconds - SAMPLES * clip), clip)


def estimate(seconds: Callable[[Case], float], chains: Sequence[Sequence[Case]], seeds: int, workers: int) -> float:
    """Seconds until the last of the chains of all seeds has ended, where each of `workers` takes the next one when it has ended its own."""
    free = [0.0] * workers
    for _ in range(seeds):
        for chain in chains:
            before = [case.image for case in chain if case.image and case.image not in chain][:1]
            heapq.heapreplace(free, free[0] + sum(map(seconds, [*before, *chain])))
    return max(free)
