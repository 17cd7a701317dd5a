"""Real processes: killed, stopped, several of them, in one pod and in two."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from videogen_api.job import ExitCode, Job
from videogen_api.training_run import Reason
from videogen_testing.attempted import WORK, losses
from videogen_testing.patience import HANGS
from videogen_trainer import checkpoint, tasks
from videogen_trainer.progress import ProgressReporter


def wait_for_step(storage: Path, step: int, trainer: Any) -> None:
    """Until a checkpoint of at least `step` is there."""
    root = storage / WORK / "checkpoints"
    while not any(found >= step for found in checkpoint.steps(root)):
        assert trainer.process.poll() is None, trainer.log.read_text()
        time.sleep(0.02)


# The trainer as it is, but for a SIGKILL in the middle of step 5: a killer from outside could come too late on a fast machine.
# It comes when the checkpoint of step 3 is safe, which is written meanwhile.
KILLED_IN_STEP_5 = """
import os, pathlib, signal, sys, time
from videogen_trainer import __main__, loop

judge = loop.judge
safe = pathlib.Path(sys.argv[sys.argv.index("--storage") + 1]) / "runs/demo-01234567/train/checkpoints/step-000000003"

def killed(state, *rest, **named):
    while state.step == 4:
        if safe.exists():
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.01)
    judge(state, *rest, **named)

loop.judge = killed
__main__.main()
"""


@pytest.mark.parametrize("optimizer", ["AdamW", "AdamW8bit"])
def test_killed_in_the_middle_and_run_again_gives_the_same_bundle_to_the_bit(
    storage: Path, make_job: Callable[..., Job], start_trainer: Callable[..., Any], silent: ProgressReporter, optimizer: str
) -> None:
    recipe = {"steps": 10, "optimizer": {"name": optimizer, "learningRate": "1e-3"}, "checkpoints": {"everySteps": 3, "keepLast": 2}}
    job = make_job(recipe)
    killed = start_trainer(job, program=("-c", KILLED_IN_STEP_5))
    assert killed.process.wait(HANGS) == -signal.SIGKILL, killed.log.read_text()
    assert checkpoint.steps(storage / WORK / "checkpoints") == [3]
    assert not (storage / "bundles").exists()
    code, resumed = start_trainer(job).wait()
    assert (code, resumed.reason) == (ExitCode.SUCCEEDED, Reason.COMPLETED), resumed.message
    assert resumed.resumed_from_step == 3
    curve = losses(storage)
    shutil.rmtree(storage / "runs")
    whole = tasks.attempt(job, storage, {}, silent, lambda: False)
    assert whole.resumed_from_step == 0
    assert whole.artifact == resumed.artifact
    assert losses(storage) == curve


def test_killed_on_one_kind_of_cpu_and_run_again_on_another_it_learns_the_same_but_for_rounding(
    storage: Path, make_job: Callable[..., Job], start_trainer: Callable[..., Any], silent: ProgressReporter
) -> None:
    job = make_job({"steps": 10, "checkpoints": {"everySteps": 3, "keepLast": 2}})
    says = "import torch\nprint(torch.backends.cpu.get_cpu_capability())\n"
    killed = start_trainer(job, environment={"ATEN_CPU_CAPABILITY": "default"}, program=("-u", "-c", says + KILLED_IN_STEP_5))
    assert killed.process.wait(HANGS) == -signal.SIGKILL, killed.log.read_text()
    assert "DEFAULT" in killed.log.read_text()
    assert tasks.attempt(job, storage, {}, silent, lambda: False).resumed_from_step == 3
    curve = losses(storage)
    shutil.rmtree(storage / "runs")
    assert tasks.attempt(job, storage, {}, silent, lambda: False).resumed_from_step == 0
    assert curve == pytest.approx(losses(storage), rel=1e-4)


IMAGE_BASED = ["AlignYourLatents", "Text2VideoZero"]


@pytest.mark.parametrize("family", IMAGE_BASED)
def test_a_killed_training_of_an_image_based_family_gives_the_same_bundle_to_the_bit(
    storage: Path, make_job: Callable[..., Job], start_trainer: Callable[..., Any], silent: ProgressReporter, family: str
) -> None:
    recipe = {"steps": 6, "checkpoints": {"everySteps": 3, "keepLast": 2}, "videoFusion": None}
    job = make_job(recipe, model={"family": family, "version": "1.0.0"})
    killed = start_trainer(job, program=("-c", KILLED_IN_STEP_5))
    assert killed.process.wait(HANGS) == -signal.SIGKILL, killed.log.read_text()
    code, resumed = start_trainer(job).wait()
    assert (code, resumed.reason, resumed.resumed_from_step) == (ExitCode.SUCCEEDED, Reason.COMPLETED, 3)
    curve = losses(storage)
    shutil.rmtree(storage / "runs")
    assert tasks.attempt(job, storage, {}, silent, lambda: False).artifact == resumed.artifact
    assert losses(storage) == curve


@pytest.mark.parametrize("family", IMAGE_BASED)
def test_two_processes_learn_what_one_learns_of_an_image_based_family(
    storage: Path, make_job: Callable[..., Job], start_trainer: Callable[..., Any], silent: ProgressReporter, family: str
) -> None:
    recipe = {"steps": 4, "globalBatchSize": 8, "gradientAccumulationSteps": 2, "videoFusion": None}
    job = make_job(recipe, model={"family": family, "version": "1.0.0"})
    code, report = start_trainer(job.model_copy(update={"processes_per_worker": 2}), fresh=family == "AlignYourLatents").wait()
    assert (code, report.reason, report.last_step) == (ExitCode.SUCCEEDED, Reason.COMPLETED, 4), report.message
    together = losses(storage)
    shutil.rmtree(storage / "runs")
    tasks.attempt(job, storage, {}, silent, lambda: False)
    assert together == pytest.approx(losses(storage), rel=1e-4)


# Killed by the thread that writes the checkpoint of step 6, when all its files are there and it has no name yet.
KILLED_IN_THE_WRITE = """
import os, signal
from videogen_trainer import __main__, checkpoint

