"""What keeps a video or a clip out. A filter that the user did not name is not computed."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from videogen_api.curation import Filters, LengthFilter, ResolutionFilter
from videogen_trainer.curation.cutting import Cut
from videogen_trainer.curation.language import check_language
from videogen_trainer.curation.rejection import Cause, Rejected
from videogen_trainer.curation.text_overlay import text_percent
from videogen_trainer.curation.video import Video
from videogen_trainer.dataset import Clip
from videogen_trainer.video_reading import seconds_of, size_of

UNEVEN = 1.5  # a step between two frames may be this many times as long, or as short, as the middle one


def check_video(video: Video, filters: Filters) -> None:
    """Everything that can be known before a video is decoded. Raises Rejected, or Failure(VideoUnreadable)."""
    if (wanted := filters.caption) and not wanted.minimum_characters <= len(video.caption) <= wanted.maximum_characters:
        raise Rejected(
            Cause.CAPTION_LENGTH,
            f"the caption of {video.name} has {len(video.caption)} characters,"
            f" filters.caption accepts {wanted.minimum_characters} to {wanted.maximum_characters}",
        )
    if filters.language:
        check_language(video, filters.language)
    if filters.resolution:
        _check_size(video, filters.resolution)
    if filters.length:
        _check_length(video, filters.length)


def _check_size(video: Video, wanted: ResolutionFilter) -> None:
    width, height = size_of(video.path)
    if min(width, height) < wanted.minimum_shorter_side:
        raise Rejected(
            Cause.RESOLUTION,
            f"{video.name} has {width} x {height} pixels, filters.resolution wants {wanted.minimum_shorter_side} on the shorter side",
        )


def _check_length(video: Video, wanted: LengthFilter) -> None:
    seconds = seconds_of(video.path)
    if not wanted.minimum_seconds <= seconds <= wanted.maximum_seconds:
        raise Rejected(
            Cause.LENGTH,
            f"{video.name} lasts {seconds:.2f} s, filters.length accepts {wanted.minimum_seconds} to {wanted.maximum_seconds} s",
        )


def motion_of(frames: NDArray[np.uint8]) -> float:
    """Mean absolute difference, 0 .. 255, of frames [F >= 2, H, W, 3] and the ones after them; exact to three decimals."""
    differences = sum(int(np.abs(after.astype(np.int16) - before).sum(dtype=np.int64)) for before, after in pairwise(frames))
    return round(differences / (frames.size - frames[0].size), 3)


def brightness_of(frames: NDArray[np.uint8]) -> float:
    """Mean of all values of the frames, 0 .. 255; exact to three decimals."""
    return round(int(frames.sum(dtype=np.int64)) / frames.size, 3)


def check_times(cut: Cut, name: str) -> None:
    """Frames must follow each other evenly: in uneven ones everything moves at a false speed. Raises Rejected."""
    times = [time for time in cut.times if time is not None]
    steps = sorted(after - before for before, after in pairwise(times))
    if not steps or (steps[-1] <= (middle := steps[len(steps) // 2]) * UNEVEN and steps[0] * UNEVEN >= middle):
        return
    raise Rejected(
        Cause.VARIABLE_FRAME_RATE,
        f"{name}:{cut.start} has frames at uneven times, {steps[0]:.3f} s to {steps[-1]:.3f} s apart; convert it to a constant frame rate",
    )


def check_clip(clip: Clip, cut: Cut, filters: Filters) -> None:
    """Filters of a clip's measures, the cheap ones first. Raises Rejected."""
    name, motion, brightness = clip.source, clip.motion or 0.0, clip.brightness or 0.0
    if (dark := filters.darkness) and brightness < dark.minimum_brightness:
        raise Rejected(Cause.DARKNESS, f"{name} has mean brightness {brightness:.1f}, filters.darkness wants {dark.minimum_brightness}")
    if (still := filters.motion) and motion < float(still.minimum):
        raise Rejected(Cause.MOTION, f"{name} has motion {motion:.2f}, filters.motion wants {still.minimum}")
    if (text := filters.text_overlay) and (share := text_percent(cut.glances)) > float(text.maximum_percent):
        said = f"{name} has text over {share:.1f} % of its picture, filters.textOverlay accepts {text.maximum_percent} %"
        raise Rejected(Cause.TEXT_OVERLAY, said)
