"""TrainingRun: one model's schedule, an ordered list of phases; each attempt of a phase is one PyTorchJob."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints

from videogen_api import phase_rules
from videogen_api.curation import Curate, VersionName
from videogen_api.emergency import Scenarios, Templates
from videogen_api.evaluation import DEFAULT_EXTRACTORS, Extractor, Gate, MetricResult
from videogen_api.goodput import TimeSpent
from videogen_api.meta import (
    Condition,
    Digest,
    DnsLabel,
    Model,
    ModelIdentity,
    ObjectName,
    Observation,
    ShortName,
    StoragePath,
    Text,
    Timestamp,
    k8s,
)
from videogen_api.model_release import ReleaseTemplate
from videogen_api.noise_shares import Share
from videogen_api.optimization import Optimization, Optimize
from videogen_api.phase_training import PhaseTraining, phase_recipe
from videogen_api.recipe import Recipe
from videogen_api.resources import Resources
from videogen_api.tracking import Tracking
from videogen_api.tuning import PHASE_RULES, Trial, TunedParameter, Tuning


class Task(StrEnum):
    """What a phase does."""

    CURATE = "Curate"
    TRAIN = "Train"
    EVALUATE = "Evaluate"
    RELEASE = "Release"
    FINE_TUNE = "FineTune"
    ADAPT = "Adapt"
    ALIGN_CROSS_MODAL = "AlignCrossModal"
    TUNE = "Tune"
    TRAIN_INTERPOLATION = "TrainInterpolation"
    FINE_TUNE_DECODER = "FineTuneDecoder"
    OPTIMIZE = "Optimize"
    BUILD_TEMPLATES = "BuildTemplates"
    TEST_SCENARIOS = "TestScenarios"


TRAINING = (  # tasks that change weights and make a bundle
    Task.TRAIN,
    Task.FINE_TUNE,
    Task.ADAPT,
    Task.ALIGN_CROSS_MODAL,
    Task.TRAIN_INTERPOLATION,
    Task.FINE_TUNE_DECODER,
)
_TRAINING = [task.value for task in TRAINING]


class Split(StrEnum):
    """The two parts of a dataset; no training phase may read HeldOut."""

    TRAIN = "Train"
    HELD_OUT = "HeldOut"


class ConditionType(StrEnum):
    """Conditions of a TrainingRun."""

    SUCCEEDED = "Succeeded"  # Unknown while it runs, then True or False for good
    RECONCILING = "Reconciling"  # present and True until the current phase's job exists
    STALLED = "Stalled"  # present and True when the run has failed


class Reason(StrEnum):
    """Reasons of a TrainingRun's conditions; one sentence each."""

    PENDING = "Pending"  # the operator has not looked yet
    SUSPENDED = "Suspended"  # spec.suspend is true; no pods
    STARTING = "Starting"  # the job exists, its pods are not running yet
    CURATING = "Curating"  # a Curate phase is running
    TRAINING = "Training"  # a Train phase is running
    EVALUATING = "Evaluating"  # an Evaluate phase is running
    RELEASING = "Releasing"  # the ModelRelease is being created
    RETRYING = "Retrying"  # an attempt ended; the next one waits for its back-off
    COMPLETED = "Completed"  # every phase is done
    TRAINING_OPERATOR_UNAVAILABLE = "TrainingOperatorUnavailable"  # PyTorchJobs cannot be created; retried
    CLAIM_NOT_FOUND = "ClaimNotFound"  # the persistent volume claim does not exist; waits for it
    IMAGE_NOT_FOUND = "ImageNotFound"  # the trainer image cannot be pulled; waits for it
    INSUFFICIENT_CAPACITY = "InsufficientCapacity"  # no node has the GPUs, CPUs or memory of one worker
    UNSCHEDULABLE = "Unschedulable"  # nodes exist that are large enough, but they are full; waits
    INIT_FROM_NOT_FOUND = "InitFromNotFound"  # spec.initFrom names a run or release that does not exist or has no artifact
    INVALID_JOB = "InvalidJob"  # the trainer refused the job file
    CONTRACT_UNSUPPORTED = "ContractUnsupported"  # the trainer image is too old or too new for this operator
    VIDEO_UNREADABLE = "VideoUnreadable"  # a video file cannot be decoded
    VIDEO_MISSING = "VideoMissing"  # a source folder or video does not exist
    CAPTION_MISSING = "CaptionMissing"  # a video has no caption
    TABLE_INVALID = "TableInvalid"  # a source's CSV or JSONL table cannot be read
    DATASET_REJECTED = "DatasetRejected"  # more of a new dataset version was rejected than maximumRejectedPercent
    DATASET_TOO_SMALL = "DatasetTooSmall"  # fewer clips than minimumClips, or than one batch
    DATASET_NOT_FOUND = "DatasetNotFound"  # no such dataset or version in the storage
    DATASET_CORRUPT = "DatasetCorrupt"  # a dataset's files do not have the digests of its manifest
    ARTIFACT_INVALID = "ArtifactInvalid"  # a bundle's files do not have the digests of its manifest
    EXTRACTOR_MISSING = "ExtractorMissing"  # a feature network is missing or has another digest
    RESULTS_TOO_LARGE = "ResultsTooLarge"  # what was measured does not fit into the pod's termination message
    STORAGE_FAILED = "StorageFailed"  # reading or writing the storage failed
    OUT_OF_MEMORY = "OutOfMemory"  # a worker was killed for memory
    DIVERGED = "Diverged"  # loss or gradient became non-finite
    PREEMPTED = "Preempted"  # a pod was stopped or evicted; does not count as an attempt
    NODE_LOST = "NodeLost"  # a pod vanished with its node; does not count as an attempt
    TRAINER_FAILED = "TrainerFailed"  # the trainer ended with an unexpected error
    ATTEMPTS_EXHAUSTED = "AttemptsExhausted"  # the last allowed attempt failed
    DEADLINE_EXCEEDED = "DeadlineExceeded"  # the phase took longer than deadlineSeconds
    GATE_FAILED = "GateFailed"  # a gate of a phase failed, or optimisation cost more than maximumLoss
    GATE_INCONCLUSIVE = "GateInconclusive"  # a gate had too few samples
    RELEASE_CONFLICT = "ReleaseConflict"  # a ModelRelease of this name exists with another artifact
    TUNING = "Tuning"  # a Tune phase is running
    NAME_CONFLICT = "NameConflict"  # an object that is not the run's has the name of its next job; waits until it is gone
    FINE_TUNING = "FineTuning"  # a FineTune phase is running
    ADAPTING = "Adapting"  # an Adapt phase is running
    ALIGNING = "Aligning"  # an AlignCrossModal phase is running
    TRAINING_INTERPOLATION = "TrainingInterpolation"  # a TrainInterpolation phase is running
    FINE_TUNING_DECODER = "FineTuningDecoder"  # a FineTuneDecoder phase is running
    BUILDING_TEMPLATES = "BuildingTemplates"  # a BuildTemplates phase is running
    TESTING_SCENARIOS = "TestingScenarios"  # a TestScenarios phase is running
    TEMPLATES_REJECTED = "TemplatesRejected"  # too few videos of an emergency type are good enough to become templates
    FONT_MISSING = "FontMissing"  # the captions' font is missing, has another digest, or lacks a letter
    OPTIMIZING = "Optimizing"  # an Optimize phase is running
    EXPORT_FAILED = "ExportFailed"  # a network cannot be exported, or its export differs from it by more than onnxTolerance
    TENSORRT_UNAVAILABLE = "TensorRTUnavailable"  # formats asks for TensorRT, and the pod has no NVIDIA GPU or no tensorrt


