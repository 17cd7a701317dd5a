"""Which pods Prometheus scrapes, as a file that it watches.

Debian's Prometheus is built without Kubernetes discovery, so the keeper does it, by the rules that everybody uses:
annotations prometheus.io/scrape, /port, /path and /scheme.
"""

import re
from typing import Any

ANNOTATION = "prometheus.io/"
OUR_LABELS = "videogen.pib.gov.in/"
SELECTOR = "fieldSelector=status.phase%3DRunning"
DEFAULT_PORT = "80"


def target(pod: dict[str, Any]) -> dict[str, Any] | None:
    """A pod's entry in the file; None for a pod that is not to be scraped, or not yet."""
    meta, status = pod["metadata"], pod.get("status", {})
    annotations = meta.get("annotations", {})
    address = status.get("podIP")
    if annotations.get(f"{ANNOTATION}scrape") != "true" or not address or status.get("phase") != "Running":
        return None
    port = annotations.get(f"{ANNOTATION}port") or _first_port(pod) or DEFAULT_PORT
    labels = own_labels(meta.get("labels", {})) | {
        "namespace": meta["namespace"],
        "pod": meta["name"],
        "node": pod["spec"].get("nodeName", ""),
        "__metrics_path__": annotations.get(f"{ANNOTATION}path", "/metrics"),
        "__scheme__": annotations.get(f"{ANNOTATION}scheme", "http"),
    }
    return {"targets": [f"{address}:{port}"], "labels": labels}


def own_labels(labels: dict[str, str]) -> dict[str, str]:
    """videogen.pib.gov.in/release: x becomes release="x"; what a metric label may not contain becomes _."""
    return {
        re.sub(r"[^a-zA-Z0-9_]", "_", key.removeprefix(OUR_LABELS)): value for key, value in labels.items() if key.startswith(OUR_LABELS)
    }


def _first_port(pod: dict[str, Any]) -> str:
    for container in pod["spec"].get("containers", []):
        for port in container.get("ports", []):
            return str(port["containerPort"])
    return ""


class Pods:
    """The running pods, kept by a watch."""

    def __init__(self) -> None:
        self._entries: dict[str, dict[str, Any]] = {}

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
            self._entries[pod["metadata"]["uid"]] = entry
        else:
            self._entries.pop(pod["metadata"]["uid"], None)

    def file(self) -> list[dict[str, Any]]:
        """The file's content."""
        return [self._entries[uid] for uid in sorted(self._entries)]
