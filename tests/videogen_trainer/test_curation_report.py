"""What a curation says at its end, in its message and its report."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from videogen_testing.curation import job, silent, write_video
from videogen_trainer.curate import run
from videogen_trainer.failure import Failure


@pytest.mark.parametrize(
    ("videos", "percent", "words"),
    [
        (3, 1, "3 Train, 0 HeldOut; warning: only 0 HeldOut, and Evaluate needs 2 clips at least: .* or raise curate.heldOutPercent"),
        (2, 90, "0 Train, 2 HeldOut; warning: no clip to train with: .* or lower curate.heldOutPercent"),
        (3, 0, "3 Train, 0 HeldOut; see datasets"),
        (12, 50, r"\d Train, \d HeldOut; see datasets"),
    ],
)
def test_a_version_that_lacks_clips_of_one_side_says_so_in_its_message_and_report(
    tmp_path: Path, videos: int, percent: int, words: str
) -> None:
    for number in range(videos):
        write_video(tmp_path / f"raw/{number}.mp4", 8, seed=number)
    report = run(job(held_out_percent=percent), tmp_path, silent())
    assert re.search(words, report.message)
    page = (tmp_path / "datasets/shapes/reports/v1.html").read_text()
    assert ("warning: " in page) is ("warning: " in words)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a\nb", r"a\nb"),
        ("a\x1b[31mred", r"a\x1b[31mred"),
        ("a\u202e4pm", r"a\u202e4pm"),
        ("a\u2028b", r"a\u2028b"),
        ("क्\u200dष", "क्\u200dष"),
        ("ünï $(x);", "ünï $(x);"),
    ],
)
def test_a_name_of_a_file_stands_on_one_line_of_the_message_and_of_the_report(tmp_path: Path, name: str, shown: str) -> None:
    write_video(tmp_path / f"raw/{name}.mp4", 8, caption="a ball", seed=1)
    write_video(tmp_path / f"raw/{name} too.mp4", 8, caption=None)
    report = run(job(maximum_rejected_percent=50), tmp_path, silent())
    assert f"1 CaptionMissing (raw/{shown} too.mp4 has no caption" in report.message
    page = (tmp_path / "datasets/shapes/reports/v1.html").read_text()
    assert page.count(f"<strong>raw/{shown}") == 2
    assert f"raw/{name}" not in page or name == shown


def test_a_rejected_version_that_says_so_of_odd_names_does_it_on_one_line(tmp_path: Path) -> None:
    write_video(tmp_path / "raw/a\nb.mp4", 8, caption=None)
    with pytest.raises(Failure) as caught:
        run(job(), tmp_path, silent())
    assert r"raw/a\nb.mp4" in caught.value.message
    assert caught.value.message.isprintable()
