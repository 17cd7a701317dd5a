"""`python -m benchmarks.trainer`: how fast does the trainer train, and how long does a checkpoint stop it.

The peers run the same networks in the same run: a plain PyTorch loop, and an accelerate loop of the shape of diffusers' examples
(`training_loops.py`). docs/benchmarks.md says what each figure means.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.figures import Figure, circumstances, table
from benchmarks.training import Measured, fill, image_model, middle, run_in_turns, training_job
from videogen_api.job import ArtifactReference, Job
from videogen_api.meta import ModelFamily
from videogen_models.networks import model_config
from videogen_models.videofusion import VideoFusionModel
from videogen_trainer import checkpoint
from videogen_trainer.checkpoint_writer import CheckpointWriter
from videogen_trainer.divergence import judge_weights
from videogen_trainer.families.videofusion import VideoFusionLearner
from videogen_trainer.state import TrainState, new_state

PEERS = ("plain", "accelerate")
# Of a run: enough for several turns of each loop.
STEPS = {ModelFamily.VIDEOFUSION: 64, ModelFamily.ALIGN_YOUR_LATENTS: 48, ModelFamily.TEXT2VIDEO_ZERO: 192}
CACHED, CACHED_FAMILY = "cached", ModelFamily.ALIGN_YOUR_LATENTS  # our loop, with recipe.cacheLatents
CACHED_AIM = 1 / 1.2
WARM_UP = 3  # steps that no figure counts
DATA_WAIT = 5.0  # percent; an aim
PAUSE = 0.2  # of a synchronous save; an aim


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """One loop's steps."""

    step_seconds: float  # median
    cpu_seconds: float  # of a step, in the first process; median
    peak_megabytes: float  # of the largest process
    wait_percent: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What all loops do."""

    storage: Path
    image_model: ArtifactReference
    batch: int
    steps: int | None = None  # None: as many as STEPS says


def main(arguments: list[str]) -> int:
    """0 if every aim is met."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trainer", description=__doc__)
    parser.add_argument("--batch", type=int, default=8, help="clips of a step, over all processes (default: %(default)s)")
    parser.add_argument("--steps", type=int, help="steps of each loop (default: 48, 64 or 192, by how long the family's take)")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2], help="numbers of processes")
    parser.add_argument("--families", type=ModelFamily, nargs="+", default=list(ModelFamily), help="model types")
    parser.add_argument("--state", default="Small", help="architecture whose state is saved (default: %(default)s)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print(circumstances(), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        storage = Path(folder)
        fill(storage)
        work = Workload(storage=storage, image_model=image_model(storage), batch=options.batch, steps=options.steps)
        figures = [figure for family in options.families for count in options.processes for figure in speeds(work, family, count)]
        figures += pauses(storage / "checkpoints", options.state)
    print(table(figures))
    return 1 if any(figure.verdict == "MISSED" for figure in figures) else 0


# Speed


def speeds(workload: Workload, family: ModelFamily, processes: int) -> Iterator[Figure]:
    """Clips a second, memory and waiting, ours against the peers', which take turns with ours."""
    ours = ("ours", CACHED) if family is CACHED_FAMILY else ("ours",)
    shutil.rmtree(workload.storage / "runs", ignore_errors=True)
    loops = {name: ("ours" if name in ours else name, job_of(name, workload, family, processes)) for name in (*ours, *PEERS)}
    found = {name: speed_of(measured) for name, measured in run_in_turns(loops, workload.storage).items()}
    for mine in ours:
        who = f"{family}{', cached' if mine == CACHED else ''}, {processes} process{'es' if processes > 1 else ''}"
        yield from compared(who, found, mine, workload.batch, CACHED_AIM if mine == CACHED else 1.0)


def job_of(name: str, workload: Workload, family: ModelFamily, processes: int) -> Job:
    """What a loop of this name does."""
    steps, init = workload.steps or STEPS[family], None if family is ModelFamily.VIDEOFUSION else workload.image_model
    job = training_job(name, batch=workload.batch, steps=steps, every=steps, processes=processes, family=family, init_from=init)
    return job.model_copy(update={"recipe": job.recipe.model_copy(update={"cache_latents": name == CACHED})})


def compared(who: str, found: Mapping[str, Speed], mine: str, batch: int, aim: float) -> Iterator[Figure]:
    """One of our loops with each of the peers."""
    own = found[mine]
    for loop in PEERS:
        peer = found[loop]
        yield Figure(f"{who}: clips a second, peer {loop}", batch / own.step_seconds, "/s", None, batch / peer.step_seconds)
        yield Figure(f"{who}: time of a step, of that of {loop}", own.step_seconds / peer.step_seconds, "", aim)
        yield Figure(f"{who}: CPU time of a step in a process, peer {loop}", own.cpu_seconds, "s", None, peer.cpu_seconds)
        yield Figure(f"{who}: peak memory of a process, peer {loop}", own.peak_megabytes, "MB", None, peer.peak_megabytes)
    yield Figure(f"{who}: waiting for data", own.wait_percent, "%", DATA_WAIT)


def speed_of(measured: Measured) -> Speed:
    """From the first process's steps that lie in one turn, and the memory of all processes."""
    ends, cpu = (measured.ranks[0][name] for name in ("ends", "cpu"))
    steps = [
        step
        for step in range(WARM_UP + 1, len(ends))
        if any(begun <= ends[step - 1] and ends[step] <= end for begun, end in measured.turns)
    ]
    if not steps:
        raise RuntimeError("no step lies in one turn; take longer turns, or smaller steps")
    worked = sum(max(0.0, min(end, ends[-1]) - max(begun, ends[0])) for begun, end in measured.turns)
    return Speed(
        step_seconds=middle([ends[step] - ends[step - 1] for step in steps]),
        cpu_seconds=middle([cpu[step] - cpu[step - 1] for step in steps]),
        peak_megabytes=max(rank["peak"] for rank in measured.ranks) / 1e6,
        wait_percent=100 * measured.ranks[0].get("waited", 0.0) / worked,
    )


# Pauses


def pauses(root: Path, architecture: str, rounds: int = 3) -> Iterator[Figure]:
    """How long a checkpoint stops training, and how long it would if training waited for it; in turn, the fastest counts."""
    state = trained_state(architecture)
    values = state.values()
    megabytes = sum(tensor.nbytes for part in state.tensors().values() for tensor in part.values()) / 1e6
    with CheckpointWriter(root, 1) as writer:

        def beside() -> None:
            judge_weights(state)
            writer.save(1, state.tensors(), values)

        def waiting() -> None:
            judge_weights(state)
            checkpoint.save(root, 2, state.tensors(), values, 1)

        def alone() -> None:
            judge_weights(state)

        first = seconds_of(beside)  # gets the memory for the copy
        writer.wait()
        times: dict[str, list[float]] = {"beside": [], "waiting": [], "alone": []}
        for _ in range(rounds):
            times["beside"].append(seconds_of(beside))
            writer.wait()
            times["waiting"].append(seconds_of(waiting))
            times["alone"].append(seconds_of(alone))
    ours, peers = min(times["beside"]), min(times["waiting"])
    yield Figure(f"checkpoint of {megabytes:.0f} MB: pause, peer a save that training waits for", ours, "s", None, peers)
    yield Figure("checkpoint: pause, of such a save", ours / peers, "", PAUSE)
    yield Figure("checkpoint: of the pause, looking for numbers that are not finite", min(times["alone"]), "s")
    yield Figure("checkpoint: first pause, which gets the memory", first, "s")


def trained_state(architecture: str) -> TrainState:
    """A state after one step, without gradients worth the name."""
    recipe = training_job("pause", batch=8, steps=1, every=1, architecture=architecture).recipe
    model = VideoFusionModel(model_config(recipe)).train()
    state = new_state(dict(model.named_parameters()), VideoFusionLearner.slow, recipe, torch.device("cpu"))
    for parameter in state.parameters:
        parameter.grad = torch.full_like(parameter, 1e-3)
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    return state


def seconds_of(work: Callable[[], object]) -> float:
    """How long it takes."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
