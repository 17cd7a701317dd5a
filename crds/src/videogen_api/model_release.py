"""ModelRelease: one version of one model in a service; all releases of a service compete for its traffic."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints

from videogen_api.evaluation import Gate, MetricResult, Verdict
from videogen_api.meta import (
    Condition,
    Digest,
    DnsLabel,
    Model,
    ModelIdentity,
    ObjectName,
    Observation,
    PositiveDecimal,
    Quantity,
    ShortName,
    StoragePath,
    Text,
    Timestamp,
    k8s,
)
from videogen_api.placement import NOT_THE_SYSTEMS, LabelValue, PriorityClassName, Toleration


class ConditionType(StrEnum):
    """Conditions of a ModelRelease."""

    READY = "Ready"  # the release takes the traffic it is meant to take now
    RECONCILING = "Reconciling"  # present and True while pods or traffic are still being changed
    STALLED = "Stalled"  # present and True when only a person can help
    ROLLED_BACK = "RolledBack"  # True once traffic was taken back; says why


class Reason(StrEnum):
    """Reasons of a ModelRelease's conditions; one sentence each."""

    PENDING = "Pending"  # the operator has not looked yet
    GATES_PENDING = "GatesPending"  # the run that measures the gates has not finished
    GATE_FAILED = "GateFailed"  # an offline gate failed; publish a better version
    GATE_INCONCLUSIVE = "GateInconclusive"  # an offline gate has too few samples or no measurement
    RUN_NOT_FOUND = "RunNotFound"  # lineage.run does not exist, so the gates cannot be judged
    ARTIFACT_MISMATCH = "ArtifactMismatch"  # artifact.digest is not what lineage.run produced
    ARTIFACT_INVALID = "ArtifactInvalid"  # the server found another digest than artifact.digest
    CLAIM_NOT_FOUND = "ClaimNotFound"  # the persistent volume claim does not exist
    IMAGE_NOT_FOUND = "ImageNotFound"  # the serving image cannot be pulled
    INSUFFICIENT_CAPACITY = "InsufficientCapacity"  # no node has the GPUs or memory that the pods ask for
    STARTING = "Starting"  # pods are starting and loading the model
    START_FAILED = "StartFailed"  # pods did not become ready in time
    QUEUED = "Queued"  # another release of the service is in its rollout; this one waits
    GATEWAY_NOT_FOUND = "GatewayNotFound"  # the Gateway is absent or did not accept the route
    CANARY = "Canary"  # takes part of the traffic and is compared with the stable release
    CHECKS_INCONCLUSIVE = "ChecksInconclusive"  # live checks have no data (no requests, or Prometheus is down)
    HELD = "Held"  # a person asked to hold the rollout
    STABLE = "Stable"  # takes all traffic of the service
    STANDBY = "Standby"  # the previous stable release, kept warm for a rollback
    SUPERSEDED = "Superseded"  # replaced by a later release; its pods are gone
    ROLLED_BACK_CHECK = "CheckFailed"  # rolled back: a live check failed
    ROLLED_BACK_ALERT = "Alert"  # rolled back: an authenticated alert named this release
    ROLLED_BACK_REQUEST = "Requested"  # rolled back: a person asked for it
    ROLLED_BACK_PODS_LOST = "PodsLost"  # rolled back: its pods were lost
    QUARANTINED = "Quarantined"  # this digest was rolled back before; needs a new version or a retry request
    NOT_ROLLED_BACK = "NotRolledBack"  # RolledBack is False: nothing was taken back


class Artifact(Model):
    """The bundle that is served: immutable, verified by digest before it is loaded."""

    claim_name: DnsLabel = Field(description="Persistent volume claim, in the release's namespace.")
    path: StoragePath = Field(description="Folder of the bundle in the claim.")
    digest: Digest = Field(description="Digest of the bundle's manifest.")


class Lineage(Model):
    """Where the bundle comes from."""

    run: ObjectName | None = Field(default=None, description="TrainingRun whose evaluation the gates are judged by.")