class Storage(Model):
    """Where datasets, checkpoints and bundles live."""

    claim_name: DnsLabel = Field(description="Persistent volume claim in the namespace; ReadWriteMany if workers run on several nodes.")


class InitFrom(Model):
    """Weights to start from: exactly one of them."""

    release: ObjectName | None = Field(default=None, description="A ModelRelease in this namespace.")
    run: ObjectName | None = Field(default=None, description="A TrainingRun in this namespace that has produced a bundle.")


class DataReference(Model):
    """A part of a dataset version."""

    dataset: ShortName = Field(description="Name of the dataset.")
    version: VersionName = Field(description="Version of the dataset.")
    split: Split = Field(default=Split.TRAIN, description="Train or HeldOut.")
    samples: int | None = Field(default=None, ge=1, le=100_000_000, description="Use this many clips at most; absent: all.")


# What is measured must fit into a pod's termination message: one result for each I3D or C3D, three for each CLIP network.
_CLIP_NETWORKS = (
    "self.filter(e, e.architecture == 'CLIP').size() <= 1",
    "at most 1 of the extractors may be a CLIP network; measure with another in a second Evaluate phase",
)
_OWN_NAMES = (
    f"self.all(e, !(e.name in {list(DEFAULT_EXTRACTORS)}))",
    f"{' and '.join(DEFAULT_EXTRACTORS)} are the trainer's own networks, which are always used; give yours another name",
)


