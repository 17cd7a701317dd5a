"""What may be asked, what is answered, and the ways in which a request fails. Knows neither Triton nor torch."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from videogen_api.meta import Digest, ModelIdentity, Observation
from videogen_api.recipe import Resolution

PROMPT_LIMIT = 500
JOINERS = "\u200c\u200d"  # invisible, but part of the spelling in Indic scripts
SEED_LIMIT = 2**31 - 1  # as in a recipe; every JSON reader represents it exactly


class Outcome(StrEnum):
    """How a request ended; the label `outcome` of the metrics."""

    OK = "ok"
    INVALID = "invalid"  # the client's mistake
    TIMEOUT = "timeout"  # longer than TIMEOUT_SECONDS
    OVERLONG = "overlong"  # the same, with more steps than the release takes by itself: the client's choice
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
    """One video. Without a seed the server draws one and tells it; without steps it takes the release's.

    With a template, a category of emergencies, the answer is a video of the bundle's: the `variation` of it, 1 or more, or any.
    """

    prompt: str = ""
    seed: int | None = None
    steps: int | None = None
    template: str | None = None
    variation: int | None = None


class AnsweredTemplate(Observation):
    """Which template a video is."""

    category: str
    urgency: str
    variation: int
    caption: str


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
    template: AnsweredTemplate | None = None  # a stored video; prompt, seed and steps are those that drew its picture


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """An mp4 file and what is known about it."""

    video: bytes
    metadata: Metadata


def check_request(request: Request, most_steps: int) -> None:
    """Raise InvalidRequestError if the prompt, the seed or the number of steps is out of bounds, or something does not go together.

    `most_steps` is what the release allows a request: one that takes longer for its steps alone would count against the release.
    """
    if request.template is not None:
        _check_template(request)
        return
    if request.variation is not None:
        raise InvalidRequestError("VARIATION says which video of a TEMPLATE is wanted; send it with TEMPLATE, or leave it out")
    _check_prompt(request.prompt)
    _check_bounds("SEED", request.seed, 0, SEED_LIMIT)
    _check_bounds("STEPS", request.steps, 1, most_steps)


def _check_template(request: Request) -> None:
    given = {"PROMPT": request.prompt or None, "SEED": request.seed, "STEPS": request.steps}
    if surplus := [name for name, value in given.items() if value is not None]:
        raise InvalidRequestError(f"{', '.join(surplus)} came with TEMPLATE, which is answered by a stored video; send one or the other")


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