class Serving(Model):
    """How the release is served by Triton."""

    replicas: int = Field(default=1, ge=1, le=64, description="Pods.")
    gpus: int = Field(default=0, ge=0, le=16, description="GPUs of each pod; 0 serves on the CPU.")
    sampling_steps: int = Field(default=50, ge=1, le=1000, description="Denoising steps (DDIM) of one generation.")
    timeout_seconds: int = Field(default=60, ge=1, le=3600, description="A request that takes longer is answered with an error.")
    cpu: Quantity = Field(default="1", description="CPU request of each pod.")
    memory: Quantity = Field(default="2Gi", description="Memory request and limit of each pod.")
    start_deadline_seconds: int = Field(
        default=600, ge=10, le=7200, description="Pods that are not ready after this end the rollout with StartFailed."
    )
    priority_class_name: PriorityClassName | None = Field(
        default=None,
        description="PriorityClass of the pods, not one of Kubernetes' own (system-...); absent: the cluster's default. Pods of a lower"
        " class give way to them.",
        json_schema_extra=k8s(rules=[NOT_THE_SYSTEMS]),
    )
    node_selector: dict[str, LabelValue] | None = Field(
        default=None, max_length=8, description="Labels that a node must have to run the pods; absent: any node."
    )
    tolerations: list[Toleration] = Field(
        default=[],
        max_length=8,
        description="Taints that the pods tolerate, beside that of GPUs, which pods with GPUs tolerate anyway.",
        json_schema_extra=k8s(atomic=True),
    )


class Step(Model):
    """One step of the canary."""

    weight_percent: int = Field(ge=1, le=100, description="Share of the service's traffic.")
    minimum_requests: int = Field(
        default=100, ge=0, le=1_000_000, description="Requests that this release must have answered well in the step before the next one."
    )
    minimum_seconds: int = Field(default=60, ge=0, le=2_592_000, description="Time that the step lasts at least.")


class LiveMetric(StrEnum):
    """Metrics of a served release, measured by Prometheus."""

    LATENCY_P95_SECONDS = "LatencyP95Seconds"
    ERROR_RATIO = "ErrorRatio"


class Check(Model):
    """A live check: runs all through the rollout and, after it, while the previous stable is kept warm."""

    name: ShortName = Field(description="Name of the check, unique in the release.")
    metric: LiveMetric = Field(description="LatencyP95Seconds or ErrorRatio.")
    maximum: PositiveDecimal | None = Field(default=None, description="The value may not be greater than this.")
    maximum_ratio_to_stable: PositiveDecimal | None = Field(
        default=None, description="The value may not be greater than this times the stable release's value."
    )
    minimum_requests: int = Field(
        default=10, ge=1, le=1_000_000, description="With fewer requests in the window the check is Inconclusive."
    )
    window_seconds: int = Field(default=60, ge=5, le=86400, description="Time over which the metric is measured.")


class Rollout(Model):
    """How a new release takes over the service's traffic."""

    steps: list[Step] = Field(
        default=[Step(weight_percent=10), Step(weight_percent=50)],
        max_length=10,
        description="Steps before 100 %, in rising order of weight; empty: all traffic at once.",
        json_schema_extra=k8s(
            atomic=True,
            rules=[
                (
                    "self.all(i, self.filter(j, j.weightPercent == i.weightPercent).size() == 1) && "
                    "self.map(s, s.weightPercent).isSorted()",
                    "weightPercent must rise from step to step, for example 10 then 50",
                )
            ],
        ),
    )
    checks: list[Check] = Field(
        default=[Check(name="errors", metric=LiveMetric.ERROR_RATIO, maximum="0.05")],
        max_length=8,
        description="Live checks against bounds and against stable. By default at most 5 % of the requests may fail; [] checks nothing.",
        json_schema_extra=k8s(list_map="name"),
    )
    check_interval_seconds: int = Field(default=10, ge=1, le=3600, description="Time between two rounds of checks.")
    failure_limit: int = Field(default=1, ge=1, le=100, description="Consecutive failed rounds that roll back.")


class Rollback(Model):
    """When traffic is taken back."""

    window_seconds: int = Field(
        default=604800, ge=0, le=7_776_000, description="The previous stable release stays warm, and checks go on, for this long."
    )
    on_alert: bool = Field(default=True, description="An authenticated Alertmanager webhook that names this release rolls it back.")


class ReleaseTemplate(Model):
    """What a TrainingRun's Release phase says of the release that it creates."""

    service: ShortName = Field(description="Service whose traffic the release takes over, for example standard.")
    serving: Serving = Field(default=Serving(), description="How it is served.")
    rollout: Rollout = Field(default=Rollout(), description="How it takes over the traffic.")
    rollback: Rollback = Field(default=Rollback(), description="When traffic is taken back.")


class ModelReleaseSpec(Model):
    """What is released, where, and how carefully."""

    service: ShortName = Field(description="All releases of a service share its traffic and its one HTTPRoute.")
    model: ModelIdentity = Field(description="The version; together they are the object's name.")
    artifact: Artifact = Field(description="The bundle that is served.")
    lineage: Lineage = Field(default=Lineage(), description="Where the bundle comes from.")
    serving: Serving = Field(default=Serving(), description="How it is served.")
    gates: list[Gate] = Field(
        default=[],
        max_length=16,
        description="Offline gates, judged by the evaluation of lineage.run before any traffic.",
        json_schema_extra=k8s(
            atomic=True,
            rules=[
                (
                    "self.all(g, g.metric != 'ScenarioPassRatio')",
                    "ScenarioPassRatio is judged by the gates of a TestScenarios phase, before the release; leave it out",
                )
            ],
        ),
    )
    rollout: Rollout = Field(default=Rollout(), description="How it takes over the traffic.")
    rollback: Rollback = Field(default=Rollback(), description="When traffic is taken back.")


