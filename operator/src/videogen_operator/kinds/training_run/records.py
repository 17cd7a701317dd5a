"""What a phase has computed, as a record: of the pod of rank 0 of the attempt that is at work, while it is.

The operator believes the pod's results, as it believes its termination message, and nothing else of what it says: the key it computes,
and of the image it takes the kubelet's word.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import ValidationError

from videogen_api.job import Report
from videogen_api.records import inputs_of, key_of, told
from videogen_api.training_run import Phase, Reason
from videogen_operator.conditions import timestamp
from videogen_operator.kinds.training_run import images, objects
from videogen_operator.kinds.training_run.attempts import State, state_of
from videogen_operator.kinds.training_run.lineage import page_of
from videogen_operator.kinds.training_run.observed import Observed, Unreadable, observe, reporter
from videogen_operator.kinds.training_run.sources import first_problem, value_at
from videogen_operator.plan import Manifest, World


def record(world: World, pod: Manifest, said: Any, now: datetime) -> Manifest:
    """The record of `{"report": {...}}`, unsealed. Raises ValueError if the pod may not say so, or has said something else."""
    key = reporter(pod)
    observed = observe(world, key) if key else None
    if observed is None or isinstance(observed, Unreadable):
        raise ValueError("the pod's run is gone, going or cannot be read")
    phase, report = _phase(observed, pod), _report(value_at(said, "report"))
    status = observed.phase_status(phase.name)
    inputs = inputs_of(objects.job_of(observed, phase, status, status.attempt), report.datasets)
    if inputs is None:
        raise ValueError(f"a result of task {phase.task} is not kept, or the report has no digest of a dataset that it is about")
    ran, page = images.ran((pod,)), page_of(observed, phase, report)
    return {
        "key": key_of(inputs),
        "run": observed.name,
        "phase": phase.name,
        "time": timestamp(now),
        "report": told(report),
        **({"imageID": ran.image_id} if ran else {}),
        **({"page": page} if page else {}),
    }


def _phase(observed: Observed, pod: Manifest) -> Phase:
    """The phase at whose present attempt the pod works as the first one."""
    name, uid = str(pod["metadata"]["name"]), pod["metadata"]["uid"]
    for phase in observed.spec.phases:
        status = observed.phase_status(phase.name)
        pods = observed.attempt_pods(phase.name, status.attempt) if state_of(status) == State.ACTIVE else ()
        if name.endswith("-0") and any(one["metadata"]["uid"] == uid for one in pods):
            return phase
    raise ValueError("the pod is not the first one of the attempt that is at work")


def _report(said: Any) -> Report:
    try:
        report = Report.model_validate(said)
    except ValidationError as error:
        raise ValueError(f"report.{first_problem(error)}") from error
    if report.reason is not Reason.COMPLETED:
        raise ValueError(f"the report says {report.reason}; only what was completed is kept")
    return report
