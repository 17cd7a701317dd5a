"""FineTuneCycle: a calendar for one model. Each scheduled time creates one TrainingRun from a template, under the next version."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from videogen_api.curation import NewClipsFound, VersionName
from videogen_api.cycle_stages import Stage, StageStatus, StageUse
from videogen_api.meta import (
    Condition,
    DnsLabel,
    Model,
    ModelLine,
    ObjectName,
    Observation,
    PositiveDecimal,
    ShortName,
    Text,
    Timestamp,
    VersionNumber,
    k8s,
)
from videogen_api.windows import WaitingFor

LABEL_CYCLE = "videogen.pib.gov.in/cycle"  # on a run: the cycle that created it
LABEL_MEASURES = "videogen.pib.gov.in/measures"  # on a run of a cycle with a target: the release that it measures
SET_BY_THE_CYCLE = ("model", "initFrom")  # of a run's spec, and so not in a template
HISTORY = 20  # entries of status.history
MOST_STAGES = 12
MOST_DATASETS = 16
PLACEHOLDERS = {  # what a template may name, in words
    "version": "version that the run makes, such as 1.4.0",
    "date": "day of the scheduled time in the cycle's time zone, such as 2026-12-01",
    "cycle": "name of the cycle",
    "run": "name of the run",
    "previousVersion": "version that the cycle's last successful run made",
    "previousDate": "$(date) of the cycle's last successful run",
    "previousDataset": "version of the first dataset that the cycle's last successful run curated",
}


class Cadence(StrEnum):
    """How often, and which part of the version each run raises."""

    DAILY = "Daily"
    WEEKLY = "Weekly"
    MONTHLY = "Monthly"
    QUARTERLY = "Quarterly"
    ANNUAL = "Annual"


SCHEDULES = {  # of a cycle that names none
    Cadence.DAILY: "0 3 * * *",
    Cadence.WEEKLY: "0 3 * * 1",
    Cadence.MONTHLY: "0 3 1 * *",
    Cadence.QUARTERLY: "0 3 1 1,4,7,10 *",
    Cadence.ANNUAL: "0 3 1 1 *",
}


class ConcurrencyPolicy(StrEnum):
    """What happens when a scheduled time comes while the last run is at work."""

    FORBID = "Forbid"
    REPLACE = "Replace"
    QUEUE = "Queue"


class ConditionType(StrEnum):
    """Conditions of a FineTuneCycle."""

    READY = "Ready"  # True: the next scheduled time will create a run, or one is at work, or it is suspended
    STALLED = "Stalled"  # present and True when only a change of the spec helps
    LAST_RUN_SUCCEEDED = "LastRunSucceeded"  # of the last run that has ended; absent before the first one
    COLLECTION_BELOW_TARGET = "CollectionBelowTarget"  # present and True while a dataset has fewer new clips than collect asks for
    BUDGET_EXCEEDED = "BudgetExceeded"  # present and True while the run at work is stopped because it has used up budget.gpuHours
    OVERDUE = "Overdue"  # present and True while a stage of the run at work is not done and its window has closed


class Reason(StrEnum):
    """Reasons of a FineTuneCycle's conditions; one sentence each."""

    SCHEDULED = "Scheduled"  # waits for the next scheduled time
    RUNNING = "Running"  # a run of the cycle is at work
    SUSPENDED = "Suspended"  # spec.suspend is true; no run is created
    QUEUED = "Queued"  # a scheduled time has come; waits for the end of the last run
    UNREADABLE = "Unreadable"  # it has the shape of another version, and nothing is done about it; see docs/upgrading.md
    SCHEDULE_INVALID = "ScheduleInvalid"  # the schedule cannot be read, or no time fits it
    TIME_ZONE_UNKNOWN = "TimeZoneUnknown"  # the time zone does not exist
    TEMPLATE_INVALID = "TemplateInvalid"  # a run made from the template would be no valid TrainingRun
    STAGES_INVALID = "StagesInvalid"  # a stage names no phase of the template, or a phase has no stage
    COLLECT_INVALID = "CollectInvalid"  # collect names a dataset that no Curate phase of the template makes, or the template counts itself
    BELOW_MINIMUM = "BelowMinimum"  # fewer new clips than collect's minimum: nothing was trained with them
    BELOW_TARGET = "BelowTarget"  # fewer new clips than collect's target, and no fewer than the minimum: the run goes on
    BUDGET_SPENT = "BudgetSpent"  # the run at work has used up its GPU hours
    WINDOW_CLOSED = "WindowClosed"  # a stage is not done at the end of its window
    VERSION_EXHAUSTED = "VersionExhausted"  # there is no higher version of this cadence
    NO_STABLE_RELEASE = "NoStableRelease"  # startFrom names a service without a stable release of the model; waits for one
    RUN_REFUSED = "RunRefused"  # the API server refused to create the run, or to delete the one that it replaces; tried again
    SUCCEEDED = "Succeeded"  # the last run did
    FAILED = "Failed"  # the last run did


