"""Whether the server can serve a bundle: it is asked for one clip by the server's own code, as its release would be (decision 8)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from videogen_api.job import ArtifactReference, Job
from videogen_api.training_run import Reason
from videogen_models.video import decode_mp4
from videogen_trainer.emergency.runtime import CANCELLED, PROMPT_LIMIT, Answer, Runtime
from videogen_trainer.failure import Failure
from videogen_trainer.tasks import reason_of

_SECONDS = 3600  # the longest that any release allows; how fast it must be is a gate's to say


def prove_served(made: ArtifactReference, job: Job, caption: str, steps: int, storage: Path, stop: Callable[[], bool]) -> None:
    """Ask for a clip of `caption` in `steps` steps. Raises Failure: ArtifactInvalid if there is none, Preempted."""
    runtime = _open(made, job, steps, storage)
    answer = runtime.ask(prompt_of(caption), job.recipe.seed, stop)
    if answer.outcome == CANCELLED:
        raise Failure(Reason.PREEMPTED, "asked to stop; the next attempt goes on after the last part that is done")
    if why := _problem(answer):
        raise _refused(made, why)


def prompt_of(caption: str) -> str:
    """A caption of the data as a user may send it: captions may be longer than prompts, have lines, or be empty."""
    printable = "".join(character if character.isprintable() else " " for character in caption)
    return printable.strip()[:PROMPT_LIMIT] or "a video"


def _open(made: ArtifactReference, job: Job, steps: int, storage: Path) -> Runtime:
    try:
        return Runtime.open(made, storage, job.model, steps=steps, seconds=_SECONDS)
    except Failure:
        raise
    except Exception as error:
        if reason_of(error) is not Reason.TRAINER_FAILED:  # no memory, no storage: not the bundle's fault
            raise
        raise _refused(made, f"{type(error).__name__}: {error}") from error


def _problem(answer: Answer) -> str:
    if not answer.video:
        return f"{answer.outcome}: {answer.message}"
    frames, promised = len(decode_mp4(answer.video)), answer.metadata["frames"]
    return "" if frames == promised else f"its video has {frames} frames, its metadata say {promised}"


def _refused(made: ArtifactReference, why: str) -> Failure:
    return Failure(
        Reason.ARTIFACT_INVALID, f"{made.path}: the serving runtime cannot serve the optimised bundle ({why}); optimise it in another way"
    )
