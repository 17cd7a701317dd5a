"""TrainingRun: one model's schedule, an ordered list of phases; each attempt of a phase is one PyTorchJob."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field, StringConstraints

from videogen_api import phase_rules
from videogen_api.approvals import MOST_APPROVALS, Approval, GivenApproval, Subject
from videogen_api.consumption import GpuTime
from videogen_api.curation import Curate, NewClipsFound, VersionName
from videogen_api.emergency import Scenarios, Templates
from videogen_api.evaluation import Evaluation, Gate, MetricResult
from videogen_api.goodput import TimeSpent
from videogen_api.meta import Condition, Model, ModelIdentity, Observation, PositiveDecimal, ShortName, StoragePath, Text, Timestamp, k8s
from videogen_api.model_release import ReleaseTemplate
from videogen_api.noise_shares import Share
from videogen_api.optimization import Optimization, Optimize
from videogen_api.phase_training import PhaseTraining, phase_recipe
from videogen_api.pinned import CheckpointRetention, InitFrom, PinnedWeights, ResolvedDataset, ReusedFrom, RunArtifact, RunImages, Storage
from videogen_api.placement import PhasePlacement
from videogen_api.preflight import Preflight
from videogen_api.progress import Progress, RunSummary
from videogen_api.recipe import Recipe
from videogen_api.resources import Resources, Workers
from videogen_api.tracking import Tracking
from videogen_api.tuning import Trial, TunedParameter, Tuning
from videogen_api.windows import WINDOW_RULE, WaitingFor, Window


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
    APPROVE = "Approve"


WITHOUT_PODS = (Task.APPROVE, Task.RELEASE)
# Tasks that change weights and make a bundle.
TRAINING = (Task.TRAIN, Task.FINE_TUNE, Task.ADAPT, Task.ALIGN_CROSS_MODAL, Task.TRAIN_INTERPOLATION, Task.FINE_TUNE_DECODER)
_TRAINING = [task.value for task in TRAINING]


class Split(StrEnum):
    """The two parts of a dataset; no training phase may read HeldOut."""

    TRAIN = "Train"
    HELD_OUT = "HeldOut"


class ConditionType(StrEnum):
    """Conditions of a TrainingRun."""

    SUCCEEDED = "Succeeded"  # Unknown while it runs, then True or False for good
    RECONCILING = "Reconciling"  # present and True until the run's first job exists, and not again
    STALLED = "Stalled"  # present and True when the run has failed, or when its preflight has found something


class Reason(StrEnum):
    """Reasons of a TrainingRun's conditions; one sentence each."""

    PENDING = "Pending"  # the operator has not looked yet
    UNREADABLE = "Unreadable"  # it has the shape of another version, and nothing is done about it; see docs/upgrading.md
    CHECKING = "Checking"  # the preflight looks at what the phases will need
    PREFLIGHT_FAILED = "PreflightFailed"  # something that a phase needs is missing or wrong; looks again
    SUSPENDED = "Suspended"  # spec.suspend is true; no pods
    WAITING_FOR_APPROVAL = "WaitingForApproval"  # people of the teams in status.phases[].waitingFor must approve
    WAITING_FOR_WINDOW = "WaitingForWindow"  # the phase's window.notBefore is to come, or the quarter in which λ may change again
    BUDGET_EXCEEDED = "BudgetExceeded"  # the GPU hours that the run's cycle gives it are used up; no pods until it gives more
    STARTING = "Starting"  # the job is made, or exists and its pods are not running yet
    CURATING = "Curating"  # a Curate phase is running
    TRAINING = "Training"  # a Train phase is running
    EVALUATING = "Evaluating"  # an Evaluate phase is running
    RELEASING = "Releasing"  # the ModelRelease is being created, or does not have all traffic of its service yet
    RETRYING = "Retrying"  # an attempt ended; the next one waits for its back-off
    COMPLETED = "Completed"  # every phase is done
    TRAINING_OPERATOR_UNAVAILABLE = "TrainingOperatorUnavailable"  # nobody looks at PyTorchJobs, or their webhook is silent; retried
    TRAINING_OPERATOR_NOT_INSTALLED = "TrainingOperatorNotInstalled"  # the cluster knows no PyTorchJobs; retried
    QUOTA_EXCEEDED = "QuotaExceeded"  # a ResourceQuota refused an object of the run; retried
    ADMISSION_DENIED = "AdmissionDenied"  # an admission webhook or policy refused an object of the run; retried
    ADMISSION_UNAVAILABLE = "AdmissionUnavailable"  # an admission webhook does not answer; retried
    RATE_LIMITED = "RateLimited"  # the API server answered 429; retried
    WRITE_FORBIDDEN = "WriteForbidden"  # the operator's account may not make an object of the run; retried
    WRITE_INVALID = "WriteInvalid"  # the API server does not understand an object of the run; retried
    API_SERVER_UNAVAILABLE = "ApiServerUnavailable"  # the API server failed to store an object of the run; retried
    CLAIM_NOT_FOUND = "ClaimNotFound"  # the persistent volume claim does not exist; waits for it
    QUEUED = "Queued"  # the job waits in its queue until Kueue lets it begin, or go on
    QUEUE_UNAVAILABLE = "QueueUnavailable"  # Kueue does not look at the job, or its queue does not exist or is stopped; waits for it
    TRACKING_NOT_ALLOWED = "TrackingNotAllowed"  # the administrator does not let runs send anything to that host; waits for it
    CLAIM_NOT_ALLOWED = "ClaimNotAllowed"  # the claim has no label that lets runs mount it; waits for it
    IMAGE_NOT_FOUND = "ImageNotFound"  # the trainer image cannot be pulled; waits for it
    INSUFFICIENT_CAPACITY = "InsufficientCapacity"  # no node has the GPUs, CPUs or memory of one worker
    UNSCHEDULABLE = "Unschedulable"  # nodes exist that are large enough, but they are full; waits
    INIT_FROM_NOT_FOUND = "InitFromNotFound"  # spec.initFrom names a run or release that does not exist or has no artifact
    INIT_FROM_NOT_READY = "InitFromNotReady"  # spec.initFrom names a run that has not succeeded; waits for it
    INIT_FROM_LOOP = "InitFromLoop"  # runs wait for each other in a circle; one must be made anew
    INVALID_JOB = "InvalidJob"  # the trainer refused the job file
    CONTRACT_UNSUPPORTED = "ContractUnsupported"  # the trainer image is too old or too new for this operator
    VIDEO_UNREADABLE = "VideoUnreadable"  # a video file cannot be decoded
    VIDEO_MISSING = "VideoMissing"  # a source folder or video does not exist
    CAPTION_MISSING = "CaptionMissing"  # a video has no caption
    TABLE_INVALID = "TableInvalid"  # a source's CSV or JSONL table cannot be read
    DATASET_REJECTED = "DatasetRejected"  # more of a new dataset version was rejected than maximumRejectedPercent
    DATASET_TOO_SMALL = "DatasetTooSmall"  # fewer clips than minimumClips, or than one batch
    TOO_FEW_NEW_CLIPS = "TooFewNewClips"  # fewer new clips than curate.newClips.minimum; waits for more if whenBelow is Wait
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
    DEADLINE_EXCEEDED = "DeadlineExceeded"  # the phase's window has closed: it took longer than deadlineSeconds
    GATE_FAILED = "GateFailed"  # a gate of a phase failed, or optimisation cost more than maximumLoss
    GATE_INCONCLUSIVE = "GateInconclusive"  # a gate had too few samples
    RELEASE_CONFLICT = "ReleaseConflict"  # a ModelRelease of this name exists with another artifact or in another service
    RELEASE_ROLLED_BACK = "ReleaseRolledBack"  # the traffic of the run's ModelRelease was taken back before it was Stable
    RELEASE_FAILED = "ReleaseFailed"  # the run's ModelRelease was rejected, does not start, was overtaken or deleted
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