class Outcome(StrEnum):
    """What became of a scheduled time."""

    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    SKIPPED = "Skipped"  # the last run was at work, a cycle of higher precedence was due, or there were too few new clips
    MISSED = "Missed"  # startingDeadlineSeconds had passed, or no run could begin before a later time came or the schedule was changed
    REPLACED = "Replaced"  # the next scheduled time came while its run was at work
    DELETED = "Deleted"  # its run was deleted before its end


class WhenBelow(StrEnum):
    """What becomes of a scheduled time with fewer new clips than the minimum."""

    WAIT = "Wait"
    SKIP = "Skip"


class CollectionTarget(Model):
    """How many new clips each scheduled run needs of a dataset that it curates."""

    dataset: ShortName = Field(description="Dataset of a Curate phase of the template.")
    minimum: int = Field(
        ge=0,
        le=100_000_000,
        description="With fewer new clips the run does not go on after the Curate phase. New are clips that are not in the version that the"
        " cycle's last successful run curated; before the first one, all.",
    )
    target: int | None = Field(
        default=None,
        ge=1,
        le=100_000_000,
        description="With fewer new clips the run goes on, and the condition CollectionBelowTarget says so; absent: the minimum.",
    )
    when_below: WhenBelow = Field(
        default=WhenBelow.WAIT,
        description="Below the minimum, Wait lets the run curate again every hour, until its Curate phase's window closes. Skip ends the"
        " run, and the scheduled time is Skipped.",
    )


class Budget(Model):
    """What each run may use."""

    gpu_hours: int = Field(
        ge=1,
        le=100_000_000,
        description="GPU hours: GPUs of the run's pods, or slices of them, times the hours that they have them. A run that has used them up"
        " is stopped as by suspend and goes on when there are more.",
    )


class StartFrom(Model):
    """Where the weights of each run come from."""

    service: DnsLabel = Field(description="The service's stable release at the scheduled time becomes the run's spec.initFrom.")


class Target(Model):
    """What a cycle measures, in place of training."""

    service: DnsLabel = Field(description="The service's stable release at the scheduled time is measured, as that version.")


class RunTemplate(Model):
    """The TrainingRun that each scheduled time creates."""

    spec: dict[str, Any] = Field(
        description="Spec of a TrainingRun (kubectl explain vrun.spec) without model and initFrom, which the cycle sets. In texts, "
        + "; ".join(f"$({name}) is the {what}" for name, what in PLACEHOLDERS.items())
        + ". A field that is only a $(previous...) is left out while there is no successful run."
    )  # its schema is made in crd.py


