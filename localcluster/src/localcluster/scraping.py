"""What Prometheus believes of whom: a job for each kind of pod, because whoever makes a pod writes what it exposes.

Only the operator speaks of others, so only its pod keeps the labels that it exposes. A release's pod is heard about itself: which
namespace, release and service that is, its pod's metadata say. Of the gateway's proxies nothing is kept but what tells how requests
went. Any other pod may expose what it likes, under names and labels that no rule and no check reads.
"""

from collections.abc import Callable
from typing import Any

from localcluster.objects import PROXIES

OPERATOR, RELEASES, GATEWAY, PODS = "videogen-operator", "videogen-releases", "videogen-gateway", "pods"
JOBS = (OPERATOR, RELEASES, GATEWAY, PODS)
OPERATOR_NAMESPACE = "videogen-system"
OPERATOR_LABELS = {"app.kubernetes.io/name": "videogen-operator"}
GATEWAY_LABELS = {"app.kubernetes.io/managed-by": "envoy-gateway", "app.kubernetes.io/component": "proxy"}
# Labels of a release's pods, and the metric labels that come of them. No other label of a pod may name a metric label: one
# called `job` or `instance` would pass for another target.
RELEASE_LABELS = {"videogen.pib.gov.in/release": "release", "videogen.pib.gov.in/service": "service"}
SAMPLES = 20_000  # of one pod; a scrape with more counts as failed

Rule = dict[str, Any]
RELEASE_METRICS = "(videogen_request|nv_).*"
GATEWAY_METRICS = "envoy_cluster_upstream_rq_(time_bucket|xx|pending_overflow);httproute/.*"
OUR_METRICS = "(videogen|nv|envoy)_.*"


def job_of(pod: dict[str, Any]) -> str:
    """The job that scrapes a pod, by where it is and what its labels say."""
    namespace, labels = pod["metadata"]["namespace"], pod["metadata"].get("labels") or {}
    if namespace == OPERATOR_NAMESPACE and labels.items() >= OPERATOR_LABELS.items():
        return OPERATOR
    if namespace == PROXIES and labels.items() >= GATEWAY_LABELS.items():
        return GATEWAY
    return RELEASES if all(labels.get(name) for name in RELEASE_LABELS) else PODS


def configs(discovery: Callable[[str], dict[str, Any]]) -> list[dict[str, Any]]:
    """Prometheus's scrape_configs for pods; `discovery` says how it finds those of a job."""
    return [{"job_name": job} | settings(job) | discovery(job) for job in JOBS]


def settings(job: str) -> dict[str, Any]:
    """Whose labels win, and what is kept of an answer."""
    if job == OPERATOR:
        return {"honor_labels": True}
    return {"honor_labels": False, "sample_limit": SAMPLES, "metric_relabel_configs": kept(job)}


def kept(job: str) -> list[Rule]:
    """Which series are kept of an answer, and under which labels."""
    if job == RELEASES:
        return [{"source_labels": ["__name__"], "regex": RELEASE_METRICS, "action": "keep"}]
    if job == GATEWAY:
        return [{"source_labels": ["__name__", "envoy_cluster_name"], "regex": GATEWAY_METRICS, "action": "keep"}]
    # The pod has no label `release` or `service` that an exposed one would have to give way to.
    return [
        {"source_labels": ["__name__"], "regex": OUR_METRICS, "action": "drop"},
        *({"source_labels": [name], "regex": "(.+)", "target_label": f"exported_{name}"} for name in RELEASE_LABELS.values()),
        {"regex": "|".join(RELEASE_LABELS.values()), "action": "labeldrop"},
    ]
