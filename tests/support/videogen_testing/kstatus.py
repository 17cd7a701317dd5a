"""How Flux and Helm 4 wait: kstatus' rules for kinds that it does not know.

`kstatus` has the rules of pkg/kstatus/status (core.go: Compute, checkReadyCondition; util.go: checkGenericProperties) in their order, for
simulations that look at each step; `real_kstatus` asks the library itself, and tests compare the two.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable
from pathlib import Path

from videogen_operator.plan import Manifest
from videogen_testing.patience import HANGS

PROGRAM = Path(__file__).parents[3] / ".localcluster/bin/kstatus"


def real_kstatus(items: Iterable[Manifest]) -> list[str]:
    """What the library that Flux and Helm wait by makes of each object."""
    assert PROGRAM.exists(), f"no {PROGRAM.name}: `make tools` builds it beside helm, with the same version of the library"
    documents = "\n".join(json.dumps(item) for item in items)
    told = subprocess.run([PROGRAM], input=documents, capture_output=True, text=True, check=True, timeout=HANGS).stdout
    return [json.loads(line)["status"] for line in told.splitlines()]


def kstatus(item: Manifest) -> str:
    """Terminating, InProgress, Failed or Current."""
    metadata, status = item["metadata"], item.get("status") or {}
    if metadata.get("deletionTimestamp"):
        return "Terminating"
    if "observedGeneration" in status and status["observedGeneration"] != metadata.get("generation", 0):
        return "InProgress"
    conditions = {one["type"]: one["status"] for one in status.get("conditions") or []}
    for kind, result in (("Reconciling", "InProgress"), ("Stalled", "Failed")):
        if conditions.get(kind) == "True":
            return result
    return "Current" if conditions.get("Ready", "True") == "True" else "InProgress"
