"""What the operator tells the server through its environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from videogen_api.meta import Digest

STEPS_LIMIT = 1000  # the diffusion's own number of steps; also ModelRelease.spec.serving.samplingSteps' maximum
TIMEOUT_LIMIT_SECONDS = 3600
_DIGEST: TypeAdapter[str] = TypeAdapter(Digest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One release's settings.

    From RELEASE, BUNDLE_PATH, BUNDLE_DIGEST, and optionally SAMPLING_STEPS, MAXIMUM_STEPS, TIMEOUT_SECONDS, HTTP_PORT,
    METRICS_PORT and DEVELOPMENT.
    """

    release: str
    bundle_path: Path
    bundle_digest: str
    sampling_steps: int = 50  # of a request that names none
    maximum_steps: int | None = None  # that a request may ask for; None: sampling_steps
    timeout_seconds: int = 60
    http_port: int = 8000
    metrics_port: int = 8002
    development: bool = False  # a Triton with known holes may be started

    @property
    def most_steps(self) -> int:
        """Denoising steps that a request may ask for."""
        return self.maximum_steps or self.sampling_steps

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Read the settings; raises ValueError with the variable's name, what was found and what is accepted."""
        steps = _whole_number(environment, "SAMPLING_STEPS", default=50, maximum=STEPS_LIMIT)
        return cls(
            release=_text(environment, "RELEASE"),
            bundle_path=Path(_text(environment, "BUNDLE_PATH")),
            bundle_digest=_digest(environment, "BUNDLE_DIGEST"),
            sampling_steps=steps,
            maximum_steps=_whole_number(environment, "MAXIMUM_STEPS", default=steps, minimum=steps, maximum=STEPS_LIMIT),
            timeout_seconds=_whole_number(environment, "TIMEOUT_SECONDS", default=60, maximum=TIMEOUT_LIMIT_SECONDS),
            http_port=_whole_number(environment, "HTTP_PORT", default=8000, maximum=65535),
            metrics_port=_whole_number(environment, "METRICS_PORT", default=8002, maximum=65535),
            development=_flag(environment, "DEVELOPMENT"),
        )


def _text(environment: Mapping[str, str], name: str) -> str:
    value = environment.get(name, "")
    if not value:
        raise ValueError(f"{name} is not set in the environment; the operator sets it for every release")
    return value


def _digest(environment: Mapping[str, str], name: str) -> str:
    value = _text(environment, name)
    try:
        return _DIGEST.validate_python(value)
    except ValidationError:
        raise ValueError(f"{name} is {value!r}; accepted is sha256: and 64 lower-case hex digits") from None


def _flag(environment: Mapping[str, str], name: str) -> bool:
    value = environment.get(name, "")
    if value not in {"", "true"}:
        raise ValueError(f"{name} is {value!r}; accepted is true, or nothing")
    return value == "true"


def _whole_number(environment: Mapping[str, str], name: str, *, default: int, maximum: int, minimum: int = 1) -> int:
    value = environment.get(name, str(default))
    if not (value.isascii() and value.isdigit() and minimum <= int(value) <= maximum):
        raise ValueError(f"{name} is {value!r}; accepted is a whole number from {minimum} to {maximum}")
    return int(value)
