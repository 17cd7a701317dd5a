"""Curation in several processes, and after a kill: the same version to the bit, and no video is decoded twice."""

from __future__ import annotations

import os
import re
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from safetensors.numpy import save_file

from videogen_api.curation import DarknessFilter, DuplicateFilter, Filters, MotionFilter, SceneCuts, TextOverlayFilter
from videogen_api.job import ExitCode, Job
from videogen_api.training_run import Reason
from videogen_testing.curation import job, silent, write_video
from videogen_testing.patience import HANGS
from videogen_trainer import dataset
from videogen_trainer.curate import run
from videogen_trainer.curation.parts import Part
from videogen_trainer.curation.side_by_side import in_order
from videogen_trainer.failure import Failure

PARTS = "runs/demo-12345678/curation/parts"
EVERYTHING: dict[str, Any] = {
    "filters": Filters(
        motion=MotionFilter(minimum="0.2"),
        darkness=DarknessFilter(minimum_brightness=5),
        duplicates=DuplicateFilter(),
        text_overlay=TextOverlayFilter(),
    ),
    "scene_cuts": SceneCuts(),
    "maximum_rejected_percent": 100,
    "held_out_percent": 40,
}


def mixed_folder(storage: Path, videos: int) -> None:
    """Good videos, twins, a dark one, a truncated one and one without a caption."""
    for number in range(videos):
        like = number % (videos - 2)
        write_video(storage / f"raw/{number:02}.mp4", 8 + 16 * (like % 3), seed=like, height=48, width=64)
    (storage / "raw/03.mp4").write_bytes((storage / "raw/03.mp4").read_bytes()[:-400])
    (storage / "raw/04.txt").unlink()


def files(storage: Path) -> dict[str, bytes]:
    """Every file of the versions and their reports; the storage's own path, which messages of ffmpeg have, is left out."""
    return {
        path.relative_to(storage).as_posix(): path.read_bytes().replace(str(storage).encode(), b"")
        for path in (storage / "datasets/shapes").rglob("*")
        if path.is_file()
    }


def made(storage: Path, wanted: Job) -> dict[str, bytes]:
    run(wanted, storage, silent())
    return files(storage)


def test_any_number_of_processes_makes_the_same_bytes_of_version_and_report(tmp_path: Path) -> None:
    """Two of them are in the test with kills below."""
    found = []
    for processes in (1, 3):
        mixed_folder(tmp_path / str(processes), 9)
        found.append(made(tmp_path / str(processes), job(**EVERYTHING).model_copy(update={"processes_per_worker": processes})))
    assert found[0] == found[1]
    page = found[0]["datasets/shapes/reports/v1.html"].decode()
    assert all(cause in page for cause in ("VideoUnreadable", "CaptionMissing", "Duplicate"))


def decoded_by(log: str) -> int:
    return int(re.findall(r"decoded (\d+) of \d+ videos", log)[-1])


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    """The folder `raw` of 40 videos, and what one process that nothing interrupts makes of them."""
    storage = tmp_path_factory.mktemp("calm")
    mixed_folder(storage, 40)
    return storage / "raw", made(storage, job(**EVERYTHING))


@pytest.mark.parametrize(("processes", "kills"), [(1, 2), (2, 1)])
def test_after_kills_at_any_time_the_version_is_the_same_and_no_sealed_video_is_decoded_again(
    tmp_path: Path, calm: tuple[Path, dict[str, bytes]], start_trainer: Callable[..., Any], processes: int, kills: int
) -> None:
    raw, whole = calm
    shutil.copytree(raw, tmp_path / "raw")
    wanted, random = job(**EVERYTHING).model_copy(update={"processes_per_worker": processes}), np.random.default_rng(processes)
    sealed: dict[str, int] = {}
    for attempt in range(kills):
        trainer = start_trainer(wanted, f"killed-{attempt}")
        while trainer.process.poll() is None and len(list((tmp_path / PARTS).glob("*.json"))) <= len(sealed):
            time.sleep(0.005)
        time.sleep(float(random.uniform(0, 0.05)))
        trainer.process.send_signal(signal.SIGKILL)
        trainer.process.wait()
        now = {path.name: path.stat().st_ino for path in (tmp_path / PARTS).glob("*.json")}
        assert sealed.items() <= now.items()  # none was written again
        sealed = now
    assert kills <= len(sealed) < 39
    trainer = start_trainer(wanted, "last")
    trainer.wait()
    assert 1 <= decoded_by(trainer.log.read_text()) <= 39 - len(sealed)
    assert files(tmp_path) == whole
    assert not (tmp_path / PARTS).exists()


def test_what_a_killed_attempt_has_written_of_the_version_goes_with_the_next_one(tmp_path: Path) -> None:
    def saved_and_killed(tensors: dict[str, Any], path: Path) -> None:
        save_file(tensors, path)
        os.kill(os.getpid(), signal.SIGKILL)

    write_video(tmp_path / "raw/a.mp4", 8)
    if (child := os.fork()) == 0:
        dataset.save_file = saved_and_killed
        try:
            run(job(), tmp_path, silent())
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert len(list(tmp_path.rglob("clips-*.safetensors"))) == 1
    run(job(), tmp_path, silent())
    assert len(list(tmp_path.rglob("clips-*.safetensors"))) == 1
    assert not list(tmp_path.rglob(".*"))


