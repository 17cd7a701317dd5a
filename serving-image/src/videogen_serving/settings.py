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

    From RELEASE, BUNDLE_PATH, BUNDLE_DIGEST, and optionally SAMPLING_STEPS, TIMEOUT_SECONDS, HTTP_PORT, GRPC_PORT and
    METRICS_PORT.
    """

    release: str
    bundle_path: Path
    bundle_digest: str
    sampling_steps: int = 50
    timeout_seconds: int = 60
    http_port: int = 8000
    grpc_port: int = 8001
    metrics_port: int = 8002

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Read the settings; raises ValueError with the variable's name, what was found and what is accepted."""
        return cls(
            release=_text(environment, "RELEASE"),
            bundle_path=Path(_text(environment, "BUNDLE_PATH")),
            bundle_digest=_digest(environment, "BUNDLE_DIGEST"),
            sampling_steps=_whole_number(environment, "SAMPLING_STEPS", default=50, maximum=STEPS_LIMIT),
            timeout_seconds=_whole_number(environment, "TIMEOUT_SECONDS", default=60, maximum=TIMEOUT_LIMIT_SECONDS),
            http_port=_whole_number(environment, "HTTP_PORT", default=8000, maximum=65535),
            grpc_port=_whole_number(environment, "GRPC_PORT", default=8001, maximum=65535),
            metrics_port=_whole_number(environment, "METRICS_PORT", default=8002, maximum=65535),
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


def _whole_number(environment: Mapping[str, str], name: str, *, default: int, maximum: int) -> int:
    value = environment.get(name, str(default))
    if not (value.isascii() and value.isdigit() and 1 <= int(value) <= maximum):
        raise ValueError(f"{name} is {value!r}; accepted is a whole number from 1 to {maximum}")
    return int(value)
