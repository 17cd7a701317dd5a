"""Reading video files: frames one by one, and frames fitted to a size. Not here: what becomes of them (`curate.py`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from videogen_api.recipe import Resolution
from videogen_api.training_run import Reason
from videogen_trainer.failure import Failure

Picture = NDArray[np.uint8]
TRUNCATED = 0.9  # a file that announces frames and has less than this share of them has lost its end


def read_frames(path: Path) -> Iterator[Picture]:
    """Frames as `read_timed_frames` gives them, without their times."""
    return (picture for _, picture in read_timed_frames(path))


def read_timed_frames(path: Path) -> Iterator[tuple[float | None, Picture]]:
    """Frames uint8 [H, W, 3] (RGB, upright) of the first video stream, each with its time in seconds if the file says it.

    Raises Failure(VideoUnreadable) naming the file if it is empty, corrupt, truncated or has no video.
    """
    with _opened(path) as (container, stream):
        count = 0
        for frame in container.decode(stream):
            if frame.is_corrupt:
                raise unreadable(path, f"frame {count} is damaged")
            yield frame.time, _upright(frame)
            count += 1
        if count == 0:
            raise unreadable(path, "it has no frames")
        if count < TRUNCATED * (announced := _announced(container)):
            raise unreadable(path, f"it ends after {count} of {announced:.0f} frames")


def size_of(path: Path) -> tuple[int, int]:
    """Width and height of the first video stream as the file's header says them. Raises Failure(VideoUnreadable)."""
    with _opened(path) as (_, stream):
        return stream.width, stream.height


def seconds_of(path: Path) -> float:
    """Length of the first video stream, from its or the file's header or, where those do not say it, from its packets' times.

    Nothing is decoded. Raises Failure(VideoUnreadable).
    """
    with _opened(path) as (container, stream):
        if stream.duration and stream.time_base:
            return float(stream.duration * stream.time_base)
        if container.duration:
            return float(container.duration / av.time_base)
        times = [packet.pts + (packet.duration or 0) for packet in container.demux(stream) if packet.pts is not None]
        return float((max(times) - min(times)) * stream.time_base) if times else 0.0


@contextmanager
def _opened(path: Path) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    if path.stat().st_size == 0:
        raise unreadable(path, "it is empty")
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise unreadable(path, "it has no video stream, only " + (_kinds(container) or "nothing"))
            yield container, container.streams.video[0]
    except (av.FFmpegError, UnicodeDecodeError) as error:
        raise unreadable(path, str(error)) from error


def fit(picture: Picture, resolution: Resolution) -> Picture:
    """The largest middle part [H, W, 3] with the resolution's aspect ratio, resized to it by an anti-aliased bicubic filter."""
    height, width = picture.shape[:2]
    scale = min(height / resolution.height, width / resolution.width)
    tall, wide = resolution.height * scale, resolution.width * scale
    top, left = (height - tall) / 2, (width - wide) / 2
    image = Image.fromarray(picture).resize(
        (resolution.width, resolution.height), Image.Resampling.BICUBIC, box=(left, top, left + wide, top + tall)
    )
    return np.asarray(image, dtype=np.uint8)


def unreadable(path: Path, why: str) -> Failure:
    """The failure of a video that cannot be decoded."""
    return Failure(Reason.VIDEO_UNREADABLE, f"{path} cannot be read as video: {why}; replace the file or take it out of the source")


def _upright(frame: av.VideoFrame) -> Picture:
    picture = frame.to_ndarray(format="rgb24")
    return np.ascontiguousarray(np.rot90(picture, k=round(frame.rotation / 90)))  # phones store the turn beside the picture


def _announced(container: av.container.InputContainer) -> float:
    """Frames that the file says it has; webm files say only how long they are, and sound may be longer than pictures."""
    stream = container.streams.video[0]
    if stream.frames or len(container.streams) > 1 or not container.duration or not stream.average_rate:
        return stream.frames
    return float(container.duration / av.time_base * stream.average_rate)


def _kinds(container: av.container.InputContainer) -> str:
    return ", ".join(sorted({stream.type for stream in container.streams}))
