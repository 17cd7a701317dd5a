"""The contract between operator and trainer: Job in, Report and ExitCode out.

The operator writes a Job as JSON into an immutable ConfigMap, which the pod mounts at `JOB_PATH`. The trainer
ends with an ExitCode and, from global rank 0 (or from the process that failed first), a Report as JSON of at most
4096 bytes in the pod's termination message. A reader ignores fields that it does not know; a `contract` that it does
not know ends with ExitCode.CONTRACT_UNSUPPORTED.

Storage layout below `STORAGE_PATH`:
  raw/...                                   videos and captions, put there by users
  datasets/<name>/<digest hex>/             manifest.json + clips-*.safetensors (uint8) + index.json
  datasets/<name>/versions/<version>.json   {"digest": "sha256:..."}
  datasets/<name>/reports/<version>.html    what curation kept and rejected, for people; also of a rejected version
  runs/<run>-<uid8>/<phase>/checkpoints/    step-<n>/ folders, until a later phase's pod removes them (spec.checkpointRetention)
  runs/<run>-<uid8>/<phase>/trials/<value>/ of a Tune phase, such a folder for each value; result.json once it is judged
  runs/<run>-<uid8>/<phase>/parts/          what an unfinished Curate phase has found in each video
  runs/<run>-<uid8>/<phase>/optimizing/     what an unfinished Optimize phase has exported and measured
  runs/<run>-<uid8>/<phase>/samples/        videos to look at; of training in step-<n>/ folders
  runs/<run>-<uid8>/<phase>/encodings/      latents and encoded captions, while a Train phase with cacheLatents lasts
  runs/<run>-<uid8>/<phase>/tensorboard/    event files of all attempts; of training and Evaluate phases
  runs/<run>-<uid8>/<phase>/templates/      finished templates of a BuildTemplates phase
  runs/<run>-<uid8>/<phase>/scenarios/      outcomes, videos and page of a TestScenarios phase
  records/<key>.json                        what a phase has computed, see `records.py`
  bundles/<release name>/<digest hex>/      manifest.json + weights, see `bundle.py`
  bundles/<release name>/<digest hex>.<run>-<uid8>.<phase>.html  what a phase measured of that bundle, for people
"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator

from videogen_api.curation import Curate, NewClipsFound
from videogen_api.emergency import Scenarios, Templates
from videogen_api.evaluation import Evaluation, Gate, MetricResult
from videogen_api.goodput import share_of
from videogen_api.lineage import Lineage
from videogen_api.meta import Digest, ModelIdentity, Observation, PositiveDecimal, StoragePath
from videogen_api.optimization import Optimization, Optimize
from videogen_api.pinned import ResolvedDataset
from videogen_api.preflight import PreflightResult
from videogen_api.recipe import Recipe, Resolution
from videogen_api.tracking import Tracking
from videogen_api.training_run import DataReference, Reason, Task
from videogen_api.tuning import Trial, Tuning

CONTRACT = "v1"
JOB_PATH = "/etc/videogen/job.json"
ENV_JOB_SHA256 = "VIDEOGEN_JOB_SHA256"  # 64 hex digits of the job file; the trainer refuses another one. Absent: any
STORAGE_PATH = "/storage"
TERMINATION_MESSAGE_PATH = "/dev/termination-log"
TOKEN_AUDIENCE = "videogen.pib.gov.in/progress"

# Kubeflow Trainer's progress protocol (docs/user-guides/trainjob-progress.md): names of its environment variables.
# The CA variable is absent when the operator serves plain HTTP inside the cluster, or has a certificate of a public authority.
ENV_SERVER_URL = "KUBEFLOW_TRAINER_SERVER_URL"
ENV_SERVER_CA_CERT = "KUBEFLOW_TRAINER_SERVER_CA_CERT"
ENV_SERVER_TOKEN = "KUBEFLOW_TRAINER_SERVER_TOKEN"
ENV_RECORDS_URL = "VIDEOGEN_RECORDS_URL"  # where the first pod has its result sealed, with the same CA and token; absent: nowhere
ENV_REPLICA_INDEX = "VIDEOGEN_REPLICA_INDEX"  # of the pod among those of its attempt, from 0


class ExitCode(IntEnum):
    """Exit codes of the trainer's container; the operator's failure policy is a table over them."""

    SUCCEEDED = 0
    FAILED = 1
    INVALID_JOB = 64
    CONTRACT_UNSUPPORTED = 65
    DATA_REJECTED = 66
    ARTIFACT_INVALID = 67
    EXTRACTOR_MISSING = 68
    EXPORT_FAILED = 69
    DIVERGED = 70
    OUT_OF_MEMORY = 71
    PEER_LOST = 72
    STORAGE_FAILED = 74
    PREEMPTED = 75


class ArtifactReference(Observation):
    """A bundle in the storage."""

    path: StoragePath
    digest: Digest


class PinnedData(Observation):
    """A part of a dataset version; the digest is there once an earlier attempt has resolved it."""

    reference: DataReference
    digest: Digest | None = None


class Job(Observation):
    """Everything that one attempt of one phase needs to know."""

    contract: str
    run: str
    run_uid: str
    namespace: str
    phase: str
    attempt: int = Field(ge=0)  # 0: the preflight
    task: Task
    model: ModelIdentity
    recipe: Recipe
    work_path: StoragePath  # the run's folder of checkpoints, runs/<run>-<uid8>/<phase>
    data: list[PinnedData] = []
    curate: Curate | None = None
    evaluate: Evaluation | None = None
    init_from: ArtifactReference | None = None  # training and Tune: weights to start from
    artifact: ArtifactReference | None = None  # the bundle to measure, optimise, give templates, or try
    learning_rate_scale: PositiveDecimal = "1"
    workers: int = 1
    processes_per_worker: int = 1
    progress_interval_seconds: int = 5
    tune: Tuning | None = None
    tracking: Tracking | None = None
    templates: Templates | None = None
    scenarios: Scenarios | None = None
    optimize: Optimize | None = None
    # Fewer workers than were asked for take the same micro-batches, more of each one after the other; absent: the recipe's.
    gradient_accumulation_steps: int | None = Field(default=None, ge=1)
    gates: list[Gate] = []  # Evaluate and Optimize: for the page alone, the operator judges
    lineage: Lineage | None = None  # Evaluate and Optimize: what the page says of it
    finished: list[StoragePath] = []  # work paths of the run's phases that are done: their checkpoints may go
    join_seconds: int = Field(default=600, ge=1)  # that pods wait for each other before training begins
    # Attempt 0 looks at what these will need and does nothing else: the job of each phase of the run, in order, as far as it is known.
    preflight: list[Job] = []
    look_up: bool = False  # attempt 0 also tells what was computed before of this job's inputs
    new_version: bool | None = None  # attempt 0 also looks whether another run has made a bundle of this version

    @property
    def accumulation_steps(self) -> int:
        """Micro-batches of each process in a step of training."""
        return self.gradient_accumulation_steps or self.recipe.gradient_accumulation_steps


class Goodput(Observation):
    """Where the seconds of a Train attempt went, since its process began. The rest is starting, ending and sample videos."""

    wall_seconds: PositiveDecimal
    productive_seconds: PositiveDecimal  # in steps that no attempt had done before, without waiting for data
    data_wait_seconds: PositiveDecimal
    checkpoint_pause_seconds: PositiveDecimal
    repeated_steps: int = Field(default=0, ge=0, le=10**9)  # that an earlier attempt had done after its last checkpoint

    @property
    def share(self) -> str:
        """Productive of all seconds, 0.00 to 1.00, rounded down."""
        return share_of(self.productive_seconds, self.wall_seconds)


class Report(Observation):
    """How an attempt ended."""

    contract: Literal["v1"] = "v1"
    reason: Reason = Reason.COMPLETED
    message: Annotated[str, StringConstraints(max_length=1024)] = ""
    resumed_from_step: int = 0
    last_step: int = 0  # newest step that is saved
    artifact: ArtifactReference | None = None
    datasets: list[ResolvedDataset] = []
    new_clips: NewClipsFound | None = None  # Curate, if they were to be counted; also of an attempt that found too few
    results: list[MetricResult] = []
    goodput: Goodput | None = None  # Train
    trials: list[Trial] = []  # Tune; one of them is chosen
    optimization: Optimization | None = None  # Optimize
    bytes_written: int | None = None  # into the storage, since the attempt began
    page: bool | None = None  # Evaluate and Optimize: whether `report_page` is there
    frames: int | None = None  # of each clip that `results` are about
    resolution: Resolution | None = None  # of their frames
    preflight: PreflightResult | None = None  # of attempt 0
    record: dict[str, Any] | None = None  # of attempt 0: what was computed before, see `records.py`

    @model_validator(mode="after")
    def _clips_of_the_results(self) -> Report:
        """Frames and resolution are told once, for want of room in the message, and hold for every result."""
        if self.frames or self.resolution:
            clips = {"frames": self.frames, "resolution": self.resolution}
            self.results[:] = [result.model_copy(update=clips) for result in self.results]
        return self


def work_path(run: str, run_uid: str, phase: str) -> str:
    """Folder of a phase's checkpoints, below the storage's root."""
    return f"runs/{run}-{run_uid[:8]}/{phase}"


def report_page(bundle: str, run: str, run_uid: str, phase: str) -> str:
    """The page about what a phase measured, beside its bundle. Each evaluation has its own: a later one changes no release's."""
    return f"{bundle}.{run}-{run_uid[:8]}.{phase}.html"
