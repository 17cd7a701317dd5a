"""How an attempt ended, read from its pods, and what to do about it: two tables and the reading between them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from pydantic import ValidationError

from videogen_api.curation import WhenBelow
from videogen_api.job import ExitCode, Report
from videogen_api.training_run import TRAINING, Phase, Reason, Task
from videogen_operator.kinds.training_run.moments import seconds_since
from videogen_operator.kubernetes_objects import conditions, containers, is_true
from videogen_operator.plan import Manifest

CONTAINER = "pytorch"  # the name that training-operator demands
SIBLING_SECONDS = 20  # a lost peer is believed to be lost when no other pod has given a reason for so long


class Action(StrEnum):
    """What follows an attempt's end."""

    SUCCEED = "Succeed"
    RETRY = "Retry"  # from the last checkpoint; uses up one of the phase's attempts
    RETRY_SLOWER = "RetrySlower"  # the same with half the learning rate
    RETRY_FREE = "RetryFree"  # the same, and does not count: the work was not at fault
    FAIL = "Fail"  # trying again cannot help
    ASK_SIBLINGS = "AskSiblings"  # this process died of another one's death


CODES: dict[ExitCode, tuple[Reason, Action]] = {
    ExitCode.SUCCEEDED: (Reason.COMPLETED, Action.SUCCEED),
    ExitCode.FAILED: (Reason.TRAINER_FAILED, Action.RETRY),
    ExitCode.INVALID_JOB: (Reason.INVALID_JOB, Action.FAIL),
    ExitCode.CONTRACT_UNSUPPORTED: (Reason.CONTRACT_UNSUPPORTED, Action.FAIL),
    ExitCode.DATA_REJECTED: (Reason.DATASET_CORRUPT, Action.FAIL),  # the report says more exactly
    ExitCode.ARTIFACT_INVALID: (Reason.ARTIFACT_INVALID, Action.FAIL),
    ExitCode.EXTRACTOR_MISSING: (Reason.EXTRACTOR_MISSING, Action.FAIL),
    ExitCode.EXPORT_FAILED: (Reason.EXPORT_FAILED, Action.FAIL),
    ExitCode.DIVERGED: (Reason.DIVERGED, Action.RETRY_SLOWER),
    ExitCode.OUT_OF_MEMORY: (Reason.OUT_OF_MEMORY, Action.RETRY),
    ExitCode.PEER_LOST: (Reason.NODE_LOST, Action.ASK_SIBLINGS),
    ExitCode.STORAGE_FAILED: (Reason.STORAGE_FAILED, Action.RETRY),
    ExitCode.PREEMPTED: (Reason.PREEMPTED, Action.RETRY_FREE),
}
SIGNALS: dict[int, tuple[Reason, Action]] = {  # 128 + signal: the trainer could not say anything itself
    143: (Reason.PREEMPTED, Action.RETRY_FREE),  # SIGTERM
    137: (Reason.TRAINER_FAILED, Action.RETRY),  # SIGKILL, by somebody else than the kernel's memory killer
}
BY_CODE = {int(code): row for code, row in CODES.items()} | SIGNALS
EMPTY: Manifest = {}
OOM_KILLED = "OOMKilled"
BY_TAINT = "DeletionByTaintManager"
NODE_REASONS = frozenset({"NodeLost", "NodeShutdown", "Shutdown", "Terminated", "NodeAffinity", "UnexpectedAdmissionError", "OutOfcpu"})
NEXT_STEP: dict[Reason, str] = {  # of a phase that has begun: what it does cannot be edited any more, see videogen_api.run_changes
    Reason.INVALID_JOB: "correct it in a new run; if the spec does not say this, use operator and trainer images of one version",
    Reason.CONTRACT_UNSUPPORTED: "use operator and trainer images of one version",
    Reason.ARTIFACT_INVALID: "train again, or restore the bundle's files",
    Reason.EXTRACTOR_MISSING: "put the file there, or correct path and digest of the extractor in a new run",
    Reason.DATASET_CORRUPT: "curate the dataset again",
    Reason.DATASET_NOT_FOUND: "curate it first, or correct dataset and version in a new run",
    Reason.DATASET_TOO_SMALL: "add videos, or lower minimumClips or globalBatchSize in a new run",
    Reason.TOO_FEW_NEW_CLIPS: "add videos, or lower newClips.minimum in a new run",
    Reason.DATASET_REJECTED: "look at the dataset's report, mend the sources, or raise maximumRejectedPercent in a new run",
    Reason.TABLE_INVALID: "correct the table at the line that is named",
    Reason.VIDEO_UNREADABLE: "convert or remove the file",
    Reason.VIDEO_MISSING: "copy the videos into the storage, or correct curate.sources in a new run",
    Reason.CAPTION_MISSING: "write a .txt file beside the video, or a caption into the table",
    Reason.TEMPLATES_REJECTED: "look at the page, then lower templates.quality, raise attemptsPerTemplate, or train longer, in a new run",
    Reason.FONT_MISSING: "put the font there, or correct path and digest in templates.captionFont in a new run",
    Reason.RESULTS_TOO_LARGE: "in a new run use fewer networks in evaluate.extractors, the others in a second Evaluate phase",
    Reason.OUT_OF_MEMORY: "suspend the run and raise memory in the phase's resources, or lower globalBatchSize or resolution in a new run",
    Reason.DIVERGED: "lower optimizer.learningRate or gradientClipNorm, or use FP32, in a new run",
    Reason.STORAGE_FAILED: "look at the claim's free space and its permissions",
    Reason.TRAINER_FAILED: "look at the pod's log",
    Reason.EXPORT_FAILED: "in a new run leave ONNX out of optimize.formats, or raise optimize.onnxTolerance if it alone is exceeded",
}


