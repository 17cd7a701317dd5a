"""What a trainer has told since the run's status was written: whether that is worth a pass, and the run as it is by that.

A status that is written for each report of each trainer costs the API server more than all the rest of the operator's work. So one is
written in some seconds, and what came in between goes to Prometheus alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from videogen_api.meta import LABEL_PHASE, LABEL_RUN
from videogen_operator.kinds.training_run.observed import LABEL_RUN_UID, is_pod_of
from videogen_operator.kinds.training_run.sources import value_at
from videogen_operator.kinds.training_run.status import is_due
from videogen_operator.kubernetes_objects import NOTHING
from videogen_operator.plan import Manifest, World

JOB = "PyTorchJob"


def is_news(world: World, pod: Manifest, report: Manifest) -> bool:
    """Whether the report would be written, by what the run's status has of the pod's phase."""
    metadata = pod["metadata"]
    labels = metadata.get("labels") or NOTHING
    run = world.get("TrainingRun", metadata["namespace"], labels.get(LABEL_RUN, ""))
    phase = next((one for one in _phases(run) if one.get("name") == labels.get(LABEL_PHASE)), NOTHING)
    written = value_at(phase, "progress", "lastUpdatedTime")
    try:
        return is_due(written, report.get("lastUpdatedTime"))
    except (TypeError, ValueError):  # of another version of the operator, which a pass says
        return True


def with_reports(world: World, run: Manifest, reports: Mapping[str, Manifest]) -> Manifest:
    """The run with the newest report of its present attempt in place of the progress that its status has. `reports` are by pod UID."""
    place = next((number for number, one in enumerate(_phases(run)) if one.get("outcome") is None), None)
    if place is None:
        return run
    phases, metadata = list(_phases(run)), run["metadata"]
    job = world.get(JOB, metadata["namespace"], str(phases[place].get("jobName") or ""))
    if job is None:
        return run
    pods = world.list("Pod", metadata["namespace"], {LABEL_RUN: metadata["name"], LABEL_RUN_UID: metadata["uid"]})
    told = [reports[pod["metadata"]["uid"]] for pod in pods if pod["metadata"]["uid"] in reports and is_pod_of(pod, job)]
    if not told:
        return run
    phases[place] = {**phases[place], "progress": max(told, key=lambda report: report.get("lastUpdatedTime", ""))}
    return {**run, "status": {**run["status"], "phases": phases}}


def _phases(run: Manifest | None) -> list[dict[str, Any]]:
    found = value_at(run, "status", "phases")
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