def seal(storage: Path, wanted: Job, monkeypatch: pytest.MonkeyPatch) -> list[Part]:
    """The parts that an attempt leaves whose volume is full at the end."""

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(Failure) as caught:
        patch.setattr("videogen_trainer.dataset.save_file", full)
        run(wanted, storage, silent())
    assert caught.value.reason is Reason.STORAGE_FAILED
    return [Part(storage / PARTS, path.stem) for path in sorted((storage / PARTS).glob("*.json"))]


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("harm", "decoded"),
    [
        (lambda part: None, 0),
        (lambda part: flip(part.clips), 1),
        (lambda part: flip(part.note), 1),
        (lambda part: part.clips.unlink(), 1),
        (lambda part: part.clips.write_bytes(part.clips.read_bytes()[:-1]), 1),
    ],
    ids=["unharmed", "a flipped byte of a clip", "a flipped byte of the note", "no clips", "clips cut off"],
)
def test_a_part_that_was_harmed_is_made_again(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    harm: Callable[[Part], object],
    decoded: int,
) -> None:
    for number in range(3):
        write_video(tmp_path / f"raw/{number}.mp4", 8, seed=number)
    parts = seal(tmp_path, job(), monkeypatch)
    assert len(parts) == 3
    harm(parts[1])
    with caplog.at_level("INFO"):
        report = run(job(), tmp_path, silent())
    assert decoded_by(caplog.text) == decoded
    for number in range(3):
        write_video(tmp_path / f"again/raw/{number}.mp4", 8, seed=number)
    assert report.datasets == run(job(), tmp_path / "again", silent()).datasets


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(lambda storage: job(held_out_percent=90), id="another share held out"),
        pytest.param(lambda storage: job(filters=Filters(darkness=DarknessFilter(minimum_brightness=1))), id="another filter"),
        pytest.param(lambda storage: job(side=16), id="another resolution"),
        pytest.param(lambda storage: [(storage / f"raw/{n}.txt").write_text("new words") for n in range(3)] and job(), id="captions"),
    ],
)
def test_a_part_is_not_taken_for_another_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, other: Callable[[Path], Job]
) -> None:
    for number in range(3):
        write_video(tmp_path / f"raw/{number}.mp4", 8, seed=number)
    seal(tmp_path, job(), monkeypatch)
    with caplog.at_level("INFO"):
        run(other(tmp_path), tmp_path, silent())
    assert decoded_by(caplog.text) == 3


def end_at_two(number: int) -> int:
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_a_process_that_is_killed_is_one_reason_that_says_what_to_do() -> None:
    with pytest.raises(
        Failure, match=r"killed, most likely for memory; raise memory in resources\.limits or lower workers\.processes"
    ) as caught:
        list(in_order(end_at_two, range(8), 2))
    assert caught.value.reason is Reason.OUT_OF_MEMORY


def slow(number: int) -> int:
    time.sleep((number % 3) * 0.01)
    return number


def test_answers_come_in_order_and_only_so_many_ahead() -> None:
    asked: list[int] = []

    def numbers() -> Any:
        for number in range(40):
            asked.append(number)
            yield number

    for number, answer in enumerate(in_order(slow, numbers(), 2)):
        assert answer == number
        assert len(asked) <= number + 8 + 1


def has_torch(pid: int) -> bool:
    return "libtorch" in Path(f"/proc/{pid}/maps").read_text()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_processes_end_with_their_parent_however_it_is_ended_and_parts_stay(
    tmp_path: Path, start_trainer: Callable[..., Any], how: signal.Signals
) -> None:
    mixed_folder(tmp_path, 30)
    trainer = start_trainer(job().model_copy(update={"processes_per_worker": 2}), "parent", fresh=True)
    while not list((tmp_path / PARTS).glob("*.json")):
        time.sleep(0.01)
        assert trainer.process.poll() is None
    children = psutil.Process(trainer.process.pid).children(recursive=True)
    assert len(children) >= 2
    assert not [pid for pid in (trainer.process.pid, *(child.pid for child in children)) if has_torch(pid)], "nobody needs it here"
    trainer.process.send_signal(how)
    assert trainer.process.wait(timeout=HANGS) == (-9 if how is signal.SIGKILL else ExitCode.PREEMPTED)
    ended, alive = psutil.wait_procs(children, timeout=HANGS)
    assert (len(ended), alive) == (len(children), [])
    assert list((tmp_path / PARTS).glob("*.json"))


def test_no_thread_is_left_behind(tmp_path: Path) -> None:
    mixed_folder(tmp_path, 6)
    run(job(maximum_rejected_percent=90).model_copy(update={"processes_per_worker": 2}), tmp_path, silent())
    deadline = time.monotonic() + HANGS
    while any("Executor" in type(thread).__name__ for thread in threading.enumerate()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not [thread for thread in threading.enumerate() if "Executor" in type(thread).__name__]
