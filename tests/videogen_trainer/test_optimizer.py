"""AdamW with 8-bit moments: small, exact in a checkpoint, and learning what AdamW learns."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from videogen_api.job import Job, Report
from videogen_api.training_run import Reason
from videogen_models.bundle import load_model
from videogen_models.networks import model_config
from videogen_models.videofusion import VideoFusionModel
from videogen_testing.attempted import WORK, artifact
from videogen_testing.stopping import StopAfter
from videogen_trainer import checkpoint
from videogen_trainer.distributed import World
from videogen_trainer.divergence import Failure, judge_weights
from videogen_trainer.families import learner_of
from videogen_trainer.state import TrainState, new_state

FAMILIES = ["VideoFusion", "AlignYourLatents", "Text2VideoZero"]


def optimizer(name: str = "AdamW8bit", rate: str = "1e-3") -> dict[str, Any]:
    return {"optimizer": {"name": name, "learningRate": rate}}


def state_of(job: Job, storage: Path) -> TrainState:
    learner = learner_of(job, storage, World())
    return new_state(learner.learned(), learner.slow, job.recipe, torch.device("cpu"))


def step(state: TrainState, seed: int) -> None:
    """An optimiser step with gradients that are drawn."""
    generator = torch.Generator().manual_seed(seed)
    state.set_rates(1e-4, 1e-3)
    for parameter in state.learned.values():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    state.optimizer.step()


def test_bitsandbytes_is_needed_where_it_is_wanted_only_and_warns_of_nothing() -> None:
    code = (
        "import sys, torch; from videogen_api.recipe import Optimizer; from videogen_trainer.optimizer import new_optimizer;"
        "one = torch.nn.Parameter(torch.ones(2)); new_optimizer([], [one], Optimizer());"
        "import diffusers.training_utils; assert sys.modules['bitsandbytes'] is None;"  # as if it were not installed
        "import warnings; warnings.simplefilter('error');"
        "new_optimizer([], [one], Optimizer(name='AdamW8bit')); assert sys.modules['bitsandbytes'] is not None"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_the_states_take_a_quarter_of_the_memory(make_job: Callable[..., Job]) -> None:
    sizes = {}
    for name in ("AdamW", "AdamW8bit"):
        recipe = make_job(optimizer(name)).recipe
        state = new_state(dict(VideoFusionModel(model_config(recipe)).named_parameters()), "base.", recipe, torch.device("cpu"))
        step(state, 0)
        memory = {tensor.data_ptr(): tensor.nbytes for tensor in state.parts()["optimizer"].values()}
        sizes[name] = sum(memory.values())
    assert 0.25 < sizes["AdamW8bit"] / sizes["AdamW"] < 0.3  # scales, and tensors of fewer than 4,096 weights


@pytest.mark.parametrize("family", FAMILIES)
def test_the_states_come_back_from_a_checkpoint_to_the_bit(
    make_job: Callable[..., Job], storage: Path, tmp_path: Path, family: str
) -> None:
    job = make_job(optimizer() | {"videoFusion": None}, model={"family": family, "version": "1.0.0"})
    state, again = state_of(job, storage), state_of(job, storage)
    step(state, 0)
    state.step = 1
    checkpoint.save(tmp_path / "saved", 1, state.tensors(), state.values(), 1)
    again.restore(*checkpoint.load(tmp_path / "saved", 1))
    assert same(again, state)
    kinds = {tensor.dtype for name, tensor in again.parts()["optimizer"].items() if name.endswith("state1")}
    assert kinds == {torch.uint8, torch.float32}
    step(state, 1)
    assert not same(again, state)
    step(again, 1)
    assert same(again, state)


def same(one: TrainState, other: TrainState) -> bool:
    first, second = one.parts(), other.parts()
    assert {part: set(tensors) for part, tensors in first.items()} == {part: set(tensors) for part, tensors in second.items()}
    return all(torch.equal(tensor, second[part][name]) for part, tensors in first.items() for name, tensor in tensors.items())


@pytest.mark.parametrize("family", FAMILIES)
def test_stopped_and_resumed_is_the_same_to_the_bit_as_never_stopped(
    train: Callable[..., Report], make_job: Callable[..., Job], storage: Path, family: str
) -> None:
    job = make_job(optimizer() | {"steps": 4, "videoFusion": None}, model={"family": family, "version": "1.0.0"})
    stopped = train(job, StopAfter(3))
    assert (stopped.reason, stopped.last_step) == (Reason.PREEMPTED, 3), stopped.message
    resumed = train(job)
    assert resumed.resumed_from_step == 3
    curve = (storage / WORK / "curve.jsonl").read_bytes()
    shutil.rmtree(storage / "runs")
    assert artifact(train(job)) == artifact(resumed)
    assert (storage / WORK / "curve.jsonl").read_bytes() == curve


def test_the_loss_falls_as_with_adamw(train: Callable[..., Report], make_job: Callable[..., Job], storage: Path) -> None:
    curves = {}
    for name in ("AdamW", "AdamW8bit"):
        report = train(make_job(optimizer(name, "2e-3") | {"steps": 16, "checkpoints": {"everySteps": 16}}))
        assert report.reason is Reason.COMPLETED, report.message
        curves[name] = [json.loads(line)["loss"] for line in (storage / WORK / "curve.jsonl").read_text().splitlines()]
        shutil.rmtree(storage / "runs")
    assert curves["AdamW8bit"][:2] == pytest.approx(curves["AdamW"][:2], rel=1e-5)  # the first step has a rate of 0
    assert sum(curves["AdamW8bit"][-4:]) < 0.5 * sum(curves["AdamW8bit"][:4])
    assert sum(curves["AdamW8bit"][-4:]) == pytest.approx(sum(curves["AdamW"][-4:]), rel=0.1)


def test_what_shall_not_learn_stays_while_the_rest_learns(
    train: Callable[..., Report], make_job: Callable[..., Job], storage: Path
) -> None:
    job = make_job(optimizer() | {"steps": 3, "videoFusion": {"baseLearningRateScale": "0"}})
    before = learner_of(job, storage, World()).model.state_dict()
    after = load_model(storage / artifact(train(job)).path).state_dict()
    changed = {name.split(".")[0] for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert changed == {"residual", "text"}


def test_scales_that_are_no_numbers_are_never_saved(make_job: Callable[..., Job], storage: Path) -> None:
    state = state_of(make_job(optimizer()), storage)
    step(state, 0)
    judge_weights(state)
    name, scales = next((name, tensor) for name, tensor in state.parts()["optimizer"].items() if name.endswith("absmax2"))
    scales[0] = torch.inf
    with pytest.raises(Failure, match=f"optimizer {name} is not finite"):
        judge_weights(state)


def test_a_checkpoint_of_the_other_optimiser_is_of_another_recipe(train: Callable[..., Report], make_job: Callable[..., Job]) -> None:
    assert train(make_job(optimizer("AdamW")), StopAfter(2)).last_step == 2
    report = train(make_job(optimizer()))
    assert (report.reason, "another recipe" in report.message) == (Reason.INVALID_JOB, True)


def test_codes_are_saved_once(make_job: Callable[..., Job], storage: Path) -> None:
    state = state_of(make_job(optimizer()), storage)
    step(state, 0)
    saved: dict[str, Tensor] = state.parts()["optimizer"]
    assert [name for name in saved if "qmap" in name] == [":qmap1", ":qmap2"]
    assert saved[":qmap1"].shape == (256,)
