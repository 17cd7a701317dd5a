"""Everything that is done with one video on its own, in any process, in any order: decoding, cutting, and the filters of a clip.

What depends on other videos (likeness, counts, examples) is done afterwards, in the order of the sources, so a version's content
is the same for any number of processes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import av
import numpy as np
import PIL

from videogen_api.bundle import canonical_json
from videogen_api.curation import Curate
from videogen_api.recipe import Recipe
from videogen_api.training_run import Reason
from videogen_trainer.curation.cutting import SHORTEST_BLOCK, Cut, cuts_of
from videogen_trainer.curation.filters import brightness_of, check_clip, check_times, check_video, motion_of
from videogen_trainer.curation.parts import Part, PartWriter
from videogen_trainer.curation.rejection import Cause, Rejected, Rejection
from videogen_trainer.curation.relevance import check_relevance, encoder_of
from videogen_trainer.curation.tally import EXAMPLES
from videogen_trainer.curation.thumbnail import thumbnail
from videogen_trainer.curation.video import Video
from videogen_trainer.dataset import Clip, Segment
from videogen_trainer.failure import Failure
from videogen_trainer.video_reading import digest_of, seconds_of

FORMAT = 3  # of what `examine` finds; a part of another one is made anew


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is asked of every video, and where parts are kept."""

    curate: Curate
    recipe: Recipe
    storage: Path
    folder: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """A sealed part, or the rejection of the whole video before anything of it was decoded."""

    part: Part | None = None
    rejection: Rejection | None = None
    decoded: bool = False


def examine(video: Video, wanted: Wanted) -> Examined:
    """Look at one video, unless a sealed part of it is there. Raises Failure: StorageFailed, ExtractorMissing."""
    try:
        check_video(video, wanted.curate.filters)
        digest = digest_of(video.path)
        part = Part(wanted.folder, _key(video, digest, wanted))
        if part.sealed():
            return Examined(part=part)
        _write(video, digest, part, wanted)
        return Examined(part=part, decoded=True)
    except Rejected as rejected:
        return Examined(rejection=_of_video(video, rejected.cause, rejected.why))
    except FileNotFoundError:
        said = f"{video.name} was removed while the phase ran; upload the video again, or take it out of the source for good"
        return Examined(rejection=_of_video(video, Cause.VIDEO_MISSING, said))
    except PermissionError:
        said = f"{video.name} may not be read by the trainer's user; give it read permission for all"
        return Examined(rejection=_of_video(video, Cause.VIDEO_UNREADABLE, said))
    except Failure as failure:
        return Examined(rejection=_of_video(video, Cause.VIDEO_UNREADABLE, _unreadable(video, failure)))


def _unreadable(video: Video, failure: Failure) -> str:
    """What is wrong with a video, by the name that people know it by; any other failure is raised again."""
    if failure.reason is not Reason.VIDEO_UNREADABLE:
        raise failure
    return failure.message.replace(str(video.path), video.name)


def _of_video(video: Video, cause: Cause, why: str) -> Rejection:
    return Rejection(cause=cause, source=video.name, why=why, caption=video.caption)


def _key(video: Video, digest: str, wanted: Wanted) -> str:
    """Digest of all that a part depends on, the versions of what decodes and resizes included."""
    asked = wanted.curate.model_dump(mode="json", include={"frame_stride", "scene_cuts", "filters", "held_out_percent"})
    asked["filters"].pop("duplicates")
    said = [segment.wire() for segment in video.transcript]
    about = [video.name, video.caption, said, video.category, video.urgency, video.licence]
    shape = [wanted.recipe.frames, wanted.recipe.resolution.wire(), wanted.curate.maximum_clips_per_video]
    programs = [FORMAT, av.__version__, PIL.__version__, np.__version__]
    if relevance := wanted.curate.filters.relevance:
        programs.append(encoder_of(relevance.extractor, wanted.storage).digest)
    return hashlib.sha256(canonical_json({"of": [digest, about, asked, shape, programs]})).hexdigest()


def _write(video: Video, digest: str, part: Part, wanted: Wanted) -> None:
    seconds: float | None = None
    with PartWriter(part) as writer:
        try:
            seconds = seconds_of(video.path)
            for finding in _clips(video, wanted, digest):
                writer.keep(finding) if isinstance(finding, Clip) else writer.refuse(finding)
        except Failure as failure:
            why = _unreadable(video, failure)
            writer.forget()
            writer.refuse(_of_video(video, Cause.VIDEO_UNREADABLE, why))
        writer.seal(seconds)


def _clips(video: Video, wanted: Wanted, digest: str) -> Iterator[Clip | Rejection]:
    """Clips that pass, and rejections of the others; one of the video if it gives no clip. Pictures only where they can be shown."""
    shown: dict[Cause, int] = {}
    none = True
    for cut in cuts_of(video.path, digest, wanted.curate, wanted.recipe):
        none = False
        clip = clip_of(video, cut)
        try:
            check_times(cut, video.name)
            check_clip(clip, cut, wanted.curate.filters)
            check_relevance(clip, wanted.curate.filters, wanted.storage)
            yield clip
        except Rejected as rejected:
            shown[rejected.cause] = shown.get(rejected.cause, 0) + 1
            picture = thumbnail(clip.frames[len(clip.frames) // 2]) if shown[rejected.cause] <= EXAMPLES else None
            yield replace(_of_video(video, rejected.cause, rejected.why), source=clip.source, picture=picture)
    if none:
        yield _of_video(video, Cause.TOO_SHORT, f"{video.name} is shorter than {_least(wanted)}")


def _least(wanted: Wanted) -> str:
    """What a video must be as long as to give a clip, in words."""
    curate, frames = wanted.curate, wanted.recipe.frames
    parts = ["scenes"] if curate.scene_cuts else []
    if curate.held_out_percent and (frames - 1) * curate.frame_stride >= SHORTEST_BLOCK:
        parts.append("parts that are held out or not")
    said = f"one clip of {frames} frames at stride {curate.frame_stride}"
    return f"{said}, or each of its {' and '.join(parts)} is" if parts else said


def clip_of(video: Video, cut: Cut) -> Clip:
    """The cut with everything that is known of its video; what is said in the video is told from the clip's first frame."""
    first, last = cut.times[0], cut.times[-1]
    timed = first is not None and last is not None
    return Clip(
        frames=cut.frames,
        caption=video.caption,
        split=cut.split,
        source=f"{video.name}:{cut.start}",
        transcript=_said_between(video.transcript, first or 0.0, last or 0.0) if timed else (),
        category=video.category,
        urgency=video.urgency,
        licence=video.licence,
        seconds=round(last - first, 3) if first is not None and last is not None else None,
        motion=motion_of(cut.frames),
        brightness=brightness_of(cut.frames),
    )


def _said_between(transcript: tuple[Segment, ...], first: float, last: float) -> tuple[Segment, ...]:
    return tuple(
        Segment(start=round(max(0.0, said.start - first), 3), end=round(min(last, said.end) - first, 3), text=said.text)
        for said in transcript
        if said.start <= last and said.end >= first
    )
