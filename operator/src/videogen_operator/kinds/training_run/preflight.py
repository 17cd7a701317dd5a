"""The preflight of a run: before its first attempt one short pod looks at everything that any of its phases will need.

It is a PyTorchJob of its own, attempt 0 of the first phase, without a queue, and mounts the storage to read it. What needs no pod is
looked at here. What is found stands in `status.preflight`, and the run begins when that is nothing; until then it is looked at again
and again. A preflight that could not be done (a lost node, an eviction) counts for nothing.

    none ──► at work ──► passed                    the first attempt may be created
               │  ▲
               ▼  │ retryTime
             waiting                               something was found, or it could not be done
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

from videogen_api.evaluation import DEFAULT_EXTRACTORS
from videogen_api.meta import LABEL_ATTEMPT
from videogen_api.placement import PhasePlacement, Toleration, TolerationOperator
from videogen_api.preflight import MOST_PROBLEMS, Preflight, PreflightResult, Problem
from videogen_api.resources import GPU, Resources, gpus
from videogen_api.training_run import WITHOUT_PODS, Phase, PhaseStatus, Reason, Task
from videogen_operator.conditions import timestamp
from videogen_operator.kinds.training_run import objects, reuse
from videogen_operator.kinds.training_run.attempts import begun
from videogen_operator.kinds.training_run.failure_policy import Action, Ending, pod_ending
from videogen_operator.kinds.training_run.leftovers import reference
from videogen_operator.kinds.training_run.moments import seconds_until
from videogen_operator.kinds.training_run.observed import Observed
from videogen_operator.kinds.training_run.room import shortage
from videogen_operator.kinds.training_run.step import Step, end_without_pods, healing, note, soonest
from videogen_operator.kinds.training_run.waiting import Situation, Wait, before_attempt, during_attempt, unanswered_in
from videogen_operator.kinds.training_run.windows import is_early
from videogen_operator.names import preflight_name
from videogen_operator.plan import Ref

ATTEMPT = 0  # label of its job and pods
RESOURCES = Resources(requests={"cpu": "100m", "memory": "512Mi"})  # it waits for the storage, and fits beside what else runs
FIRST_DELAY, LONGEST_DELAY = 10, 300  # seconds until the next one, if one could not be done
FIRST_LOOK, LONGEST_LOOK = 60, 900  # seconds until it is looked again whether what was found is mended
REFUSED_SECONDS = 15.0
LONGEST_MESSAGE = 1900  # of a condition, with room for the words around it


def advance(situation: Situation) -> Step | None:
    """What the preflight does now; None: the first attempt may begin, or has begun."""
    known = situation.observed.status.preflight or Preflight()
    if is_passed(known) and (known.phase == situation.phase.name or not has_begun(situation.observed)):
        return None
    if has_begun(situation.observed) and not is_active(known) and not reuse.is_wanted(situation):
        return None
    pod = replace(situation, phase=pod_phase(situation.phase), status=_as_attempt(situation.phase, known), pods=_pods(situation, known))
    current = is_active(known) and known.generation == situation.observed.generation  # else it looks at a spec that was changed since
    return _watch(pod, situation, known) if current else _begin(pod, situation, known)


def has_begun(observed: Observed) -> bool:
    """Whether an attempt of the run was made."""
    waits = {phase.name for phase in observed.spec.phases if phase.task == Task.APPROVE}
    return any(phase.attempt or phase.outcome for phase in observed.status.phases if phase.name not in waits)


def is_passed(known: Preflight) -> bool:
    """Whether nothing was found."""
    return known.completion_time is not None and known.retry_time is None


def is_active(known: Preflight | None) -> bool:
    """Whether a job of it is at work."""
    return known is not None and known.start_time is not None and known.completion_time is None and known.retry_time is None


def forgotten(observed: Observed) -> Preflight | None:
    """Of a run that is suspended before its first attempt: it is all looked at again when it goes on. None: there is nothing to forget."""
    known = observed.status.preflight
    return None if known is None or (has_begun(observed) and not is_active(known)) else Preflight(number=known.number)


def at_once(observed: Observed) -> Preflight | None:
    """A person asks to look again now; None if the preflight does not wait."""
    known = observed.status.preflight
    if known is None or known.retry_time is None or has_begun(observed):
        return None
    return known.model_copy(update={"retry_time": known.start_time})


def past_jobs(observed: Observed, current: str = "") -> tuple[Ref, ...]:
    """Jobs of preflights, but for that of the current name, that are not being deleted yet."""
    return tuple(
        reference(job)
        for job in observed.jobs
        if job["metadata"]["labels"].get(LABEL_ATTEMPT) == str(ATTEMPT)
        and job["metadata"]["name"] != current
        and not job["metadata"].get("deletionTimestamp")
    )


def pod_phase(phase: Phase) -> Phase:
    """The phase whose pod looks at things: the nodes are those of the first phase, so that a volume is not bound to others; no queue."""
    placement = phase.placement or PhasePlacement()
    kept = [Toleration(key=GPU, operator=TolerationOperator.EXISTS)] if gpus(phase.resources) else []
    tolerations = [*(placement.tolerations or []), *kept] or None
    placement = placement.model_copy(update={"queue_name": None, "tolerations": tolerations})
    return Phase(name=phase.name, task=phase.task, placement=placement, resources=RESOURCES)


def _as_attempt(phase: Phase, known: Preflight) -> PhaseStatus:
    return PhaseStatus(name=phase.name, job_name=known.job_name, attempt_start_time=known.start_time)


def _pods(situation: Situation, known: Preflight) -> tuple[Any, ...]:
    return situation.observed.job_pods(known.job_name)


def _begin(pod: Situation, situation: Situation, known: Preflight) -> Step:
    observed, status = situation.observed, situation.status
    if wait := before_attempt(pod):
        return Step(status=status, said=wait, again=REFUSED_SECONDS if pod.failures else healing(observed))
    left = seconds_until(known.retry_time, pod.now, max(LONGEST_DELAY, LONGEST_LOOK))
    if left > 0 and known.generation == observed.generation:
        return Step(status=status, said=_waits(known), again=left)
    number = known.number + 1
    name = preflight_name(observed.name, situation.phase.name, number, observed.generation)
    job = objects.preflight_job(observed, situation.phase, looks_up=reuse.is_wanted(situation))
    made = objects.pytorch_job(observed, pod.phase, job, pod.settings)
    made["metadata"]["name"] = name
    changes = {"phase": situation.phase.name, "number": number, "job_name": name, "generation": observed.generation}
    changes |= {"start_time": timestamp(pod.now)}
    new = known.model_copy(update=changes | {"completion_time": None, "retry_time": None, "message": ""})
    said = _found(known) or _looks(replace(pod, status=_as_attempt(situation.phase, new)))
    create = (objects.config_map(observed, job, pod.settings), made)
    return Step(status=status, said=said, create=create, delete=past_jobs(observed, name), preflight=new)


def _watch(pod: Situation, situation: Situation, known: Preflight) -> Step:
    status = situation.status
    end = next((end for one in pod.pods if (end := pod_ending(one))), None) or end_without_pods(pod)
    if end is None:
        said, again = _followed(pod)
        return Step(status=status, said=_found(known) or said, again=again)
    if end.action == Action.SUCCEED and end.report is not None and end.report.preflight is not None:
        step = _judged(pod, status, known, end.report.preflight)
        record = end.report.record if not end.report.preflight.problems else None
        return reuse.taken(situation, record, step) if record and reuse.is_wanted(situation) else step
    if end.action == Action.FAIL and has_begun(pod.observed):
        return _unfound(pod, status, known, end)
    return _repeated(pod, status, known, end)


def _followed(pod: Situation) -> tuple[Wait, float | None]:
    if wait := during_attempt(pod):
        return replace(wait, message=f"the preflight cannot run: {wait.message}"), healing(pod.observed)
    return _looks(pod), soonest(healing(pod.observed), unanswered_in(pod))


def _looks(pod: Situation) -> Wait:
    """The same from beginning to end: it lasts seconds, and each word costs a write."""
    what = f"looks at what {len(pod.observed.spec.phases)} phases will need"
    if has_begun(pod.observed):
        what = f"looks whether {pod.phase.name} was computed before"
    return Wait(Reason.CHECKING, f"{what} (PyTorchJob {pod.status.job_name})")


def _unfound(pod: Situation, status: PhaseStatus, known: Preflight, end: Ending) -> Step:
    """What a later phase may have computed before cannot be looked up: it is computed."""
    new = known.model_copy(update={"completion_time": timestamp(pod.now), "message": end.message[:1024]})
    said = f"{pod.phase.name}: it cannot be looked up, so the phase is computed: {end.message}"
    told = note(pod, "PreflightEnded", said, warning=True)
    return Step(status=_marked(pod, status), said=Wait(Reason.STARTING, said), notes=(told,), again=0.0, preflight=new)


def _marked(pod: Situation, status: PhaseStatus) -> PhaseStatus:
    """The phase as begun, unless it may not begin yet."""
    phase = next(one for one in pod.observed.spec.phases if one.name == status.name)
    return status if is_early(phase, pod.now) else begun(status)


def _repeated(pod: Situation, status: PhaseStatus, known: Preflight, end: Ending) -> Step:
    """It could not be done. What the trainer refuses for good is a problem of the run; all else may go away."""
    if end.action == Action.FAIL:
        return _judged(pod, status, known, PreflightResult(problems=[Problem(path="spec", message=end.message[:1024])]))
    delay = min(FIRST_DELAY * 2 ** min(known.number - 1, 10), LONGEST_DELAY)
    message = f"preflight {known.number} ended with {end.reason}: {end.message}"
    new = known.model_copy(update={"message": message[:1024], "retry_time": timestamp(pod.now + timedelta(seconds=delay))})
    told = note(pod, "PreflightEnded", message, warning=True)
    return Step(status=status, said=_waits(new), notes=(told,), again=float(delay), preflight=new)


def _judged(pod: Situation, status: PhaseStatus, known: Preflight, result: PreflightResult) -> Step:
    own = [] if has_begun(pod.observed) else list(_own(pod))
    problems = [problem for _, problem in own if problem]
    found = [*problems, *result.problems][:MOST_PROBLEMS]
    checked = len(own) + result.checked or known.checked  # what a later phase looks up is no check, and leaves the count as it was
    new = known.model_copy(update={"checked": checked, "problems": found, "completion_time": timestamp(pod.now), "message": ""})
    if not found:
        told = note(pod, "PreflightPassed", f"{new.checked} things that the phases need are there")
        notes = () if has_begun(pod.observed) else (told,)
        return Step(status=_marked(pod, status), said=Wait(Reason.STARTING, told.message), notes=notes, again=0.0, preflight=new)
    delay = min(FIRST_LOOK * 2 ** min(known.number - 1, 10), LONGEST_LOOK)
    new = new.model_copy(update={"retry_time": timestamp(pod.now + timedelta(seconds=delay))})
    notes = () if found == known.problems else (note(pod, Reason.PREFLIGHT_FAILED, _waits(new).message, warning=True),)
    return Step(status=status, said=_waits(new), notes=notes, again=float(delay), preflight=new)


def _waits(known: Preflight) -> Wait:
    return _found(known) or Wait(Reason.RETRYING, f"{known.message}; it is repeated")


def _found(known: Preflight) -> Wait | None:
    """What was found, all in one message: each problem with an equal share of the room."""
    if not known.problems:
        return None
    room = LONGEST_MESSAGE // len(known.problems) - 2
    told = (f"{problem.path}: {problem.message}" for problem in known.problems)
    words = "; ".join(text if len(text) <= room else f"{text[: room - 4]} ..." for text in told)
    many = "1 problem" if len(known.problems) == 1 else f"{len(known.problems)} problems"
    return Wait(Reason.PREFLIGHT_FAILED, f"{many} before the first attempt: {words}")


def _own(situation: Situation) -> Iterator[tuple[str, Problem | None]]:
    """What needs no pod, each with what is wrong with it."""
    for place, phase in enumerate(situation.observed.spec.phases):
        path = f"spec.phases[{place}]"
        if phase.task not in WITHOUT_PODS and situation.settings.get("nodes_on_demand") != "true":
            said = shortage(phase, situation.observed.nodes, situation.settings) if situation.observed.nodes else ""
            yield f"{path}.resources", Problem(path=f"{path}.resources", message=said) if said else None
        yield from _gates(path, phase)


def _gates(path: str, phase: Phase) -> Iterator[tuple[str, Problem | None]]:
    names = [*DEFAULT_EXTRACTORS, *(one.name for one in (phase.evaluate.extractors if phase.evaluate else ()))]
    for number, gate in enumerate(phase.gates):
        if gate.extractor is None:
            continue
        place = f"{path}.gates[{number}].extractor"
        said = f"names {gate.extractor}, and the phase measures with {', '.join(names)}; correct it, or add it to evaluate.extractors"
        yield place, None if gate.extractor in names else Problem(path=place, message=said)
