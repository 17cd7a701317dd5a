"""Deleting the releases of a namespace, as a person must: what serves is taken out of its service first.

The chart's admission policy refuses to delete what serves or stands by, unless the whole namespace is being deleted.
"""

from __future__ import annotations

import uuid

from videogen_demo.kubectl import Cluster, Manifest

REQUEST = "videogen.pib.gov.in/request"
KEPT = frozenset({"Canary", "Held", "Stable", "Standby"})  # states in which the policy keeps a release


def is_kept(release: Manifest) -> bool:
    """Whether the policy refuses to delete it now."""
    status = release.get("status") or {}
    weight = (status.get("traffic") or {}).get("weightPercent", 0)
    return (status.get("rollout") or {}).get("state") in KEPT or weight > 0


def remove_releases(cluster: Cluster, namespace: str, timeout: float = 400) -> None:
    """Withdraw every release of the namespace, those that wait as well, so that none takes over; then delete them with their pods."""
    request = f"{REQUEST}=withdraw@{uuid.uuid4().hex[:8]}"
    for release in cluster.list("modelreleases", namespace):
        cluster("annotate", f"modelrelease/{release['metadata']['name']}", "-n", namespace, "--overwrite", request)
    cluster.wait(
        f"no release of {namespace} to serve",
        lambda: not any(is_kept(release) for release in cluster.list("modelreleases", namespace)),
        timeout,
    )
    cluster("delete", "modelreleases", "--all", "-n", namespace, "--cascade=foreground", f"--timeout={timeout:.0f}s")
