"""The resources of the Kubernetes API that the operator reads or writes."""

from __future__ import annotations

from videogen_api.meta import GROUP, VERSION
from videogen_operator.names import MANAGED_BY
from videogen_operator.plan import Resource

OURS = "{}={}".format(*MANAGED_BY)  # label selector: children that the operator made, and their pods

TRAINING_RUNS = Resource(GROUP, VERSION, "trainingruns", "TrainingRun")
MODEL_RELEASES = Resource(GROUP, VERSION, "modelreleases", "ModelRelease")
PODS = Resource("", "v1", "pods", "Pod", selector=OURS, keep=("spec.nodeName", "spec.containers", "spec.priorityClassName", "status"))
NODES = Resource(
    "", "v1", "nodes", "Node", namespaced=False, keep=("spec.unschedulable", "spec.taints", "status.allocatable", "status.conditions")
)
CLAIMS = Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", keep=("status.phase",))
PYTORCH_JOBS = Resource("kubeflow.org", "v1", "pytorchjobs", "PyTorchJob", optional=True, selector=OURS, keep=("spec.runPolicy", "status"))

# Written, never watched.
CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap")
EVENTS = Resource("events.k8s.io", "v1", "events", "Event")
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease")
TOKEN_REVIEWS = Resource("authentication.k8s.io", "v1", "tokenreviews", "TokenReview", namespaced=False)
