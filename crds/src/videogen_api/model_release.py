"""ModelRelease: one version of one model in a service; all releases of a service compete for its traffic."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field, StringConstraints

from videogen_api.evaluation import Gate, MetricResult, Verdict
from videogen_api.lineage import Lineage
from videogen_api.measurement import MEASUREMENTS, Measurement
from videogen_api.meta import (
    Condition,
    Digest,
    DnsLabel,
    Model,
    ModelIdentity,
    ObjectName,
    Observation,
    PositiveDecimal,
    ShortName,
    StoragePath,
    Text,
    Timestamp,
    k8s,
)
from videogen_api.placement import Placement
from videogen_api.resources import Resources


class ConditionType(StrEnum):
    """Conditions of a ModelRelease."""

    READY = "Ready"  # True as Stable and as Standby, absent once Superseded; its reason is the state that STATUS shows
    RECONCILING = "Reconciling"  # present and True until it is Stable: while it waits, starts, and is a canary, also one that is held
    STALLED = "Stalled"  # present and True when only a person can help
    ROLLED_BACK = "RolledBack"  # True once traffic was taken back; says why
    POLICY_CONFLICT = "PolicyConflict"  # present and True while the gateway does not hold itself to the service's traffic policy
    CHECKS_FAILING = "ChecksFailing"  # present and True while live checks of a stable release fail and no other release can take over


class Reason(StrEnum):
    """Reasons of a ModelRelease's conditions; one sentence each."""

    PENDING = "Pending"  # the operator has not looked yet
    UNREADABLE = "Unreadable"  # it has the shape of another version, and nothing is done about it; see docs/upgrading.md
    GATES_PENDING = "GatesPending"  # the run that measures the gates has not finished
    GATE_FAILED = "GateFailed"  # an offline gate failed; publish a better version
    GATE_INCONCLUSIVE = "GateInconclusive"  # an offline gate has too few samples or no measurement
    RUN_NOT_FOUND = "RunNotFound"  # lineage.run does not exist, so the gates cannot be judged
    ARTIFACT_MISMATCH = "ArtifactMismatch"  # artifact.digest is not what lineage.run produced
    EVALUATION_MISMATCH = "EvaluationMismatch"  # lineage.evaluation.digest is not that of what lineage.run measured
    ARTIFACT_INVALID = "ArtifactInvalid"  # the server found another digest than artifact.digest
    CLAIM_NOT_FOUND = "ClaimNotFound"  # the persistent volume claim does not exist
    CLAIM_NOT_ALLOWED = "ClaimNotAllowed"  # the claim has no label that lets releases mount it
    IMAGE_NOT_FOUND = "ImageNotFound"  # the serving image cannot be pulled
    INSUFFICIENT_CAPACITY = "InsufficientCapacity"  # no node has the GPUs or memory that the pods ask for
    STARTING = "Starting"  # pods are starting and loading the model
    START_FAILED = "StartFailed"  # pods did not become ready in time
    QUEUED = "Queued"  # another release of the service is in its rollout; this one waits
    GATEWAY_NOT_FOUND = "GatewayNotFound"  # the Gateway is absent or did not accept the route
    POLICY_NOT_ACCEPTED = "PolicyNotAccepted"  # of PolicyConflict: another BackendTrafficPolicy has the route, or this one is invalid
    HOSTNAME_TAKEN = "HostnameTaken"  # an older service has the same host name, and the gateway gives it the requests
    CANARY = "Canary"  # takes part of the traffic and is compared with the stable release
    CHECKS_INCONCLUSIVE = "ChecksInconclusive"  # of Reconciling: live checks have no data (no requests, or Prometheus is down)
    HELD = "Held"  # a person asked to hold the rollout
    STABLE = "Stable"  # takes all traffic of the service
    STANDBY = "Standby"  # the previous stable release, kept warm for a rollback
    SUPERSEDED = "Superseded"  # replaced by a later release; its pods are gone
    WITHDRAWN = "Withdrawn"  # a person took it out of the service, or out of the race for its traffic
    OLDER_VERSION = "OlderVersion"  # a later version is stable; an older one takes over only on request
    ROLLED_BACK = "RolledBack"  # its traffic was taken back; the condition RolledBack says why
    ROLLED_BACK_CHECK = "CheckFailed"  # rolled back: a live check failed
    ROLLED_BACK_ALERT = "Alert"  # rolled back: a verified alert named this release
    ROLLED_BACK_REQUEST = "Requested"  # rolled back: a person asked for it
    ROLLED_BACK_MEASUREMENT = "MeasurementFailed"  # rolled back: what a cycle measured in production does not pass a gate
    ROLLED_BACK_PODS_LOST = "PodsLost"  # rolled back: its pods were lost
    QUARANTINED = "Quarantined"  # this digest was rolled back before, by two signals or a person; needs a new version or a retry request
    NOT_ROLLED_BACK = "NotRolledBack"  # RolledBack is False: nothing was taken back