publish = checkpoint.publish

def killed(staged, target):
    if target.name == "step-000000006":
        os.kill(os.getpid(), signal.SIGKILL)
    publish(staged, target)

checkpoint.publish = killed
__main__.main()
"""


def test_killed_while_a_checkpoint_is_written_it_goes_on_from_the_one_before(
    storage: Path, make_job: Callable[..., Job], start_trainer: Callable[..., Any], silent: ProgressReporter
) -> None:
    job = make_job({"steps": 9, "checkpoints": {"everySteps": 3, "keepLast": 2}})
    root = storage / WORK / "checkpoints"
    killed = start_trainer(job, program=("-c", KILLED_IN_THE_WRITE))
    assert killed.process.wait(HANGS) == -signal.SIGKILL, killed.log.read_text()
    assert checkpoint.steps(root) == [3]
    assert [path.name for path in root.glob(".staging-*/*.safetensors")]
    resumed = tasks.attempt(job, storage, {}, silent, lambda: False)
    assert (resumed.reason, resumed.resumed_from_step) == (Reason.COMPLETED, 3)
    assert resumed.goodput
    assert resumed.goodput.repeated_steps >= 3  # it had done six, at least
    assert sorted(path.name for path in root.iterdir()) == ["step-000000006", "step-000000009"]
    curve = losses(storage)
    shutil.rmtree(storage / "runs")
    whole = tasks.attempt(job, storage, {}, silent, lambda: False)
    assert whole.artifact == resumed.artifact
    assert losses(storage) == curve


def test_asked_to_stop_it_saves_and_ends_as_preempted(
    storage: Path, make_job: Callable[..., Job], start_trainer: Callable[..., Any]
) -> None:
    job = make_job({"steps": 100_000, "checkpoints": {"everySteps": 2, "keepLast": 2}})
    trainer = start_trainer(job, fresh=True)
    wait_for_step(storage, 2, trainer)
    trainer.process.send_signal(signal.SIGTERM)
    code, report = trainer.wait()
    assert (code, report.reason) == (ExitCode.PREEMPTED, Reason.PREEMPTED)
    assert report.last_step == checkpoint.newest_valid(storage / WORK / "checkpoints") >= 2
    assert len(losses(storage)) == report.last_step


ASKED_WHILE_THE_AGENT_IS_IMPORTED = """
import os, signal, sys

