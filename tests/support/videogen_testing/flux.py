"""What Flux makes of our objects by the healthCheckExprs that the chart ships, by Flux's own evaluator."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable
from pathlib import Path

import yaml

from videogen_operator.plan import Manifest
from videogen_testing.patience import HANGS

ROOT = Path(__file__).parents[3]
PROGRAM = ROOT / ".localcluster/bin/flux-health"
EXPRESSIONS = ROOT / "charts/videogen/files/flux/health-check-exprs.yaml"


def flux_health(items: Iterable[Manifest]) -> list[str]:
    """InProgress, Failed or Current of each object."""
    assert PROGRAM.exists(), f"no {PROGRAM.name}: `make tools` builds it beside helm"
    by_kind = {one["kind"]: one for one in yaml.safe_load(EXPRESSIONS.read_text(encoding="utf-8"))}
    documents = "\n".join(json.dumps({"expressions": by_kind[item["kind"]], "object": item}) for item in items)
    told = subprocess.run([PROGRAM], input=documents, capture_output=True, text=True, check=False, timeout=HANGS)
    assert told.returncode == 0, told.stderr
    return [json.loads(line)["status"] for line in told.stdout.splitlines()]
