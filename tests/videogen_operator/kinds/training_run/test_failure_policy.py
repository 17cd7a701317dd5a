from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from videogen_api.evaluation import Metric, MetricResult
from videogen_api.job import ArtifactReference, ExitCode, Report
from videogen_api.pinned import ResolvedDataset
from videogen_api.training_run import Reason, Task
from videogen_operator.kinds.training_run.failure_policy import CODES, NEXT_STEP, Action, ending
from videogen_testing.runs import DIGEST, ended, optimized, running, trained

NOW = datetime(2026, 11, 1, 0, 1, 5, tzinfo=UTC)  # 5 s after the pods of `ended` ended
EVICTED = {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."}
SHUTDOWN = {"phase": "Failed", "reason": "NodeShutdown"}
TAINTED = running() | {"conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager"}]}


def at(second: int, status: Any) -> Any:
    """The same status of a container that ended at this second of the minute."""
    (container,) = status["containerStatuses"]
    terminated = container["state"]["terminated"] | {"finishedAt": f"2026-11-01T00:01:{second:02}Z"}
    return status | {"containerStatuses": [container | {"state": {"terminated": terminated}}]}


def disrupted(second: int, status: Any, reason: str = "EvictionByEvictionAPI") -> Any:
    """The same status with the note that Kubernetes leaves when it decides to stop a pod."""
    note = {"type": "DisruptionTarget", "status": "True", "reason": reason, "lastTransitionTime": f"2026-11-01T00:01:{second:02}Z"}
    return status | {"conditions": [note]}


def text(report: Report) -> str:
    return report.model_dump_json(by_alias=True, exclude_none=True)


def pods(*statuses: Any) -> list[Any]:
    found = []
    for index, status in enumerate(statuses):
        grace, shown = status if isinstance(status, tuple) else (None, status)  # (True, status): deleted at 00:01:00
        deleted = {"deletionTimestamp": "2026-11-01T00:01:00Z", "deletionGracePeriodSeconds": 0 if grace is True else grace}
        found.append({"metadata": {"name": f"pod-{index}"} | (deleted if grace else {}), "spec": {}, "status": shown})
    return found


OK, NO_REPORT, LOST = ended(0, text(trained())), ended(0), ended(ExitCode.PEER_LOST, text(Report(message="rank 1 is gone")))
REJECTED = ended(ExitCode.DATA_REJECTED, text(Report(reason=Reason.VIDEO_UNREADABLE, message="a.mp4: no video stream")))

MEMORY, STORAGE = ended(137, reason="OOMKilled"), ended(ExitCode.STORAGE_FAILED)

ROWS = [
    ("one pod that succeeds with an artifact", [OK], Action.SUCCEED, Reason.COMPLETED),
    ("rank 0 may be any pod, and the others may still run", [running(), OK], Action.SUCCEED, Reason.COMPLETED),
    ("exit 0 without a report is no success", [NO_REPORT], Action.RETRY, Reason.TRAINER_FAILED),
    ("exit 0 without a report waits for the others", [NO_REPORT, running()], None, None),
    (
        "exit 0 with a report without artifact is no success of a Train phase",
        [ended(0, text(Report()))],
        Action.RETRY,
        Reason.TRAINER_FAILED,
    ),
    ("an unexpected error is retried", [ended(1, "Traceback ...")], Action.RETRY, Reason.TRAINER_FAILED),
    ("an unknown exit code is retried", [ended(42)], Action.RETRY, Reason.TRAINER_FAILED),
    ("rejected data stops at once, with the report's reason", [REJECTED], Action.FAIL, Reason.VIDEO_UNREADABLE),
    ("a failed pod completes nothing, whatever it says", [ended(ExitCode.DATA_REJECTED, "{}")], Action.FAIL, Reason.DATASET_CORRUPT),
    ("rejected data is clearer than a lost peer", [LOST, REJECTED], Action.FAIL, Reason.VIDEO_UNREADABLE),
    ("divergence halves the learning rate", [ended(ExitCode.DIVERGED)], Action.RETRY_SLOWER, Reason.DIVERGED),
    ("a preempted pod does not count", [ended(ExitCode.PREEMPTED)], Action.RETRY_FREE, Reason.PREEMPTED),
    ("a pod that SIGTERM ended does not count", [ended(143)], Action.RETRY_FREE, Reason.PREEMPTED),
    ("a pod killed for memory counts", [ended(137, reason="OOMKilled")], Action.RETRY, Reason.OUT_OF_MEMORY),
    ("the trainer's own word for memory counts", [ended(ExitCode.OUT_OF_MEMORY)], Action.RETRY, Reason.OUT_OF_MEMORY),
    ("failed storage counts", [ended(ExitCode.STORAGE_FAILED)], Action.RETRY, Reason.STORAGE_FAILED),
    ("an evicted pod does not count", [EVICTED], Action.RETRY_FREE, Reason.PREEMPTED),
    ("a node that shut down does not count", [SHUTDOWN], Action.RETRY_FREE, Reason.NODE_LOST),
    ("a pod that is being deleted ends the attempt", [(True, running()), running()], Action.RETRY_FREE, Reason.PREEMPTED),
    ("a pod deleted from a lost node", [(True, TAINTED), running()], Action.RETRY_FREE, Reason.NODE_LOST),
    ("a lost peer waits for the other's reason", [LOST, running()], None, None),
    ("a lost peer whose sibling ran out of memory", [LOST, ended(137, reason="OOMKilled")], Action.RETRY, Reason.OUT_OF_MEMORY),
    ("a lost peer whose sibling was preempted", [LOST, ended(ExitCode.PREEMPTED)], Action.RETRY_FREE, Reason.PREEMPTED),
    ("an interruption explains a sibling's error", [ended(1), ended(143)], Action.RETRY_FREE, Reason.PREEMPTED),
    ("memory before a sibling's preemption is the cause", [at(1, MEMORY), at(3, ended(143))], Action.RETRY, Reason.OUT_OF_MEMORY),
    ("a sibling's preemption before the memory is the cause", [at(3, MEMORY), at(1, ended(143))], Action.RETRY_FREE, Reason.PREEMPTED),
    ("memory in the same second as a preemption is the cause", [MEMORY, ended(143)], Action.RETRY, Reason.OUT_OF_MEMORY),
    ("memory beside an eviction of unknown time is the cause", [MEMORY, EVICTED], Action.RETRY, Reason.OUT_OF_MEMORY),
    (
        "a preemption begins when it is announced, not when the pod has saved",
        [at(3, STORAGE), disrupted(1, at(5, ended(ExitCode.PREEMPTED)))],
        Action.RETRY_FREE,
        Reason.PREEMPTED,
    ),
    ("a deletion begins a grace before its timestamp", [at(3, STORAGE), (60, running())], Action.RETRY_FREE, Reason.PREEMPTED),
    ("a lost node is told too late to have come first", [STORAGE, (True, TAINTED)], Action.RETRY, Reason.STORAGE_FAILED),
    ("an error beside a lost node is its echo", [ended(1), (True, TAINTED)], Action.RETRY_FREE, Reason.NODE_LOST),
    ("an error before a preemption is no echo of it", [at(1, ended(1)), at(3, ended(143))], Action.RETRY, Reason.TRAINER_FAILED),
    ("an error after a preemption is its echo", [at(3, ended(1)), at(1, ended(143))], Action.RETRY_FREE, Reason.PREEMPTED),
    ("divergence is nobody's echo", [at(3, ended(ExitCode.DIVERGED)), at(1, ended(143))], Action.RETRY_SLOWER, Reason.DIVERGED),
    ("a named reason goes before an unexpected error", [ended(1), STORAGE], Action.RETRY, Reason.STORAGE_FAILED),
    ("a pod that was evicted and killed is no error of the trainer", [ended(137) | EVICTED], Action.RETRY_FREE, Reason.PREEMPTED),
    ("nor is one whose grace ran out", [(True, ended(137))], Action.RETRY_FREE, Reason.PREEMPTED),
    ("an evicted pod that was killed for memory used too much", [MEMORY | EVICTED], Action.RETRY, Reason.OUT_OF_MEMORY),
    ("lost peers alone are a lost connection", [LOST, LOST], Action.RETRY_FREE, Reason.NODE_LOST),
    ("running pods have not ended", [running(), running()], None, None),
    ("no pods, no end", [], None, None),
]


