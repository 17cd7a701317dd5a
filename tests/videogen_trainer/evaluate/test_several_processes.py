"""Evaluation by one process and by several: the same numbers, and what ends one of them ends all."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from numpy.typing import NDArray

from videogen_api.bundle import Manifest
from videogen_api.evaluation import Metric, MetricResult
from videogen_api.job import ArtifactReference, ExitCode, Job, Report
from videogen_api.training_run import Reason
from videogen_models.bundle import write_bundle
from videogen_models.networks import model_config
from videogen_models.videofusion import VideoFusionModel
from videogen_trainer import tasks
from videogen_trainer.distributed import World
from videogen_trainer.progress import ProgressReporter

DATA = [{"reference": {"dataset": "squares", "version": "v1", "split": "HeldOut"}}]


@pytest.fixture
def port() -> Iterator[int]:
    """A port that nobody else is given during the test: bound and not listened on, so that torch, which also reuses addresses, may."""
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("", 0))
        yield int(held.getsockname()[1])


def evaluation(make_job: Callable[..., Job], storage: Path, **fields: Any) -> Job:
    """20 clips in batches of 8, 8 and 4 against one batch of 4 real ones: of 2 processes, the second has no real clip."""
    recipe = make_job().recipe
    torch.manual_seed(0)
    config = model_config(recipe)
    manifest = Manifest(model=make_job().model, recipe=recipe, step=1, files=[])
    path, digest = write_bundle(storage, manifest, config, VideoFusionModel(config).state_dict())
    artifact = ArtifactReference(path=path, digest=digest).wire()
    evaluate = {"samples": 20, "samplingSteps": 1}
    return make_job(task="Evaluate", phase="judge", workPath="runs/demo-01234567/judge", data=DATA, artifact=artifact, evaluate=evaluate, **fields)  # fmt: skip


def measured(report: Report) -> list[MetricResult]:
    assert report.reason is Reason.COMPLETED, report.message
    return [result for result in report.results if result.metric is not Metric.GENERATION_SECONDS]


def test_two_processes_measure_to_the_digit_what_one_does(
    storage: Path, make_job: Callable[..., Job], start_trainer: Callable[..., Any], silent: ProgressReporter
) -> None:
    code, together = start_trainer(evaluation(make_job, storage, processesPerWorker=2)).wait()
    assert code == ExitCode.SUCCEEDED
    alone = tasks.attempt(evaluation(make_job, storage), storage, {}, silent, lambda: False)
    assert measured(together) == measured(alone)  # values, intervals, counts and words
    assert together.datasets == alone.datasets
    assert together.artifact == alone.artifact
    seconds = next(result for result in together.results if result.metric is Metric.GENERATION_SECONDS)
    assert seconds.samples == 20
    assert seconds.message.endswith("2 processes at once")


def test_a_bad_bundle_ends_all_processes_as_one_reason(
    storage: Path, make_job: Callable[..., Job], start_trainer: Callable[..., Any]
) -> None:
    job = evaluation(make_job, storage, processesPerWorker=2)
    assert job.artifact
    weights = storage / job.artifact.path / "base.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    _, report = start_trainer(job).wait()
    assert report.reason is Reason.ARTIFACT_INVALID
    assert "base.safetensors has SHA-256" in report.message


def test_each_of_two_pods_ends_with_the_whole_report(
    storage: Path, make_job: Callable[..., Job], start_trainer: Callable[..., Any], port: int
) -> None:
    """training-operator may call the job successful by either."""
    job, places = evaluation(make_job, storage, workers=2), [{"VIDEOGEN_REPLICA_INDEX": index} for index in "01"]
    pods = [start_trainer(job, f"pod-{n}", {"PET_RDZV_ENDPOINT": f"127.0.0.1:{port}"} | place) for n, place in enumerate(places)]
    ends = [pod.wait() for pod in pods]
    assert [code for code, _ in ends] == [ExitCode.SUCCEEDED] * 2
    first, second = (report.model_copy(update={"bytes_written": None}) for _, report in ends)  # each counts its own
    assert first == second
    assert len(measured(first)) == 6


@pytest.mark.parametrize("size, parts", [(1, [5]), (2, [3, 2]), (3, [2, 2, 1]), (5, [1] * 5), (8, [1, 1, 1, 0, 1, 1, 0, 0])])
def test_every_item_is_in_one_share_in_order_and_rank_0_is_never_idle(size: int, parts: list[int]) -> None:
    shares: list[Sequence[int]] = [World(rank=rank, size=size).share(range(5)) for rank in range(size)]
    assert [number for share in shares for number in share] == list(range(5))
    assert sorted(map(len, shares)) == sorted(parts)
    assert len(shares[0]) == max(map(len, shares))


def some_rows(rank: int) -> dict[str, NDArray[np.float64]]:
    """Of rank 1 none; else 3 vectors and a number for each of 2 clips, with what sums in other orders would not keep."""
    if rank == 1:
        return {}
    random = np.random.default_rng(rank)
    rows = {"features": random.standard_normal((3, 4)) * 10.0 ** random.integers(-300, 300, (3, 1)), "numbers": random.random(2)}
    rows["numbers"][0] = -np.inf if rank else np.inf
    return rows


def _concatenate(rank: int, size: int, port: int, found: Any) -> None:
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=size)
    found[rank] = World(rank=rank, size=size).concatenate(some_rows(rank))
    dist.destroy_process_group()


def test_rows_of_three_processes_come_together_to_the_bit_in_each(port: int) -> None:
    with mp.Manager() as manager:
        found = manager.dict()
        mp.start_processes(_concatenate, (3, port, found), nprocs=3, start_method="fork")
        whole = {name: np.concatenate([some_rows(0)[name], some_rows(2)[name]]) for name in ("features", "numbers")}
        for rank in range(3):
            assert set(found[rank]) == set(whole)
            for name, rows in whole.items():
                assert found[rank][name].tobytes() == rows.tobytes()


def test_an_evaluation_is_spread_over_all_pods_and_processes(make_job: Callable[..., Job], storage: Path) -> None:
    job = evaluation(make_job, storage, workers=2, processesPerWorker=3)
    tasks.check(job)
    assert tasks.processes_of(job) == 6
