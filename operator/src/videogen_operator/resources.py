"""The resources of the Kubernetes API that the operator reads or writes."""

from __future__ import annotations

from videogen_api import fine_tune_cycle, model_release, training_run
from videogen_api.approvals import ANNOTATION_APPROVE
from videogen_api.meta import ANNOTATION_REQUEST, GROUP, VERSION
from videogen_operator.names import ANNOTATION_APPLIED, ANNOTATION_QUARANTINE, ANNOTATION_TEMPLATE, MANAGED_BY
from videogen_operator.plan import Resource

LABEL_QUEUE = "kueue.x-k8s.io/queue-name"  # of a job: the LocalQueue that lets it begin
LABEL_JOB_UID = "kueue.x-k8s.io/job-uid"  # of a Workload: the job that Kueue has made it for
OURS = "{}={}".format(*MANAGED_BY)  # label selector: children that the operator made, and their pods

REQUEST = ((ANNOTATION_REQUEST, 128),)
APPROVED = (*REQUEST, (ANNOTATION_APPROVE, 512))
APPLIED = ((ANNOTATION_APPLIED, 64),)  # of what is applied again and again
TEMPLATED = (*APPLIED, (ANNOTATION_TEMPLATE, 64 * 1024))
QUARANTINED = (*APPLIED, (ANNOTATION_QUARANTINE, 64 * 1024))

OF_RUNS, OF_RELEASES = frozenset(training_run.ConditionType), frozenset(model_release.ConditionType)
OF_CYCLES = frozenset(fine_tune_cycle.ConditionType)
FINE_TUNE_CYCLES = Resource(GROUP, VERSION, "finetunecycles", "FineTuneCycle", annotations=REQUEST, conditions=OF_CYCLES)
TRAINING_RUNS = Resource(GROUP, VERSION, "trainingruns", "TrainingRun", annotations=APPROVED, conditions=OF_RUNS)
MODEL_RELEASES = Resource(GROUP, VERSION, "modelreleases", "ModelRelease", annotations=REQUEST, conditions=OF_RELEASES)
PODS = Resource(
    "",
    "v1",
    "pods",
    "Pod",
    selector=OURS,
    keep=("spec.nodeName", *(f"spec.containers[].{field}" for field in ("name", "image", "resources")), "spec.priorityClassName", "status"),
)
NODES = Resource(
    "",
    "v1",
    "nodes",
    "Node",
    namespaced=False,
    keep=(  # of conditions not the times: each heartbeat of a node would be news
        "spec.unschedulable",
        "spec.taints",
        "status.allocatable",
        "status.conditions[].type",
        "status.conditions[].status",
    ),
)
CLAIMS = Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", keep=("status.phase",))
GATEWAYS = Resource("gateway.networking.k8s.io", "v1", "gateways", "Gateway", optional=True, bare=True)
PYTORCH_JOBS = Resource(
    "kubeflow.org",
    "v1",
    "pytorchjobs",
    "PyTorchJob",
    optional=True,
    selector=OURS,
    keep=("spec.runPolicy.suspend", *(f"spec.pytorchReplicaSpecs.{role}.replicas" for role in ("Master", "Worker")), "status"),
)
WORKLOADS = Resource(
    "kueue.x-k8s.io",
    "v1beta2",
    "workloads",
    "Workload",
    optional=True,
    selector=LABEL_JOB_UID,
    owners=frozenset({"PyTorchJob"}),
    keep=(
        "spec.active",
        *(f"status.conditions[].{field}" for field in ("type", "status", "reason", "message", "lastTransitionTime")),
        *(f"status.admissionChecks[].{field}" for field in ("name", "state", "message")),
    ),
)
NETWORK_POLICIES = Resource("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", selector=OURS, annotations=APPLIED)

# Written, never watched.
CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap")
ENDPOINT_SLICES = Resource("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice")
EVENTS = Resource("events.k8s.io", "v1", "events", "Event")
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease")
TOKEN_REVIEWS = Resource("authentication.k8s.io", "v1", "tokenreviews", "TokenReview", namespaced=False)
