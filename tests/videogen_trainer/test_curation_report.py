"""What a curation says at its end, in its message and its report."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from videogen_testing.curation import job, silent, write_video
from videogen_trainer.curate import run


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
