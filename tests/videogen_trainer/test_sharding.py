"""Weights, gradients and optimiser states in shards: what is learned stays, and any number of processes goes on."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from videogen_api.job import ExitCode, Job
from videogen_api.recipe import Sharding
from videogen_api.training_run import Reason
from videogen_models.bundle import load_model
from videogen_models.video import decode_mp4
from videogen_testing import kernels
from videogen_testing.attempted import WORK, curve, losses
from videogen_testing.control_plane import free_port
from videogen_testing.forks import Fork
from videogen_testing.patience import HANGS
from videogen_testing.ranks import train_in
from videogen_trainer import checkpoint, tasks
from videogen_trainer.data import Batch
from videogen_trainer.distributed import World
from videogen_trainer.divergence import Failure, judge_weights
from videogen_trainer.families import Learner, learner_of
from videogen_trainer.gathering import gathered
from videogen_trainer.gradients import clip_gradients
from videogen_trainer.progress import ProgressReporter
from videogen_trainer.sharding import is_shard, is_sharded, own, part_of, shard, whole
from videogen_trainer.state import TrainState, new_state

FAMILIES = ["VideoFusion", "AlignYourLatents", "Text2VideoZero"]
CPU = torch.device("cpu")


@contextlib.contextmanager
def group_of_one() -> Iterator[None]:
    """A group of one process: all that shards do, but the sending."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


@pytest.fixture
def alone() -> Iterator[None]:
    with group_of_one():
        yield


@pytest.fixture
def family_job(make_job: Callable[..., Job]) -> Callable[..., Job]:
    def make(family: str, recipe: dict[str, Any] | None = None, **fields: Any) -> Job:
        return make_job({"videoFusion": None, **(recipe or {})}, model={"family": family, "version": "1.0.0"}, **fields)

    return make


def state_of(job: Job, storage: Path, *, sharded: bool) -> tuple[TrainState, Learner]:
    learner = learner_of(job, storage, World())
    if sharded:
        shard(learner.objective, CPU, 1)
    return new_state(learner.learned(), learner.slow, job.recipe, CPU), learner