class Evaluation(Model):
    """How an Evaluate phase measures."""

    samples: int = Field(default=256, ge=2, le=1_000_000, description="Clips to generate.")
    sampling_steps: int = Field(default=50, ge=1, le=1000, description="Denoising steps (DDIM) of one generation.")
    extractors: list[Extractor] = Field(
        default=[],
        max_length=4,
        description="Feature networks of the user's own, at most 1 of them CLIP; the trainer's small default networks are used as well.",
        json_schema_extra=k8s(list_map="name", rules=[_CLIP_NETWORKS, _OWN_NAMES]),
    )


class Phase(Model):
    """One step of the schedule."""

    name: ShortName = Field(description="Name of the phase, unique in the run.")
    task: Task = Field(
        description="Curate makes a dataset version. Tune searches a parameter of the recipe. Train, from scratch or from weights;"
        " FineTune, gently and from trained weights; Adapt, an image model to single frames; AlignCrossModal, how temporal layers attend to"
        " the text; TrainInterpolation, layers that put frames between frames; FineTuneDecoder, a decoder that does not flicker: training"
        " phases, which make a bundle. Optimize makes it smaller and exports it. Evaluate measures the newest bundle. BuildTemplates puts"
        " judged videos of emergencies into it. TestScenarios asks it for simulated emergencies. Release hands it over."
    )
    data: list[DataReference] = Field(
        default=[],
        max_length=16,
        description="Datasets to read, of all tasks but Curate and Release: to train with, or to compare with.",
        json_schema_extra=k8s(atomic=True),
    )
    curate: Curate | None = Field(
        default=None,
        description="Curate: what to make.",
        json_schema_extra=k8s(
            rules=[("!has(self.parent) || self.parent != self.version", "parent must be another version than the one that is made")]
        ),
    )
    evaluate: Evaluation | None = Field(default=None, description="Evaluate: how to measure; absent: the defaults.")
    gates: list[Gate] = Field(
        default=[],
        max_length=16,
        description="Evaluate, Optimize and TestScenarios: conditions that must hold.",
        json_schema_extra=k8s(atomic=True),
    )
    release: ReleaseTemplate | None = Field(default=None, description="Release: the service and how it is taken over.")
    tune: Tuning | None = Field(default=None, description="Tune: what to search and how to judge.")
    templates: Templates | None = Field(default=None, description="BuildTemplates: what to make; absent: the defaults.")
    scenarios: Scenarios | None = Field(default=None, description="TestScenarios: what to ask; absent: the defaults.")
    resources: Resources = Field(default=Resources(), description="What the phase's pods ask for.")
    attempts: int = Field(
        default=3, ge=1, le=100, description="Attempts that may fail through the work's own fault; lost nodes and preemption do not count."
    )
    deadline_seconds: int | None = Field(
        default=None, ge=1, le=31_536_000, description="The phase may take this long, over all attempts, suspended time not counted."
    )
    train: PhaseTraining | None = Field(default=None, description="Training phases: values in place of the recipe's; absent: the recipe's.")
    optimize: Optimize | None = Field(default=None, description="Optimize: how to make the run's bundle smaller, and what it may cost.")

    def recipe_of(self, recipe: Recipe) -> Recipe:
        """The run's recipe with the phase's own values."""
        return phase_recipe(recipe, self.train, gentle=self.task is Task.FINE_TUNE)