class Signal(StrEnum):
    """Who blames a release. Two of them that do not rest on one another quarantine its digest; a person's request does alone."""

    SERVERS = "Servers"  # its own servers' metrics, by a check or by an alert of the chart's that was verified
    GATEWAY = "Gateway"  # what the gateway itself measured of the requests that it sent to the release
    CRASH = "Crash"  # Kubernetes: its server ended by itself
    ALERT = "Alert"  # an alert that its namespace's own token vouches for
    REQUEST = "Request"  # a person


class Artifact(Model):
    """The bundle that is served: immutable, verified by digest before it is loaded."""

    claim_name: DnsLabel = Field(description="Persistent volume claim in the release's namespace, labelled for it.")
    path: StoragePath = Field(description="Folder of the bundle in the claim, for example bundles/<release>/<64 hex digits>.")
    digest: Digest = Field(description="Digest of the bundle's manifest; servers that find another one do not load it.")


_MOST_STEPS = "maximumSteps may not be less than samplingSteps, which a request without STEPS gets; raise it, or leave it out"


class Capacity(StrEnum):
    """What a release does that finds no room."""

    WAIT_FOR_ROOM = "WaitForRoom"
    REQUEST_NODES = "RequestNodes"


class Serving(Model):
    """How the release is served by Triton."""

    model_config = ConfigDict(
        json_schema_extra=k8s(rules=[("!has(self.maximumSteps) || self.maximumSteps >= self.samplingSteps", _MOST_STEPS)])
    )

    replicas: int = Field(default=1, ge=1, le=64, description="Pods that serve. kubectl scale and autoscalers write it, too.")
    sampling_steps: int = Field(default=50, ge=1, le=1000, description="Denoising steps (DDIM) of one generation.")
    maximum_steps: int | None = Field(
        default=None,
        ge=1,
        le=1000,
        description="Denoising steps that a request may ask for; one that asks for more is refused and counts as the client's mistake,"
        " as does one that runs out of time with more than samplingSteps. Absent: samplingSteps.",
    )
    timeout_seconds: int = Field(default=60, ge=1, le=3600, description="Seconds after which a request is answered with an error.")
    resources: Resources | None = Field(
        default=None,
        description="What each pod asks for; GPUs stand in limits, without them it serves on the CPU. CPUs that stand nowhere are 1, memory"
        " 2Gi.",
    )
    placement: Placement | None = Field(default=None, description="On which nodes the pods may run, and before whom.")
    start_deadline_seconds: int = Field(
        default=600,
        ge=10,
        le=7200,
        description="Pods that a node has taken and that are not ready after this end the rollout with StartFailed.",
    )
    capacity: Capacity = Field(
        default=Capacity.WAIT_FOR_ROOM,
        description="WaitForRoom makes no pods before there is room for them. RequestNodes makes them, so that they are Pending and a"
        " cluster autoscaler brings nodes. Until then no other release of the service starts.",
    )


