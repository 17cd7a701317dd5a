"""Task Curate: videos with captions become an immutable dataset version of clips, and a report that people can look at.

A video that cannot be used and a clip that a filter keeps out are rejected, counted and shown; the work goes on. At the
end the version as a whole is judged: with too few clips, or too large a rejected share, it is not published. Then the
parent version takes its place if one is named (R-DAT-5); else the attempt fails.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from videogen_api.curation import Curate
from videogen_api.job import Job, Report
from videogen_api.recipe import Recipe
from videogen_api.training_run import DataReference, Reason, ResolvedDataset
from videogen_models.sealed import sha256_of, write_durably
from videogen_trainer.curation.cutting import Cut, cuts_of, held_back
from videogen_trainer.curation.duplicates import Duplicates, hash_of
from videogen_trainer.curation.filters import brightness_of, check_clip, check_times, check_video, motion_of
from videogen_trainer.curation.rejection import Cause, Rejected, Rejection
from videogen_trainer.curation.report_page import page
from videogen_trainer.curation.sources import Video, find_videos
from videogen_trainer.curation.tally import EXAMPLES, Tally
from videogen_trainer.dataset import Clip, Segment, open_dataset, resolve, write_dataset
from videogen_trainer.failure import Failure
from videogen_trainer.progress import ProgressReporter
from videogen_trainer.video_reading import Picture, read_frames, seconds_of


class VersionRejected(Failure):
    """The version as a whole is not good enough."""


def run(job: Job, storage: Path, progress: ProgressReporter) -> Report:
    """Make the dataset version of `job.curate`. A repeated attempt makes the same content and succeeds.

    Raises Failure: VideoMissing, TableInvalid, DatasetNotFound if there is no such parent, InvalidJob if the version
    exists with other content; and if the version is rejected and has no parent: DatasetTooSmall, DatasetRejected or, if
    everything was rejected for one of them, VideoUnreadable, VideoMissing, CaptionMissing or TableInvalid.
    """
    assert job.curate is not None, "a Curate job without a curate block; the CRD refuses it"
    curate, tally = job.curate, Tally()
    parent = resolve(storage, DataReference(dataset=curate.dataset, version=curate.parent)) if curate.parent else None
    videos = find_videos(curate.sources, storage, tally.reject)
    tally.videos = len(videos) + tally.rejected.total()
    try:
        made = write_dataset(
            storage,
            curate.dataset,
            curate.version,
            Curation(curate, job.recipe, storage, tally).clips(videos, progress),
            frames=job.recipe.frames,
            resolution=job.recipe.resolution,
            parent=parent,
        )
    except VersionRejected as rejected:
        _write_page(storage, curate, f"Rejected. {rejected.message}", tally)
        return _with_parent(storage, curate, job.recipe, rejected, tally)
    message = f"{tally.clips:,} clips of {tally.videos:,} videos: {tally.train:,} Train, {tally.held_out:,} HeldOut"
    message += f"; rejected {tally.in_words()}" if tally.rejected else ""
    where = _write_page(storage, curate, f"Accepted. {message}", tally)
    return Report(message=f"{message[:900]}; see {where}", datasets=[made.model_copy(update={"rejected": tally.rejected.total()})])


def page_path(curate: Curate) -> str:
    """Where the report for people lies, below the storage's root."""
    return f"datasets/{curate.dataset}/reports/{curate.version}.html"


def _write_page(storage: Path, curate: Curate, verdict: str, tally: Tally) -> str:
    where = page_path(curate)
    write_durably(storage / where, page(f"Dataset {curate.dataset} {curate.version}", verdict, tally).encode("utf-8", "replace"))
    return where


def _with_parent(storage: Path, curate: Curate, recipe: Recipe, rejected: VersionRejected, tally: Tally) -> Report:
    """The report of a run that goes on with the parent; raises `rejected` itself if there is none that fits the recipe."""
    if not curate.parent:
        raise rejected
    parent = open_dataset(storage, DataReference(dataset=curate.dataset, version=curate.parent))
    if (parent.manifest.frames, parent.manifest.resolution) != (recipe.frames, recipe.resolution):
        said = f"{rejected.message[:700]}; its parent {curate.parent} was made for other frames or another resolution than the recipe's"
        raise Failure(rejected.reason, said)
    instead = {"in_place_of": curate.version, "rejected": tally.rejected.total()}
    resolved: ResolvedDataset = parent.resolved.model_copy(update=instead)
    said = f"version {curate.version} was rejected ({rejected.reason}: {rejected.message[:800]}); its parent {curate.parent} is used"
    return Report(message=said, datasets=[resolved])


