"""Task Curate: videos with captions become an immutable dataset version of clips.

HeldOut or Train. Clips of one video are alike, so neighbours must not be on both sides, yet a few long videos must
still fill both. So a video is cut in time into blocks of 64 frames (or of one clip, if that is longer), and a block is
HeldOut by the hash of the video file's bytes and the block's number: not of its name, its place in the folder, the version or other
videos, so what was held out once stays held out in every version made from that file, at any resolution (and, for clips
of at most 64 frames, at any stride). No clip reaches over a border between the two sides.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from videogen_api.job import Job, Report
from videogen_api.recipe import Recipe
from videogen_api.training_run import Curate, Reason, Source, Split
from videogen_models.sealed import sha256_of
from videogen_trainer.dataset import Clip, write_dataset
from videogen_trainer.failure import Failure
from videogen_trainer.progress import ProgressReporter
from videogen_trainer.video_reading import Picture, fit, read_frames

SUFFIXES = (".mp4", ".webm")
BLOCK_FRAMES = 64
LISTED = 5  # names of files in one message


@dataclass(frozen=True, slots=True, kw_only=True)
class Video:
    """A video file and its caption."""

    path: Path
    caption: str


@dataclass(slots=True, kw_only=True)
class Count:
    """What has been cut so far."""

    train: int = 0
    held_out: int = 0
    too_short: int = 0

    @property
    def clips(self) -> int:
        """Clips of both sides."""
        return self.train + self.held_out


def run(job: Job, storage: Path, progress: ProgressReporter) -> Report:
    """Make the dataset version of `job.curate`. A repeated attempt makes the same content and succeeds.

    Raises Failure: VideoMissing, VideoUnreadable, CaptionMissing, DatasetTooSmall, or InvalidJob if the version
    exists with other content.
    """
    assert job.curate is not None, "a Curate job without a curate block; the CRD refuses it"
    videos = find_videos(job.curate.sources, storage)
    count = Count()
    clips = _all_clips(videos, job.curate, job.recipe, storage, count, progress)
    resolved = write_dataset(
        storage,
        job.curate.dataset,
        job.curate.version,
        clips,
        frames=job.recipe.frames,
        resolution=job.recipe.resolution,
    )
    message = f"{count.clips} clips of {len(videos)} videos: {count.train} Train, {count.held_out} HeldOut"
    return Report(message=message, datasets=[resolved])


def find_videos(sources: list[Source], storage: Path) -> list[Video]:
    """All videos of the sources with their captions, sorted by path, each once.

    Raises Failure: VideoMissing if a folder does not exist or has no video, CaptionMissing naming the files.
    """
    paths = sorted({path for source in sources for path in _videos_below(storage / source.path)})
    if absent := [path for path in paths if not path.with_suffix(".txt").is_file()]:
        raise Failure(
            Reason.CAPTION_MISSING,
            f"{len(absent)} of {len(paths)} videos have no caption: {_listed(absent)};"
            " put each one's into a text file of the same name (.txt)",
        )
    return [Video(path=path, caption=_caption(path.with_suffix(".txt"))) for path in paths]


def _videos_below(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise Failure(Reason.VIDEO_MISSING, f"curate.sources: there is no folder {folder}; upload the videos or correct the path")
    found = [path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file()]
    if not found:
        kinds = " or ".join(SUFFIXES)
        raise Failure(Reason.VIDEO_MISSING, f"curate.sources: {folder} has no {kinds} file; upload videos or correct the path")
    return found


def _caption(path: Path) -> str:
    try:
        caption = " ".join(path.read_text(encoding="utf-8").split())
    except UnicodeDecodeError as error:
        raise Failure(Reason.CAPTION_MISSING, f"{path} is not UTF-8 ({error}); save the caption as UTF-8") from error
    except FileNotFoundError as error:
        raise Failure(Reason.CAPTION_MISSING, f"{path} was removed while the phase ran; put the video's caption there again") from error
    if not caption:
        raise Failure(Reason.CAPTION_MISSING, f"{path} is empty; write the video's caption into it")
    return caption


def _all_clips(
    videos: list[Video], curate: Curate, recipe: Recipe, storage: Path, count: Count, progress: ProgressReporter
) -> Iterator[Clip]:
    for number, video in enumerate(videos):
        before = count.clips
        try:
            for clip in clips_of(video, curate, recipe, storage):
                count.train += clip.split is Split.TRAIN
                count.held_out += clip.split is Split.HELD_OUT
                yield clip
        except FileNotFoundError as error:
            said = f"{video.path} was removed while the phase ran; upload the video again, or take it out of the source for good"
            raise Failure(Reason.VIDEO_MISSING, said) from error
        count.too_short += count.clips == before
        progress.report(number + 1, len(videos), {"clips": count.clips}, final=number + 1 == len(videos))
    if count.clips < curate.minimum_clips:
        raise _too_small(count, len(videos), curate, recipe)


def _too_small(count: Count, videos: int, curate: Curate, recipe: Recipe) -> Failure:
    short = f" ({count.too_short} of them shorter than one clip)" if count.too_short else ""
    return Failure(
        Reason.DATASET_TOO_SMALL,
        f"curate.minimumClips: {videos} videos{short} gave {count.clips} clips of {recipe.frames} frames at stride {curate.frame_stride},"
        f" {curate.minimum_clips} are needed; add videos, or lower minimumClips, frameStride or recipe.frames",
    )


def clips_of(video: Video, curate: Curate, recipe: Recipe, storage: Path) -> Iterator[Clip]:
    """Clips of one video, back to back, at most `maximum_clips_per_video`; after the last one the file is read no further.

    A clip spans (frames - 1) x stride + 1 frames of the video; what is left before a change of sides or the end is dropped.
    """
    digest = sha256_of(video.path)
    block_frames = max(BLOCK_FRAMES, (recipe.frames - 1) * curate.frame_stride + 1)
    pictures: list[Picture] = []
    start, side, made = 0, None, 0
    for number, picture in enumerate(read_frames(video.path)):
        if (now := split_of(digest, number // block_frames, curate.held_out_percent)) is not side or not pictures:
            start, side, pictures = number, now, []
        if (number - start) % curate.frame_stride:
            continue
        pictures.append(fit(picture, recipe.resolution))
        if len(pictures) == recipe.frames:
            source = f"{video.path.relative_to(storage)}:{start}"
            yield Clip(frames=np.stack(pictures), caption=video.caption, split=now, source=source)
            made, pictures = made + 1, []
        if made == curate.maximum_clips_per_video:
            return


def split_of(digest: str, block: int, held_out_percent: int) -> Split:
    """Side of a block of the video file with this SHA-256 (hex). A larger share keeps all that a smaller one holds out."""
    place = int.from_bytes(hashlib.sha256(f"{digest}:{block}".encode()).digest()[:8], "big") % 100
    return Split.HELD_OUT if place < held_out_percent else Split.TRAIN


def _listed(paths: list[Path]) -> str:
    more = f" and {len(paths) - LISTED} more" if len(paths) > LISTED else ""
    return ", ".join(str(path) for path in paths[:LISTED]) + more