class FineTuneCycleSpec(Model):
    """When which model is trained again, from what, and how. A change acts from the next scheduled time on, one of stages at once."""

    cadence: Cadence = Field(
        description="Sets the default schedule and what each run does to the version: Weekly raises the patch, Monthly the minor, Quarterly"
        " and Annual the major number of the highest version of the model among releases and runs. Daily is for a cycle with a target,"
        " whose runs make no version."
    )
    schedule: Annotated[str, StringConstraints(pattern=r"^\S+( \S+){4}$", max_length=100)] | None = Field(
        default=None,
        description="Cron in five fields: minute, hour, day of the month, month, day of the week. Absent: 3:00 each day"
        " (Daily), on Mondays (Weekly), or on"
        " the first day of the month (Monthly), of the quarter (Quarterly) or of the year (Annual).",
    )
    time_zone: Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_+/-]*$", max_length=64)] = Field(
        default="Etc/UTC",
        description="Time zone of the schedule by its IANA name, such as Asia/Kolkata.",
        json_schema_extra=k8s(
            rules=[
                (
                    "timestamp('2026-01-01T00:00:00Z').getHours(self) >= 0",
                    "timeZone must be an IANA name, such as Asia/Kolkata or Etc/UTC",
                )
            ]
        ),
    )
    suspend: bool = Field(default=False, description="True creates no more runs; one that is at work stays.")
    starting_deadline_seconds: int | None = Field(
        default=None,
        ge=60,
        le=31_536_000,
        description="A run is not created later than this after its scheduled time, for example because the operator was down; absent:"
        " however late. Of several scheduled times that have passed only the last one counts.",
    )
    concurrency_policy: ConcurrencyPolicy = Field(
        default=ConcurrencyPolicy.FORBID,
        description="When a scheduled time comes while the cycle's last run is at work: Forbid skips it, Queue waits for the end, Replace"
        " deletes the run and begins anew.",
    )
    precedence: int = Field(
        default=0,
        ge=0,
        le=1000,
        description="Of several cycles of one model that are due together only the one with the highest number starts; the others skip that"
        " time.",
    )
    model: ModelLine = Field(description="The model whose versions the cycle makes.")
    start_from: StartFrom | None = Field(default=None, description="Weights that each run starts from; absent: from scratch.")
    target: Target | None = Field(
        default=None,
        description="Measure what serves: the template has Evaluate phases alone, and their results go to the release, whose gates judge"
        " them again. Absent: the cycle trains.",
    )
    collect: list[CollectionTarget] = Field(
        default=[],
        max_length=MOST_DATASETS,
        description="New clips that scheduled runs need; a run that somebody asks for at once takes what there is.",
        json_schema_extra=k8s(
            list_map="dataset",
            rules=[("self.all(c, !has(c.target) || c.target >= c.minimum)", "target must not be less than minimum")],
        ),
    )
    budget: Budget | None = Field(
        default=None, description="What each run may use; a change acts at once, on the run at work too. Absent: any amount."
    )
    skip_if_no_new_data: bool = Field(
        default=False,
        description="True skips scheduled times at which a dataset of the template has no new clip; those that collect names go by it.",
    )
    focus: Text = Field(default="", description="What this cycle is about, for people: New PIB visual identity.")
    stages: list[Stage] = Field(
        default=[],
        max_length=MOST_STAGES,
        description="Teams and windows, in order. Each phase of the template belongs to one stage; absent: the run has no stages.",
        json_schema_extra=k8s(
            list_map="name",
            rules=[
                (
                    "self.all(a, self.all(b, a.name == b.name || a.startDay + a.days <= b.startDay || b.startDay + b.days <= a.startDay))",
                    "the windows of two stages overlap: startDay + days of the one must not be greater than startDay of the next",
                ),
                ("self.map(s, s.startDay).isSorted()", "stages must stand in the order of their startDay"),
            ],
        ),
    )
    run_template: RunTemplate = Field(description="What each scheduled time creates.")
    successful_runs_history_limit: int = Field(
        default=10, ge=0, le=1000, description="Successful runs that are kept; older ones are deleted. Their bundles and releases stay."
    )
    failed_runs_history_limit: int = Field(default=10, ge=0, le=1000, description="Failed runs that are kept; older ones are deleted.")


# CEL over a whole FineTuneCycle, message, field.
CYCLE_RULES: tuple[tuple[str, str, str], ...] = (
    (
        "!has(self.spec.target) || !has(self.spec.startFrom)",
        "a cycle with a target measures the service's stable release, and begins from nothing else; leave startFrom out",
        ".spec.target",
    ),
    (
        "!has(self.spec.target) || self.spec.runTemplate.spec.phases.all(p, p.task == 'Evaluate')",
        "the template of a cycle with a target has Evaluate phases alone",
        ".spec.target",
    ),
    (
        "self.spec.cadence != 'Daily' || has(self.spec.target)",
        "cadence Daily is for cycles with a target; one that trains is Weekly, Monthly, Quarterly or Annual, with a schedule of yours",
        ".spec.cadence",
    ),
    (
        "!has(self.spec.target) || (self.spec.successfulRunsHistoryLimit > 0 && self.spec.failedRunsHistoryLimit > 0)",
        "runs of a cycle with a target must stay until their results are taken; the history limits must not be 0",
        ".spec.target",
    ),
)


class Followed(Observation):
    """The schedule that nextScheduleTime is of."""

    schedule: Annotated[str, StringConstraints(max_length=100)] = Field(description="Cron in five fields.")
    time_zone: Annotated[str, StringConstraints(max_length=64)] = Field(description="Its time zone.")
    since: Timestamp = Field(description="Times before it do not count: the cycle was created then, or its schedule changed.")