class Curation:
    """One pass over the videos, one video at a time."""

    def __init__(self, curate: Curate, recipe: Recipe, storage: Path, tally: Tally) -> None:
        self._curate, self._recipe, self._storage, self._tally = curate, recipe, storage, tally
        wanted = curate.filters.duplicates
        self._duplicates = Duplicates(wanted.maximum_difference_percent) if wanted else None

    def clips(self, videos: list[Video], progress: ProgressReporter) -> Iterator[Clip]:
        """Every clip that is kept. Raises VersionRejected after the last one."""
        for number, video in enumerate(videos, 1):
            try:
                for clip in self._of_video(video):
                    self._tally.accept(clip)
                    yield clip
            except Rejected as rejected:
                picture = self._first_picture(video, rejected.cause)
                self._reject(rejected, video.name, video.caption, picture)
            values = {"clips": self._tally.clips, "rejected": self._tally.rejected.total()}
            progress.report(number, len(videos), values, final=number == len(videos))
        judge(self._curate, self._recipe, self._tally)

    def _reject(self, rejected: Rejected, source: str, caption: str, picture: Picture | None) -> None:
        self._tally.reject(Rejection(cause=rejected.cause, source=source, why=rejected.why, caption=caption, picture=picture))

    def _first_picture(self, video: Video, cause: Cause) -> Picture | None:
        shown = len(self._tally.rejected_examples.get(cause, []))
        if cause in {Cause.VIDEO_MISSING, Cause.VIDEO_UNREADABLE} or shown >= EXAMPLES:
            return None
        try:
            return next(iter(read_frames(video.path)), None)
        except (Failure, FileNotFoundError):
            return None

    def _of_video(self, video: Video) -> Iterator[Clip]:
        """Raises Rejected if the video gives no clip at all, or ends badly."""
        try:
            check_video(video, self._curate.filters)
            digest = sha256_of(video.path)
            self._tally.seconds.add(seconds_of(video.path))
            cuts = held_back(cuts_of(video.path, digest, self._curate, self._recipe), self._storage)
            first = next(cuts, None)
        except FileNotFoundError as error:
            said = f"{video.name} was removed while the phase ran; upload the video again, or take it out of the source for good"
            raise Rejected(Cause.VIDEO_MISSING, said) from error
        except Failure as failure:
            raise Rejected(Cause.VIDEO_UNREADABLE, failure.message) from failure
        if first is None:
            said = f"{video.name} is shorter than one clip of {self._recipe.frames} frames at stride {self._curate.frame_stride}"
            raise Rejected(Cause.TOO_SHORT, said + (", or each of its scenes is" if self._curate.scene_cuts else ""))
        yield from self._kept(video, first)
        for cut in cuts:
            yield from self._kept(video, cut)

    def _kept(self, video: Video, cut: Cut) -> Iterator[Clip]:
        clip = clip_of(video, cut)
        try:
            check_times(cut, video.name)
            check_clip(clip.source, clip.motion or 0.0, clip.brightness or 0.0, self._curate.filters)
            self._check_new(clip)
        except Rejected as rejected:
            self._reject(rejected, clip.source, clip.caption, clip.frames[len(clip.frames) // 2])
            return
        yield clip

    def _check_new(self, clip: Clip) -> None:
        if self._duplicates is None:
            return
        own = hash_of(clip.frames)
        if found := self._duplicates.like(own):
            raise Rejected(Cause.DUPLICATE, f"{clip.source} looks like {found[0]}: their hashes differ by {found[1]:.1f} %")
        self._duplicates.keep(own, clip.source)


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


def judge(curate: Curate, recipe: Recipe, tally: Tally) -> None:
    """The quality check of a whole version. Raises VersionRejected."""
    rejected = (
        f" (see {page_path(curate)}); rejected {tally.rejected.total():,} of {tally.examined:,}: {tally.in_words()}"
        if tally.rejected
        else ""
    )
    if tally.clips < curate.minimum_clips:
        raise VersionRejected(
            tally.only_reason or Reason.DATASET_TOO_SMALL,
            f"curate.minimumClips: {tally.videos:,} videos gave {tally.clips:,} clips of {recipe.frames} frames at stride"
            f" {curate.frame_stride}, {curate.minimum_clips:,} are needed{rejected}",
        )
    if tally.too_many_rejected(curate.maximum_rejected_percent):
        raise VersionRejected(
            tally.only_reason or Reason.DATASET_REJECTED,
            f"curate.maximumRejectedPercent: {100 * tally.rejected.total() / tally.examined:.1f} % were rejected,"
            f" {curate.maximum_rejected_percent} are allowed{rejected}",
        )