@pytest.mark.parametrize("statuses, action, reason", [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_how_an_attempt_ended(statuses: list[Any], action: Action | None, reason: Reason | None) -> None:
    end = ending(pods(*statuses), Task.TRAIN, NOW)
    assert (end.action, end.reason) == (action, reason) if end else action is None


def test_a_lost_peer_is_believed_after_a_while() -> None:
    later = NOW + timedelta(seconds=60)
    end = ending(pods(LOST, running()), Task.TRAIN, later)
    assert end is not None
    assert (end.action, end.reason) == (Action.RETRY_FREE, Reason.NODE_LOST)
    assert "rank 1 is gone" in end.message


COMPLETE = [
    (Task.TRAIN, trained(), True),
    (Task.TRAIN, Report(results=[MetricResult(metric=Metric.FVD, value="1", samples=2)]), False),
    (Task.EVALUATE, Report(results=[MetricResult(metric=Metric.FVD, value="1", samples=2)]), True),
    (Task.EVALUATE, Report(artifact=ArtifactReference(path="x", digest=DIGEST)), False),
    (Task.CURATE, Report(datasets=[ResolvedDataset(dataset="d", version="1", digest=DIGEST)]), True),
    (Task.CURATE, Report(), False),
    (Task.OPTIMIZE, optimized(), True),
    (Task.OPTIMIZE, optimized().model_copy(update={"optimization": None}), False),
    (Task.OPTIMIZE, trained(), False),
]


@pytest.mark.parametrize("task, report, complete", COMPLETE)
def test_each_task_must_report_what_it_made(task: Task, report: Report, complete: bool) -> None:
    end = ending(pods(ended(0, text(report))), task, NOW)
    assert end is not None
    assert (end.action == Action.SUCCEED) is complete


def test_every_exit_code_has_an_action_and_every_final_reason_a_next_step() -> None:
    assert set(CODES) == set(ExitCode)
    assert not [reason for reason, action in CODES.values() if action == Action.FAIL and reason not in NEXT_STEP]


def test_next_steps_blame_nobody_and_no_block_that_the_phase_may_not_have() -> None:
    assert "in a new run" in NEXT_STEP[Reason.INVALID_JOB], "most such jobs are what the spec asks for"
    assert "evaluate" not in NEXT_STEP[Reason.EXTRACTOR_MISSING], "Curate, Tune, BuildTemplates and TestScenarios have extractors, too"


def test_a_report_of_a_newer_trainer_is_still_read() -> None:
    message = text(trained()).replace("{", '{"invented":{"later":1},', 1)
    end = ending(pods(ended(0, message)), Task.TRAIN, NOW)
    assert end is not None
    assert end.action == Action.SUCCEED