class Traffic(Observation):
    """What the release takes now."""

    weight_percent: int = Field(default=0, ge=0, le=100, description="Share of the service's traffic, read back from the route.")
    ready_replicas: int = Field(default=0, ge=0, le=1000, description="Pods whose model is ready.")


class CheckVerdict(Observation):
    """The newest verdict of one live check."""

    name: ShortName = Field(description="Name of the check.")
    verdict: Verdict = Field(description="Passed, Failed, Inconclusive or Error.")
    message: Text = Field(default="", description="Values and bound in words.")


class RolloutState(Observation):
    """What of a rollout cannot be observed again; written with the observed resourceVersion."""

    state: Annotated[str, StringConstraints(max_length=32)] = Field(default="Pending", description="State of the rollout's state machine.")
    step: int = Field(default=0, ge=0, le=100, description="Index of the current step.")
    step_start_time: Timestamp | None = Field(default=None, description="When the current state or step began.")
    traffic_start_time: Timestamp | None = Field(default=None, description="When it first took traffic in this rollout.")
    last_check_time: Timestamp | None = Field(default=None, description="When the last round of checks was judged.")
    requests: int = Field(default=0, ge=0, le=2**53, description="Requests answered well in this step, as of the last round of checks.")
    failed_checks: int = Field(default=0, ge=0, le=1000, description="Consecutive failed rounds of checks.")
    pods_lost_time: Timestamp | None = Field(default=None, description="Since when no pod is ready, while the release is meant to serve.")
    promoted_time: Timestamp | None = Field(default=None, description="When the release became stable.")
    retired_time: Timestamp | None = Field(default=None, description="When it stopped being stable.")
    retried: bool = Field(default=False, description="A person asked to retry it, so the quarantine of its digest does not hold it.")
    reason: Reason | None = Field(default=None, description="Why it left the traffic or could not start, for a state that lasts.")
    message: Text = Field(default="", description="The same in words, or what was asked for and could not be done.")
    verdicts: list[CheckVerdict] = Field(
        default=[], max_length=8, description="Newest verdict of each check.", json_schema_extra=k8s(list_map="name")
    )


class RollbackRecord(Observation):
    """The last rollback of this release."""

    reason: Reason = Field(description="CheckFailed, Alert, Requested, PodsLost or Quarantined.")
    message: Text = Field(default="", description="The trigger in words.")
    time: Timestamp = Field(description="When it was decided.")
    to: ObjectName | None = Field(default=None, description="Release that took the traffic back.")
    seconds: Annotated[str, StringConstraints(max_length=16)] = Field(
        default="", description="From the trigger's arrival to the route's change, measured by the operator."
    )
    digest: Digest = Field(description="Digest that is quarantined by it.")


class ReleaseSummary(Observation):
    """Preformatted for printer columns; no logic reads it."""

    weight: Annotated[str, StringConstraints(max_length=64)] = Field(default="", description="Weight and step.")
    gates: Annotated[str, StringConstraints(max_length=64)] = Field(default="", description="Gates passed of all.")
    message: Text = Field(default="", description="What it is doing or waiting for.")


class ModelReleaseStatus(Observation):
    """What the operator observes of a release, and the little that it must remember."""

    observed_generation: int = Field(default=-1, ge=-1, le=2**53, description="Generation of the spec that this status judges.")
    conditions: list[Condition] = Field(
        default=[], max_length=8, description="Ready, Reconciling, Stalled, RolledBack.", json_schema_extra=k8s(list_map="type")
    )
    traffic: Traffic | None = Field(default=None, description="What the release takes now.")
    evaluation: list[MetricResult] = Field(
        default=[],
        max_length=16,
        description="Results that the gates were judged by, copied from the run so that they outlive it.",
        json_schema_extra=k8s(atomic=True),
    )
    rollout: RolloutState | None = Field(default=None, description="Progress of the rollout.")
    rollback: RollbackRecord | None = Field(default=None, description="The last rollback.")
    last_handled_request: Annotated[str, StringConstraints(max_length=128)] = Field(
        default="", description="Value of the request annotation that was answered last."
    )
    summary: ReleaseSummary | None = Field(default=None, description="For printer columns.")
