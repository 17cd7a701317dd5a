"""Task Tune: try values of a parameter, one after the other in the pods of the phase, and choose the best.

A trial trains as a Train phase would, in a folder of its own, and is judged as an Evaluate phase would. All trials have the same
weights to begin with, seed, batches, steps, captions and noise; only the parameter differs. An attempt that is interrupted leaves
the results of the trials that are done and the checkpoints of the one under way, and the next attempt resumes from there.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from videogen_api.bundle import canonical_json
from videogen_api.evaluation import Evaluation, MetricResult
from videogen_api.job import ArtifactReference, Job, PinnedData, Report
from videogen_api.meta import Observation
from videogen_api.pinned import ResolvedDataset
from videogen_api.recipe import Recipe
from videogen_api.training_run import Reason, Split, Task
from videogen_api.tuning import Trial, Tuning, with_base_noise_share
from videogen_models.sealed import write_durably
from videogen_trainer import evaluate
from videogen_trainer.dataset import unchecked, writing
from videogen_trainer.distributed import World
from videogen_trainer.evaluate.task import open_references
from videogen_trainer.failure import Failure
from videogen_trainer.loop import train
from videogen_trainer.progress import ProgressReporter
from videogen_trainer.report import Milestones, noted
from videogen_trainer.trials import choose

_LOG = logging.getLogger(__name__)
RESULT = "result.json"
JUDGED = "evaluation"  # folder of a trial


class Record(Observation):
    """result.json: what a trial that is done has found."""

    made_from: str  # SHA-256 of all that the result depends on
    trial: Trial
    datasets: list[ResolvedDataset] = []
    artifact: ArtifactReference | None = None  # the bundle that was judged, and is deleted


def run(job: Job, storage: Path, world: World, progress: ProgressReporter, stop: Callable[[], bool], milestones: Milestones) -> Report:
    """Try all values of `job.tune` and choose one. The same Report in all processes.

    Raises Failure: what training and evaluating raise, but Diverged only if every trial diverged.
    """
    assert job.tune is not None, "a Tune job without its block"
    open_references(held_out(job), storage, like=job.recipe, check=unchecked)  # what is wrong ends the phase before a trial is trained
    search = Search(job=job, tuning=job.tune, storage=storage, world=world, progress=progress, stop=stop, milestones=milestones)
    records = [search.trial(number) for number in range(len(job.tune.values))]
    own = job.recipe.fusion.base_share
    choice = choose([record.trial for record in records], job.tune.objective, own)
    return Report(
        message=noted(choice.message(own), milestones),
        resumed_from_step=milestones.resumed_from_step,
        last_step=milestones.last_step,
        datasets=next(record.datasets for record in records if record.datasets),
        trials=[choice.chosen if record.trial.value == choice.chosen.value else record.trial for record in records],
        goodput=milestones.meter.read(),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """An attempt at all trials."""

    job: Job
    tuning: Tuning
    storage: Path
    world: World
    progress: ProgressReporter
    stop: Callable[[], bool]
    milestones: Milestones  # steps are counted over all trials

    def trial(self, number: int) -> Record:
        """The record of a trial: an earlier attempt's, or a new one."""
        job = training_job(self.job, self.tuning, self.tuning.values[number])
        path, key = self.storage / job.work_path / RESULT, made_from(job, self.job, self.tuning)
        known = self.world.from_leader(known_record(path, key) if self.world.leads else None)
        record = self._remembered(number, known) if known else self._try(number, job, key)
        if self.world.leads:
            with writing(path):
                write_durably(path, canonical_json(record.wire()))
            self._clean_up(job, record)
        self.world.from_leader(None)
        self.milestones.last_step = (number + 1) * self.tuning.steps
        return record

    def _remembered(self, number: int, known: object) -> Record:
        self._resumed(number, self.tuning.steps)
        return Record.model_validate(known)

    def _resumed(self, number: int, step: int) -> None:
        """The attempt resumes from this step of the trial, if all trials before it were done."""
        if self.milestones.resumed_from_step == number * self.tuning.steps:
            self.milestones.resumed_from_step += step

    def _try(self, number: int, job: Job, key: str) -> Record:
        value, before = self.tuning.values[number], number * self.tuning.steps
        _LOG.info("trial %d of %d: baseNoiseShare %s", number + 1, len(self.tuning.values), value)
        mine = Milestones(meter=self.milestones.meter)
        try:
            trained = train(job, self.storage, self.world, TrialProgress(self.progress, self.tuning, number), self.stop, mine)
        except Failure as failure:
            if failure.reason is not Reason.DIVERGED:
                raise
            _LOG.warning("baseNoiseShare %s: %s", value, failure.message)
            return Record(made_from=key, trial=Trial(value=value, metric=self.tuning.objective.metric))
        finally:
            self.milestones.last_step = before + mine.last_step
            self._resumed(number, mine.resumed_from_step)
            self.milestones.damaged += mine.damaged
        judged = self._judge(number, job, trained.artifact)
        return Record(
            made_from=key,
            trial=trial_of(value, self.tuning, judged.results),
            datasets=[*trained.datasets, *judged.datasets],
            artifact=trained.artifact,
        )

    def _judge(self, number: int, job: Job, artifact: ArtifactReference | None) -> Report:
        tuning = self.tuning
        own = [tuning.extractor] if tuning.extractor else []
        wanted = Evaluation(samples=tuning.samples, sampling_steps=tuning.sampling_steps, extractors=own)
        asked = job.model_copy(
            update={"task": Task.EVALUATE, "artifact": artifact, "evaluate": wanted, "data": held_out(self.job)} | _within(job)
        )
        progress = TrialProgress(self.progress, tuning, number, judging=True)
        return evaluate.run(asked, self.storage, self.world, progress, self.stop, has_page=False)

    def _clean_up(self, job: Job, record: Record) -> None:
        """Weights of a trial are of no use once it is judged, and large."""
        if record.artifact:
            shutil.rmtree(self.storage / record.artifact.path, ignore_errors=True)
        shutil.rmtree(self.storage / job.work_path / "checkpoints", ignore_errors=True)


