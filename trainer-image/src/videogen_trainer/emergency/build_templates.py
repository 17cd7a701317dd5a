"""Task BuildTemplates: videos of emergencies that are drawn ahead, judged, captioned, and sealed into a bundle with the model.

Each template has seeds of its own, made of the recipe's seed, its category, variation and try. What is finished lies in
`templates/` of the work path, so an attempt after a killed one goes on behind the last finished template. The new bundle has
the weights of the old one, byte for byte; nothing in it depends on time or place.
"""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from videogen_api.bundle import MANIFEST, Manifest, canonical_json
from videogen_api.emergency import TEMPLATE_INDEX, TEMPLATES, EmergencyType, Template, TemplateIndex, Templates
from videogen_api.job import ArtifactReference, Job, Report
from videogen_api.recipe import Resolution
from videogen_api.training_run import Reason
from videogen_models.bundle import seal_bundle
from videogen_models.sealed import sha256_of
from videogen_models.video import encode_mp4
from videogen_models.video_model import VideoModel
from videogen_trainer.dataset import writing
from videogen_trainer.distributed import World
from videogen_trainer.emergency.captions import (
    Lettering,
    caption_box,
    captioned,
    check_letters,
    check_script,
    enlarged_size,
    open_lettering,
)
from videogen_trainer.emergency.catalogue import TYPES
from videogen_trainer.emergency.gallery import write_gallery
from videogen_trainer.emergency.judge import Judge, Scores, open_judge
from videogen_trainer.emergency.shelf import Made, Shelf
from videogen_trainer.evaluate.measure import decimal
from videogen_trainer.evaluate.task import open_model
from videogen_trainer.failure import Failure
from videogen_trainer.progress import ProgressReporter

SEED_LIMIT = 2**31 - 1  # the server's: with prompt, seed and steps it draws the picture again


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One template to make."""

    kind: EmergencyType
    variation: int  # from 1

    @property
    def name(self) -> str:
        """Stem of its files."""
        return f"{self.kind.category}-{self.variation}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Studio:
    """All that is needed to make a template."""

    model: VideoModel
    judge: Judge
    lettering: Lettering
    templates: Templates
    seed: int
    stop: Callable[[], bool]

    def make(self, wanted: Wanted) -> Made:
        """Draw until one is good enough, at most `attemptsPerTemplate` times. Raises Failure(Preempted)."""
        why = ""
        for number in range(1, self.templates.attempts_per_template + 1):
            seed = template_seed(self.seed, wanted, number)
            frames = self.model.generate([wanted.kind.prompt], [seed], self.templates.sampling_steps, self._look)[0]
            scores = self.judge.score(frames, wanted.kind.prompt, wanted.kind.category)
            why = self.judge.problem(scores)
            if not why:
                shown = captioned(frames, wanted.kind.caption, self.lettering)
                video = encode_mp4(shown, self.model.config.frame_rate)
                return Made(video=video, template=self._described(wanted, seed, shown.shape, scores, video))
        return Made(why=f"{why} (the last of {self.templates.attempts_per_template} tries)")

    def _look(self, _done: int, _total: int) -> None:
        if self.stop():
            raise Failure(Reason.PREEMPTED, "asked to stop; the next attempt goes on behind the last finished template")

    def _described(self, wanted: Wanted, seed: int, shape: tuple[int, ...], scores: Scores, video: bytes) -> Template:
        return Template(
            file=f"{TEMPLATES}/{wanted.name}.mp4",
            sha256=hashlib.sha256(video).hexdigest(),
            category=wanted.kind.category,
            urgency=wanted.kind.urgency,
            variation=wanted.variation,
            caption=wanted.kind.caption,
            prompt=wanted.kind.prompt,
            seed=seed,
            steps=self.templates.sampling_steps,
            frames=shape[0],
            frame_rate=self.model.config.frame_rate,
            resolution=Resolution(height=shape[1], width=shape[2]),
            coherence=decimal(scores.coherence),
            artefact_rate=decimal(scores.artefact_rate),
            similarity=None if scores.similarity is None else decimal(scores.similarity),
        )


def run(job: Job, storage: Path, world: World, progress: ProgressReporter, stop: Callable[[], bool]) -> Report:
    """Make the templates of `job.templates` with the bundle `job.artifact`; the report names the new bundle.

    Raises Failure: ArtifactInvalid, FontMissing, ExtractorMissing, InvalidJob for a caption without room or a prompt that cannot
    be judged, DatasetNotFound, DatasetCorrupt, DatasetTooSmall, TemplatesRejected if a type has too few, Preempted, StorageFailed.
    """
    assert job.artifact is not None, "a BuildTemplates job without an artifact"
    templates = job.templates or Templates()
    kinds = templates.types or list(TYPES)
    lettering = open_lettering(templates.caption_font, storage)
    model = open_model(job.artifact, storage, world.device)
    check_captions(kinds, model.config.resolution, lettering)
    judge = open_judge(templates.quality, job.data, storage, world.device)
    judge.check_prompts(kind.prompt for kind in kinds)
    studio = Studio(model=model, judge=judge, lettering=lettering, templates=templates, seed=job.recipe.seed, stop=stop)
    folder = storage / job.work_path
    wanted = [Wanted(kind=kind, variation=number) for kind in kinds for number in range(1, templates.variations + 1)]
    made = make_all(wanted, studio, Shelf(folder / TEMPLATES, _key(job, judge)), progress)
    write_gallery(folder / "samples", job, [(one.name, one.kind, made[one.name]) for one in wanted])
    check_complete(wanted, made, templates.least)
    artifact = seal(job, storage, list(made.values()))
    return Report(message=in_words(wanted, made), artifact=artifact, datasets=judge.datasets)


def make_all(wanted: Sequence[Wanted], studio: Studio, shelf: Shelf, progress: ProgressReporter) -> dict[str, Made]:
    """Every template by name, from the shelf if it is there."""
    made: dict[str, Made] = {}
    rejected = 0
    for number, one in enumerate(wanted, 1):
        if (found := shelf.find(one.name, one.kind)) is None:
            found = shelf.keep(one.name, one.kind, studio.make(one))
        made[one.name] = found
        rejected += found.template is None
        progress.report(number, len(wanted), {"templates": number - rejected, "rejected": rejected}, final=number == len(wanted))
    return made


def template_seed(seed: int, wanted: Wanted, number: int) -> int:
    """Seed of a template's try, 0 .. 2**31 - 1: its own, and the same in every attempt of the phase."""
    text = f"template:{seed}:{wanted.kind.category}:{wanted.variation}:{number}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") % (SEED_LIMIT + 1)