def learn(state: TrainState, learner: Learner) -> tuple[list[float], float]:
    """One step -> its losses and gradient norm."""
    frames = torch.randint(0, 255, (2, 4, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(state.step))
    losses: Tensor = learner.objective(*learner.prepare(Batch(frames=frames, captions=["a", "b"], positions=range(2))))
    losses.sum().backward()
    norm = clip_gradients(state.parameters, 0.5)
    state.set_rates(1e-4, 1e-3)
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    state.ema.step(state.learned.values())
    state.step += 1
    return losses.tolist(), norm


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.usefixtures("alone")
def test_shards_learn_what_whole_weights_learn(family_job: Callable[..., Job], storage: Path, family: str) -> None:
    plain, sharded = state_of(family_job(family), storage, sharded=False), state_of(family_job(family), storage, sharded=True)
    assert list(sharded[0].learned) == list(plain[0].learned)
    assert {name for name, one in sharded[0].learned.items() if not is_shard(one)} == {
        name for name, one in plain[0].learned.items() if one.dim() == 0
    }
    assert (is_sharded(sharded[1].objective), sharded[0].is_sharded, plain[0].is_sharded) == (True, True, False)
    for _ in range(3):
        (losses, norm), (expected, its) = learn(*sharded), learn(*plain)
        assert losses == pytest.approx(expected, rel=1e-5)
        assert norm == pytest.approx(its, rel=1e-5)
    ours, theirs = sharded[0].tensors(), plain[0].tensors()
    for file, tensors in theirs.items():
        assert ours[file].keys() == tensors.keys()
        assert [name for name in tensors if not torch.allclose(ours[file][name], tensors[name], rtol=1e-2, atol=1e-4)] == []
    assert not any(is_shard(tensor) for part in ours.values() for tensor in part.values())


def test_an_autoencoder_that_makes_the_latents_stays_whole(family_job: Callable[..., Job], storage: Path, silent: ProgressReporter) -> None:
    image = tasks.attempt(family_job("Text2VideoZero", {"steps": 0, "schedule": {}}), storage, {}, silent, lambda: False).artifact
    job = family_job("VideoFusion", {"videoFusion": {"space": "Latent"}}, initFrom=image)
    expected = learn(*state_of(job, storage, sharded=False))
    with group_of_one():
        state, learner = state_of(job, storage, sharded=True)
        losses, norm = learn(state, learner)
    assert (losses, norm) == (pytest.approx(expected[0], rel=1e-5), pytest.approx(expected[1], rel=1e-5))
    assert state.is_sharded
    assert not any(is_shard(parameter) for name, parameter in learner.model.named_parameters() if name.startswith("vae."))


@pytest.mark.parametrize("saved_sharded, resumed_sharded", [(True, True), (True, False), (False, True)])
@pytest.mark.usefixtures("alone")
def test_a_checkpoint_goes_on_with_or_without_shards(
    family_job: Callable[..., Job], storage: Path, saved_sharded: bool, resumed_sharded: bool
) -> None:
    job = family_job("AlignYourLatents")
    state, learner = state_of(job, storage, sharded=saved_sharded)
    learn(state, learner)
    checkpoint.save(storage / "saved", 1, state.tensors(), state.values(), 1)
    again, other = state_of(job, storage, sharded=resumed_sharded)
    again.restore(*checkpoint.load(storage / "saved", 1))
    found = again.tensors()
    for file, tensors in state.tensors().items():
        assert [name for name, tensor in tensors.items() if not torch.equal(tensor, found[file][name])] == []
    (losses, norm), (expected, its) = learn(again, other), learn(state, learner)
    assert (losses, norm) == (pytest.approx(expected, rel=1e-5), pytest.approx(its, rel=1e-5))
    if saved_sharded and resumed_sharded:
        assert (losses, norm) == (expected, its)


@pytest.mark.usefixtures("alone")
def test_a_shard_that_is_no_number_is_never_saved(family_job: Callable[..., Job], storage: Path) -> None:
    state, learner = state_of(family_job("VideoFusion"), storage, sharded=True)
    learn(state, learner)
    judge_weights(state, World())
    name, parameter = next((name, one) for name, one in state.learned.items() if one.dim() == 4)
    with torch.no_grad():
        own(parameter).flatten()[0] = torch.nan
    with pytest.raises(Failure, match=f"model {name} is not finite"):
        judge_weights(state, World())


@pytest.mark.usefixtures("alone")
def test_the_first_process_has_the_averaged_weights_whole_and_the_others_keep_nothing(
    family_job: Callable[..., Job], storage: Path
) -> None:
    job = family_job("VideoFusion")
    state, learner = state_of(job, storage, sharded=True)
    learn(state, learner)
    copy, its = gathered(state, learner, job, storage, World(), CPU)
    assert copy.step == 1
    averages = state.averaged_weights()
    its.take(copy.averaged_weights())
    assert [name for name, one in its.learned().items() if not torch.equal(one, averages[name])] == []
    assert sum(tensor.numel() for name, tensor in state.averaged_weights(kept=False).items() if is_shard(state.learned[name])) == 0


@pytest.mark.usefixtures("alone")
def test_a_part_put_together_is_the_whole(storage: Path, family_job: Callable[..., Job]) -> None:
    state, _ = state_of(family_job("VideoFusion"), storage, sharded=True)
    like = next(one for one in state.learned.values() if one.dim() == 4)
    tensor = torch.randn(like.shape)
    assert torch.equal(whole(part_of(tensor, like)), tensor)
    assert part_of(tensor, tensor) is tensor
    assert whole(tensor) is tensor


PROCESSES = {"processesPerWorker": 2}


def norms(storage: Path) -> list[float]:
    return [line["gradient"] for line in curve(storage)]


@pytest.mark.parametrize("family", FAMILIES)
def test_two_processes_with_shards_learn_what_one_learns(
    storage: Path, family_job: Callable[..., Job], start_trainer: Callable[..., Any], silent: ProgressReporter, family: str
) -> None:
    recipe = {"steps": 4, "globalBatchSize": 8, "gradientAccumulationSteps": 2, "checkpoints": {"everySteps": 4, "keepLast": 2}}
    samples = {"everySteps": 4, "prompts": ["a square"], "samplingSteps": 1}
    job = family_job(family, recipe | {"sharding": "Full", "samples": samples}, **PROCESSES)
    code, report = start_trainer(job).wait()
    assert (code, report.reason, report.last_step) == (ExitCode.SUCCEEDED, Reason.COMPLETED, 4), report.message
    together, gradients = losses(storage), norms(storage)
    assert decode_mp4((storage / WORK / "samples/step-000000004/sample-00.mp4").read_bytes()).shape == (4, 16, 16, 3)
    assert report.artifact
    sharded = load_model(storage / report.artifact.path).state_dict()
    shutil.rmtree(storage / "runs")
    single = tasks.attempt(family_job(family, recipe), storage, {}, silent, lambda: False)
    assert together == pytest.approx(losses(storage), rel=1e-4)
    assert gradients == pytest.approx(norms(storage), rel=1e-3)
    assert single.artifact
    plain = load_model(storage / single.artifact.path).state_dict()
    assert [name for name in plain if not torch.allclose(sharded[name], plain[name], rtol=1e-2, atol=1e-3)] == []


def kill_in_the_middle(trainer: Any, storage: Path, step: int) -> None:
    """SIGKILL to all training processes once the checkpoint of a step is there."""
    root = storage / WORK / "checkpoints"
    while not any(found >= step for found in checkpoint.steps(root)):
        assert trainer.process.poll() is None, trainer.log.read_text()
        time.sleep(0.02)
    for worker in trainer.workers():
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker, signal.SIGKILL)
    code, _ = trainer.wait()
    assert code != ExitCode.SUCCEEDED


