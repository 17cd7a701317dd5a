"""What a job asks for, and everything that can end it, as one Report."""

from __future__ import annotations

import hashlib
import importlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from videogen_api.job import CONTRACT, Job, Report
from videogen_api.training_run import TRAINING, WITHOUT_PODS, Reason, Task
from videogen_trainer import report
from videogen_trainer.cleaning import Cleaning
from videogen_trainer.failure import Failure, is_out_of_memory
from videogen_trainer.goodput import Meter
from videogen_trainer.heap import keep_freed_memory
from videogen_trainer.progress import ProgressReporter
from videogen_trainer.recipe_rules import recipe_problems, tuning_problems
from videogen_trainer.report import Milestones

if TYPE_CHECKING:
    from videogen_trainer.distributed import World

_LOG = logging.getLogger(__name__)
SPREAD = (*TRAINING, Task.TUNE, Task.EVALUATE, Task.TEST_SCENARIOS)  # over several processes and pods


def read_job(path: Path, sha256: str | None = None) -> Job:
    """The job file, with this digest (64 hex digits) if one is given.

    Raises Failure: InvalidJob, or ContractUnsupported before anything in it but the contract is looked at.
    """
    try:
        text = path.read_bytes()
        content = json.loads(text)
        contract = content["contract"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Failure(Reason.INVALID_JOB, f"{path} is no job file: {error!r}") from error
    if sha256 and (found := hashlib.sha256(text).hexdigest()) != sha256:
        message = f"{path} is not the job file that the operator wrote: its SHA-256 is {found}, expected {sha256}"
        raise Failure(Reason.INVALID_JOB, f"{message}; delete the ConfigMap that has its name and was made by somebody else")
    if contract != CONTRACT:
        raise Failure(
            Reason.CONTRACT_UNSUPPORTED,
            f"{path}: contract is {contract!r}, this trainer knows {CONTRACT!r}; use the trainer image of the operator's version",
        )
    try:
        job = Job.model_validate(content)
    except ValidationError as error:
        raise Failure(Reason.INVALID_JOB, f"{path}: {_first(error)}") from error
    if job.attempt:
        check(job)
    return job


def _first(error: ValidationError) -> str:
    problem = error.errors(include_url=False)[0]
    field = ".".join(map(str, problem["loc"]))
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{field or 'job'}: {problem['msg']}, found {report.shorten(repr(problem['input']), 80)}{more}"


def check(job: Job) -> None:
    """Rules between fields. Raises Failure(InvalidJob) with the first one that is broken."""
    for problem in problems(job):
        raise Failure(Reason.INVALID_JOB, problem)


def problems(job: Job) -> Iterator[str]:
    """What is wrong between the fields of a job."""
    yield from recipe_problems(job)
    recipe, processes = job.recipe, job.workers * job.processes_per_worker
    shares = processes * job.accumulation_steps
    if job.task in (*TRAINING, Task.TUNE) and recipe.global_batch_size % shares:
        yield (
            f"recipe.globalBatchSize is {recipe.global_batch_size}; it must be a multiple of workers.replicas x processes x"
            f" gradientAccumulationSteps = {job.workers} x {job.processes_per_worker} x {job.accumulation_steps} = {shares}"
        )
    if job.task not in SPREAD and job.workers > 1:
        yield f"workers.replicas is {job.workers}; {job.task.value} runs in one pod, set it to 1"
    missing = (
        dict.fromkeys(TRAINING, ("data", job.data))
        | dict.fromkeys(WITHOUT_PODS, ("a trainer's task", None))
        | {
            Task.CURATE: ("curate", job.curate),
            Task.EVALUATE: ("artifact", job.artifact),
            Task.TUNE: ("tune", job.tune),
            Task.BUILD_TEMPLATES: ("artifact", job.artifact),
            Task.TEST_SCENARIOS: ("artifact", job.artifact),
            Task.OPTIMIZE: ("optimize, artifact and data", job.optimize and job.artifact and job.data),
        }
    )
    field, value = missing[job.task]
    if not value:
        yield f"{field} is missing; a job with task {job.task.value} needs it"
    if job.task is Task.TUNE:
        yield from tuning_problems(job)


def processes_of(job: Job) -> int:
    """Processes in all. The other tasks use one, whatever the pod has."""
    return job.workers * job.processes_per_worker if job.task in SPREAD else 1


def attempt(
    job: Job,
    storage: Path,
    environment: Mapping[str, str],
    progress: ProgressReporter,
    stop: Callable[[], bool],
    meter: Meter | None = None,
) -> Report:
    """Do the task. Every failure becomes a Report with one reason; tracebacks of unexpected ones go to the log.

    `meter` knows when the process began; without one the attempt begins now.
    """
    milestones = Milestones(meter=meter) if meter else Milestones()
    try:
        return _run(job, storage, environment, progress, stop, milestones)
    except Failure as failure:
        return report.of_failure(failure, milestones)
    except Exception as error:  # noqa: BLE001 - whatever it is, the attempt shall end as a report
        _LOG.exception("the attempt ended with an unexpected error")
        return report.of_failure(_explained(error), milestones)


def _run(
    job: Job,
    storage: Path,
    environment: Mapping[str, str],
    progress: ProgressReporter,
    stop: Callable[[], bool],
    milestones: Milestones,
) -> Report:
    if not storage.is_dir():
        raise Failure(Reason.STORAGE_FAILED, f"{storage} is no folder; mount the run's persistent volume claim there")
    if not job.attempt:
        preflight = importlib.import_module("videogen_trainer.preflight.task")
        found: Report = preflight.run(job, storage)
        return found
    if job.task is Task.CURATE:  # comes before any phase that leaves checkpoints
        module = importlib.import_module("videogen_trainer.curate")
        result: Report = module.run(job, storage, progress)
        return result
    from videogen_trainer.distributed import join, leave

    # Else alone, whatever training-operator says: it counts workers.processes, of which only one is started.
    world = join(environment if job.task in SPREAD else {})
    if world.device.type == "cpu":
        keep_freed_memory()
    cleaning = Cleaning(storage, job.finished) if world.leads and job.finished else None
    work = _trained if job.task in TRAINING else _worked
    done = work(job, storage, world, progress, stop, milestones)
    leave()
    if cleaning:
        cleaning.finish()
    return done


def _trained(job: Job, storage: Path, world: World, progress: ProgressReporter, stop: Callable[[], bool], milestones: Milestones) -> Report:
    from videogen_trainer.loop import train
    from videogen_trainer.start import distrust

    try:
        return train(job, storage, world, progress, stop, milestones)
    except Failure as failure:
        if failure.reason is Reason.DIVERGED:  # in all processes, in the same step
            # Once one has ended the others have 30 s, and checkpoints may be large.
            told = world.from_leader([distrust(job, storage, milestones), milestones.last_step] if world.leads else None)
            assert isinstance(told, list)
            back, milestones.last_step = told
            raise Failure(failure.reason, f"{failure.message}; {back}") from failure
        raise


def _worked(job: Job, storage: Path, world: World, progress: ProgressReporter, stop: Callable[[], bool], milestones: Milestones) -> Report:
    match job.task:
        case Task.EVALUATE:
            from videogen_trainer import evaluate

            return evaluate.run(job, storage, world, progress, stop)
        case Task.TUNE:
            from videogen_trainer import tune

            return tune.run(job, storage, world, progress, stop, milestones)
        case Task.OPTIMIZE:
            from videogen_trainer import optimize

            return optimize.run(job, storage, world, progress, stop)
        case Task.BUILD_TEMPLATES:
            from videogen_trainer.emergency import build_templates

            return build_templates.run(job, storage, world, progress, stop)
        case Task.TEST_SCENARIOS:
            from videogen_trainer.emergency import try_scenarios

            return try_scenarios.run(job, storage, world, progress, stop)
    raise Failure(Reason.INVALID_JOB, f"task: {job.task} is the operator's own, the trainer has all others")


def _explained(error: Exception) -> Failure:
    reason, text = reason_of(error), f"{type(error).__name__}: {error}"
    return Failure(reason, f"another process of this job is gone ({text})" if reason is Reason.NODE_LOST else text)


def reason_of(error: Exception) -> Reason:
    """The reason that an unexpected error stands for."""
    from videogen_trainer.distributed import is_peer_lost

    text = str(error).lower()
    if is_out_of_memory(error):
        return Reason.OUT_OF_MEMORY
    if is_peer_lost(error):
        return Reason.NODE_LOST
    if isinstance(error, FloatingPointError):  # of a model that was given: `sampling.to_pixels`
        return Reason.ARTIFACT_INVALID
    if isinstance(error, OSError) or "i/o error" in text or "os error" in text:  # safetensors wraps what the system said
        return Reason.STORAGE_FAILED
    return Reason.TRAINER_FAILED
