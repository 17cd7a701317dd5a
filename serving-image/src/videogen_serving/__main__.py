"""`python -m videogen_serving`: verify the release's bundle, then become Triton.

Ends with ExitCode.INVALID_JOB or ARTIFACT_INVALID and one sentence, on standard error and as the pod's termination
message, if the environment or the bundle is not what it must be.
"""

from __future__ import annotations

import os
import secrets
import sys
import sysconfig
from pathlib import Path
from typing import NoReturn

from videogen_api.job import ExitCode
from videogen_serving.launch import triton_command, triton_environment
from videogen_serving.settings import Settings
from videogen_serving.termination import leave_message
from videogen_serving.verification import check_bundle


def main() -> NoReturn:
    """Verify, then exec."""
    try:
        settings = Settings.from_environment(os.environ)
    except ValueError as error:
        _end(ExitCode.INVALID_JOB, str(error))
    try:
        check_bundle(settings.bundle_path, settings.bundle_digest)
    except ValueError as error:
        _end(ExitCode.ARTIFACT_INVALID, str(error))
    _become_triton(settings)


def _become_triton(settings: Settings) -> NoReturn:
    triton = Path(os.environ.get("TRITON_PATH", "/opt/tritonserver"))
    repository = Path(os.environ.get("MODEL_REPOSITORY", "/opt/videogen/model_repository"))
    command = triton_command(settings, triton, repository, secrets.token_hex(16))
    environment = triton_environment(os.environ, sys.executable, sysconfig.get_config_var("LIBDIR"))
    os.execve(command[0], command, environment)  # noqa: S606 - a fixed program, no shell wanted


def _end(code: ExitCode, message: str) -> NoReturn:
    print(message, file=sys.stderr, flush=True)
    leave_message(os.environ, message)
    sys.exit(code)


if __name__ == "__main__":
    main()
