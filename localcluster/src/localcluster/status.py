"""What runs, since when, in which version: one line a part."""

import time
from pathlib import Path

from localcluster import claim, enforcement, processes
from localcluster.kubectl import Kubectl
from localcluster.layout import Layout


def lines(layout: Layout, now: float) -> list[str]:
    """The table of all parts."""
    rows = [("PART", "STATE", "PID", "SINCE", "VERSION")]
    for entry in processes.records(layout):
        state = "running" if entry.alive() else "DEAD"
        rows.append((entry.name, state, str(entry.pid), age(now - entry.since), entry.version))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def age(seconds: float) -> str:
    """A duration as kubectl shows it."""
    whole = int(seconds)
    for size, unit, smaller, name in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size}{unit}" + (f"{rest}{name}" if rest else "")
    return f"{whole}s"


def show(repo: Path) -> int:
    """Prints the state; the exit code is 0 only if every part runs."""
    layout = claim.known_layout(repo)
    entries = processes.records(layout)
    if not entries:
        print("the cluster of this checkout does not run")
        return 1
    print("\n".join(lines(layout, time.time())))
    print()
    for name, value in addresses(layout):
        print(f"{name:<14}{value}")
    if reason := enforcement.missing(layout):
        print(f"\n{enforcement.warning(reason)}")
    return 0 if all(entry.alive() for entry in entries) else 1


def addresses(layout: Layout) -> list[tuple[str, str]]:
    """Where to find what."""
    return [
        ("kubeconfig", str(layout.kubeconfig)),
        ("API server", layout.api_url),
        ("Prometheus", layout.prometheus_url),
        ("Alertmanager", layout.alertmanager_url),
        ("Gateway", gateway_url(layout) or "not ready"),
        ("this machine", f"{layout.host_address} (as pods see it)"),
    ]


def gateway_url(layout: Layout) -> str:
    """The Gateway's address, empty while it has none."""
    kubectl = Kubectl(layout.bin / "kubectl", layout.kubeconfig)
    words = ("get", "gateway", "videogen", "-n", "videogen-gateway", "-o", "jsonpath={.status.addresses[0].value}")
    if not kubectl.works(*words):
        return ""
    address = kubectl(*words)
    return f"http://{address}" if address else ""