def check_captions(kinds: Sequence[EmergencyType], size: Resolution, lettering: Lettering) -> None:
    """Before any work: raises Failure FontMissing for a letter that cannot be drawn, InvalidJob for a caption without room."""
    height, width = enlarged_size(size.height, size.width)
    for kind in kinds:
        check_letters(kind.caption, lettering, f"the caption of {kind.category}")
        check_script(kind.caption, f"the caption of {kind.category}")
        try:
            caption_box(kind.caption, width, height, lettering)
        except ValueError as error:
            raise Failure(Reason.INVALID_JOB, f"templates.types[{kind.category}]: {error}") from error


def check_complete(wanted: Sequence[Wanted], made: dict[str, Made], least: int) -> None:
    """Raises Failure(TemplatesRejected) if a type has fewer than `least` templates, naming all that are lacking, and why."""
    rejected = [one for one in wanted if made[one.name].template is None]
    counts = Counter(one.kind.category for one in wanted) - Counter(one.kind.category for one in rejected)
    if few := [category for category in dict.fromkeys(one.kind.category for one in rejected) if counts[category] < least]:
        first = next(made[one.name].why for one in rejected if one.kind.category == few[0])
        raise Failure(
            Reason.TEMPLATES_REJECTED,
            f"{', '.join(few)}: fewer than {least} videos of a type are good enough; lacking are {named(rejected)}"[:600]
            + f"; {few[0]}: {first}; look at samples/templates.html of the phase's folder, raise attemptsPerTemplate, or allow fewer by"
            " minimumVariations",
        )


def named(rejected: Sequence[Wanted]) -> str:
    """All of them by type: flood 1, 3; cyclone 2."""
    by_type: dict[str, list[str]] = {}
    for one in rejected:
        by_type.setdefault(one.kind.category, []).append(str(one.variation))
    return "; ".join(f"{category} {', '.join(numbers)}" for category, numbers in by_type.items())


def seal(job: Job, storage: Path, made: Sequence[Made]) -> ArtifactReference:
    """Write the bundle: the files of `job.artifact`, verified when it was opened, and the templates in place of older ones."""
    assert job.artifact is not None
    index = TemplateIndex(drawn_by=job.artifact.digest, templates=[one.template for one in made if one.template])
    source = storage / job.artifact.path
    old = Manifest.model_validate_json((source / MANIFEST).read_bytes())
    parent = {"init_from": job.artifact.digest, "optimized_from": None}  # not what that one was made of
    manifest = old.model_copy(update={"model": job.model, "run": job.run} | parent)

    def save(staged: Path) -> None:
        for file in old.files:
            if not file.path.startswith(f"{TEMPLATES}/"):
                (staged / file.path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source / file.path, staged / file.path)
                if sha256_of(staged / file.path) != file.sha256:
                    raise Failure(
                        Reason.ARTIFACT_INVALID, f"{source / file.path} was changed while templates were made; restore the bundle"
                    )
        (staged / TEMPLATES).mkdir()
        for one in made:
            if one.template:
                (staged / one.template.file).write_bytes(one.video)
        (staged / TEMPLATE_INDEX).write_bytes(canonical_json(index.wire()))

    with writing(storage / "bundles"):
        path, digest = seal_bundle(storage, manifest, save)
    return ArtifactReference(path=path, digest=digest)


def _key(job: Job, judge: Judge) -> str:
    """Changes with all that decides how a template looks and whether it is good enough."""
    assert job.artifact is not None
    templates = (job.templates or Templates()).model_copy(update={"types": [], "variations": 1, "minimum_variations": None})
    said = [job.artifact.digest, templates.wire(), job.recipe.seed, [data.wire() for data in judge.datasets], judge.encoder.digest]
    return hashlib.sha256(canonical_json(said)).hexdigest()


def in_words(wanted: Sequence[Wanted], made: dict[str, Made]) -> str:
    """How many templates there are, and which are lacking and why; at most 900 characters."""
    found = [template for one in made.values() if (template := one.template)]
    said = f"{len(found)} of {len(wanted)} templates of {len({template.category for template in found})} types"
    if rejected := [one for one in wanted if made[one.name].template is None]:
        said += f"; lacking are {named(rejected)}"[:600] + f"; {rejected[0].name}: {made[rejected[0].name].why}"
    return f"{said[:800]}; see samples/templates.html of the phase's folder"
