"""Approvals: what they are for, who has given one, and when those of before are void.

A person approves by an annotation of the run whose value has a digest and the person's name; the API server lets nobody write another's
(`charts/videogen/templates/_approvals.tpl`). The digest has the run's UID, what the run does and what it has made, so an
annotation from before a change, of another run, or of an object that was created with it is for nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from videogen_api.approvals import LONGEST_USER, Approval, GivenApproval, Subject
from videogen_api.bundle import content_digest
from videogen_api.meta import LABEL_PHASE
from videogen_api.run_changes import OPERATIONAL
from videogen_api.training_run import Phase, PhaseStatus, Reason, Task, TrainingRunSpec
from videogen_operator.conditions import timestamp
from videogen_operator.kinds.training_run import attempts, noise, windows
from videogen_operator.kinds.training_run.attempts import State, state_of
from videogen_operator.kinds.training_run.leftovers import reference
from videogen_operator.kinds.training_run.observed import Observed
from videogen_operator.kinds.training_run.status import position
from videogen_operator.kinds.training_run.step import Step, doing, healing, note
from videogen_operator.kinds.training_run.waiting import Situation, Wait
from videogen_operator.plan import Note

OF_THE_RUN = {"suspend", "ttl_seconds_after_finished", "checkpoint_retention", "tracking"}  # how it is kept, not what it does


@dataclass(frozen=True, slots=True)
class Judged:
    """Who has approved, and what is missing still."""

    given: tuple[GivenApproval, ...]
    missing: tuple[tuple[Approval, str], ...]  # with what is wrong with the approval that there is


def spec_digest(spec: TrainingRunSpec) -> str:
    """Of what the run does. A field that a later version of the API adds changes nothing where nobody has set it."""
    told = spec.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude=OF_THE_RUN)
    told["phases"] = [{name: value for name, value in phase.items() if name not in OPERATIONAL} for phase in told["phases"]]
    return content_digest(told)


def subject_of(observed: Observed, phase: Phase) -> Subject:
    """What an approval in this phase is for, as the run stands now."""
    spec, bundle = spec_digest(observed.spec), observed.artifact
    seen = {
        "uid": observed.uid,
        "phase": phase.name,
        "spec": spec,
        "bundle": bundle.digest if bundle else None,
        "tuned": {one.parameter.value: one.value for one in observed.status.tuned},
    }
    return Subject(digest=content_digest(seen), spec=spec)


def advance(situation: Situation) -> Step:
    """An Approve phase: wait until each approval is given, by as many people."""
    if state_of(situation.status) == State.SUSPENDED:
        return Step(status=windows.resumed(situation), said=doing(situation, "resumed"))
    if wait := windows.before(situation):
        return wait
    begun = situation.status.start_time or timestamp(situation.now)
    situation = replace(situation, status=situation.status.model_copy(update={"begun": True, "start_time": begun}))
    wanted = situation.phase.approvals
    assert wanted is not None
    step, judged = asked(situation, wanted)
    if not judged.missing:
        return replace(step, status=attempts.completed(step.status, situation.now, f"approved: {_names(judged.given)}"))
    # An edit of a later phase, whose pods are ending, may have asked for this approval anew.
    done = {one.name for one in noise.done_phases(situation.observed)}
    jobs = (job for job in situation.observed.jobs if job["metadata"]["labels"].get(LABEL_PHASE) not in done)
    return replace(step, delete=tuple(reference(job) for job in jobs if not job["metadata"].get("deletionTimestamp")))


def before_release(situation: Situation) -> Step | None:
    """A release whose λ is another one than the stable release's waits for those who approve that, and where the scenario lets λ change
    once a quarter for the next one; None: nothing is missing.
    """
    change = noise.change_of(situation.observed, situation.phase)
    if change is None:
        return None
    if (opens := change.next_quarter(situation.now)) is not None:
        wait = Wait(Reason.WAITING_FOR_WINDOW, change.too_early(opens))
        return Step(status=situation.status, said=wait, again=min(healing(situation.observed), (opens - situation.now).total_seconds()))
    wanted = noise.approvals_of(change, situation.observed)
    if not wanted:
        return None
    step, judged = asked(situation, wanted, change.told)
    unwritten = step.status != situation.status
    return replace(step, again=0.0 if unwritten and not judged.missing else step.again) if judged.missing or unwritten else None


def asked(situation: Situation, wanted: Sequence[Approval], why: str = "") -> tuple[Step, Judged]:
    """What a phase that needs these approvals says of them and remembers."""
    subject, status = subject_of(situation.observed, situation.phase), situation.status
    judged = judge(situation, wanted, subject)
    new = status.model_copy(update={"subject": subject, "approvals": list(judged.given)})
    title, fresh = situation.phase.title, [one for one in judged.given if one not in status.approvals]
    notes = [note(situation, "Approved", f"{title}: {_names([one])}") for one in fresh]
    if not judged.missing:
        return Step(status=new, said=doing(situation, "approved"), notes=tuple(notes)), judged
    words = "; ".join(_missing(one, problem) for one, problem in judged.missing)
    first, name = judged.missing[0][0].annotation, situation.observed.name
    how = f"kubectl annotate vrun/{name} --overwrite {first}='{subject.digest} <your user name>'"
    said = Wait(Reason.WAITING_FOR_APPROVAL, f"{why}{words}; {how}")
    if status.subject != subject:
        notes.append(note(situation, Reason.WAITING_FOR_APPROVAL, f"{title}: {why}{words}, for {subject.digest}"))
    turns = tuple((one.team, f"{_missing(one, problem)}, for {subject.digest}") for one, problem in judged.missing)
    return Step(status=new, said=said, notes=tuple(notes), again=healing(situation.observed), asked=turns), judged


def judge(situation: Situation, wanted: Sequence[Approval], subject: Subject) -> Judged:
    """Which approvals are given: for this subject, and each by somebody else."""
    annotations = situation.observed.run["metadata"].get("annotations") or {}
    known = {(one.kind, one.team, one.user, one.digest): one for one in situation.status.approvals}
    given: list[GivenApproval] = []
    missing: list[tuple[Approval, str]] = []
    users = {one.user for one in noise.approved(situation.observed)} if situation.phase.task == Task.RELEASE else set()
    for one in wanted:
        digest, _, user = str(annotations.get(one.annotation, "")).partition(" ")
        user = user[:LONGEST_USER]
        if digest != subject.digest or not user:
            missing.append((one, "that of before is for another digest" if digest and digest != subject.digest else ""))
        elif user in users:
            missing.append((one, f"{user} has approved already, and each approval is another person's"))
        else:
            users.add(user)
            new = GivenApproval(kind=one.kind, team=one.team, user=user, digest=digest, time=timestamp(situation.now))
            given.append(known.get((one.kind, one.team, user, digest), new))
    return Judged(given=tuple(given), missing=tuple(missing))


def voided(observed: Observed, now: datetime) -> tuple[Observed, tuple[Note, ...]]:
    """The snapshot in which Approve phases ask again whose approvals were for another spec, unless the run is at an end."""
    place = position(observed.spec, observed.status)
    if place is None or state_of(observed.phase_status(observed.spec.phases[place].name)) == State.FAILED:
        return observed, ()
    known, approving = observed.status.phases, {phase.name for phase in observed.spec.phases if phase.task == Task.APPROVE}
    approved = [one for one in known if one.name in approving and one.outcome == Reason.COMPLETED and one.subject]
    spec = spec_digest(observed.spec) if approved else ""  # few runs have any, and each pass would compute it
    void = [one.name for one in approved if one.subject and one.subject.spec != spec]
    if not void:
        return observed, ()
    phases = [_anew(one, now) if one.name in void else one for one in known]
    notes = tuple(Note(observed.run, "ApprovalsVoid", f"{name}: the spec has changed since, so it is approved anew") for name in void)
    return replace(observed, status=observed.status.model_copy(update={"phases": phases})), notes


def _anew(phase: PhaseStatus, now: datetime) -> PhaseStatus:
    """As if its turn came now."""
    return PhaseStatus(name=phase.name, begun=True, window_start_time=timestamp(now))


def late(situation: Situation) -> str:
    """What to do about approvals that did not come in time."""
    names = ", ".join(one.team for one in situation.status.waiting_for) or "people"
    return f"{names} did not approve; the request retry@<id> waits as long again"


def _missing(one: Approval, problem: str) -> str:
    return f"{one.team} must approve {one.kind}" + (f" ({problem})" if problem else "")


def _names(given: Sequence[GivenApproval]) -> str:
    return ", ".join(f"{one.kind} by {one.user} for {one.team}" for one in given)
