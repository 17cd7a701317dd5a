"""Task BuildTemplates, whole: a bundle and a dataset in the storage, a bundle with templates out."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from videogen_api.bundle import Manifest
from videogen_api.emergency import EmergencyType, Template, TemplateIndex
from videogen_api.job import ArtifactReference, ExitCode, Job, Report
from videogen_api.training_run import Reason
from videogen_models.bundle import load_model, seal_bundle, verify_bundle
from videogen_models.video import decode_mp4, encode_mp4
from videogen_testing.attempted import Attempted
from videogen_testing.curation import silent
from videogen_trainer import report as reports
from videogen_trainer import tasks
from videogen_trainer.emergency.build_templates import Wanted, in_words, seal
from videogen_trainer.emergency.captions import captioned
from videogen_trainer.emergency.catalogue import TYPES
from videogen_trainer.emergency.shelf import Made

WORK = "runs/demo-01234567/work"
FLOOD = {"category": "flood", "prompt": "a red square moves right", "caption": "Flood: move to higher ground", "urgency": "immediate"}
FIRE = {"category": "forest-fire", "prompt": "a yellow circle grows", "caption": "Forest fire: leave the area", "urgency": "expected"}
ANY = {"minimumCoherence": "0", "maximumArtefactRate": "1"}
WANTED: dict[str, Any] = {"types": [FLOOD, FIRE], "variations": 2, "samplingSteps": 2, "quality": ANY}
ONE_TRY: dict[str, Any] = {"types": [FLOOD], "variations": 6, "attemptsPerTemplate": 1}
Attempt = Callable[..., Report]


@pytest.fixture(scope="module")
def attempt_in(emergency_job: Callable[..., Job]) -> Callable[..., Report]:
    """`attempt_in(storage, templates={...}, stop=..., **job)`: WANTED with changes."""

    def run(storage: Path, templates: dict[str, Any] | None = None, stop: Callable[[], bool] = lambda: False, **fields: Any) -> Report:
        job = emergency_job("BuildTemplates", templates=WANTED | (templates or {}), **fields)
        return tasks.attempt(job, storage, {}, silent(), stop)

    return run


def made(storage: Path, report: Report) -> list[Template]:
    assert report.reason is Reason.COMPLETED, report.message
    assert report.artifact
    return TemplateIndex.model_validate_json((storage / report.artifact.path / "templates/templates.json").read_bytes()).templates


def files(manifest: Manifest) -> dict[str, str]:
    return {file.path: file.sha256 for file in manifest.files}


def test_the_new_bundle_has_the_same_weights_and_the_templates(once: Attempted, artifact: ArtifactReference) -> None:
    storage, report = once.storage, once.report
    templates = made(storage, report)
    assert report.artifact and report.artifact != artifact
    assert report.message == "4 of 4 templates of 2 types; see samples/templates.html of the phase's folder"
    old, new = (
        verify_bundle(storage / artifact.path, artifact.digest),
        verify_bundle(storage / report.artifact.path, report.artifact.digest),
    )
    assert {path: sha for path, sha in files(new).items() if not path.startswith("templates/")} == files(old)
    assert new.init_from == artifact.digest
    assert [template.file for template in templates] == [
        f"templates/{name}.mp4" for name in ("flood-1", "flood-2", "forest-fire-1", "forest-fire-2")
    ]
    assert [(one.category, one.variation, one.urgency, one.caption) for one in templates[::2]] == [
        ("flood", 1, "immediate", FLOOD["caption"]),
        ("forest-fire", 1, "expected", FIRE["caption"]),
    ]
    assert len({template.sha256 for template in templates}) == len({template.seed for template in templates}) == 4
    for template in templates:
        video = (storage / report.artifact.path / template.file).read_bytes()
        assert hashlib.sha256(video).hexdigest() == template.sha256
        assert decode_mp4(video).shape == (4, 240, 240, 3)
        assert template.similarity is not None
    load_model(storage / report.artifact.path, report.artifact.digest)


def test_templates_of_an_optimized_bundle_lead_back_to_it(
    storage: Path, artifact: ArtifactReference, emergency_job: Callable[..., Job]
) -> None:
    """Each bundle names the one that it was made of, so that its whole line can be followed."""
    folder = storage / artifact.path
    manifest = verify_bundle(folder, artifact.digest)
    optimized = manifest.model_copy(update={"optimized_from": artifact.digest})
    path, digest = seal_bundle(storage, optimized, lambda staged: copy_files(folder, staged, manifest))
    job = emergency_job("BuildTemplates", templates=WANTED).model_copy(update={"artifact": ArtifactReference(path=path, digest=digest)})
    new = seal(job, storage, [])
    found = verify_bundle(storage / new.path, new.digest)
    assert (found.init_from, found.optimized_from) == (digest, None)


def copy_files(folder: Path, staged: Path, manifest: Manifest) -> None:
    for file in manifest.files:
        (staged / file.path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / file.path, staged / file.path)


def test_a_template_is_what_the_model_draws_from_its_record_with_its_caption(once: Attempted) -> None:
    storage, report = once.storage, once.report
    template = made(storage, report)[1]
    assert report.artifact
    model = load_model(storage / report.artifact.path)
    frames = model.generate([template.prompt], [template.seed], template.steps)[0]
    assert (
        encode_mp4(captioned(frames, template.caption), template.frame_rate)
        == (storage / report.artifact.path / template.file).read_bytes()
    )


def test_an_interrupted_attempt_goes_on_behind_the_last_finished_template(once: Attempted, storage: Path, attempt: Attempt) -> None:
    shelf = storage / WORK / "templates"
    stopped = attempt(stop=(shelf / "flood-2.json").exists)
    assert stopped.reason is Reason.PREEMPTED
    assert sorted(path.name for path in shelf.iterdir()) == ["flood-1.json", "flood-1.mp4", "flood-2.json", "flood-2.mp4"]
    kept = {path: path.stat().st_mtime_ns for path in shelf.iterdir()}
    assert attempt() == once.report
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_what_is_finished_is_trusted_only_if_it_is_whole_and_of_the_same_job(
    once: Attempted, after: Path, attempt_in: Callable[..., Report]
) -> None:
    attempt, shelf = partial(attempt_in, after), after / WORK / "templates"
    (shelf / "flood-1.mp4").write_bytes(b"x")
    (shelf / "flood-2.json").write_bytes(b"{")
    (shelf / "forest-fire-1.mp4").unlink()
    assert attempt() == once.report
    before = {path: path.stat().st_mtime_ns for path in shelf.iterdir()}
    other = attempt({"types": [FLOOD | {"caption": "Flood: climb"}, FIRE]})
    assert {path.stem for path, time in before.items() if path.stat().st_mtime_ns != time} == {"flood-1", "flood-2"}
    assert [template.caption for template in made(after, other)][:2] == ["Flood: climb"] * 2
    assert {template.steps for template in made(after, attempt({"samplingSteps": 3}))} == {3}


@pytest.fixture(scope="module")
def free(
    prepared: tuple[Path, ArtifactReference], attempt_in: Callable[..., Report], tmp_path_factory: pytest.TempPathFactory
) -> list[Template]:
    """What one try of each variation is, with no bound."""
    storage = Path(shutil.copytree(prepared[0], tmp_path_factory.mktemp("free") / "storage"))
    return made(storage, attempt_in(storage, ONE_TRY))


def test_a_video_that_is_not_good_enough_is_drawn_again_and_then_left_out(storage: Path, attempt: Attempt, free: list[Template]) -> None:
    """The bound lies between what one try of each variation has reached."""
    one_try = ONE_TRY | {"minimumVariations": 1}
    found = sorted(float(template.similarity or 0) for template in free)
    bound = f"{(found[2] + found[3]) / 2:.6f}"
    strict = one_try | {"quality": ANY | {"relevance": {"minimumSimilarity": bound}}}
    report = attempt(strict)
    kept = made(storage, report)
    assert [template.variation for template in kept] == [one.variation for one in free if float(one.similarity or 0) >= float(bound)]
    assert len(kept) == 3
    lacking = ", ".join(str(one.variation) for one in free if one not in kept)
    assert report.message.startswith(f"3 of 6 templates of 1 types; lacking are flood {lacking}; flood-{lacking[0]}: similarity is ")
    refused = attempt(strict | {"minimumVariations": 4})
    assert (refused.reason, refused.artifact) == (Reason.TEMPLATES_REJECTED, None)
    assert refused.message.startswith(
        f"flood: fewer than 4 videos of a type are good enough; lacking are flood {lacking}; flood: similarity"
    )
    again = made(storage, attempt(strict | {"attemptsPerTemplate": 8}))
    assert len(again) > 3
    assert all(float(template.similarity or 0) >= float(bound) for template in again)
    assert {one.seed for one in again} > {one.seed for one in kept}


def test_all_variations_must_be_there_unless_fewer_are_allowed(storage: Path, attempt: Attempt, free: list[Template]) -> None:
    """Fifty checked videos; ten of them were a success."""
    found = sorted(float(template.similarity or 0) for template in free)
    strict = ONE_TRY | {"quality": ANY | {"relevance": {"minimumSimilarity": f"{(found[0] + found[1]) / 2:.6f}"}}}
    refused = attempt(strict)
    assert (refused.reason, refused.artifact) == (Reason.TEMPLATES_REJECTED, None)
    assert refused.message.startswith("flood: fewer than 6 videos of a type are good enough; lacking are flood ")
    assert "raise attemptsPerTemplate, or allow fewer by minimumVariations" in refused.message
    assert len(made(storage, attempt(strict | {"minimumVariations": 5}))) == 5


def test_a_bundle_says_of_every_template_that_it_lacks_which_one_it_is() -> None:
    kinds = [EmergencyType(category=kind.category, prompt="p", caption="c") for kind in TYPES]
    wanted = [Wanted(kind=kind, variation=number) for kind in kinds for number in range(1, 6)]
    there = Template.model_construct(category="flood")
    made = {one.name: Made(why="still") if one.variation > 1 else Made(template=there, video=b"") for one in wanted}
    said = in_words(wanted, made)
    assert all(f"{kind.category} 2, 3, 4, 5" in said for kind in TYPES)
    assert len(said) <= 1024


def test_a_type_without_any_template_ends_the_phase_with_its_reason(storage: Path, attempt: Attempt) -> None:
    quality = ANY | {"relevance": {"minimumSimilarity": "1"}}
    report = attempt({"quality": quality, "attemptsPerTemplate": 2})
    assert report.reason is Reason.TEMPLATES_REJECTED
    assert reports.exit_code(report) is ExitCode.DATA_REJECTED
    lacking = "lacking are flood 1, 2; forest-fire 1, 2; flood: similarity is "
    assert report.message.startswith(f"flood, forest-fire: fewer than 2 videos of a type are good enough; {lacking}")
    assert "quality.relevance.minimumSimilarity is 1 (the last of 2 tries)" in report.message
    assert report.artifact is None
    page = (storage / WORK / "samples/templates.html").read_text()
    assert page.count('<li class="bad">') == 4
    assert "0 of 4 templates are good enough" in page


def test_templates_are_shown_to_people(storage: Path, attempt: Attempt) -> None:
    attempt({"types": [FLOOD | {"caption": "<b>Flood</b>"}, FIRE]})
    folder = storage / WORK / "samples"
    page = (folder / "templates.html").read_text()
    assert page.count("<img") == page.count('<li class="good">') == 4
    assert "<b>" not in page
    assert "&lt;b&gt;Flood" in page
    assert '<a href="../templates/flood-1.mp4">' in page
    with Image.open(folder / "contact-sheet.png") as sheet:
        assert sheet.height > 4 * 240
        assert np.asarray(sheet.convert("L")).std() > 10


def test_templates_of_a_bundle_that_has_some_are_replaced(once: Attempted, after: Path, attempt_in: Callable[..., Report]) -> None:
    assert once.report.artifact
    again = {"artifact": once.report.artifact.wire(), "workPath": "runs/demo-01234567/again"}
    second = attempt_in(after, {"types": [FIRE], "variations": 1}, **again)
    assert [template.file for template in made(after, second)] == ["templates/forest-fire-1.mp4"]
    assert second.artifact
    assert not (after / second.artifact.path / "templates/flood-1.mp4").exists()


REFUSED: dict[str, tuple[dict[str, Any], Reason, str]] = {
    "a letter that the font lacks": (
        {"types": [FLOOD | {"caption": "बाढ़"}]},
        Reason.FONT_MISSING,
        "the font lacks 'ब' (U+092C) of the caption of flood",
    ),
    "a word that is longer than the picture": (
        {"types": [FLOOD | {"caption": "W" * 90}]},
        Reason.INVALID_JOB,
        "templates.types[flood]: the caption 'WWW",
    ),
    "a font that is not there": (
        {"captionFont": {"path": "fonts/x.ttf", "digest": "sha256:" + "0" * 64}},
        Reason.FONT_MISSING,
        "templates.captionFont: there is no file",
    ),
    "a prompt whose likeness cannot be told": (
        {"types": [FLOOD | {"prompt": "people wade home"}], "quality": {"relevance": {"minimumSimilarity": "0.2"}}},
        Reason.INVALID_JOB,
        "quality.relevance: text-video-encoder knows no word of the prompt 'people wade home'",
    ),
}


@pytest.mark.parametrize("templates, reason, said", REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_made_is_told_before_any_work(
    storage: Path, attempt: Attempt, templates: dict[str, Any], reason: Reason, said: str
) -> None:
    report = attempt(templates)
    assert (report.reason, said in report.message) == (reason, True), report.message
    assert not (storage / WORK).exists()


def test_a_changed_bundle_and_a_missing_dataset_are_told(storage: Path, artifact: ArtifactReference, attempt: Attempt) -> None:
    missing = attempt(data=[{"reference": {"dataset": "emergencies", "version": "v9"}}])
    assert missing.reason is Reason.DATASET_NOT_FOUND
    config = storage / artifact.path / "model.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"frames": 5}))
    assert attempt().reason is Reason.ARTIFACT_INVALID


def test_ten_types_are_brought_along(storage: Path, attempt: Attempt) -> None:
    report = attempt({"types": [], "variations": 1, "samplingSteps": 1})
    templates = made(storage, report)
    assert len({template.category for template in templates}) == 10
    assert templates[0].category == "flood"
    assert templates[0].similarity is None, "the default encoder knows none of its words"


def test_a_process_that_is_asked_to_stop_says_where_the_next_attempt_goes_on(
    storage: Path, start_trainer: Callable[..., Any], emergency_job: Callable[..., Job]
) -> None:
    job = emergency_job("BuildTemplates", templates=WANTED | {"variations": 20, "samplingSteps": 20})
    trainer = start_trainer(job)
    shelf = storage / WORK / "templates"
    while not (shelf / "flood-1.json").exists():
        assert trainer.process.poll() is None, trainer.log.read_text()
        time.sleep(0.02)
    trainer.process.send_signal(signal.SIGTERM)
    code, report = trainer.wait()
    assert (code, report.reason) == (ExitCode.PREEMPTED, Reason.PREEMPTED)
    assert report.message == "asked to stop; the next attempt goes on behind the last finished template"
    assert 1 <= len(list(shelf.glob("*.json"))) < 40
