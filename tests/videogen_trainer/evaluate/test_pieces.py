"""Memory that runs out in an evaluation makes its batches smaller, in all processes, and changes nothing of what is measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from videogen_api.bundle import Manifest
from videogen_api.evaluation import Metric
from videogen_api.job import ArtifactReference, ExitCode, Job, Report
from videogen_api.meta import ModelFamily, ModelIdentity
from videogen_api.training_run import Reason
from videogen_models.bundle import seal_bundle
from videogen_models.video_model import VideoModel
from videogen_models.videofusion import VideoFusionModel
from videogen_trainer import tasks
from videogen_trainer.distributed import World
from videogen_trainer.evaluate import timing
from videogen_trainer.evaluate.pieces import Pieces
from videogen_trainer.failure import Failure
from videogen_trainer.families import learner_of
from videogen_trainer.progress import ProgressReporter

DATA = [{"reference": {"dataset": "squares", "version": "v1", "split": "HeldOut"}}]
Frames = npt.NDArray[np.uint8]


def untrained(make_job: Callable[..., Job], storage: Path, family: ModelFamily) -> tuple[VideoModel, Job]:
    """A model of that family, and the job to measure it."""
    own: dict[str, Any] = {} if family is ModelFamily.VIDEOFUSION else {"videoFusion": None}
    identity = ModelIdentity(family=family, version="1.0.0")
    model = learner_of(make_job(own, model=identity.wire()), storage, World()).model.eval()
    manifest = Manifest(model=identity, recipe=make_job(own).recipe, step=1, files=[])
    path, digest = seal_bundle(storage, manifest, model.save)
    fields = {"task": "Evaluate", "phase": "judge", "workPath": "runs/demo-01234567/judge", "data": DATA}
    artifact = ArtifactReference(path=path, digest=digest).wire()
    evaluate = {"samples": 20, "samplingSteps": 2}
    return model, make_job(own, model=identity.wire(), artifact=artifact, evaluate=evaluate, **fields)


def with_room_for(clips: int, model: type[VideoModel], monkeypatch: pytest.MonkeyPatch, *, after: int = 0) -> list[tuple[int, int]]:
    """More clips at once run out of memory, after some generations -> of each generation its clips and steps."""
    generate, seen = model.generate, list[tuple[int, int]]()

    def limited(self: VideoModel, captions: Sequence[str], seeds: Sequence[int], steps: int, *more: Any) -> Frames:
        seen.append((len(captions), steps))
        if len(captions) > clips and len(seen) > after:
            torch.empty(2**60, dtype=torch.uint8)  # the error that PyTorch's allocator really raises
        return generate(self, captions, seeds, steps, *more)

    monkeypatch.setattr(model, "generate", limited)
    return seen


def values(report: Report) -> dict[str, float]:
    assert report.reason is Reason.COMPLETED, report.message
    chosen = [result for result in report.results if result.metric is not Metric.GENERATION_SECONDS]
    return {f"{result.metric} {result.extractor} {result.normalization}": float(result.value) for result in chosen}


def seconds(report: Report) -> str:
    return next(result.message for result in report.results if result.metric is Metric.GENERATION_SECONDS)


SINGLE = [(1, 2)] * 8  # the second of three batches, one clip at a time
TWOS = [(2, 2)] * 4
CASES = [
    ("from the beginning", 3, 0, [(8, 1), (4, 1), (2, 1), (1, 1), *TWOS, *SINGLE, *TWOS[:2]], "in batches of 2, 2 steps"),
    ("in the midst of it", 4, 1, [(8, 1), (1, 1), (8, 2), (4, 2), (4, 2), *SINGLE, (4, 2)], "in batches of 4, 2 steps"),
    ("never", 8, 0, [(8, 1), (1, 1), (8, 2), *SINGLE, (4, 2)], "in batches of 8, 2 steps"),
]


@pytest.fixture
def one_batch_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "ALONE", 1)


@pytest.fixture(scope="module")
def known() -> dict[str, dict[str, float]]:
    return {}


@pytest.fixture
def at_once(storage: Path, silent: ProgressReporter, known: dict[str, dict[str, float]]) -> Callable[[Job], dict[str, float]]:
    """What a job measures with room for all clips: once for all tests."""

    def found(job: Job) -> dict[str, float]:
        key = job.model_dump_json()
        known[key] = known.get(key) or values(tasks.attempt(job, storage, {}, silent, lambda: False))
        return known[key]

    return found


@pytest.mark.usefixtures("one_batch_alone")
@pytest.mark.parametrize("room, after, made, said", [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_what_is_measured_in_small_batches_is_what_is_measured_in_large_ones(
    storage: Path,
    make_job: Callable[..., Job],
    silent: ProgressReporter,
    monkeypatch: pytest.MonkeyPatch,
    at_once: Callable[[Job], dict[str, float]],
    room: int,
    after: int,
    made: list[tuple[int, int]],
    said: str,
) -> None:
    _, job = untrained(make_job, storage, ModelFamily.VIDEOFUSION)
    whole = at_once(job)
    seen = with_room_for(room, VideoFusionModel, monkeypatch, after=after)
    pieces = tasks.attempt(job, storage, {}, silent, lambda: False)
    assert values(pieces) == pytest.approx(whole, rel=1e-3, abs=1e-4)
    assert seen == made
    assert said in seconds(pieces)


@pytest.mark.parametrize("family", list(ModelFamily))
def test_a_clip_does_not_depend_on_those_that_are_generated_with_it(
    storage: Path, make_job: Callable[..., Job], family: ModelFamily
) -> None:
    model, _ = untrained(make_job, storage, family)
    captions, seeds = ["a square moves right", "a dark square", "nothing"], [5, 6, 7]
    together = model.generate(captions, seeds, 2).astype(int)
    alone = np.concatenate([model.generate([caption], [seed], 2) for caption, seed in zip(captions, seeds, strict=True)]).astype(int)
    assert np.abs(together - alone).max() <= 1  # the rounding of other kernels
    assert np.abs(together[0] - together[1]).max() > 1


def test_no_room_for_a_single_clip_is_out_of_memory(
    storage: Path, make_job: Callable[..., Job], silent: ProgressReporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, job = untrained(make_job, storage, ModelFamily.VIDEOFUSION)
    seen = with_room_for(0, VideoFusionModel, monkeypatch)
    report = tasks.attempt(job, storage, {}, silent, lambda: False)
    assert report.reason is Reason.OUT_OF_MEMORY
    assert "generate and measure one clip" in report.message
    assert seen == [(8, 1), (4, 1), (2, 1), (1, 1)]


def test_every_clip_is_worked_on_once_in_order_also_where_the_room_shrinks() -> None:
    pieces, room, seen = Pieces(8), [8, 3, 3, 2, 1, 1, 1, 1, 1], list[range]()

    def work(piece: range) -> list[int]:
        if len(piece) > (room.pop(0) if room else 1):
            raise MemoryError
        seen.append(piece)
        return list(piece)

    done = [pieces.run(range(start, min(start + 8, 14)), work) for start in (0, 8)]
    assert [number for run in done for part in run for number in part] == list(range(14))
    assert [len(piece) for piece in seen] == [8, 2, 1, 1, 1, 1]
    assert pieces.clips == 1


def test_another_error_is_no_matter_of_memory() -> None:
    def work(_: range) -> None:
        raise RuntimeError("the weights are gone")

    with pytest.raises(RuntimeError, match="weights are gone"):
        Pieces(8).run(range(8), work)
    with pytest.raises(Failure, match="one clip"):
        Pieces(1).run(range(8), lambda _: torch.empty(2**60, dtype=torch.uint8))


# The trainer as it is, but that the second process has no room for more than two clips.
SHORT_OF_MEMORY = """
import os, torch
from videogen_models.videofusion import VideoFusionModel
from videogen_trainer import __main__
from videogen_trainer.evaluate import timing

