"""A real, tiny, untrained model: what comes out, and what ends a generation."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable

import numpy as np
import pytest

from videogen_models.video import decode_mp4
from videogen_serving.pipeline import Pipeline
from videogen_serving.request import GenerationCancelledError, GenerationTimeoutError, InvalidRequestError, Request


def test_the_video_has_the_recipes_frames_and_size(pipeline: Pipeline) -> None:
    frames = decode_mp4(pipeline.generate(Request(prompt="a red square", seed=1)).video)
    assert frames.shape == (4, 16, 24, 3)
    assert frames.std() > 0


def test_the_metadata_tells_how_to_get_the_video_again(pipeline: Pipeline) -> None:
    first = pipeline.generate(Request(prompt="a red square"))
    again = pipeline.generate(Request(prompt=first.metadata.prompt, seed=first.metadata.seed, steps=first.metadata.steps))
    assert first.metadata.seed >= 100
    assert again.video == first.video


def test_the_metadata_is_the_releases_and_the_models(pipeline: Pipeline) -> None:
    wire = pipeline.generate(Request(prompt="x", seed=5, steps=2)).metadata.wire()
    assert wire.pop("seconds") > 0
    assert wire == {
        "release": "pib-videogen-videofusion-v1.0.0-tiny",
        "model": {"family": "VideoFusion", "type": "videofusion", "version": "1.0.0", "specialization": "tiny"},
        "bundleDigest": pipeline.settings.bundle_digest,
        "prompt": "x",
        "seed": 5,
        "steps": 2,
        "frames": 4,
        "frameRate": 6,
        "resolution": {"height": 16, "width": 24},
    }


DIFFERENT = {
    "seed": Request(prompt="a red square", seed=2, steps=3),
    "prompt": Request(prompt="a blue circle", seed=1, steps=3),
    "steps": Request(prompt="a red square", seed=1, steps=4),
}


@pytest.mark.parametrize("request_", DIFFERENT.values(), ids=DIFFERENT.keys())
def test_another_request_gives_another_video(pipeline: Pipeline, request_: Request) -> None:
    reference = decode_mp4(pipeline.generate(Request(prompt="a red square", seed=1, steps=3)).video)
    assert not np.array_equal(reference, decode_mp4(pipeline.generate(request_).video))


def test_without_steps_it_takes_the_releases(pipeline: Pipeline) -> None:
    assert pipeline.generate(Request(prompt="x", seed=1)).metadata.steps == 3


def test_more_steps_than_the_release_allows_are_the_clients_mistake_and_cost_nothing(pipeline: Pipeline) -> None:
    """Without maximumSteps they are the release's own; every one that was begun would look at the clock."""
    looks = itertools.count()
    settings = dataclasses.replace(pipeline.settings, maximum_steps=None)
    strict = dataclasses.replace(pipeline, settings=settings, clock=lambda: float(next(looks)))
    with pytest.raises(InvalidRequestError, match="STEPS is 4; accepted is a whole number from 1 to 3"):
        strict.generate(Request(prompt="x", steps=4))
    assert next(looks) == 0
    assert strict.generate(Request(prompt="x", steps=3)).metadata.steps == 3


def test_an_invalid_request_draws_no_seed(pipeline: Pipeline) -> None:
    seeds = itertools.count(7)
    watched = dataclasses.replace(pipeline, new_seed=seeds.__next__)
    with pytest.raises(InvalidRequestError, match="PROMPT is empty"):
        watched.generate(Request(prompt=""))
    assert watched.generate(Request(prompt="x")).metadata.seed == 7


def test_a_generation_that_takes_too_long_ends_at_the_next_step(pipeline: Pipeline) -> None:
    # The clock is looked at when a generation starts and before every step; here each look is 25 s after the last.
    slow = dataclasses.replace(pipeline, clock=seconds(25))
    with pytest.raises(GenerationTimeoutError, match=r"took 75\.0 s for 2 of 9 denoising steps, the release allows 60 s; ask for fewer"):
        slow.generate(Request(prompt="x", seed=1, steps=9))


def test_a_generation_just_within_the_time_out_is_answered(pipeline: Pipeline) -> None:
    assert dataclasses.replace(pipeline, clock=seconds(20)).generate(Request(prompt="x", seed=1, steps=3)).metadata.seconds == 80


def seconds(a_look: int) -> Callable[[], float]:
    looks = itertools.count()
    return lambda: float(next(looks) * a_look)


def test_a_generation_that_nobody_waits_for_ends_at_the_next_step(pipeline: Pipeline) -> None:
    answers = iter([False, False, True])
    with pytest.raises(GenerationCancelledError, match="the client left after 2 of 9 denoising steps"):
        pipeline.generate(Request(prompt="x", seed=1, steps=9), is_cancelled=lambda: next(answers))


def test_a_failed_generation_does_not_change_the_next_one(pipeline: Pipeline) -> None:
    before = pipeline.generate(Request(prompt="x", seed=1)).video
    with pytest.raises(GenerationCancelledError):
        pipeline.generate(Request(prompt="y", seed=2), is_cancelled=lambda: True)
    assert pipeline.generate(Request(prompt="x", seed=1)).video == before


def test_warming_up_draws_no_seed(pipeline: Pipeline) -> None:
    seeds = itertools.count(7)
    dataclasses.replace(pipeline, new_seed=seeds.__next__).warm_up()
    assert next(seeds) == 7
