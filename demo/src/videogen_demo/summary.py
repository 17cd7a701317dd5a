"""What is left when the story ends: measured times, kubectl's table, and pictures and a video that the models made."""

from __future__ import annotations

import io
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from rich.console import Console
from rich.table import Table

from videogen_demo.load import Answer
from videogen_demo.story import NAMESPACE, RELEASES, RUNS, Story

SCALE = 3  # generated frames are small; a person wants to see something
ROWS = 12


def frames_of(video: bytes) -> npt.NDArray[np.uint8]:
    """Frames of an mp4 as uint8 [frames, height, width, 3]."""
    with av.open(io.BytesIO(video)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def contact_sheet(answers: list[Answer], path: Path) -> None:
    """One row a video: its frames from left to right, under it the prompt and the release that made it."""
    rows = [(answer, frames_of(answer.video)) for answer in answers[:ROWS]]
    height, width = rows[0][1].shape[1:3]
    columns = max(frames.shape[0] for _, frames in rows)
    cell_height = height * SCALE + 14
    sheet = Image.new("RGB", (columns * width * SCALE, len(rows) * cell_height), "white")
    pen = ImageDraw.Draw(sheet)
    for row, (answer, frames) in enumerate(rows):
        for column, frame in enumerate(frames):
            picture = Image.fromarray(frame).resize((width * SCALE, height * SCALE), Image.Resampling.NEAREST)
            sheet.paste(picture, (column * width * SCALE, row * cell_height))
        pen.text((2, row * cell_height + height * SCALE + 1), f"{answer.prompt}   [{answer.release}]", fill="black")
    sheet.save(path)


def reel(answers: list[Answer], path: Path, rate: int = 8) -> None:
    """All videos one after the other, as one mp4."""
    with av.open(str(path), "w") as container:
        stream = None
        for answer in answers:
            for frame in frames_of(answer.video):
                large = frame.repeat(SCALE * 2, axis=0).repeat(SCALE * 2, axis=1)
                if stream is None:
                    stream = container.add_stream("libx264", rate=rate)
                    stream.height, stream.width, stream.pix_fmt = large.shape[0], large.shape[1], "yuv420p"
                container.mux(stream.encode(av.VideoFrame.from_ndarray(large, format="rgb24")))
        if stream is not None:
            container.mux(stream.encode())


def print_summary(story: Story, folder: Path, console: Console) -> None:
    """Times, answers, kubectl's table and the files."""
    assert story.load
    console.rule("summary")
    console.print(_times(story))
    failed = len(story.load.failures())
    console.print(f"requests: {len(story.load.answers)} answered, {failed} failed; by release:")
    for release in RELEASES:
        seconds = sorted(a.seconds for a in story.load.answers if a.release == release and a.ok)
        if seconds:
            p50, p95 = seconds[len(seconds) // 2], seconds[int(len(seconds) * 0.95)]
            console.print(f"  {release}: {len(seconds)} videos, p50 {p50:.2f} s, p95 {p95:.2f} s")
    console.print("\n$ kubectl get videogen -n " + NAMESPACE, markup=False)
    console.print(story.cluster("get", "videogen", "-n", NAMESPACE), markup=False, highlight=False, soft_wrap=True)
    chosen = _spread(list(story.load.videos))
    folder.mkdir(parents=True, exist_ok=True)
    contact_sheet(chosen, folder / "contact-sheet.png")
    reel(chosen, folder / "generated.mp4")
    console.print(f"made by the models, through the gateway: {folder / 'contact-sheet.png'}, {folder / 'generated.mp4'}", markup=False)


def _spread(videos: list[Answer]) -> list[Answer]:
    """One video for each pair of release and prompt, newest first."""
    chosen = {(video.release, video.prompt): video for video in videos}
    return [chosen[key] for key in sorted(chosen)]


def _times(story: Story) -> Table:
    table = Table("measured", "seconds", box=None)
    for run, release in zip(RUNS, RELEASES, strict=True):
        _row(table, f"{run}: curate, train, judge, release created", story.seconds_between(f"{run} begun", f"{run} completed"))
        _row(table, f"{release}: created to stable", story.seconds_between(f"{run} completed", f"{release} Stable"))
    _row(table, f"{RELEASES[2]}: first traffic to rolled back", story.seconds_between(f"{RELEASES[2]} Canary", f"{RELEASES[2]} RolledBack"))
    slow = story.cluster.get("modelrelease", RELEASES[2], NAMESPACE) or {}
    rollback = (slow.get("status") or {}).get("rollback") or {}
    table.add_row(f"alert received to route changed ({rollback.get('reason')}: {rollback.get('message')})", str(rollback.get("seconds")))
    if story.marks:
        table.add_row("the whole story", f"{story.marks[-1][1]:.1f}")
    return table


def _row(table: Table, what: str, seconds: float | None) -> None:
    if seconds is not None:
        table.add_row(what, f"{seconds:.1f}")
