"""What Argo CD makes of our objects by the customisations that the chart ships, run in Argo CD's own Lua machine."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from videogen_api.meta import GROUP
from videogen_operator.plan import Manifest
from videogen_testing.patience import HANGS

ROOT = Path(__file__).parents[3]
PROGRAM = ROOT / ".localcluster/bin/argocd-lua"
CONFIG_MAP = ROOT / "charts/videogen/files/argocd/argocd-cm.yaml"


@dataclass(frozen=True, slots=True)
class Health:
    """What Argo CD shows of an object."""

    status: str
    message: str


def customizations() -> dict[str, str]:
    """The keys that the chart's patch adds to Argo CD's ConfigMap."""
    found: dict[str, str] = yaml.safe_load(CONFIG_MAP.read_text(encoding="utf-8"))["data"]
    return found


def health(items: Iterable[Manifest]) -> list[Health]:
    """The health of each object."""
    known = customizations()
    asked = [{"run": "health", "script": known[f"resource.customizations.health.{GROUP}_{item['kind']}"], "object": item} for item in items]
    return [Health(one["status"], one.get("message", "")) for one in _answers(asked)]


def action_names(kind: str) -> set[str]:
    """Every action that a kind has, offered or not."""
    return set(_definitions(kind))


def offered(items: Iterable[Manifest]) -> list[set[str]]:
    """Names of the actions that Argo CD offers for each object."""
    asked = [{"run": "discovery", "script": _actions(item["kind"])["discovery.lua"], "object": item} for item in items]
    return [{one["name"] for one in answer if not one.get("disabled")} for answer in _answers(asked)]


def acted(item: Manifest, action: str) -> dict[str, Any]:
    """The object as the action leaves it."""
    ((changed,),) = _answers([{"run": "action", "script": _definitions(item["kind"])[action], "object": item}])
    return dict(changed)


def _actions(kind: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(customizations()[f"resource.customizations.actions.{GROUP}_{kind}"])
    return found


def _definitions(kind: str) -> dict[str, str]:
    return {one["name"]: one["action.lua"] for one in _actions(kind)["definitions"]}


def _answers(asked: list[dict[str, Any]]) -> list[Any]:
    assert PROGRAM.exists(), f"no {PROGRAM.name}: `make tools` builds it, with Argo CD's own Lua machine"
    documents = "\n".join(json.dumps(one) for one in asked)
    told = subprocess.run([PROGRAM], input=documents, capture_output=True, text=True, check=False, timeout=HANGS)
    assert told.returncode == 0, told.stderr
    return [json.loads(line) for line in told.stdout.splitlines()]