class DataReference(Model):
    """A part of a dataset version."""

    dataset: ShortName = Field(description="Name of the dataset, as a Curate phase made it.")
    version: VersionName = Field(description="Version of the dataset, for example 2026.11.")
    split: Split = Field(default=Split.TRAIN, description="Train or HeldOut, which no training phase may read.")
    samples: int | None = Field(default=None, ge=1, le=100_000_000, description="Use this many clips at most; absent: all.")


class Phase(Model):
    """One step of the schedule."""

    model_config = ConfigDict(json_schema_extra=k8s(rules=[phase_rules.of_a_phase(_TRAINING)]))

    name: ShortName = Field(description="Name of the phase, unique in the run.")
    task: Task = Field(
        description="Curate makes a dataset version. Tune searches a parameter of the recipe. Train, from scratch or from weights;"
        " FineTune, gently and from trained weights; Adapt, an image model to single frames; AlignCrossModal, how temporal layers attend to"
        " the text; TrainInterpolation, layers that put frames between frames; FineTuneDecoder, a decoder that does not flicker: training"
        " phases, which make a bundle. Optimize makes it smaller and exports it. Evaluate measures the newest bundle. BuildTemplates puts"
        " judged videos of emergencies into it. TestScenarios asks it for simulated emergencies. Approve waits for people. Release"
        " hands it over."
    )
    data: list[DataReference] = Field(
        default=[],
        max_length=16,
        description="Datasets to read, of all tasks but Curate, Approve and Release: to train with, or to compare with.",
        json_schema_extra=k8s(atomic=True),
    )
    curate: Curate | None = Field(
        default=None,
        description="Curate: what to make.",
        json_schema_extra=k8s(rules=[("!has(self.parent) || self.parent != self.version", "parent must be another version than this one")]),
    )
    evaluate: Evaluation | None = Field(default=None, description="Evaluate: how to measure; absent: the defaults.")
    gates: list[Gate] = Field(
        default=[],
        max_length=16,
        description="Evaluate, Optimize and TestScenarios: conditions that must hold.",
        json_schema_extra=k8s(atomic=True),
    )
    release: ReleaseTemplate | None = Field(default=None, description="Release: the service and how it is taken over.")
    approvals: list[Approval] | None = Field(
        default=None,
        min_length=1,
        max_length=MOST_APPROVALS,
        description="Approve: approvals that are needed, each by another person.",
        json_schema_extra=k8s(**{"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["kind", "team"]}),
    )
    tune: Tuning | None = Field(default=None, description="Tune: what to search and how to judge.")
    templates: Templates | None = Field(default=None, description="BuildTemplates: what to make; absent: the defaults.")
    scenarios: Scenarios | None = Field(default=None, description="TestScenarios: what to ask; absent: the defaults.")
    workers: Workers | None = Field(default=None, description="How many pods and processes work together; absent: one of each.")
    resources: Resources | None = Field(default=None, description="What each pod asks for; CPUs that stand nowhere are 1, memory 4Gi.")
    placement: PhasePlacement | None = Field(default=None, description="On which nodes the phase's pods may run, and before whom.")
    attempts: int = Field(
        default=3, ge=1, le=100, description="Attempts that may fail through the work's own fault; lost nodes and preemption do not count."
    )
    window: Window | None = Field(default=None, description="When the phase may begin, and how long it may take; absent: any time.")
    owner: ShortName | None = Field(
        default=None,
        description="Team that answers for the phase, such as ml-engineering; named in messages, events, metrics and"
        " status.phases[].waitingFor.",
    )
    train: PhaseTraining | None = Field(default=None, description="Training phases: values in place of the recipe's; absent: the recipe's.")
    optimize: Optimize | None = Field(default=None, description="Optimize: how to make the run's bundle smaller, and what it may cost.")

    @property
    def title(self) -> str:
        """`train of ml-engineering`, or its name alone if nobody owns it."""
        return f"{self.name} of {self.owner}" if self.owner else self.name

    @property
    def deadline_seconds(self) -> int | None:
        """Seconds of its window; None: it has no end."""
        return self.window.deadline_seconds if self.window else None

    @property
    def asked_workers(self) -> Workers:
        """How many pods and processes, also where the phase leaves them out."""
        return self.workers or Workers()

    def recipe_of(self, recipe: Recipe) -> Recipe:
        """The run's recipe with the phase's own values."""
        return phase_recipe(recipe, self.train, gentle=self.task is Task.FINE_TUNE)


class TrainingRunSpec(Model):
    """One model's schedule. While the run is suspended, what has not begun can be changed; what has begun stays as it is."""

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
        json_schema_extra=k8s(list_map="name", rules=[phase_rules.order(_TRAINING), WINDOW_RULE]),
    )
    tracking: Tracking | None = Field(default=None, description="Where curves and results go besides the storage; absent: nowhere.")
    checkpoint_retention: CheckpointRetention = Field(
        default=CheckpointRetention.WHILE_NEEDED,
        description="WhileNeeded: checkpoints of a phase that is done are removed by the next phase's pod. Always: they stay."
        " Bundles and datasets always stay.",
    )
    ttl_seconds_after_finished: int = Field(
        default=604800,
        ge=0,
        le=31_536_000,
        description="Jobs and pods, and the pods' logs, are deleted so long after the run's end; the run stays.",
    )
    suspend: bool = Field(default=False, description="True stops the run's pods after a checkpoint; false lets it resume from there.")


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
    workers: int | None = Field(default=None, ge=1, le=128, description="Pods of the attempt; absent: workers.replicas.")


class PhaseStatus(Observation):
    """What is known of one phase."""

    name: ShortName = Field(description="Name of the phase.")
    begun: bool = Field(default=False, description="Set before the first job is made; what the phase does cannot be changed from then on.")
    attempt: int = Field(default=0, ge=0, le=100_000, description="Number of the current or last attempt; 0: there was none.")
    subject: Subject | None = Field(default=None, description="What the phase's approvals are for, while it needs some.")
    approvals: list[GivenApproval] = Field(
        default=[], max_length=MOST_APPROVALS, description="Approvals that count.", json_schema_extra=k8s(atomic=True)
    )
    job_name: Annotated[str, StringConstraints(max_length=63)] = Field(default="", description="PyTorchJob of that attempt.")
    image_id: Annotated[str, StringConstraints(max_length=512)] = Field(
        default="",
        alias="imageID",
        description="Image that the newest attempt's pods ran, as the kubelet tells it; of a reused phase the one that computed it.",
    )
    start_time: Timestamp | None = Field(default=None, description="When the first attempt was created.")
    attempt_start_time: Timestamp | None = Field(
        default=None, description="When the current attempt was created, or its queue let it go on."
    )
    queued_time: Timestamp | None = Field(default=None, description="Since when the attempt waits in its queue; absent: it does not.")
    completion_time: Timestamp | None = Field(default=None, description="When the phase succeeded or failed for good.")
    suspended_seconds: int = Field(default=0, ge=0, le=2**31 - 1, description="Time spent suspended, or waiting in a queue, since then.")
    suspend_time: Timestamp | None = Field(default=None, description="When the present suspension began.")
    retry_time: Timestamp | None = Field(default=None, description="When the next attempt may begin.")
    window_start_time: Timestamp | None = Field(
        default=None,
        description="From when the window's deadlineSeconds count after a retry request or a suspension; absent: from the end of the phase"
        " before.",
    )
    waiting_for: list[WaitingFor] = Field(
        default=[], max_length=8, description="Whose turn it is while the phase is not done.", json_schema_extra=k8s(atomic=True)
    )
    outcome: Reason | None = Field(default=None, description="Completed, or the reason why the phase failed for good.")
    message: Text = Field(default="", description="The outcome in words.")
    progress: Progress | None = Field(default=None, description="Live progress of the current attempt.")
    checkpoint_step: int = Field(default=0, ge=0, le=10**9, description="Step of the newest checkpoint.")
    goodput: Share | None = Field(default=None, description="Share of its time spent on new steps: productive of all seconds of timeSpent.")
    datasets: list[ResolvedDataset] = Field(
        default=[], max_length=16, description="Data that was read or written.", json_schema_extra=k8s(atomic=True)
    )
    new_clips: NewClipsFound | None = Field(default=None, description="Curate: new clips that the newest attempt has counted.")
    attempts: list[AttemptRecord] = Field(
        default=[], max_length=10, description="The newest ended attempts.", json_schema_extra=k8s(list_map="number")
    )
    counted_attempts: int = Field(default=0, ge=0, le=100_000, description="Attempts that failed by the work's own fault since a retry.")
    interruptions: int = Field(
        default=0, ge=0, le=100_000, description="Attempts that were preempted or lost, since the last retry request; not suspensions."
    )
    evictions: int = Field(default=0, ge=0, le=100_000, description="How often the queue took back what it had given, since a retry.")
    divergences: int = Field(default=0, ge=0, le=100_000, description="Attempts that diverged; each halves the learning rate.")
    results: list[MetricResult] = Field(
        default=[],
        max_length=16,
        description="Metrics of an Evaluate, Optimize or TestScenarios phase.",
        json_schema_extra=k8s(atomic=True),
    )
    report: StoragePath | None = Field(default=None, description="HTML page about results in the storage.")
    trials: list[Trial] = Field(
        default=[], max_length=16, description="What a Tune phase has tried.", json_schema_extra=k8s(list_map="value")
    )
    optimization: Optimization | None = Field(default=None, description="What an Optimize phase has made, and what it cost.")
    reused_from: ReusedFrom | None = Field(
        default=None, description="Run and phase whose recorded result is reused; such a phase has no attempts."
    )
    time_spent: TimeSpent | None = Field(default=None, description="Where a training or Tune phase's time went, over all its attempts.")
    workers: int | None = Field(default=None, ge=1, le=128, description="Pods of the current or next attempt; absent: workers.replicas.")
    burst: bool = Field(default=False, description="Whether the current or next attempt is for the nodes of placement.burst.")
    gpu_hours: PositiveDecimal | None = Field(
        default=None, description="GPUs of the phase's pods times the hours that they had them, over all attempts; a few minutes old."
    )
    bytes_written: int | None = Field(
        default=None, ge=0, le=2**53, description="Bytes of bundles, datasets, checkpoints and reports that ended attempts have written."
    )
    gpu_time: GpuTime | None = Field(default=None, description="What gpuHours is counted from.")


class TrainingRunStatus(Observation):
    """What the operator observes of a run, and the little that it must remember."""

    observed_generation: int = Field(default=-1, ge=-1, le=2**53, description="Generation of the spec that this status judges.")
    conditions: list[Condition] = Field(
        default=[],
        max_length=32,
        description="Succeeded, Reconciling, Stalled; and those that others state.",
        json_schema_extra=k8s(list_map="type"),
    )
    phases: list[PhaseStatus] = Field(
        default=[], max_length=16, description="What is known of each phase that has begun.", json_schema_extra=k8s(list_map="name")
    )
    init_from: PinnedWeights | None = Field(default=None, description="The weights that the run starts from, pinned before its first job.")
    preflight: Preflight | None = Field(
        default=None, description="What is there of all that the phases need; looked at before the first attempt."
    )
    images: RunImages | None = Field(default=None, description="The images with which the run's pods work.")
    artifact: RunArtifact | None = Field(default=None, description="The bundle of the last phase that made one.")
    release: Annotated[str, StringConstraints(max_length=63)] = Field(default="", description="ModelRelease that the run created.")
    last_handled_request: Annotated[str, StringConstraints(max_length=128)] = Field(
        default="", description="Value of the request annotation that was answered last."
    )
    summary: RunSummary | None = Field(default=None, description="For printer columns.")
    gpu_budget: int | None = Field(
        default=None, ge=1, le=100_000_000, description="GPU hours that the run may use, as its cycle said last; absent: any."
    )
    tuned: list[TunedParameter] = Field(
        default=[],
        max_length=16,
        description="What Tune phases have chosen; later phases train with it.",
        json_schema_extra=k8s(list_map="parameter"),
    )
