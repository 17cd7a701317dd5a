"""What may be asked, what is answered, and the ways in which a request fails. Knows neither Triton nor torch."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from videogen_api.meta import Digest, ModelIdentity, Observation
from videogen_api.recipe import Resolution
from videogen_serving.settings import STEPS_LIMIT

PROMPT_LIMIT = 500
JOINERS = "\u200c\u200d"  # invisible, but part of the spelling in Indic scripts
SEED_LIMIT = 2**31 - 1  # as in a recipe; every JSON reader represents it exactly


class Outcome(StrEnum):
    """How a request ended; the label `outcome` of the metrics."""

    OK = "ok"
    INVALID = "invalid"  # the client's mistake
    TIMEOUT = "timeout"  # longer than TIMEOUT_SECONDS
    CANCELLED = "cancelled"  # the client went away
    ERROR = "error"  # ours


class RequestError(Exception):
    """A request that gets no video; the message is the client's answer."""

    outcome = Outcome.ERROR


class InvalidRequestError(RequestError, ValueError):
    """The request cannot be answered as it is: what is wrong, where, what was found, what is accepted."""

    outcome = Outcome.INVALID


class GenerationTimeoutError(RequestError):
    """The generation took longer than the release allows."""

    outcome = Outcome.TIMEOUT


class GenerationCancelledError(RequestError):
    """Nobody waits for the answer any more."""

    outcome = Outcome.CANCELLED


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One video. Without a seed the server draws one and tells it; without steps it takes the release's."""

    prompt: str
    seed: int | None = None
    steps: int | None = None


class Metadata(Observation):
    """Everything that is needed to generate the same video again, and how long it took."""

    release: str
    model: ModelIdentity
    bundle_digest: Digest
    prompt: str
    seed: int
    steps: int
    frames: int
    frame_rate: int
    resolution: Resolution
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """An mp4 file and what is known about it."""

    video: bytes
    metadata: Metadata


def check_request(request: Request) -> None:
    """Raise InvalidRequestError if the prompt, the seed or the number of steps is out of bounds."""
    _check_prompt(request.prompt)
    _check_bounds("SEED", request.seed, 0, SEED_LIMIT)
    _check_bounds("STEPS", request.steps, 1, STEPS_LIMIT)


def _check_prompt(prompt: str) -> None:
    if not prompt.strip():
        raise InvalidRequestError(f"PROMPT is empty; write 1 to {PROMPT_LIMIT} characters that describe the video")
    if len(prompt) > PROMPT_LIMIT:
        raise InvalidRequestError(f"PROMPT has {len(prompt)} characters; accepted are 1 to {PROMPT_LIMIT}: shorten it")
    for position, character in enumerate(prompt):
        if not (character.isprintable() or character in JOINERS):
            raise InvalidRequestError(f"PROMPT has the unprintable character U+{ord(character):04X} at position {position}; remove it")


def _check_bounds(name: str, value: int | None, minimum: int, maximum: int) -> None:
    if value is not None and not minimum <= value <= maximum:
        raise InvalidRequestError(f"{name} is {value}; accepted is a whole number from {minimum} to {maximum}")
