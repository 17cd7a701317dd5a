"""Several processes: torch's elastic agent starts them, and here their ends become the pod's one Report.

The pods meet at the first of them, each with the rank that is its replica index. Nothing restarts in place: an attempt ends as a whole, the
operator begins the next.
Each process leaves `process-<local rank>.json`, its Report, in the folder `reports`, and `process-<n>.started` before.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from pydantic import ValidationError
from torch.distributed import DistError
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.rendezvous import RendezvousError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from videogen_api.job import Job, Report
from videogen_api.training_run import Reason
from videogen_trainer import rendezvous, report
from videogen_trainer.failure import Failure
from videogen_trainer.stopping import Stopped, StopRequest, on_termination

_LOG = logging.getLogger(__name__)
STOP = "stop"
# Ends that may only be the echo of another process' end, the most telling first. torchrun ends the others with all their children, so
# that one which is still importing may fail for want of a program that it had called.
_ECHOES = (Reason.TRAINER_FAILED, Reason.PREEMPTED, Reason.NODE_LOST)


def launch_config(job: Job, environment: Mapping[str, str]) -> LaunchConfig:
    """The agent's configuration. Raises Failure(InvalidJob) if this pod does not know its place among several."""
    endpoint, rank = rendezvous.place(job, environment)
    return LaunchConfig(
        min_nodes=job.workers,
        max_nodes=job.workers,
        nproc_per_node=job.processes_per_worker,
        rdzv_backend=rendezvous.BACKEND,
        rdzv_endpoint=endpoint,
        run_id=f"{job.run_uid}-{job.phase}-{job.attempt}",
        rdzv_configs={"rank": rank, "timeout": job.join_seconds},  # pods may start minutes apart
        max_restarts=0,
        signals_to_handle="SIGQUIT",  # SIGTERM is ours: the processes shall save, and the agent would kill them after 30 s
    )


def launch(job: Job, arguments: list[str], environment: Mapping[str, str], reports: Path) -> Report:
    """Run the job's processes of this pod to their end -> the pod's Report."""
    stop = StopRequest(reports / STOP)

    def terminate() -> None:
        stop.ask()
        if not _working(reports):
            raise Stopped

    on_termination(terminate)
    failures: dict[int, int] = {}
    try:
        config = launch_config(job, environment)
        command = ("-u", "-m", "videogen_trainer", *arguments, "--reports", str(reports))
        elastic_launch(config, sys.executable)(*command)
    except Failure as failure:
        return report.of_failure(failure)
    except Stopped:
        return combine(_read(reports), failures) or Report(reason=Reason.PREEMPTED, message="asked to stop before training began")
    except ChildFailedError as error:
        failures = {rank: failure.exitcode for rank, failure in error.failures.items()}
    except (RendezvousError, DistError, ConnectionError, TimeoutError) as error:
        message = f"the pods of this job did not meet at {environment.get(rendezvous.ENV_ENDPOINT, rendezvous.LOOPBACK)}: {error}"
        return combine(_read(reports), failures) or Report(reason=Reason.NODE_LOST, message=report.shorten(message, 1024))
    return combine(_read(reports), failures) or Report(reason=Reason.TRAINER_FAILED, message="the processes ended without a report")


def _working(reports: Path) -> bool:
    """Whether a process of this pod has started and not yet reported."""
    started = {path.stem for path in reports.glob("process-*.started")}
    return bool(started - {path.stem for path in reports.glob("process-*.json")})


def _read(reports: Path) -> list[Report]:
    found = []
    for path in sorted(reports.glob("process-*.json")):
        try:
            found.append(Report.model_validate_json(path.read_bytes()))
        except ValidationError as error:
            _LOG.warning("%s is no report: %s", path, error)
    return found


def combine(reports: list[Report], exit_codes: Mapping[int, int]) -> Report | None:
    """The pod's report from those of its processes and the exit codes of the failed ones; None if there is neither.

    The cause goes before its echoes: one process ran out of memory, the others only lost a peer. What they wrote is added up.
    """
    if found := _telling(reports, exit_codes):
        return found.model_copy(update={"bytes_written": sum(one.bytes_written or 0 for one in reports) or None})
    return None


def _telling(reports: list[Report], exit_codes: Mapping[int, int]) -> Report | None:
    killed = [of_signal(rank, -code) for rank, code in exit_codes.items() if code < 0]
    failed = [*killed, *(one for one in reports if one.reason is not Reason.COMPLETED)]
    if failed:
        return min(failed, key=lambda one: _ECHOES.index(one.reason) + 1 if one.reason in _ECHOES else 0)
    return reports[0] if reports and not exit_codes else None


def of_signal(rank: int, number: int) -> Report:
    """Report of a process that was ended by a signal."""
    name = signal.Signals(number).name if number in set(signal.Signals) else str(number)
    if number == signal.SIGKILL:
        message = f"process {rank} was ended by {name}, which is how the kernel takes back memory; raise memory in resources.limits"
        return Report(reason=Reason.OUT_OF_MEMORY, message=message)
    if number == signal.SIGTERM:
        return Report(reason=Reason.NODE_LOST, message=f"process {rank} was ended by {name} before it could save")
    return Report(reason=Reason.TRAINER_FAILED, message=f"process {rank} was ended by {name}; its log has the cause")


def start_reporting(reports: Path, local_rank: int) -> Callable[[Report], None]:
    """For a process of the pod: say that it has started -> what to call with its Report."""
    (reports / f"process-{local_rank}.started").touch()

    def finish(result: Report) -> None:
        path = reports / f"process-{local_rank}.json"
        path.with_suffix(".part").write_bytes(report.to_bytes(result))
        os.rename(path.with_suffix(".part"), path)

    return finish
