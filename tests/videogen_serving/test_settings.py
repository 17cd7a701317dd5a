"""The environment of a release."""

from __future__ import annotations

from pathlib import Path

import pytest

from videogen_serving.settings import Settings

DIGEST = "sha256:" + "a" * 64
ENVIRONMENT = {"RELEASE": "pib-videogen-videofusion-v1.0.0-base", "BUNDLE_PATH": "/storage/b", "BUNDLE_DIGEST": DIGEST}

REFUSED = {
    "no release": ({"RELEASE": ""}, "RELEASE is not set in the environment; the operator sets it for every release"),
    "no bundle": ({"BUNDLE_PATH": ""}, "BUNDLE_PATH is not set"),
    "a digest without its algorithm": ({"BUNDLE_DIGEST": "a" * 64}, "BUNDLE_DIGEST is 'aaa.*; accepted is sha256: and 64 lower-case hex"),
    "a digest that is cut off": ({"BUNDLE_DIGEST": DIGEST[:-1]}, "BUNDLE_DIGEST is"),
    "no steps": ({"SAMPLING_STEPS": "0"}, "SAMPLING_STEPS is '0'; accepted is a whole number from 1 to 1000"),
    "too many steps": ({"SAMPLING_STEPS": "1001"}, "SAMPLING_STEPS is '1001'"),
    "fewer steps at most than without a wish": (
        {"SAMPLING_STEPS": "10", "MAXIMUM_STEPS": "9"},
        "MAXIMUM_STEPS is '9'; accepted is a whole number from 10 to 1000",
    ),
    "more steps at most than the diffusion has": ({"MAXIMUM_STEPS": "1001"}, "MAXIMUM_STEPS is '1001'"),
    "a time-out in words": ({"TIMEOUT_SECONDS": "60s"}, "TIMEOUT_SECONDS is '60s'; accepted is a whole number from 1 to 3600"),
    "a flag that is neither set nor not": ({"DEVELOPMENT": "false"}, "DEVELOPMENT is 'false'; accepted is true, or nothing"),
    "a port of no meaning": ({"HTTP_PORT": "70000"}, "HTTP_PORT is '70000'; accepted is a whole number from 1 to 65535"),
}


def test_defaults_are_the_apis() -> None:
    settings = Settings.from_environment(ENVIRONMENT)
    expected = Settings(release=ENVIRONMENT["RELEASE"], bundle_path=Path("/storage/b"), bundle_digest=DIGEST, maximum_steps=50)
    assert settings == expected
    assert (settings.sampling_steps, settings.timeout_seconds, settings.http_port) == (50, 60, 8000)
    assert not settings.development


def test_every_variable_is_read() -> None:
    steps = {"SAMPLING_STEPS": "10", "MAXIMUM_STEPS": "20"}
    more = {"TIMEOUT_SECONDS": "5", "HTTP_PORT": "1", "METRICS_PORT": "3", "DEVELOPMENT": "true"}
    settings = Settings.from_environment(ENVIRONMENT | steps | more)
    assert (settings.sampling_steps, settings.most_steps, settings.timeout_seconds) == (10, 20, 5)
    assert (settings.http_port, settings.metrics_port) == (1, 3)
    assert settings.development


def test_without_a_maximum_a_request_may_ask_for_the_releases_own_steps() -> None:
    assert Settings.from_environment(ENVIRONMENT | {"SAMPLING_STEPS": "10"}).most_steps == 10


@pytest.mark.parametrize("change, message", REFUSED.values(), ids=REFUSED.keys())
def test_refused(change: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Settings.from_environment(ENVIRONMENT | change)
