"""Which pods Prometheus scrapes, as a file for each job that it watches.

Debian's Prometheus is built without Kubernetes discovery, so the keeper does it, by the rules that everybody uses:
annotations prometheus.io/scrape, /port, /path and /scheme. Which job a pod belongs to says scraping.py.
"""

from typing import Any

from localcluster.scraping import JOBS, RELEASE_LABELS, RELEASES, job_of

ANNOTATION = "prometheus.io/"
SELECTOR = "fieldSelector=status.phase%3DRunning"
DEFAULT_PORT = "80"


def target(pod: dict[str, Any]) -> dict[str, Any] | None:
    """A pod's entry in the file; None for a pod that is not to be scraped, or not yet."""
    meta, status = pod["metadata"], pod.get("status", {})
    annotations = meta.get("annotations", {})
    address = status.get("podIP")
    if annotations.get(f"{ANNOTATION}scrape") != "true" or not address or status.get("phase") != "Running":
        return None
    wanted = annotations.get(f"{ANNOTATION}port", "")
    # One entry that Prometheus cannot read would cost it the whole file.
    port = wanted if wanted.isascii() and wanted.isdigit() else _first_port(pod) or DEFAULT_PORT
    labels = own_labels(pod) | {
        "namespace": meta["namespace"],
        "pod": meta["name"],
        "node": pod["spec"].get("nodeName", ""),
        "__metrics_path__": annotations.get(f"{ANNOTATION}path", "/metrics"),
        "__scheme__": annotations.get(f"{ANNOTATION}scheme", "http"),
    }
    return {"targets": [f"{address}:{port}"], "labels": labels}


def own_labels(pod: dict[str, Any]) -> dict[str, str]:
    """`release` and `service` of a release's pod; nothing of any other."""
    labels = pod["metadata"].get("labels") or {}
    return {metric: labels[name] for name, metric in RELEASE_LABELS.items()} if job_of(pod) == RELEASES else {}


def _first_port(pod: dict[str, Any]) -> str:
    for container in pod["spec"].get("containers", []):
        for port in container.get("ports", []):
            return str(port["containerPort"])
    return ""


class Pods:
    """The running pods, kept by a watch."""

    def __init__(self) -> None:
        self._entries: dict[str, tuple[str, dict[str, Any]]] = {}  # UID -> job and entry

    def take(self, event: dict[str, Any]) -> None:
        """Learns from one event of a watch."""
        if event["type"] == "LIST":
            self._entries = {}
            for pod in event["items"]:
                self._put(pod)
        elif event["type"] in ("ADDED", "MODIFIED"):
            self._put(event["object"])
        elif event["type"] == "DELETED":
            self._entries.pop(event["object"]["metadata"]["uid"], None)

    def _put(self, pod: dict[str, Any]) -> None:
        entry = target(pod)
        if entry:
            self._entries[pod["metadata"]["uid"]] = job_of(pod), entry
        else:
            self._entries.pop(pod["metadata"]["uid"], None)

    def files(self) -> dict[str, list[dict[str, Any]]]:
        """The content of each job's file."""
        entries = [self._entries[uid] for uid in sorted(self._entries)]
        return {job: [entry for of, entry in entries if of == job] for job in JOBS}