timing.ALONE = 1
generate = VideoFusionModel.generate

def limited(self, captions, *rest):
    if os.environ.get("RANK") == "1" and len(captions) > 2:
        torch.empty(2**60, dtype=torch.uint8)
    return generate(self, captions, *rest)

VideoFusionModel.generate = limited
__main__.main()
"""
# The agent starts `python -m videogen_trainer`; here it starts the program above.
LAUNCHED = """
from videogen_trainer import __main__, launch

elastic_launch = launch.elastic_launch

def launched(config, python):
    return lambda *command: elastic_launch(config, python)("-u", {program!r}, *command[3:])

launch.elastic_launch = launched
__main__.main()
"""


@pytest.mark.usefixtures("one_batch_alone")
def test_all_processes_make_their_batches_smaller_when_one_is_short_of_memory(
    storage: Path, make_job: Callable[..., Job], start_trainer: Callable[..., Any], at_once: Callable[[Job], dict[str, float]]
) -> None:
    _, job = untrained(make_job, storage, ModelFamily.VIDEOFUSION)
    path = storage / "short.py"
    path.write_text(SHORT_OF_MEMORY)
    trainer = start_trainer(job.model_copy(update={"processes_per_worker": 2}), program=("-c", LAUNCHED.format(program=str(path))))
    code, together = trainer.wait()
    assert code == ExitCode.SUCCEEDED, trainer.log.read_text()
    assert trainer.log.read_text().count("from here on 2 clips are generated") == 2
    assert "in batches of 2, 2 steps" in seconds(together)
    assert values(together) == pytest.approx(at_once(job), rel=1e-3, abs=1e-4)
