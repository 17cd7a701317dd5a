"""The page about a release, of a real bundle that is really evaluated: every fact is in it, and nothing in it can act or load anything."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from PIL import Image

from videogen_api.bundle import Manifest
from videogen_api.evaluation import Gate, Metric, MetricResult, Operator
from videogen_api.gates import evaluation_digest
from videogen_api.job import ArtifactReference, Job, PinnedData, Report, report_page
from videogen_api.lineage import Lineage, LineageDataset, LineageWeights
from videogen_api.meta import ModelFamily, ModelIdentity
from videogen_api.recipe import Architecture, Recipe, Resolution
from videogen_api.training_run import DataReference, Evaluation, Reason, Split, Task
from videogen_models.bundle import write_bundle
from videogen_models.networks import model_config
from videogen_models.videofusion import VideoFusionModel
from videogen_trainer.dataset import Clip, write_dataset
from videogen_trainer.distributed import World
from videogen_trainer.evaluate import run
from videogen_trainer.evaluate.release_report import with_page
from videogen_trainer.failure import Failure
from videogen_trainer.progress import ProgressReporter
from videogen_trainer.synthetic import synthetic_clip

HOSTILE = "<script>fetch('https://attacker.example')</script><img src=x onerror=alert(1)> \"&' \x1b[2J\u202e बाढ़"
RECIPE = Recipe(architecture=Architecture.TINY, frames=4, resolution=Resolution(height=16, width=16), global_batch_size=1, steps=1, seed=7)
MODEL = ModelIdentity(family=ModelFamily.VIDEOFUSION, version="1.2.3", specialization="english")
TRAINED_ON, STARTED_FROM, RECIPE_DIGEST = ("sha256:" + letter * 64 for letter in "abc")
IMAGE = "registry.example/videogen/trainer@sha256:" + "d" * 64
LINEAGE = Lineage(
    run="newsroom",
    recipe_digest=RECIPE_DIGEST,
    datasets=[LineageDataset(dataset="pairs", version="2026.11", digest=TRAINED_ON)],
    init_from=LineageWeights(release="pib-videogen-videofusion-v1.2.2-english", digest=STARTED_FROM),
    images=[IMAGE],
)
GATES = [
    Gate(metric=Metric.FVD, operator=Operator.LESS_THAN, threshold="0.001", minimum_samples=2),
    Gate(metric=Metric.ARTEFACT_RATE, operator=Operator.LESS_THAN, threshold="1.5", minimum_samples=2),
    Gate(metric=Metric.CLIP_SCORE, operator=Operator.GREATER_THAN, threshold="0", minimum_samples=500),
]


@dataclass
class Page(HTMLParser):
    """What a browser would make of the file."""

    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    in_a_cell: bool = False

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in {"td", "th"}:
            self.rows[-1].append("")
            self.in_a_cell = True

    def handle_endtag(self, tag: str) -> None:
        self.in_a_cell = self.in_a_cell and tag not in {"td", "th"}

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if self.in_a_cell:
            self.rows[-1][-1] += data


def evaluated(storage: Path) -> tuple[Job, Report, Page, str]:
    made = [synthetic_clip(number, seed=3, frames=4, height=16, width=16) for number in range(4)]
    clips = [Clip(frames=clip.frames, caption=f"{HOSTILE} {number}", split=Split.HELD_OUT) for number, clip in enumerate(made)]
    write_dataset(storage, "shapes", "v1", clips, frames=4, resolution=RECIPE.resolution)
    torch.manual_seed(0)
    config = model_config(RECIPE)
    path, digest = write_bundle(
        storage, Manifest(model=MODEL, recipe=RECIPE, step=1, files=[]), config, VideoFusionModel(config).state_dict()
    )
    job = Job(
        contract="v1",
        run="newsroom",
        run_uid="12345678-0000",
        namespace="videos",
        phase="validation",
        attempt=1,
        task=Task.EVALUATE,
        model=MODEL,
        recipe=RECIPE,
        work_path="runs/newsroom-12345678/validation",
        data=[PinnedData(reference=DataReference(dataset="shapes", version="v1", split=Split.HELD_OUT))],
        evaluate=Evaluation(samples=6, sampling_steps=2),
        artifact=ArtifactReference(path=path, digest=digest),
        gates=GATES,
        lineage=LINEAGE,
    )
    silent = ProgressReporter(None, 0.0, lambda: 0.0, lambda: datetime(2026, 1, 1, tzinfo=UTC))
    report = run(job, storage, World(), silent, lambda: False)
    file = storage / report_page(path, job.run, job.run_uid, job.phase)
    assert file.parent == (storage / path).parent, "beside the bundle"
    text = file.read_text(encoding="utf-8")
    page = Page()
    page.feed(text)
    return job, report, page, text


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Job, Report, Page, str]:
    return evaluated(tmp_path_factory.mktemp("storage"))


def row(page: Page, first: str, length: int) -> list[str]:
    """The row of that many cells whose first one says that."""
    (one,) = [cells for cells in page.rows if cells[0] == first and len(cells) == length]
    return one


def test_every_fact_of_the_lineage_is_in_it(found: tuple[Job, Report, Page, str]) -> None:
    job, report, page, _ = found
    assert report.page is True
    assert job.artifact is not None
    assert "pib-videogen-videofusion-v1.2.3-english" in page.texts
    assert row(page, "run", 2)[1] == "videos/newsroom, UID 12345678-0000, phase validation, attempt 1"
    assert row(page, "bundle", 2)[1] == f"{job.artifact.path}, {job.artifact.digest}"
    assert row(page, "recipe", 2)[1] == RECIPE_DIGEST
    assert row(page, "started from", 2)[1] == f"ModelRelease pib-videogen-videofusion-v1.2.2-english, {STARTED_FROM}"
    assert row(page, "image", 2)[1] == IMAGE
    assert row(page, "evaluation", 2)[1] == evaluation_digest(report.results)
    (compared,) = report.datasets
    assert row(page, "shapes", 4) == ["shapes", "v1", "4 to compare with", compared.digest]
    assert row(page, "pairs", 4) == ["pairs", "2026.11", "by an earlier phase", TRAINED_ON]


def test_every_gate_has_its_verdict_with_bound_value_interval_and_samples(found: tuple[Job, Report, Page, str]) -> None:
    _, report, page, _ = found
    results = {result.metric: result for result in reversed(report.results)}
    fvd = results[Metric.FVD]
    bound, value, interval, samples, verdict, why = next(cells[1:] for cells in page.rows if cells[0] == "FVD" and cells[1].startswith("<"))
    assert (bound, value, interval) == ("< 0.001, of at least 2 samples", fvd.value, f"{fvd.low} to {fvd.high}")
    assert (samples, verdict) == (str(fvd.samples), "Failed")
    assert why == f"FVD is {fvd.value} and must be < 0.001"
    verdicts = {cells[0]: cells[5] for cells in page.rows if len(cells) == 7 and cells[5] in {"Passed", "Failed", "Inconclusive"}}
    assert verdicts == {"FVD": "Failed", "ArtefactRate": "Passed", "CLIPScore": "Inconclusive"}
    assert any(text.startswith("1 of 3 gates passed: Failed.") for text in page.texts)


def test_all_that_was_measured_is_in_it(found: tuple[Job, Report, Page, str]) -> None:
    _, report, page, _ = found
    told = {tuple(cells) for cells in page.rows if len(cells) == 7}
    for result in report.results:
        name = f"{result.metric} ({result.normalization})" if result.normalization else str(result.metric)
        start = (name, result.value, f"{result.low} to {result.high}", str(result.samples), result.extractor, result.extractor_digest)
        assert any(cells[:6] == start for cells in told), name


def test_clips_are_shown_as_three_frames_with_their_captions(found: tuple[Job, Report, Page, str]) -> None:
    _, _, page, _ = found
    pictures = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    assert len(pictures) == 6
    for source in pictures:
        assert source is not None and source.startswith("data:image/jpeg;base64,")
        with Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))) as picture:
            assert picture.size == (48, 16)
    shown = "".join(page.texts)
    assert shown.count("<script>fetch('https://attacker.example')</script><img src=x onerror=alert(1)> \"&'") == 6
    assert "बाढ़" in shown


def test_nothing_in_it_acts_or_loads_anything_whatever_captions_say(found: tuple[Job, Report, Page, str]) -> None:
    _, _, page, text = found
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "iframe", "link", "object", "form", "base", "svg", "a"}
    policies = [one for tag, one in page.tags if tag == "meta" and one.get("http-equiv") == "Content-Security-Policy"]
    assert [one["content"] for one in policies] == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")]
        assert all(str(attributes[name]).startswith("data:") for name in ("src", "href") if name in attributes)
    assert "\x1b" not in text and "\u202e" not in text, "nor in a terminal"


def test_a_gate_that_nothing_was_measured_for_says_so_and_what_is_no_video_is_left_out(tmp_path: Path) -> None:
    job, report, _, _ = evaluated(tmp_path)
    samples = tmp_path / job.work_path / "samples"
    (samples / "sample-00.mp4").write_bytes(b"no video")
    (samples / "sample-01.txt").unlink()
    gates = [Gate(metric=Metric.LANGUAGE_SCORE, operator=Operator.GREATER_THAN, threshold="0.2")]
    again = with_page(job.model_copy(update={"gates": gates, "lineage": None}), tmp_path, report, samples)
    assert report.artifact is not None and again.page is True
    page = Page()
    page.feed((tmp_path / report_page(report.artifact.path, job.run, job.run_uid, job.phase)).read_text(encoding="utf-8"))
    assert row(page, "LanguageScore", 7)[2:6] == ["not measured", "", "", "Inconclusive"]
    assert row(page, "started from", 2)[1] == "no weights"
    assert sum(tag == "img" for tag, _ in page.tags) == 5
    assert "no picture" in page.texts


def test_a_page_that_cannot_be_written_ends_the_phase_and_is_named(tmp_path: Path) -> None:
    job, report, _, _ = evaluated(tmp_path)
    assert report.artifact is not None
    page = tmp_path / report_page(report.artifact.path, job.run, job.run_uid, job.phase)
    page.unlink()
    page.mkdir()
    with pytest.raises(Failure, match=page.name) as caught:
        with_page(job, tmp_path, report, tmp_path / "nothing")
    assert caught.value.reason is Reason.STORAGE_FAILED


def test_the_digest_of_an_evaluation_is_of_what_was_measured_alone() -> None:
    one = MetricResult(metric=Metric.FVD, value="120.5", low="100", high="130", samples=128)
    assert evaluation_digest([one]) == evaluation_digest([one.model_copy(update={"message": "said", "verdict": "Passed"})])
    for change in ({"value": "120.6"}, {"samples": 129}, {"low": "99"}, {"extractor": "i3d"}):
        assert evaluation_digest([one]) != evaluation_digest([one.model_copy(update=change)])
