"""What to do about a TrainingRun now: a pure function from a snapshot to a Plan.

Phases run in order, one at a time. `attempts.py` says what an attempt's end leads to, `waiting.py` why nothing happens,
`status.py` how it reads; here is the order of things. What must not be lost is written before it is acted upon: the end
of an attempt goes into the status first, and its job is deleted in a later pass.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from videogen_api.progress import Progress
from videogen_api.training_run import Phase, PhaseStatus, Reason, Task, TrainingRunStatus
from videogen_operator.kinds.training_run import (
    approvals,
    attempts,
    fewer_workers,
    gpu_hours,
    images,
    initial_weights,
    lack_of_room,
    leftovers,
    network,
    objects,
    preflight,
    queues,
    release,
    windows,
)
from videogen_operator.kinds.training_run.attempts import State, state_of
from videogen_operator.kinds.training_run.conclusion import concluded
from videogen_operator.kinds.training_run.failure_policy import Action, Ending, ending, newest_report, terminated, with_all_written
from videogen_operator.kinds.training_run.lineage import with_page
from videogen_operator.kinds.training_run.moments import seconds_since, seconds_until
from videogen_operator.kinds.training_run.observed import Observed, Seen, Unreadable
from videogen_operator.kinds.training_run.sources import Missing
from videogen_operator.kinds.training_run.status import assembled, position, unreadable, worth_writing
from videogen_operator.kinds.training_run.step import Step, begins, doing, end_without_pods, healing, note, pod_states, soonest
from videogen_operator.kinds.training_run.time_spent import spent, told_by
from videogen_operator.kinds.training_run.waiting import Situation, Wait, before_attempt, during_attempt, stopped, unanswered_in
from videogen_operator.names import job_name
from videogen_operator.plan import Inputs, Note, Plan, StatusWrite

ARRIVAL_SECONDS = 2.0
REFUSED_SECONDS = 15.0  # after a refused write: nobody tells when it would be accepted
STOPPING_SECONDS = 5.0
RETRY = "retry"
OWN_STEPS = {Task.APPROVE: approvals.advance, Task.RELEASE: release.advance}  # of phases without pods
OWN_ADVICE = {Task.APPROVE: approvals.late, Task.RELEASE: release.late}  # when their window has closed


def plan(observed: Seen, inputs: Inputs) -> Plan:
    """The plan for a run."""
    if isinstance(observed, Unreadable):
        told = unreadable(observed, inputs.now)
        return Plan(statuses=(StatusWrite(observed.run, told),) if told != (observed.run.get("status") or {}) else ())
    if _may_still_arrive(observed, inputs.now):
        return Plan(requeue_after=1.0)
    request_notes: tuple[Note, ...] = ()
    if observed.request != observed.status.last_handled_request:
        observed, request_notes = _answer_request(observed, inputs.now)
    observed, void_notes = approvals.voided(observed, inputs.now)
    observed, used = gpu_hours.followed(_with_budget(observed), inputs.now)
    place = position(observed.spec, observed.status)
    phase = None if place is None else observed.spec.phases[place]
    if phase is None or state_of(observed.phase_status(phase.name)) == State.FAILED:
        plan = _finished(observed, phase, inputs, request_notes)
        return replace(plan, requeue_after=soonest(plan.requeue_after, gpu_hours.again(observed, used, inputs.now)))
    situation = replace(_situation(initial_weights.followed(observed), phase, inputs), used=used)
    observed = situation.observed
    step = _suspension(situation) or _deadline(situation) or _advance(situation, inputs)
    if step.preflight is not None:
        observed = replace(observed, status=observed.status.model_copy(update={"preflight": step.preflight}))
    step = replace(step, status=step.status.model_copy(update={"waiting_for": windows.whose_turn(situation, step)}))
    status = assembled(observed, step.status, step.said, step.artifact or observed.status.artifact, inputs.now)
    ended = state_of(step.status) in {State.COMPLETED, State.FAILED}
    status = windows.with_next_begun(observed.spec, status, inputs.now) if state_of(step.status) == State.COMPLETED else status
    notes = (*request_notes, *void_notes, *step.notes, *(_end_notes(observed, phase, step.status) if ended else ()))
    lingering, later = leftovers.lingering(observed, inputs.now)
    counts = gpu_hours.again(observed, used, inputs.now)
    again = 0.0 if _moved_on(situation, step) else soonest(step.again, later, _closes_in(situation), counts)
    delete = (*step.delete, *lingering, *network.unneeded(observed, inputs.settings))
    policies = network.current(observed, step.status, inputs.settings)
    written = _write(observed, status)
    rest = Plan(delete=delete, statuses=written, notes=notes, requeue_after=again)
    if not step.create:  # a policy that cannot be restored must not keep a running attempt from being looked after
        return replace(rest, beside=policies)
    known = {one["metadata"]["name"] for one in observed.policies}
    there = tuple(one for one in policies if one["metadata"]["name"] in known)
    missing = tuple(one for one in policies if one not in there)  # created, which asks nothing before
    return replace(rest, apply=there, create=(*missing, *step.create))


def _with_budget(observed: Observed) -> Observed:
    if observed.status.gpu_budget == observed.budget:
        return observed
    return replace(observed, status=observed.status.model_copy(update={"gpu_budget": observed.budget}))


def _may_still_arrive(observed: Observed, now: datetime) -> bool:
    """What was applied together with the run is seen by another watch, a moment later: do not call it missing at once."""
    created = observed.run["metadata"].get("creationTimestamp")
    seen_before = observed.status.observed_generation >= 0 or created is None
    missing = observed.claim is None or isinstance(observed.init_from, Missing)
    return not seen_before and missing and seconds_since(created, now) < ARRIVAL_SECONDS


def _advance(situation: Situation, inputs: Inputs) -> Step:
    if initial_weights.are_new(situation.observed):
        return initial_weights.pinned(situation)
    if situation.phase.task in OWN_STEPS:
        return OWN_STEPS[situation.phase.task](situation)
    match state_of(situation.status):
        case State.ACTIVE:
            return _watch(situation, inputs)
        case State.SUSPENDED:
            resumed = windows.resumed(situation)
            return Step(status=resumed, said=doing(situation, "resumed"), notes=(note(situation, "Resumed", "resumed"),))
        case _:
            return preflight.advance(situation) or windows.before(situation) or _begin(situation)


def _begin(situation: Situation) -> Step:
    """Create the next attempt, if nothing stands against it."""
    status, observed = situation.status, situation.observed
    old_pods, old_jobs = leftovers.past_pods(observed, status), leftovers.past_jobs(observed, status)
    unstopped = leftovers.unstopped(observed, status)
    if wait := before_attempt(situation):
        again = REFUSED_SECONDS if situation.failures else healing(observed)
        return Step(status=status, said=wait, delete=unstopped, again=again)
    left = seconds_until(status.retry_time, situation.now, attempts.longest_delay(status))
    if left > 0:
        return Step(status=status, said=_retrying(status), delete=unstopped, again=left)
    if old_pods:
        names = ", ".join(sorted(pod["metadata"]["name"] for pod in old_pods)[:3])
        said = Wait(Reason.RETRYING, f"attempt {status.attempt} is being stopped; waiting for {names} to end")
        return Step(status=status, said=said, delete=old_jobs, again=STOPPING_SECONDS)
    if not status.begun:
        return begins(situation)
    attempt = status.attempt + 1
    job = objects.job_of(observed, situation.phase, status, attempt)
    settings = situation.settings
    phase = lack_of_room.placed(situation.phase, status)
    create = (objects.config_map(observed, job, settings), objects.pytorch_job(observed, phase, job, settings))
    name = job_name(observed.name, situation.phase.name, attempt)
    fewer = fewer_workers.words(status, situation.phase.asked_workers)
    words = f"attempt {attempt} is PyTorchJob {name}" + (" in the burst pool" if status.burst else "") + (f" with {fewer}" if fewer else "")
    created = note(situation, "JobCreated", f"{situation.phase.title}: {words}")
    begun = attempts.started(status, name, situation.now, job.workers, queued=queues.asked_for(phase))
    said = Wait(Reason.STARTING, f"attempt {attempt} is starting: {pod_states((), job.workers)}")
    return Step(status=begun, said=said, create=create, delete=old_jobs, notes=(created,))


def _watch(situation: Situation, inputs: Inputs) -> Step:
    """Follow the current attempt to its end."""
    status = situation.status
    if step := queues.advance(
        situation if status.queued_time else replace(situation, status=_with_progress(situation, inputs, at_once=True))
    ):
        return step
    if end := _end(situation):  # with what was reported last, however short a time before
        return _ended(replace(situation, status=_with_progress(situation, inputs, at_once=True)), end)
    coming = lack_of_room.coming(situation)
    if coming and coming.seconds <= 0:
        return _without_room(situation, coming)
    status = _with_progress(situation, inputs)
    said, again = _followed(situation, status)
    return Step(status=status, said=lack_of_room.with_prospect(said, coming), again=lack_of_room.soon(again, coming))


def _followed(situation: Situation, status: PhaseStatus) -> tuple[Wait, float | None]:
    """What the current attempt does or waits for, and the seconds until it is looked at again."""
    if wait := during_attempt(situation):
        return wait, healing(situation.observed)
    if any((pod.get("status") or {}).get("phase") == "Running" for pod in situation.pods):
        some_ended = any(terminated(pod) for pod in situation.pods)
        words = (progress_message(status), lack_of_room.words(situation, status))
        return doing(situation, "; ".join(filter(None, words))), STOPPING_SECONDS if some_ended else None
    states = pod_states(situation.pods, fewer_workers.workers_of(status, situation.phase.asked_workers))
    said = Wait(Reason.STARTING, f"attempt {status.attempt} is starting: {states}")
    return said, soonest(healing(situation.observed), unanswered_in(situation))


def _end(situation: Situation) -> Ending | None:
    """How the current attempt ended; None while it goes on."""
    return ending(situation.pods, situation.phase.task, situation.now) or end_without_pods(situation)


def _ended(situation: Situation, end: Ending) -> Step:
    status, spec = situation.status, situation.phase
    if end.action == Action.SUCCEED:
        return _succeeded(situation, end)
    if end.report is None and (report := newest_report(situation.pods)):
        end = replace(end, report=report)
    end = with_all_written(end, situation.pods)
    new = windows.out_of_queue(situation, attempts.ended(status, spec, end, situation.now))
    message = f"{spec.title}: attempt {status.attempt} ended with {end.reason}: {end.message}"
    return Step(status=new, said=_retrying(new), notes=(note(situation, "AttemptEnded", message, warning=True),))


def _without_room(situation: Situation, due: fewer_workers.Lack) -> Step:
    """End an attempt that has no room for all its workers."""
    new = lack_of_room.next_status(situation, due)
    message = f"{situation.phase.title}: attempt {situation.status.attempt} ends: {due.message}; the next one {due.then}"
    reason = "WorkersReduced" if due.workers else "MovedToBurstPool" if due.burst else "NodesReleased"
    return Step(status=new, said=_retrying(new), notes=(note(situation, reason, message, warning=True),))


def _succeeded(situation: Situation, end: Ending) -> Step:
    """A phase's work is done; what it measured must also pass the phase's gates."""
    end = with_all_written(end, situation.pods)
    recorded = attempts.recorded_end(situation.status, end, situation.now)
    assert end.report is not None
    return concluded(situation, with_page(situation, recorded, end.report), end.report)


def _suspension(situation: Situation) -> Step | None:
    """spec.suspend, or a budget that is used up: record it first, then stop the pods."""
    if (said := stopped(situation)) is None:
        return None
    if state_of(situation.status) == State.SUSPENDED:
        delete = (*leftovers.past_jobs(situation.observed, situation.status), *preflight.past_jobs(situation.observed))
        return Step(status=situation.status, said=said, delete=delete)
    end = ending(situation.pods, situation.phase.task, situation.now) if state_of(situation.status) == State.ACTIVE else None
    if end is not None and end.action in {Action.SUCCEED, Action.FAIL}:
        return None  # the attempt had ended before it could be stopped
    asked = said.reason == Reason.SUSPENDED
    why = "stopped because spec.suspend is true" if asked else "stopped because the budget is used up"
    status = windows.out_of_queue(situation, attempts.suspended(situation.status, said.reason, why, situation.now))
    notes = (note(situation, said.reason, said.message, warning=not asked),)
    return Step(status=status, said=said, notes=notes, preflight=preflight.forgotten(situation.observed))


def _deadline(situation: Situation) -> Step | None:
    """The phase has taken too long, over all its attempts. An attempt that has ended is judged first, however late it is seen."""
    left = windows.closes_in(situation)
    if left is None or left > 0:
        return None
    if state_of(situation.status) == State.ACTIVE and _end(situation):
        return None
    own = OWN_STEPS.get(situation.phase.task)
    if own and state_of(own(situation).status) == State.COMPLETED:
        return None
    more = "suspend the run, raise it or give the phase more workers, then ask for the request retry@<id>"
    advice = OWN_ADVICE.get(situation.phase.task)
    late = advice(situation) if advice else more
    message = f"the phase took longer than window.deadlineSeconds {situation.phase.deadline_seconds}; {late}"
    status = attempts.failed(situation.status, Reason.DEADLINE_EXCEEDED, message, situation.now)
    return Step(status=status, said=Wait(Reason.DEADLINE_EXCEEDED, message))


def _finished(observed: Observed, phase: Phase | None, inputs: Inputs, notes: tuple[Note, ...]) -> Plan:
    """Nothing left to do but to stop pods that still run: of a failed phase at once, of a completed one after a while."""
    status = observed.phase_status(phase.name) if phase else None
    said = Wait(Reason.COMPLETED, f"all {len(observed.spec.phases)} phases are done")
    if phase is not None and status is not None and status.outcome is not None:
        said = Wait(status.outcome, status.message)
    new = assembled(observed, status, said, observed.status.artifact, inputs.now)
    delete, again = leftovers.lingering(observed, inputs.now)
    if status is not None:
        delete = (*delete, *leftovers.unstopped(observed, status))
    expired, later = leftovers.expired(observed, inputs.now)
    delete = (*dict.fromkeys((*delete, *expired)), *network.unneeded(observed, inputs.settings, finished=True))
    policies = network.current(observed, None, inputs.settings)
    return Plan(beside=policies, delete=delete, statuses=_write(observed, new), notes=notes, requeue_after=soonest(again, later))


def _answer_request(observed: Observed, now: datetime) -> tuple[Observed, tuple[Note, ...]]:
    """`retry@<id>` lets a failed phase begin again; anything else is answered with an event."""
    verb = observed.request.partition("@")[0]
    failed = next((phase for phase in observed.status.phases if state_of(phase) == State.FAILED), None)
    phases = observed.status.phases
    if verb == RETRY and failed is not None:
        phases = [attempts.restarted(phase, now) if phase is failed else phase for phase in phases]
        answer = Note(observed.run, "Retried", f"{failed.name}: tried again at the request {observed.request}")
    elif verb == RETRY and (waiting := preflight.at_once(observed)):
        observed = replace(observed, status=observed.status.model_copy(update={"preflight": waiting}))
        answer = Note(observed.run, "Retried", f"the preflight looks again at the request {observed.request}")
    elif observed.request:
        said = (
            f"request {observed.request!r} does nothing: a TrainingRun knows retry@<id>, and only when a phase or the preflight has failed"
        )
        answer = Note(observed.run, "RequestIgnored", said, "Warning")
    else:
        answer = Note(observed.run, "RequestWithdrawn", "the request annotation is gone")
    changes: dict[str, object] = {"phases": phases, "last_handled_request": observed.request}
    changes |= {"images": None} if phases is not observed.status.phases else {}  # a trainer that was mended may be the point of it
    status = observed.status.model_copy(update=changes)
    return replace(observed, status=status), (answer,)


def _situation(observed: Observed, phase: Phase, inputs: Inputs) -> Situation:
    status = observed.phase_status(phase.name)
    pods = observed.attempt_pods(phase.name, status.attempt)
    works = state_of(status) == State.ACTIVE  # after a retry request the old attempt's pods are still there, and bind nobody
    run_images = images.pinned(observed.status.images, pods if works else ())
    observed = replace(observed, status=observed.status.model_copy(update={"images": run_images}))
    return Situation(
        observed=observed,
        phase=phase,
        status=images.noted(status, pods),
        pods=pods,
        failures=inputs.failures,
        now=inputs.now,
        settings=images.settings_of(run_images, inputs.settings),
        seals=inputs.seals,
    )


def _with_progress(situation: Situation, inputs: Inputs, *, at_once: bool = False) -> PhaseStatus:
    reports = [inputs.progress[pod["metadata"]["uid"]] for pod in situation.pods if pod["metadata"]["uid"] in inputs.progress]
    if not reports:
        return situation.status
    newest = Progress.model_validate(max(reports, key=lambda report: report.get("lastUpdatedTime", "")))
    if not (at_once or worth_writing(situation.status.progress, newest)):
        return situation.status
    told = {metric.name: metric.value for metric in newest.metrics}
    saved = told.get("checkpointStep", "0")
    step = int(float(saved)) if saved.replace(".", "", 1).isdigit() else 0
    changes = {
        "progress": newest,
        "checkpoint_step": max(step, situation.status.checkpoint_step),
        **spent(situation.status, told_by(newest), attempts.elapsed_seconds(situation.status, situation.now)),
    }
    return situation.status.model_copy(update=changes)


def _write(observed: Observed, status: TrainingRunStatus) -> tuple[StatusWrite, ...]:
    before, after = observed.run.get("status") or {}, status.wire()
    # What another version of the operator has written is compared as this one reads it.
    same = before == after or TrainingRunStatus.model_validate(before).wire() == after
    return () if same else (StatusWrite(observed.run, after),)


def _end_notes(observed: Observed, phase: Phase, status: PhaseStatus) -> tuple[Note, ...]:
    if status.outcome == Reason.COMPLETED:
        return (Note(observed.run, "PhaseCompleted", f"{phase.title}: {status.message or 'done'}"),)
    return (Note(observed.run, str(status.outcome), f"{phase.title}: {status.message}", "Warning"),)


def _moved_on(situation: Situation, step: Step) -> bool:
    before, after = state_of(situation.status), state_of(step.status)
    return after not in {before, State.ACTIVE}


def _closes_in(situation: Situation) -> float | None:
    left = windows.closes_in(situation)
    return None if left is None else max(0.5, left)


def progress_message(status: PhaseStatus) -> str:
    """`step 41,200 of 100,000, loss 0.083`, as far as it is known."""
    metrics = {metric.name: metric.value for metric in status.progress.metrics} if status.progress else {}
    words = (
        [f"step {thousands(metrics['step'])}" + (f" of {thousands(metrics['steps'])}" if "steps" in metrics else "")]
        if ("step" in metrics)
        else []
    )
    words += [f"loss {metrics['loss']}"] if "loss" in metrics else []
    words = [f"trial {metrics['trial']}", *words] if "trial" in metrics else words
    said = ", ".join(words) or f"attempt {status.attempt} is running"
    return f"{said}; MLflow gets nothing: {metrics['mlflow']}" if "mlflow" in metrics else said


def thousands(number: str) -> str:
    """41200 as 41,200; other texts as they are."""
    return f"{int(number):,}" if number.isdigit() else number


def _retrying(status: PhaseStatus) -> Wait:
    last = status.attempts[-1] if status.attempts else None
    if last and last.reason == Reason.TOO_FEW_NEW_CLIPS:
        told = f"{status.new_clips.words}, {status.new_clips.minimum:,} are needed" if status.new_clips else last.message
        return Wait(last.reason, f"{told}; add videos, the sources are looked at again at {status.retry_time}")
    why = f"attempt {last.number} ended with {last.reason}: {last.message}; " if last else ""
    fewer = f" with {status.workers} of them" if status.workers else ""
    return Wait(Reason.RETRYING, f"{why}the next attempt resumes from step {status.checkpoint_step:,}{fewer}")