class Step(Model):
    """One step of the canary."""

    weight_percent: int = Field(ge=1, le=100, description="Share of the service's traffic, in percent.")
    minimum_requests: int = Field(
        default=100, ge=0, le=1_000_000, description="Requests that this release must have answered well in the step before the next one."
    )
    minimum_seconds: int = Field(default=60, ge=0, le=2_592_000, description="Seconds that the step lasts at least.")


class LiveMetric(StrEnum):
    """Metrics of a served release, measured by Prometheus."""

    LATENCY_P95_SECONDS = "LatencyP95Seconds"
    ERROR_RATIO = "ErrorRatio"


_NO_RATIO = "minimumDifference needs maximumRatioToStable, whose comparison it bounds; add that, or leave it out"


class Check(Model):
    """A live check: runs for as long as the release takes traffic."""

    model_config = ConfigDict(json_schema_extra=k8s(rules=[("!has(self.minimumDifference) || has(self.maximumRatioToStable)", _NO_RATIO)]))

    name: ShortName = Field(description="Name of the check, unique in the release.")
    metric: LiveMetric = Field(
        description="LatencyP95Seconds: 95 % of the requests take at most so long. ErrorRatio: share that fails, 0 to 1."
    )
    maximum: PositiveDecimal | None = Field(default=None, description="Largest value that passes: seconds, or a share from 0 to 1.")
    maximum_ratio_to_stable: PositiveDecimal | None = Field(
        default=None, description="The value may not be greater than this times the stable release's value."
    )
    minimum_difference: PositiveDecimal | None = Field(
        default=None,
        description="By how much the value must exceed the stable release's before the ratio counts: twice nothing is nothing. In the"
        " metric's unit; absent: 0.01 for ErrorRatio, 0.1 s for LatencyP95Seconds.",
    )
    minimum_requests: int = Field(
        default=10, ge=1, le=1_000_000, description="With fewer requests in the window the check is Inconclusive."
    )
    window_seconds: int = Field(default=60, ge=5, le=86400, description="Seconds over which the metric is measured.")


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
    check_interval_seconds: int = Field(default=10, ge=1, le=3600, description="Seconds between two rounds of checks.")
    failure_limit: int = Field(default=1, ge=1, le=100, description="Consecutive failed rounds that roll back.")


class Rollback(Model):
    """When traffic is taken back."""

    window_seconds: int = Field(default=604800, ge=0, le=7_776_000, description="Seconds that the previous stable release stays warm.")
    on_alert: bool = Field(default=True, description="An Alertmanager webhook that names this release rolls it back, once it is verified.")
    on_measurement: bool = Field(
        default=True,
        description="What a FineTuneCycle with a target measures of this release is judged by its gates, too; one that fails rolls back.",
    )


class WaitFor(StrEnum):
    """When a Release phase is done."""

    CREATED = "Created"  # the release exists; what becomes of it is its own affair
    STABLE = "Stable"  # it has all traffic of its service


class ReleaseTemplate(Model):
    """What a TrainingRun's Release phase says of the release that it creates."""

    service: ShortName = Field(description="Service whose traffic the release takes over, for example standard.")
    wait_for: WaitFor = Field(
        default=WaitFor.STABLE,
        description="Stable: the phase is done when the release takes all traffic of the service; it fails when the release is rejected or"
        " rolled back, or after the phase's deadlineSeconds. Created: it is done when the release exists.",
    )
    serving: Serving = Field(default=Serving(), description="How Triton serves it.")
    rollout: Rollout = Field(default=Rollout(), description="How it takes over the traffic.")
    rollback: Rollback = Field(default=Rollback(), description="When traffic is taken back.")


class ModelReleaseSpec(Model):
    """What is released, where, and how carefully."""

    service: ShortName = Field(description="Service, for example standard. Its releases share its traffic and one HTTPRoute.")
    model: ModelIdentity = Field(description="The version; together they are the object's name.")
    artifact: Artifact = Field(description="The bundle that is served.")
    lineage: Lineage = Field(default=Lineage(), description="Where the bundle comes from.")
    serving: Serving = Field(default=Serving(), description="How Triton serves it.")
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