@dataclass(frozen=True, slots=True)
class Ending:
    """How an attempt, or one pod of it, ended."""

    reason: Reason
    action: Action
    message: str
    report: Report | None = None
    time: datetime | None = None  # of one pod: when it ended or, if it was interrupted, when that began; None if not known


def ending(pods: Sequence[Manifest], task: Task, now: datetime) -> Ending | None:
    """How the attempt of these pods ended; None while it goes on or while a better reason may still come."""
    ends = [(pod, end) for pod in pods if (end := pod_ending(pod)) is not None]
    found = [end for _, end in ends]
    if done := next((end for end in found if end.action == Action.SUCCEED and is_complete(end.report, task)), None):
        return done
    failed = [end for end in found if end.action not in {Action.SUCCEED, Action.ASK_SIBLINGS}]
    if failed:
        return cause(failed)
    if found and len(found) == len(pods) and all(end.action == Action.SUCCEED for end in found):
        return Ending(Reason.TRAINER_FAILED, Action.RETRY, "every pod ended with exit code 0, but none left a complete report")
    lost = [(pod, end) for pod, end in ends if end.action == Action.ASK_SIBLINGS]
    waited = any(seconds_since(ended_at(pod, now), now) >= SIBLING_SECONDS for pod, _ in lost)
    if lost and (waited or len(found) == len(pods)):
        return Ending(Reason.NODE_LOST, Action.RETRY_FREE, f"workers lost contact with each other: {lost[0][1].message}", lost[0][1].report)
    return None


def cause(ends: Sequence[Ending]) -> Ending:
    """The one of several failed pods' ends that explains the others: what went wrong first, as far as that is known.

    A pod's own clear reason counts unless the interruption of another one is known to have begun before it. An unexpected
    error may be the echo of an interruption, and counts only if it is known to have come first.
    """
    stops = [end for end in ends if end.action == Action.RETRY_FREE]
    return next(end for rule in CAUSES for end in ends if rule(end, stops))


def _cannot_be_helped(end: Ending, _: Sequence[Ending]) -> bool:
    return end.action == Action.FAIL


def _diverged(end: Ending, _: Sequence[Ending]) -> bool:
    return end.action == Action.RETRY_SLOWER


def _clear_and_first(end: Ending, stops: Sequence[Ending]) -> bool:
    clear = end.action == Action.RETRY and end.reason != Reason.TRAINER_FAILED
    return clear and not any(_is_before(stop, end) for stop in stops)


def _unexpected_but_first(end: Ending, stops: Sequence[Ending]) -> bool:
    return end.action == Action.RETRY and all(_is_before(end, stop) for stop in stops)


def _interrupted(end: Ending, _: Sequence[Ending]) -> bool:
    return end.action == Action.RETRY_FREE


def _is_before(one: Ending, other: Ending) -> bool:
    return one.time is not None and other.time is not None and one.time < other.time


CAUSES: tuple[Callable[[Ending, Sequence[Ending]], bool], ...] = (
    _cannot_be_helped,  # refused input: no other pod can bring it about
    _diverged,  # nor this
    _clear_and_first,  # out of memory, storage: the pod's own affair, unless the work was being interrupted already
    _unexpected_but_first,  # an error without a name, before anybody was interrupted
    _interrupted,  # a stopped pod, a lost node: what comes after is its echo
)


def pod_ending(pod: Manifest) -> Ending | None:
    """How one pod ended; None while it runs. A pod that is being deleted counts as ended."""
    ended, stopped = terminated(pod), _interruption(pod)
    if ended and not (stopped and int(ended["exitCode"]) in SIGNALS and ended.get("reason") != OOM_KILLED):
        return _of_container(pod, ended)
    return stopped


def _interruption(pod: Manifest) -> Ending | None:
    """That the pod was stopped from outside: evicted, shut down with its node, or deleted."""
    name, status, disruption = pod["metadata"]["name"], pod.get("status") or {}, _disruption(pod)
    why = status.get("reason", "")
    if status.get("phase") == "Failed" and (why or terminated(pod) is None):
        reason = Reason.NODE_LOST if why in NODE_REASONS else Reason.PREEMPTED
        message = f"pod {name} was stopped: {why or 'no reason given'} {status.get('message', '')}".strip()
    elif pod["metadata"].get("deletionTimestamp"):
        lost = disruption.get("reason") == BY_TAINT or why == "NodeLost"
        reason = Reason.NODE_LOST if lost else Reason.PREEMPTED
        message = f"pod {name} was deleted {disruption.get('message', '')}".strip()
    else:
        return None
    return Ending(reason, Action.RETRY_FREE, message, time=_began(pod))