class TrainingRunSpec(Model):
    """One model's schedule. Immutable but for suspend: make a new run instead."""

    model: ModelIdentity = Field(description="The version that this run makes.")
    storage: Storage = Field(description="Where datasets, checkpoints and bundles live.")
    init_from: InitFrom | None = Field(
        default=None,
        description="Weights to start from; absent: from scratch.",
        json_schema_extra=k8s(rules=[("has(self.release) != has(self.run)", "set exactly one of release and run")]),
    )
    recipe: Recipe = Field(description="What to train and how.")
    phases: list[Phase] = Field(
        min_length=1,
        max_length=16,
        description="Steps of the schedule, in order.",
        json_schema_extra=k8s(list_map="name", rules=phase_rules.blocks(_TRAINING) + phase_rules.order(_TRAINING) + PHASE_RULES),
    )
    tracking: Tracking | None = Field(default=None, description="Where curves and results go besides the storage; absent: nowhere.")
    suspend: bool = Field(default=False, description="True stops the run's pods after a checkpoint; false lets it go on from there.")


class Progress(Observation):
    """Progress of a running phase, with the field names of Kubeflow Trainer's trainerStatus."""

    progress_percentage: int | None = Field(default=None, ge=0, le=100, description="Share of the phase that is done.")
    estimated_remaining_seconds: int | None = Field(default=None, ge=0, le=2**31 - 1, description="Time to the end at the present speed.")
    metrics: list[ProgressMetric] = Field(
        default=[], max_length=16, description="Newest values: step, steps, loss, ...", json_schema_extra=k8s(list_map="name")
    )
    last_updated_time: Timestamp | None = Field(default=None, description="When the trainer reported.")


