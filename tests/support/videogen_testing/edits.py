"""Valid objects of both kinds, and edits that make them something else."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from videogen_testing.runs import DIGEST, EVALUATE, OPTIMIZE, RELEASE, TRAIN, TUNE, a_run

ABSENT = object()
CURATE = {"name": "curate", "task": "Curate", "curate": {"dataset": "clips", "version": "1", "sources": [{"path": "raw"}]}}
GATE = {"metric": "FVD", "operator": "LessThan", "threshold": "200"}
INIT = {"release": "pib-videogen-videofusion-v0.9.0-base"}
HELD_OUT = [{"dataset": "clips", "version": "1", "split": "HeldOut"}]
TEMPLATES = {"name": "templates", "task": "BuildTemplates", "data": HELD_OUT}
SCENARIOS = {"name": "scenarios", "task": "TestScenarios", "data": HELD_OUT}
TASKS = {
    "T": "Train",
    "F": "FineTune",
    "A": "Adapt",
    "X": "AlignCrossModal",
    "I": "TrainInterpolation",
    "D": "FineTuneDecoder",
}  # that train
BY_TASK = {"C": CURATE, "E": EVALUATE, "R": RELEASE, "U": TUNE, "B": TEMPLATES, "S": SCENARIOS, "O": OPTIMIZE}
BY_TASK |= {letter: TRAIN | {"task": task} for letter, task in TASKS.items()}


def run_of(*edits: tuple[str, Any]) -> dict[str, Any]:
    """A valid run of all four tasks with edits `path, value`; a path is dotted, with indices."""
    return edited(a_run("run", "default", phases=[CURATE, TRAIN, EVALUATE, RELEASE]), *edits)


def release_of(*edits: tuple[str, Any]) -> dict[str, Any]:
    """A valid release with edits."""
    model = {"family": "VideoFusion", "version": "1.0.0"}
    artifact = {"claimName": "models", "path": "bundles/x", "digest": DIGEST}
    spec = {
        "service": "standard",
        "model": model,
        "artifact": artifact,
        "rollout": {"checks": [{"name": "errors", "metric": "ErrorRatio"}]},
    }
    metadata = {"name": "pib-videogen-videofusion-v1.0.0-base", "namespace": "default"}
    return edited({"apiVersion": "videogen.pib.gov.in/v1alpha1", "kind": "ModelRelease", "metadata": metadata, "spec": spec}, *edits)


def edited(manifest: Mapping[str, Any], *edits: tuple[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = deepcopy(dict(manifest))
    for path, value in edits:
        *parents, last = path.split(".")
        target: Any = result
        for part in parents:
            target = target[int(part)] if isinstance(target, list) else target.setdefault(part, {})
        if value is ABSENT:
            del target[last]
        elif isinstance(target, list) and int(last) == len(target):
            target.append(deepcopy(value))
        else:
            target[int(last) if isinstance(target, list) else last] = value
    return result


def in_order(tasks: str) -> list[dict[str, Any]]:
    """Phases named after their place, such as CTER."""
    return [BY_TASK[task] | {"name": f"phase-{number}"} for number, task in enumerate(tasks)]