def test_from_an_earlier_checkpoint_shards_learn_the_same_to_the_bit(
    storage: Path, family_job: Callable[..., Job], start_trainer: Callable[..., Any]
) -> None:
    recipe = {"steps": 4, "sharding": "Full", "checkpoints": {"everySteps": 2, "keepLast": 2}}
    job = family_job("AlignYourLatents", recipe, **PROCESSES)
    code, never_killed = start_trainer(job).wait()
    assert (code, never_killed.resumed_from_step) == (ExitCode.SUCCEEDED, 0), never_killed.message
    before = losses(storage)
    newest = checkpoint.folder_of(storage / WORK / "checkpoints", 4)
    sizes = [sum(path.stat().st_size for path in newest.glob(f"*-0000{number}-of-00002.safetensors")) for number in (1, 2)]
    assert sizes == pytest.approx([sum(sizes) / 2] * 2, rel=0.1), "each process has written its half"
    shutil.rmtree(newest)  # as if all had been killed in step 3
    shutil.rmtree(storage / "bundles")
    code, resumed = start_trainer(job).wait()
    assert (code, resumed.resumed_from_step) == (ExitCode.SUCCEEDED, 2), resumed.message
    assert never_killed.artifact == resumed.artifact
    assert losses(storage) == before


# The trainer as it is, in which torch can neither pickle nor unpickle what processes send each other.
NO_OBJECTS = """
from torch.distributed import distributed_c10d

def refuse(*_, **__):
    raise SystemExit("an object was to go over the network")

distributed_c10d._object_to_tensor = distributed_c10d._tensor_to_object = refuse
from videogen_trainer.__main__ import main
main()
"""