class ProgressMetric(Observation):
    """One value that the trainer reported."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=64)] = Field(description="Name of the value.")
    value: Annotated[str, StringConstraints(max_length=64)] = Field(description="The value.")


class ResolvedDataset(Observation):
    """Exactly which data a phase read or wrote."""

    dataset: ShortName = Field(description="Name of the dataset.")
    version: VersionName = Field(description="Version of the dataset.")
    digest: Digest = Field(description="Digest of the version's manifest.")
    clips: int = Field(default=0, ge=0, le=10**12, description="Clips in the version or in the part of it that was read.")
    in_place_of: VersionName | None = Field(default=None, description="Version that was rejected, and in whose place this one is used.")
    rejected: int | None = Field(default=None, ge=0, le=10**12, description="Curate: clips and videos that were rejected.")


class RunArtifact(Observation):
    """A bundle that the run has produced."""

    path: StoragePath = Field(description="Folder in the storage.")
    digest: Digest = Field(description="Digest of the bundle's manifest.")


class AttemptRecord(Observation):
    """One ended attempt of a phase."""

    number: int = Field(ge=1, le=100_000, description="Number of the attempt.")
    reason: Reason = Field(description="How it ended.")
    message: Text = Field(default="", description="The end in words.")
    counted: bool = Field(default=True, description="Whether it used up one of the phase's attempts.")
    start_time: Timestamp | None = Field(default=None, description="When its job was created.")
    end_time: Timestamp | None = Field(default=None, description="When its end was observed.")
    resumed_from_step: int = Field(default=0, ge=0, le=10**9, description="Step that it began with.")
    last_step: int = Field(default=0, ge=0, le=10**9, description="Last step that is saved.")
    workers: int | None = Field(default=None, ge=1, le=128, description="Pods of the attempt; absent: resources.workers.")


class PhaseStatus(Observation):
    """What is known of one phase."""

    name: ShortName = Field(description="Name of the phase.")
    attempt: int = Field(default=0, ge=0, le=100_000, description="Number of the current or last attempt; 0: not begun.")
    job_name: Annotated[str, StringConstraints(max_length=63)] = Field(default="", description="PyTorchJob of that attempt.")
    start_time: Timestamp | None = Field(default=None, description="When the first attempt was created.")
    attempt_start_time: Timestamp | None = Field(default=None, description="When the current attempt was created.")
    completion_time: Timestamp | None = Field(default=None, description="When the phase succeeded or failed for good.")
    suspended_seconds: int = Field(default=0, ge=0, le=2**31 - 1, description="Time spent suspended; not part of the deadline.")
    suspend_time: Timestamp | None = Field(default=None, description="When the present suspension began.")
    retry_time: Timestamp | None = Field(default=None, description="When the next attempt may begin.")
    outcome: Reason | None = Field(default=None, description="Completed, or the reason why the phase failed for good.")
    message: Text = Field(default="", description="The outcome in words.")
    progress: Progress | None = Field(default=None, description="Live progress of the current attempt.")
    checkpoint_step: int = Field(default=0, ge=0, le=10**9, description="Step of the newest checkpoint.")
    goodput: Share | None = Field(default=None, description="Share of its time spent on new steps: productive of all seconds of timeSpent.")
    datasets: list[ResolvedDataset] = Field(
        default=[], max_length=16, description="Data that was read or written.", json_schema_extra=k8s(atomic=True)
    )
    attempts: list[AttemptRecord] = Field(
        default=[], max_length=10, description="The newest ended attempts.", json_schema_extra=k8s(list_map="number")
    )
    counted_attempts: int = Field(
        default=0, ge=0, le=100_000, description="Attempts that failed through the work's own fault, since the last retry request."
    )
    interruptions: int = Field(
        default=0, ge=0, le=100_000, description="Attempts that were preempted or lost, since the last retry request; not suspensions."
    )
    divergences: int = Field(default=0, ge=0, le=100_000, description="Attempts that diverged; each halves the learning rate.")
    results: list[MetricResult] = Field(
        default=[],
        max_length=16,
        description="Metrics of an Evaluate, Optimize or TestScenarios phase.",
        json_schema_extra=k8s(atomic=True),
    )
    trials: list[Trial] = Field(
        default=[], max_length=16, description="What a Tune phase has tried.", json_schema_extra=k8s(list_map="value")
    )
    optimization: Optimization | None = Field(default=None, description="What an Optimize phase has made, and what it cost.")
    time_spent: TimeSpent | None = Field(default=None, description="Where a training or Tune phase's time went, over all its attempts.")
    workers: int | None = Field(
        default=None, ge=1, le=128, description="Pods of the current attempt, or of the next one; absent: resources.workers."
    )


class RunSummary(Observation):
    """Preformatted for printer columns; no logic reads it."""

    phase: Annotated[str, StringConstraints(max_length=64)] = Field(default="", description="Number and name of the phase.")
    progress: Annotated[str, StringConstraints(max_length=16)] = Field(default="", description="Percent of the phase.")
    step: Annotated[str, StringConstraints(max_length=40)] = Field(default="", description="Step of all steps.")
    loss: Annotated[str, StringConstraints(max_length=16)] = Field(default="", description="Newest loss.")
    eta: Annotated[str, StringConstraints(max_length=16)] = Field(default="", description="Time to the end of the phase.")


class TrainingRunStatus(Observation):
    """What the operator observes of a run, and the little that it must remember."""

    observed_generation: int = Field(default=-1, ge=-1, le=2**53, description="Generation of the spec that this status judges.")
    conditions: list[Condition] = Field(
        default=[], max_length=8, description="Succeeded, Reconciling, Stalled.", json_schema_extra=k8s(list_map="type")
    )
    phases: list[PhaseStatus] = Field(
        default=[], max_length=16, description="What is known of each phase that has begun.", json_schema_extra=k8s(list_map="name")
    )
    artifact: RunArtifact | None = Field(default=None, description="The bundle of the last phase that made one.")
    release: Annotated[str, StringConstraints(max_length=63)] = Field(default="", description="ModelRelease that the run created.")
    last_handled_request: Annotated[str, StringConstraints(max_length=128)] = Field(
        default="", description="Value of the request annotation that was answered last."
    )
    summary: RunSummary | None = Field(default=None, description="For printer columns.")
    tuned: list[TunedParameter] = Field(
        default=[],
        max_length=16,
        description="What Tune phases have chosen; later phases train with it.",
        json_schema_extra=k8s(list_map="parameter"),
    )


Progress.model_rebuild()