class TrafficChange(Observation):
    """One change of a release's share of the traffic."""

    time: Timestamp = Field(description="When the route was changed.")
    weight_percent: int = Field(ge=0, le=100, description="Share since then.")
    why: Annotated[str, StringConstraints(max_length=512)] = Field(default="", description="What led to it: a release, and what it did.")
    by: Annotated[str, StringConstraints(max_length=160)] = Field(
        default="", description="operator, checks, alert, or request with its token: who asked is in the API server's audit log."
    )


class CheckVerdict(Observation):
    """The newest verdict of one live check."""

    name: ShortName = Field(description="Name of the check.")
    verdict: Verdict = Field(description="Passed, Failed, Inconclusive or Error.")
    message: Text = Field(default="", description="Values and bound in words.")


class RolloutState(Observation):
    """What of a rollout cannot be observed again; written with the observed resourceVersion."""

    state: Annotated[str, StringConstraints(max_length=32)] = Field(default="Pending", description="State of the rollout's state machine.")
    step: int = Field(default=0, ge=0, le=100, description="Index of the current step, from 0.")
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
    digest: Digest = Field(description="Digest of the bundle that was served.")
    quarantined: bool = Field(default=True, description="Whether the digest gets no traffic again unless a person asks for it.")
    signals: list[Signal] = Field(default=[], max_length=4, description="Who blamed the release.", json_schema_extra=k8s(atomic=True))
    awaits_until: Timestamp | None = Field(default=None, description="Until when a second signal is waited for; absent: no longer.")
    judgement: Text = Field(default="", description="Why the digest is quarantined, or why not.")


class ReleaseSummary(Observation):
    """Preformatted for printer columns; no logic reads it."""

    status: Annotated[str, StringConstraints(max_length=64)] = Field(default="", description="The state, or why it is not ready.")
    weight: Annotated[str, StringConstraints(max_length=64)] = Field(default="", description="Weight and step.")
    gates: Annotated[str, StringConstraints(max_length=64)] = Field(default="", description="Gates passed of all.")
    message: Text = Field(default="", description="What it is doing or waiting for.")


class ModelReleaseStatus(Observation):
    """What the operator observes of a release, and the little that it must remember."""

    observed_generation: int = Field(default=-1, ge=-1, le=2**53, description="Generation of the spec that this status judges.")
    conditions: list[Condition] = Field(
        default=[],
        max_length=32,
        description="Ready, Reconciling, Stalled, RolledBack, PolicyConflict, ChecksFailing; and those that others state.",
        json_schema_extra=k8s(list_map="type"),
    )
    replicas: int = Field(default=0, ge=0, le=1000, description="Pods that exist, for the scale subresource.")
    selector: Annotated[str, StringConstraints(max_length=256)] = Field(
        default="", description="Label selector of the pods, for the scale subresource: an autoscaler counts by it."
    )
    image_id: Annotated[str, StringConstraints(max_length=512)] = Field(
        default="", alias="imageID", description="Image that the newest of its pods runs, as the kubelet tells it."
    )
    traffic: Traffic | None = Field(default=None, description="What the release takes now.")
    traffic_history: list[TrafficChange] = Field(
        default=[], max_length=20, description="Newest changes of its share, the oldest first.", json_schema_extra=k8s(atomic=True)
    )
    evaluation: list[MetricResult] = Field(
        default=[],
        max_length=16,
        description="Results that the gates were judged by, copied from the run so that they outlive it.",
        json_schema_extra=k8s(atomic=True),
    )
    measurements: list[Measurement] = Field(
        default=[],
        max_length=MEASUREMENTS,
        description="What cycles have measured of it in production, the oldest first.",
        json_schema_extra=k8s(atomic=True),
    )
    rollout: RolloutState | None = Field(default=None, description="Progress of the rollout.")
    rollback: RollbackRecord | None = Field(default=None, description="The last rollback.")
    last_handled_request: Annotated[str, StringConstraints(max_length=128)] = Field(
        default="", description="Value of the request annotation that was answered last."
    )
    summary: ReleaseSummary | None = Field(default=None, description="For printer columns.")
