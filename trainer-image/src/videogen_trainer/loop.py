"""Training, whole, from top to bottom. Everything derives from `state.step`: to resume, run the same job again.

What ends it early is a Failure: Diverged in the very step, Preempted after a checkpoint that all processes agreed on.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

import torch

from videogen_api.bundle import MANIFEST
from videogen_api.job import Job, Report
from videogen_api.training_run import Reason
from videogen_trainer.checkpoint_writer import CheckpointWriter
from videogen_trainer.curve import Curve
from videogen_trainer.data import Batch, Batches, open_mixture
from videogen_trainer.distributed import World
from videogen_trainer.divergence import judge, judge_weights
from videogen_trainer.execution import prepare
from videogen_trainer.export import export
from videogen_trainer.failure import Failure
from videogen_trainer.families import learner_of
from videogen_trainer.gathering import gathered
from videogen_trainer.gradients import clip_gradients
from videogen_trainer.learning_rate import learning_rates
from videogen_trainer.micro_batches import MicroBatches
from videogen_trainer.progress import ProgressReporter
from videogen_trainer.report import Milestones, noted
from videogen_trainer.samples import sample_while_training
from videogen_trainer.start import INIT_FROM, initial_digest, resume
from videogen_trainer.state import autocast, new_state
from videogen_trainer.tracking import Tracking, step_values
from videogen_trainer.verification import together

_LOG = logging.getLogger(__name__)


def train(job: Job, storage: Path, world: World, progress: ProgressReporter, stop: Callable[[], bool], milestones: Milestones) -> Report:
    """Train to the recipe's last step, from the newest checkpoint if there is one, and write the bundle.

    Raises Failure: what `open_mixture` and `learner_of` raise, InvalidJob, ArtifactInvalid, Diverged, Preempted.
    """
    kept = job.recipe.checkpoints
    writer = CheckpointWriter(storage / job.work_path / "checkpoints", kept.keep_last, kept.keep_best, world)
    tracking = Tracking(job, storage, world)
    try:
        with tracking, writer:
            report = _train(job, storage, world, progress, stop, milestones, writer, tracking)
        return tracking.noted(report)
    finally:
        milestones.last_step = max(milestones.last_step, writer.published)


def _train(
    job: Job,
    storage: Path,
    world: World,
    progress: ProgressReporter,
    stop: Callable[[], bool],
    milestones: Milestones,
    writer: CheckpointWriter,
    tracking: Tracking,
) -> Report:
    recipe, meter = job.recipe, milestones.meter
    mixture = together(world, lambda check: open_mixture(storage, job, check=check))
    learner = learner_of(job, storage, world)
    prepare(learner.objective, recipe, world.device)
    objective = world.distribute(learner.objective, recipe.sharding)
    state = new_state(learner.learned(), learner.slow, recipe, world.device)
    root = storage / job.work_path / "checkpoints"
    milestones.resumed_from_step = milestones.last_step = resumed = resume(state, root, job, world, milestones)
    milestones.sound_step = state.sound_step
    dealt = recipe.model_copy(update={"gradient_accumulation_steps": job.accumulation_steps})  # among the workers that there are
    batches = Batches(mixture, dealt, world.rank, world.size)
    micro_batches = MicroBatches(batches, dealt, world, objective, meter)
    curve = Curve(storage / job.work_path / "curve.jsonl", resumed, time.monotonic) if world.leads else None
    reached = world.from_leader(curve.reached if curve else None)  # by the attempt before; steps until there are done again
    assert isinstance(reached, int)
    tracking.begin(resumed)
    clip_norm = float(recipe.optimizer.gradient_clip_norm)

    def save(*, at_once: bool) -> None:
        judge_weights(state, world)
        if world.leads:
            assert curve
            curve.flush()
            tracking.flush()
        values = state.values() | {"recipe": recipe.wire(), INIT_FROM: initial_digest(job)}
        sound = state.sound_step if state.is_suspect else None
        if state.is_sharded:
            writer.save_shards(state.step, state.shards(leads=world.leads), values, sound)
        elif world.leads:
            writer.save(state.step, state.tensors(), values, sound)
        if at_once:
            writer.finish()  # no process ends before the checkpoint is safe
            milestones.last_step = state.step

    def passed(batch: Batch, divisor: float) -> torch.Tensor:
        inputs = learner.prepare(batch)
        with autocast(recipe.precision, world.device):
            losses = objective(*inputs) / divisor
        state.scaler.scale(losses.sum()).backward()
        return losses.detach()

    _LOG.info("%d clips, batch %d, %d processes on %s, step %d", len(mixture), recipe.global_batch_size, world.size, world.device, resumed)
    while state.step < recipe.steps:
        started = time.monotonic()
        rates = learning_rates(recipe, float(job.learning_rate_scale), state.step, learner.slow_scale)
        state.set_rates(*rates)
        losses = micro_batches.step(state.step, passed)
        state.scaler.unscale_(state.optimizer)
        gradient = clip_gradients(state.parameters, clip_norm)
        told = torch.tensor([float(stop()), writer.poll(), writer.written], dtype=torch.float64, device=world.device)
        *terms, stopping, saved, written = world.mean(torch.cat([losses, told]))
        milestones.last_step = max(milestones.last_step, round(saved * world.size))  # only the leader's writer publishes
        writer.all_written(written)
        loss = sum(terms)
        judge(state, recipe, loss, gradient, may_leap=learner.loss_may_leap)
        milestones.sound_step = state.sound_step
        state.scaler.step(state.optimizer)  # FP16: not if the gradient overflowed
        state.scaler.update()
        state.optimizer.zero_grad(set_to_none=True)
        state.ema.step(state.learned.values())
        state.step += 1

        seconds = time.monotonic() - started
        meter.step(seconds, repeated=state.step <= reached)
        if curve:
            named = dict(zip(learner.terms, terms, strict=True))
            curve.add(step=state.step, loss=loss, **named, gradient=gradient, rate=rates[1])
            used = {"slow": rates[0]} if learner.slow else {}
            tracking.step(state.step, step_values(named, gradient, used | {"others": rates[1]}, seconds, meter))
        last = state.step == recipe.steps
        if stopping or last or state.step % recipe.checkpoints.every_steps == 0:
            with meter.saving():
                save(at_once=bool(stopping) or last)
        if recipe.samples and not stopping and state.step % recipe.samples.every_steps == 0:
            tracking.picture(state.step, sample_while_training(state, learner, job, storage, world, stop))
        metrics = {
            "step": state.step,
            "steps": recipe.steps,
            "loss": f"{loss:.4g}",
            "learningRate": f"{rates[1]:.3g}",
            "stepSeconds": f"{seconds:.3g}",
            "clipsInAPass": micro_batches.clips,
            "checkpointStep": milestones.last_step,
            **meter.metrics(),
            **tracking.metrics(),
            **({"damagedCheckpoints": len(milestones.damaged)} if milestones.damaged else {}),
        }
        if world.leads:
            progress.report(state.step, recipe.steps, metrics, final=bool(stopping) or last)
        if stopping and not last:
            raise Failure(
                Reason.PREEMPTED,
                f"asked to stop after step {state.step} of {recipe.steps}; saved, and the next attempt resumes from there",
            )

    batches.close()
    state, learner = gathered(state, learner, job, storage, world, torch.device("cpu"))
    artifact = export(job, storage, learner, state, mixture.resolved, world)
    if world.leads:
        learner.finished()
    tracking.file(storage / artifact.path / MANIFEST)
    message = noted(f"{recipe.steps} steps on {len(mixture)} clips", milestones)
    return Report(
        message=message,
        resumed_from_step=resumed,
        last_step=state.step,
        artifact=artifact,
        datasets=mixture.resolved,
        goodput=meter.read(),
    )