@pytest.mark.parametrize("sharding", [None, Sharding.FULL])
def test_processes_send_each_other_no_pickled_objects(storage: Path, family_job: Callable[..., Job], sharding: Sharding | None) -> None:
    job = family_job("VideoFusion", {"steps": 2, "sharding": sharding, "checkpoints": {"everySteps": 1, "keepLast": 1}}, **PROCESSES)
    assert train_in(2, job, storage, ("-c", NO_OBJECTS)).reason is Reason.COMPLETED


def test_a_phase_goes_on_in_one_process_without_shards(
    storage: Path, family_job: Callable[..., Job], start_trainer: Callable[..., Any], silent: ProgressReporter
) -> None:
    recipe = {"steps": 14, "checkpoints": {"everySteps": 3, "keepLast": 2}}
    sharded = family_job("VideoFusion", recipe | {"sharding": "Full"}, **PROCESSES)
    kill_in_the_middle(start_trainer(sharded), storage, 3)
    resumed = tasks.attempt(family_job("VideoFusion", recipe), storage, {}, silent, lambda: False)
    assert (resumed.reason, resumed.resumed_from_step >= 3) == (Reason.COMPLETED, True), resumed.message
    before = losses(storage)
    shutil.rmtree(storage / "runs")
    tasks.attempt(family_job("VideoFusion", recipe), storage, {}, silent, lambda: False)
    assert before[:10] == pytest.approx(losses(storage)[:10], rel=1e-3)


# What a process has of the training state, and of a layer's gradient, beside what there is in all.
SHARE = """
import json, os, sys, torch
from pathlib import Path
from videogen_api.job import Job
from videogen_trainer.distributed import join, leave
from videogen_trainer.families import learner_of
from videogen_trainer.sharding import own
from videogen_trainer.state import new_state

world = join(os.environ)
job = Job.model_validate_json(sys.argv[1])
learner = learner_of(job, Path("."), world)
world.distribute(learner.objective, job.recipe.sharding)
state = new_state(learner.learned(), learner.slow, job.recipe, world.device)
for parameter in state.learned.values():
    parameter.grad = torch.ones_like(parameter)
state.optimizer.step()
parts = [tensor for part in state.parts().values() for tensor in part.values()]
print(sum(own(tensor).numel() for tensor in parts) / sum(tensor.numel() for tensor in parts))
leave()
"""


def test_each_of_two_processes_has_half_of_the_state(family_job: Callable[..., Job], tmp_path: Path) -> None:
    job = family_job("Text2VideoZero", {"sharding": Sharding.FULL}).model_dump_json(by_alias=True, exclude_none=True)
    environment = kernels.environment() | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
    outputs, started = [tmp_path / "0.log", tmp_path / "1.log"], []
    for rank, output in enumerate(outputs):
        with output.open("wb") as log:
            started.append(
                Fork([sys.executable, "-c", SHARE, job], environment | {"RANK": str(rank)}, stdout=log.fileno(), stderr=log.fileno())
            )
    assert [process.wait(HANGS) for process in started] == [0, 0], [output.read_text() for output in outputs]
    shares = [float(output.read_text().splitlines()[-1]) for output in outputs]
    assert sum(shares) == pytest.approx(1.0, abs=0.02)  # step counts are in both
    assert max(shares) < 0.55


BAD = {
    "AdamW8bit": ({"optimizer": {"name": "AdamW8bit"}}, "take AdamW"),
    "compiled networks": ({"compile": True}, "leave one of them out"),
    "FP16": ({"precision": "FP16"}, "take BF16 or FP32"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_shards_are_not_for_is_refused(family_job: Callable[..., Job], case: str) -> None:
    recipe, message = BAD[case]
    with pytest.raises(tasks.Failure, match=message) as caught:
        tasks.check(family_job("VideoFusion", recipe | {"sharding": "Full"}))
    assert caught.value.reason is Reason.INVALID_JOB
    tasks.check(family_job("VideoFusion", recipe))