def held_out(job: Job) -> list[PinnedData]:
    """What trials are judged by."""
    return [entry for entry in job.data if entry.reference.split is Split.HELD_OUT]


def _within(job: Job) -> dict[str, str]:
    """A folder and names for judging, so that event files and MLflow tell it from the training, whose steps it would make void."""
    return {field: f"{getattr(job, field)}/{JUDGED}" for field in ("run", "phase", "work_path")}


def training_job(job: Job, tuning: Tuning, value: str) -> Job:
    """The Train job of a value. Its bundle names the trial as its run, so that it is nobody else's and can be deleted; its phase is
    another than that of other trials, so that it has curves of its own.
    """
    slower = "" if job.learning_rate_scale == "1" else f"-rate-{job.learning_rate_scale}"  # after all trials have diverged
    path, phase = f"{job.work_path}/trials/{value}{slower}", f"{job.phase}/{value}{slower}"
    data = [entry for entry in job.data if entry.reference.split is Split.TRAIN]
    recipe = trial_recipe(job.recipe, tuning, value)
    changes = {"task": Task.TRAIN, "run": path, "phase": phase, "work_path": path, "recipe": recipe, "data": data, "tune": None}
    return job.model_copy(update=changes)


def trial_recipe(recipe: Recipe, tuning: Tuning, value: str) -> Recipe:
    """The recipe with this value, and with as many steps as a trial has; the schedule is shortened in proportion."""
    warmup = recipe.schedule.warmup_steps * tuning.steps // recipe.steps
    schedule = recipe.schedule.model_copy(update={"warmup_steps": warmup})
    shortened = recipe.model_copy(update={"steps": tuning.steps, "schedule": schedule, "samples": None})
    return with_base_noise_share(shortened, value)


def trial_of(value: str, tuning: Tuning, results: Sequence[MetricResult]) -> Trial:
    """What counts of a trial's results: the objective, by the user's network if there is one."""
    metric, name = tuning.objective.metric, tuning.extractor.name if tuning.extractor else None
    result = next(one for one in results if one.metric is metric and name in {None, one.extractor})
    return Trial(value=value, metric=metric, result=result.value, low=result.low, high=result.high)


def made_from(job: Job, whole: Job, tuning: Tuning) -> str:
    """SHA-256 of all that a trial's result depends on; `whole` is the Tune job that it is a trial of."""
    parts = {
        "recipe": job.recipe.wire(),
        "rate": job.learning_rate_scale,
        "from": job.init_from.digest if job.init_from else None,
        "data": [entry.reference.wire() for entry in whole.data],
        "judging": tuning.model_copy(update={"values": []}).wire(),
    }
    return hashlib.sha256(canonical_json(parts)).hexdigest()


def known_record(path: Path, key: str) -> dict[str, object] | None:
    """The record that an earlier attempt has left, as JSON; None if there is none of the same trial."""
    if not path.is_file():
        return None
    try:
        record = Record.model_validate_json(path.read_bytes())
    except ValidationError as error:
        _LOG.warning("%s is damaged, the trial is done again: %s", path, error)
        return None
    return record.wire() if record.made_from == key else None


class TrialProgress(ProgressReporter):
    """A trial's part of the progress of all; steps are counted over all trials."""

    def __init__(self, whole: ProgressReporter, tuning: Tuning, number: int, *, judging: bool = False) -> None:
        self._whole = whole
        self._trials, self._steps, self._number = len(tuning.values), tuning.steps, number
        self._each = tuning.steps + tuning.samples
        self._before = number * self._each + (tuning.steps if judging else 0)
        self._mine = tuning.samples if judging else tuning.steps
        self._trial = {"trial": f"{number + 1} of {self._trials}, baseNoiseShare {tuning.values[number]}"}
        self._judging = judging

    def report(self, done: int, total: int, metrics: Mapping[str, object], *, final: bool = False) -> None:
        """As of all trials."""
        first = self._number * self._steps
        counted = {name: first + int(str(metrics[name])) for name in ("step", "checkpointStep") if name in metrics}
        if self._judging:
            counted = {"step": first + self._steps}
        told = {**metrics, **counted, "steps": self._trials * self._steps, **self._trial}
        self._whole.report(self._before + self._mine * done // total, self._trials * self._each, told, final=final)
