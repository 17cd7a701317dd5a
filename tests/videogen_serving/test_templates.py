"""Stored videos of a bundle: answered at once, as they lie there."""

from __future__ import annotations

import dataclasses
import itertools
import json

import pytest

from videogen_api.emergency import TemplateIndex
from videogen_models.sealed import CorruptError
from videogen_models.video import decode_mp4
from videogen_serving.client import template_body
from videogen_serving.pipeline import Pipeline
from videogen_serving.request import InvalidRequestError, Request
from videogen_serving.templates import StoredVideos, read_templates


def file(pipeline: Pipeline, name: str) -> bytes:
    return (pipeline.settings.bundle_path / "templates" / name).read_bytes()


def test_the_stored_file_is_answered_and_the_metadata_say_so(pipeline: Pipeline) -> None:
    result = pipeline.generate(Request(template="flood", variation=2))
    assert result.video == file(pipeline, "flood-2.mp4")
    assert decode_mp4(result.video).shape == (4, 240, 360, 3)
    wire = result.metadata.wire()
    assert wire["template"] == {"category": "flood", "urgency": "immediate", "variation": 2, "caption": "Flood: move to higher ground"}
    assert (wire["prompt"], wire["steps"], wire["resolution"]) == ("a red square", 3, {"height": 240, "width": 360})
    assert wire["bundleDigest"] == pipeline.settings.bundle_digest
    assert wire["seconds"] < 0.1


def test_a_generated_video_has_no_word_of_templates(pipeline: Pipeline) -> None:
    assert "template" not in pipeline.generate(Request(prompt="x", seed=1)).metadata.wire()


def test_without_a_variation_the_server_draws_one(pipeline: Pipeline) -> None:
    drawing = [dataclasses.replace(pipeline, new_seed=itertools.repeat(seed).__next__) for seed in range(4)]
    answers = [one.generate(Request(template="flood")).video for one in drawing]
    assert answers == [file(pipeline, f"flood-{number}.mp4") for number in (1, 2, 1, 2)]


def test_stored_videos_are_answered_while_the_storage_is_gone(own_pipeline: Pipeline) -> None:
    stored = file(own_pipeline, "cyclone-1.mp4")
    for path in own_pipeline.settings.bundle_path.rglob("*.mp4"):
        path.unlink()
    assert own_pipeline.generate(Request(template="cyclone")).video == stored


REFUSED = {
    "an unknown category": (Request(template="tsunami"), "TEMPLATE is 'tsunami'; this release has cyclone, flood"),
    "an unknown variation": (Request(template="flood", variation=3), "VARIATION is 3; of flood this release has 1, 2"),
    "a prompt beside it": (Request(template="flood", prompt="x"), "PROMPT came with TEMPLATE, which is answered by a stored video"),
    "a seed and steps beside it": (Request(template="flood", seed=0, steps=1), "SEED, STEPS came with TEMPLATE"),
    "a variation of nothing": (Request(prompt="x", variation=1), "VARIATION says which video of a TEMPLATE is wanted"),
}


@pytest.mark.parametrize("request_, message", REFUSED.values(), ids=REFUSED.keys())
def test_refused(pipeline: Pipeline, request_: Request, message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        pipeline.generate(request_)


def test_a_release_without_templates_says_how_to_get_some(pipeline: Pipeline) -> None:
    with pytest.raises(InvalidRequestError, match="this release has no templates; a BuildTemplates phase of its run would make them"):
        dataclasses.replace(pipeline, templates=StoredVideos({})).generate(Request(template="flood"))


def test_a_bundle_with_an_index_that_cannot_be_read_is_refused(own_pipeline: Pipeline) -> None:
    index = own_pipeline.settings.bundle_path / "templates" / "templates.json"
    changed = json.loads(index.read_bytes())
    changed["templates"][0]["file"] = "../../etc"
    index.write_text(json.dumps(changed))
    with pytest.raises(CorruptError, match=r"templates\.json"):
        read_templates(own_pipeline.settings.bundle_path)
    index.unlink()
    assert read_templates(own_pipeline.settings.bundle_path) == StoredVideos({})


def test_the_index_is_written_as_it_is_read(pipeline: Pipeline) -> None:
    index = TemplateIndex.model_validate_json(file(pipeline, "templates.json"))
    assert [template.category for template in index.templates] == ["flood", "flood", "cyclone"]
    assert sorted(pipeline.templates.by_category) == ["cyclone", "flood"]


def test_the_client_sends_only_what_is_given() -> None:
    assert [(entry["name"], entry["data"]) for entry in json.loads(template_body("flood"))["inputs"]] == [("TEMPLATE", ["flood"])]
    entries = json.loads(template_body("flood", 3))["inputs"]
    assert [(entry["name"], entry["datatype"], entry["data"]) for entry in entries] == [
        ("TEMPLATE", "BYTES", ["flood"]),
        ("VARIATION", "INT32", [3]),
    ]