class Asking:
    def find_spec(self, name, *_):
        if name == "videogen_trainer.launch":
            try:
                signal.raise_signal(signal.SIGTERM)
            except Exception:  # as torch does in places while it is imported
                pass

sys.meta_path.insert(0, Asking())
from videogen_trainer.__main__ import main
main()
"""


def test_asked_to_stop_before_it_began_it_ends_at_once(make_job: Callable[..., Job], start_trainer: Callable[..., Any]) -> None:
    trainer = start_trainer(make_job(processesPerWorker=2), program=("-c", ASKED_WHILE_THE_AGENT_IS_IMPORTED), fresh=True)
    code, report = trainer.wait()
    assert (code, report.reason, report.message) == (ExitCode.PREEMPTED, Reason.PREEMPTED, "asked to stop before it began")


def test_asked_to_stop_while_the_pod_that_all_meet_at_has_no_place_it_ends_at_once(
    make_job: Callable[..., Job], start_trainer: Callable[..., Any]
) -> None:
    environment = {"PET_RDZV_ENDPOINT": "worker-0.invalid:23456", "VIDEOGEN_REPLICA_INDEX": "1"}
    trainer = start_trainer(make_job(workers=2), environment=environment)
    while "waiting for worker-0.invalid" not in trainer.log.read_text():
        assert trainer.process.poll() is None, trainer.log.read_text()
        time.sleep(0.02)
    trainer.process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    code, report = trainer.wait()
    assert (code, report.reason) == (ExitCode.PREEMPTED, Reason.PREEMPTED)
    assert time.monotonic() - began < 30  # which is half of what the kubelet waits before it kills


def test_two_processes_learn_what_one_learns(
    storage: Path, make_job: Callable[..., Job], start_trainer: Callable[..., Any], silent: ProgressReporter
) -> None:
    recipe = {"steps": 5, "globalBatchSize": 8, "gradientAccumulationSteps": 2}
    code, report = start_trainer(make_job(recipe, processesPerWorker=2)).wait()
    assert (code, report.reason, report.last_step) == (ExitCode.SUCCEEDED, Reason.COMPLETED, 5)
    together = losses(storage)
    shutil.rmtree(storage / "runs")
    tasks.attempt(make_job(recipe), storage, {}, silent, lambda: False)
    assert together == pytest.approx(losses(storage), rel=1e-4)  # sums in another order, amplified by AdamW's first steps


@pytest.fixture
def port() -> Iterator[int]:
    """A port that nobody else is given during the test: bound and not listened on, so that torch, which also reuses addresses, may."""
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("", 0))
        yield int(held.getsockname()[1])


@pytest.fixture
def two_pods(start_trainer: Callable[..., Any], port: int) -> Callable[..., tuple[Any, Any]]:
    """Two pods, as Kubeflow's training-operator starts the workers of an elastic job."""

    def start(job: Job) -> tuple[Any, Any]:
        def pod(index: int) -> Any:
            environment = {"PET_RDZV_ENDPOINT": f"127.0.0.1:{port}", "PET_RDZV_BACKEND": "c10d", "PET_NNODES": "2:2"}
            return start_trainer(job, f"pod-{index}", environment | {"VIDEOGEN_REPLICA_INDEX": str(index)})

        return pod(0), pod(1)

    return start


def test_one_pod_of_two_is_asked_to_stop_and_both_save_and_then_go_on_to_the_end(
    storage: Path, make_job: Callable[..., Job], two_pods: Callable[..., tuple[Any, Any]]
) -> None:
    recipe = {"steps": 100_000, "checkpoints": {"everySteps": 2, "keepLast": 2}}
    pods = two_pods(make_job(recipe, workers=2))
    wait_for_step(storage, 2, pods[0])
    pods[1].process.send_signal(signal.SIGTERM)
    ends = [pod.wait() for pod in pods]
    assert [(code, report.reason) for code, report in ends] == [(ExitCode.PREEMPTED, Reason.PREEMPTED)] * 2
    assert ends[0][1].last_step == ends[1][1].last_step == checkpoint.newest_valid(storage / WORK / "checkpoints")