def _disruption(pod: Manifest) -> Manifest:
    return conditions(pod)["DisruptionTarget"] if is_true(pod, "DisruptionTarget") else EMPTY


def interrupted_at(pod: Manifest) -> datetime | None:
    """When a pod's interruption began; None: it was not stopped from outside, or that is not known."""
    stopped = _interruption(pod)
    return stopped.time if stopped else None


def _began(pod: Manifest) -> datetime | None:
    """When an interruption began. Not known of a lost node: its pods are told a minute or more later."""
    disruption, metadata = _disruption(pod), pod["metadata"]
    if disruption.get("reason") == BY_TAINT:
        return None
    if said := disruption.get("lastTransitionTime"):
        return datetime.fromisoformat(said)
    if said := metadata.get("deletionTimestamp"):  # the end of the pod's grace
        return datetime.fromisoformat(said) - timedelta(seconds=metadata.get("deletionGracePeriodSeconds") or 0)
    finished = (terminated(pod) or EMPTY).get("finishedAt")
    return datetime.fromisoformat(finished) if finished else None


def terminated(pod: Manifest) -> Manifest | None:
    """The `terminated` state of the trainer's container."""
    for container in containers(pod):
        if container["name"] == CONTAINER:
            ended: Manifest | None = container.get("state", {}).get("terminated")
            return ended
    return None


def ended_at(pod: Manifest, now: datetime) -> datetime:
    """When the trainer's container ended; now if that is not known."""
    finished = (terminated(pod) or {}).get("finishedAt")
    return datetime.fromisoformat(finished) if finished else now


def is_complete(report: Report | None, task: Task) -> bool:
    """Whether a report says what the task must have produced."""
    if report is None or report.reason != Reason.COMPLETED:
        return False
    produced: dict[Task, object] = {
        Task.EVALUATE: report.results,
        Task.CURATE: report.datasets,
        Task.TUNE: any(trial.chosen for trial in report.trials),
        Task.BUILD_TEMPLATES: report.artifact,
        Task.TEST_SCENARIOS: report.results,
        Task.OPTIMIZE: report.artifact and report.results and report.optimization,
    }
    produced |= dict.fromkeys(TRAINING, report.artifact)
    return bool(produced[task])


def for_phase(end: Ending, phase: Phase) -> Ending:
    """The ending as the phase wants it: with too few new clips it is tried again if the phase waits for more."""
    wanted = phase.curate.new_clips if phase.curate else None
    if end.reason is Reason.TOO_FEW_NEW_CLIPS and wanted and wanted.when_below is WhenBelow.WAIT:
        return replace(end, action=Action.RETRY_FREE)
    return end


def parse_report(message: str) -> Report | None:
    """The report in a termination message, or None if that is something else."""
    try:
        return Report.model_validate_json(message)
    except (ValidationError, ValueError):
        return None


def newest_report(pods: Iterable[Manifest]) -> Report | None:
    """The report with the latest step that any pod has left."""
    reports = [report for pod in pods if (ended := terminated(pod)) and (report := parse_report(ended.get("message") or ""))]
    return max(reports, key=lambda report: report.last_step, default=None)


def with_all_written(end: Ending, pods: Iterable[Manifest]) -> Ending:
    """The ending with the bytes that all pods tell, and not only the one whose report counts."""
    reports = [parse_report(ended.get("message") or "") for pod in pods if (ended := terminated(pod))]
    told = [report.bytes_written for report in reports if report and report.bytes_written is not None]
    if end.report is None or not told:
        return end
    return replace(end, report=end.report.model_copy(update={"bytes_written": sum(told)}))


def _of_container(pod: Manifest, ended: Manifest) -> Ending:
    name, code, message = pod["metadata"]["name"], int(ended["exitCode"]), ended.get("message") or ""
    report = parse_report(message)
    finished = ended.get("finishedAt")
    time = datetime.fromisoformat(finished) if finished else None
    if ended.get("reason") == OOM_KILLED:
        said = f"pod {name} was killed because it used more memory than the limit in the phase's resources"
        return Ending(Reason.OUT_OF_MEMORY, Action.RETRY, said, report, time)
    reason, action = BY_CODE.get(code, (Reason.TRAINER_FAILED, Action.RETRY))
    if report is not None and action == Action.FAIL and report.reason != Reason.COMPLETED:  # a failed pod completes nothing
        reason = report.reason
    words = report.message if report is not None else message.strip()[-500:]
    said = f"pod {name} ended with exit code {code}" + (f": {words}" if words else "")
    return Ending(reason, action, said, report, _began(pod) if action == Action.RETRY_FREE else time)