class CurrentRun(Observation):
    """The run at work."""

    run: ObjectName = Field(description="TrainingRun.")
    scheduled_time: Timestamp = Field(description="Time for which it was created.")
    version: VersionNumber = Field(description="Version that it makes, or measures.")
    phase: Annotated[str, StringConstraints(max_length=64)] = Field(default="", description="Number and name of its phase.")
    state: Annotated[str, StringConstraints(max_length=64)] = Field(
        default="", description="What the run is doing or waiting for: the reason of its condition Succeeded."
    )
    gpu_hours: PositiveDecimal | None = Field(default=None, description="GPU hours that it has used, a few minutes old.")
    stage: Annotated[str, StringConstraints(max_length=30)] = Field(default="", description="Stage whose turn it is.")
    waiting_for: WaitingFor | None = Field(default=None, description="Whose turn it is, for what, since when and until when.")
    stages: list[StageStatus] = Field(
        default=[], max_length=MOST_STAGES, description="How far each stage is.", json_schema_extra=k8s(list_map="name")
    )


class CollectedDataset(Observation):
    """A dataset that a run has curated, and how much of it is new."""

    dataset: ShortName = Field(description="Name of the dataset.")
    version: VersionName | None = Field(default=None, description="Version that the run used; absent: there were too few new clips.")
    new_clips: NewClipsFound | None = Field(default=None, description="New clips, if they were to be counted.")


class PastRun(Observation):
    """A scheduled time and what became of it."""

    scheduled_time: Timestamp = Field(description="The time; of a run-now request that of the request.")
    first_time: Timestamp | None = Field(
        default=None, description="The entry is about all scheduled times from this one to scheduledTime; absent: about that one."
    )
    outcome: Outcome = Field(description="What became of it.")
    message: Text = Field(default="", description="Why, unless it succeeded.")
    run: ObjectName | None = Field(default=None, description="TrainingRun, if one was created.")
    version: VersionNumber | None = Field(default=None, description="Version that it made or was to make.")
    release: ObjectName | None = Field(default=None, description="ModelRelease that the run created, or measured.")
    datasets: list[CollectedDataset] = Field(
        default=[], max_length=MOST_DATASETS, description="Datasets that it curated.", json_schema_extra=k8s(atomic=True)
    )
    gpu_hours: PositiveDecimal | None = Field(default=None, description="GPU hours that the run used.")
    stages: list[StageUse] = Field(
        default=[], max_length=MOST_STAGES, description="What its stages took.", json_schema_extra=k8s(atomic=True)
    )
    end_time: Timestamp | None = Field(default=None, description="When that was clear.")


class CycleSummary(Observation):
    """Preformatted for printer columns; no logic reads it."""

    status: Annotated[str, StringConstraints(max_length=64)] = Field(default="", description="What the cycle is doing.")
    current: Annotated[str, StringConstraints(max_length=160)] = Field(default="", description="Run at work and its phase.")
    last: Annotated[str, StringConstraints(max_length=64)] = Field(default="", description="Outcome of the last scheduled time.")
    message: Text = Field(default="", description="What it is doing or waiting for.")


class FineTuneCycleStatus(Observation):
    """What the operator knows of a cycle, and the little that it must remember."""

    observed_generation: int = Field(default=-1, ge=-1, le=2**53, description="Generation of the spec that this status judges.")
    conditions: list[Condition] = Field(
        default=[],
        max_length=32,
        description="Ready, Stalled, LastRunSucceeded; and those that others state.",
        json_schema_extra=k8s(list_map="type"),
    )
    last_schedule_time: Timestamp | None = Field(default=None, description="Last scheduled time that was decided about.")
    next_schedule_time: Timestamp | None = Field(default=None, description="Next scheduled time.")
    followed: Followed | None = Field(default=None, description="The schedule that is followed, and since when.")
    current: CurrentRun | None = Field(default=None, description="The run at work.")
    last_success: PastRun | None = Field(default=None, description="The newest run that succeeded.")
    history: list[PastRun] = Field(
        default=[], max_length=HISTORY, description="The newest scheduled times.", json_schema_extra=k8s(atomic=True)
    )
    last_version: VersionNumber | None = Field(default=None, description="Highest version that the cycle has ever used.")
    last_handled_request: Annotated[str, StringConstraints(max_length=128)] = Field(
        default="", description="Value of the request annotation that was answered last."
    )
    summary: CycleSummary | None = Field(default=None, description="For printer columns.")
