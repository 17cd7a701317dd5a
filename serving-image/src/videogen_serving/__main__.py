"""`python -m videogen_serving`: verify Triton's version, copy the bundle into the pod and verify it on its way, then become Triton.

Ends with ExitCode.INVALID_JOB or ARTIFACT_INVALID and one sentence, on standard error and as the pod's termination
message, if the environment, Triton or the bundle is not what it must be.
"""

from __future__ import annotations

import os
import secrets
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import NoReturn

from videogen_api.job import ExitCode
from videogen_serving.launch import triton_command, triton_environment
from videogen_serving.settings import Settings
from videogen_serving.termination import leave_message
from videogen_serving.triton_version import check_triton
from videogen_serving.verification import take_bundle


def main() -> NoReturn:
    """Verify and copy, then exec."""
    triton = Path(os.environ.get("TRITON_PATH", "/opt/tritonserver"))
    try:
        settings = Settings.from_environment(os.environ)
        check_triton(triton, development=settings.development)
    except ValueError as error:
        _end(ExitCode.INVALID_JOB, str(error))
    try:
        take_bundle(settings.bundle_path, settings.bundle_digest, copy := Path(tempfile.gettempdir()) / "videogen-bundle")
    except ValueError as error:
        _end(ExitCode.ARTIFACT_INVALID, str(error))
    _become_triton(settings, triton, copy)


def _become_triton(settings: Settings, triton: Path, copy: Path) -> NoReturn:
    repository = Path(os.environ.get("MODEL_REPOSITORY", "/opt/videogen/model_repository"))
    command = triton_command(settings, triton, repository, secrets.token_hex(16))
    environment = triton_environment({**os.environ, "BUNDLE_PATH": str(copy)}, sys.executable, sysconfig.get_config_var("LIBDIR"))
    os.execve(command[0], command, environment)  # noqa: S606 - a fixed program, no shell wanted


def _end(code: ExitCode, message: str) -> NoReturn:
    print(message, file=sys.stderr, flush=True)
    leave_message(os.environ, message)
    sys.exit(code)


if __name__ == "__main__":
    main()