def test_a_pod_that_vanishes_is_a_lost_peer_for_the_other(
    storage: Path, make_job: Callable[..., Job], two_pods: Callable[..., tuple[Any, Any]]
) -> None:
    recipe = {"steps": 100_000, "checkpoints": {"everySteps": 2, "keepLast": 2}}
    staying, leaving = two_pods(make_job(recipe, workers=2))
    wait_for_step(storage, 6, staying)  # it is begun when step 4 is safe, and by step 5 both know that of step 2
    for worker in leaving.workers():
        with contextlib.suppress(ProcessLookupError):  # the agent ends the rest of them as soon as it misses one
            os.kill(worker, signal.SIGKILL)
    code, report = leaving.wait()
    assert (code, report.reason) == (ExitCode.OUT_OF_MEMORY, Reason.OUT_OF_MEMORY)
    code, report = staying.wait()
    assert (code, report.reason) == (ExitCode.PEER_LOST, Reason.NODE_LOST)
    assert report.last_step >= 2


@pytest.mark.parametrize("index", [0, 1], ids=["the pod that all meet at", "another"])
def test_a_pod_whose_peers_do_not_come_ends_when_its_time_is_over(
    make_job: Callable[..., Job], start_trainer: Callable[..., Any], port: int, index: int
) -> None:
    environment = {"PET_RDZV_ENDPOINT": f"127.0.0.1:{port}", "VIDEOGEN_REPLICA_INDEX": str(index)}
    code, report = start_trainer(make_job(workers=2, joinSeconds=1), environment=environment).wait()
    assert (code, report.reason) == (ExitCode.PEER_LOST, Reason.NODE_LOST)
    assert report.message.startswith(f"the pods of this job did not meet at 127.0.0.1:{port}: ")
    assert ("pod 1 of 2 did not come" if index == 0 else "did not answer within") in report.message


def test_asked_to_stop_while_it_waits_for_its_peers_it_ends_at_once(
    make_job: Callable[..., Job], start_trainer: Callable[..., Any], port: int
) -> None:
    environment = {"PET_RDZV_ENDPOINT": f"127.0.0.1:{port}", "VIDEOGEN_REPLICA_INDEX": "0"}
    trainer = start_trainer(make_job(workers=2, joinSeconds=3600), environment=environment)
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            break  # it listens, and waits
        assert trainer.process.poll() is None, trainer.log.read_text()
        time.sleep(0.05)
    trainer.process.send_signal(signal.SIGTERM)
    code, report = trainer.wait()
    assert (code, report.reason) == (ExitCode.PREEMPTED, Reason.PREEMPTED)


NOWHERE: dict[str, tuple[dict[str, str], str]] = {
    "no address": ({"VIDEOGEN_REPLICA_INDEX": "0"}, "PET_RDZV_ENDPOINT is ''"),
    "an address without a port": ({"PET_RDZV_ENDPOINT": "worker-0", "VIDEOGEN_REPLICA_INDEX": "0"}, "PET_RDZV_ENDPOINT is 'worker-0'"),
    "no index": ({"PET_RDZV_ENDPOINT": "worker-0:1"}, "VIDEOGEN_REPLICA_INDEX is ''; expected the pod's replica index, 0 to 1"),
    "an index of another job": ({"PET_RDZV_ENDPOINT": "worker-0:1", "VIDEOGEN_REPLICA_INDEX": "2"}, "VIDEOGEN_REPLICA_INDEX is '2'"),
}


@pytest.mark.parametrize("environment, says", NOWHERE.values(), ids=NOWHERE.keys())
def test_one_of_several_pods_that_does_not_know_its_place_is_refused(
    make_job: Callable[..., Job], start_trainer: Callable[..., Any], environment: dict[str, str], says: str
) -> None:
    code, report = start_trainer(make_job(workers=2), environment=environment).wait()
    assert (code, report.reason) == (ExitCode.INVALID_JOB, Reason.INVALID_JOB)
    assert says in report.message


def test_a_job_of_another_contract_ends_with_its_own_exit_code(start_trainer: Callable[..., Any], make_job: Callable[..., Job]) -> None:
    trainer = start_trainer(make_job(contract="v9"))
    code, report = trainer.wait()
    assert (code, report.reason) == (ExitCode.CONTRACT_UNSUPPORTED, Reason.CONTRACT_UNSUPPORTED)
    assert "Traceback" not in trainer.log.read_text()
