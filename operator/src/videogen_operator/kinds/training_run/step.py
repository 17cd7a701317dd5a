"""What one pass does about the current phase, and the small parts that all steps are made of."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from videogen_api.pinned import RunArtifact
from videogen_api.preflight import Preflight
from videogen_api.training_run import PhaseStatus, Reason
from videogen_operator.kinds.training_run.attempts import begun, was_evicted
from videogen_operator.kinds.training_run.failure_policy import Action, Ending
from videogen_operator.kinds.training_run.observed import Observed
from videogen_operator.kinds.training_run.status import DOING
from videogen_operator.kinds.training_run.waiting import Situation, Wait
from videogen_operator.plan import Manifest, Note, Ref

HEALING_SECONDS = 300.0  # what a run waits for wakes it by an event; this only renews words, such as the size of the largest node


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What one pass does about the current phase."""

    status: PhaseStatus
    said: Wait  # reason and words for the conditions, unless the phase ends in this pass
    create: tuple[Manifest, ...] = ()
    delete: tuple[Ref, ...] = ()
    notes: tuple[Note, ...] = ()
    again: float | None = None  # seconds
    artifact: RunArtifact | None = None  # what the phase has made
    preflight: Preflight | None = None  # None: as it was
    asked: tuple[tuple[str, str], ...] = ()  # teams that are waited for and what for; (): the phase's owner


def doing(situation: Situation, words: str) -> Wait:
    """The phase is at work."""
    return Wait(DOING[situation.phase.task], words)


def begins(situation: Situation) -> Step:
    """Mark the phase as begun, and do nothing else: whoever edits the spec meanwhile wins, and the mark is written for the new one."""
    return Step(status=begun(situation.status), said=Wait(Reason.STARTING, "begins"), again=0.0)


def note(situation: Situation, reason: str, message: str, warning: bool = False) -> Note:
    """An event of the run."""
    return Note(situation.observed.run, reason, message, "Warning" if warning else "Normal")


def healing(observed: Observed) -> float:
    """One period to one and a half, so that runs which were created together do not look together."""
    return HEALING_SECONDS * (1 + zlib.crc32(observed.uid.encode()) / 2**33)


def soonest(*delays: float | None) -> float | None:
    """The shortest of the delays that there are."""
    return min((delay for delay in delays if delay is not None), default=None)


def end_without_pods(situation: Situation) -> Ending | None:
    """The attempt's job is gone, or over, and no pod can tell how it ended."""
    name, job = situation.status.job_name, situation.observed.job(situation.status.job_name)
    if job is None:
        return Ending(Reason.PREEMPTED, Action.RETRY_FREE, f"PyTorchJob {name} was deleted")
    conditions = {c["type"]: c for c in (job.get("status") or {}).get("conditions") or [] if c["status"] == "True"}
    if situation.pods or not conditions.keys() & {"Failed", "Succeeded"}:
        return None
    if failed := conditions.get("Failed"):
        if was_evicted(situation.status) and situation.status.progress is None:  # training-operator has met a pod that still ended
            said = f"PyTorchJob {name} failed as its queue let it go on: {failed.get('message', '')}"
            return Ending(Reason.PREEMPTED, Action.RETRY_FREE, said)
        return Ending(Reason.TRAINER_FAILED, Action.RETRY, f"PyTorchJob {name} failed: {failed.get('message', '')}")
    return Ending(Reason.PREEMPTED, Action.RETRY_FREE, f"PyTorchJob {name} ended, and its pods were deleted before their report was read")


def pod_states(pods: tuple[Manifest, ...], workers: int) -> str:
    """How many of the pods exist, or run."""
    phases = [(pod.get("status") or {}).get("phase", "Pending") for pod in pods]
    return f"{phases.count('Running')} of {workers} pods run" if phases else f"0 of {workers} pods exist"
