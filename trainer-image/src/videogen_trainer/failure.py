"""How the trainer fails: a reason from the API's closed vocabulary, and the exit code that belongs to it."""

from __future__ import annotations

from videogen_api.job import ExitCode
from videogen_api.training_run import Reason

EXIT_CODES = {
    Reason.COMPLETED: ExitCode.SUCCEEDED,
    Reason.INVALID_JOB: ExitCode.INVALID_JOB,
    Reason.RESULTS_TOO_LARGE: ExitCode.INVALID_JOB,
    Reason.CONTRACT_UNSUPPORTED: ExitCode.CONTRACT_UNSUPPORTED,
    Reason.VIDEO_UNREADABLE: ExitCode.DATA_REJECTED,
    Reason.VIDEO_MISSING: ExitCode.DATA_REJECTED,
    Reason.CAPTION_MISSING: ExitCode.DATA_REJECTED,
    Reason.TABLE_INVALID: ExitCode.DATA_REJECTED,
    Reason.DATASET_REJECTED: ExitCode.DATA_REJECTED,
    Reason.DATASET_TOO_SMALL: ExitCode.DATA_REJECTED,
    Reason.TOO_FEW_NEW_CLIPS: ExitCode.DATA_REJECTED,
    Reason.DATASET_NOT_FOUND: ExitCode.DATA_REJECTED,
    Reason.DATASET_CORRUPT: ExitCode.DATA_REJECTED,
    Reason.TEMPLATES_REJECTED: ExitCode.DATA_REJECTED,
    Reason.ARTIFACT_INVALID: ExitCode.ARTIFACT_INVALID,
    Reason.EXTRACTOR_MISSING: ExitCode.EXTRACTOR_MISSING,
    Reason.FONT_MISSING: ExitCode.EXTRACTOR_MISSING,
    Reason.EXPORT_FAILED: ExitCode.EXPORT_FAILED,
    Reason.TENSORRT_UNAVAILABLE: ExitCode.EXPORT_FAILED,
    Reason.DIVERGED: ExitCode.DIVERGED,
    Reason.OUT_OF_MEMORY: ExitCode.OUT_OF_MEMORY,
    Reason.NODE_LOST: ExitCode.PEER_LOST,
    Reason.STORAGE_FAILED: ExitCode.STORAGE_FAILED,
    Reason.PREEMPTED: ExitCode.PREEMPTED,
    Reason.TRAINER_FAILED: ExitCode.FAILED,
}


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there is no memory: Python's, CUDA's, or that of PyTorch's allocator for CPUs, which has no type."""
    return (
        isinstance(error, MemoryError)
        or any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__)
        or "can't allocate memory" in str(error).lower()
    )


class Failure(Exception):
    """Ends the attempt. The message says what is wrong, where, what was found and what to do."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message

    def __reduce__(self) -> tuple[type[Failure], tuple[Reason, str]]:
        """For pickle, which carries it out of another process; it would call `Failure(message)`."""
        return type(self), (self.reason, self.message)

    @property
    def exit_code(self) -> ExitCode:
        """The exit code that belongs to the reason."""
        return EXIT_CODES[self.reason]
