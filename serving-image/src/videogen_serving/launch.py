"""Triton's command line and environment: pure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from videogen_serving.settings import Settings

# What an inference server that strangers reach must not offer. Without the header of RESTRICTION_HEADER, whose value
# nobody is told, Triton refuses these with HTTP 403.
RESTRICTED_APIS = "model-repository,shared-memory,logging,trace"
RESTRICTION_HEADER = "videogen-internal"


def triton_command(settings: Settings, triton: Path, model_repository: Path, secret: str) -> list[str]:
    """One model, fixed; ready only once it is loaded; on SIGTERM the request in work may end within its time-out."""
    return [
        str(triton / "bin" / "tritonserver"),
        f"--model-repository={model_repository}",
        f"--backend-directory={triton / 'backends'}",
        "--model-control-mode=none",
        "--strict-readiness=true",
        "--disable-auto-complete-config",
        f"--http-port={settings.http_port}",
        "--allow-grpc=false",  # nobody needs it, and the gateway limits HTTP alone
        f"--metrics-port={settings.metrics_port}",
        f"--http-restricted-api={RESTRICTED_APIS}:{RESTRICTION_HEADER}={secret}",
        f"--exit-timeout-secs={settings.timeout_seconds}",
    ]


def triton_environment(environment: Mapping[str, str], executable: str, library_folder: str) -> dict[str, str]:
    """The environment in which the Python backend's stub becomes the interpreter that runs now.

    The stub is an isolated interpreter: it ignores PYTHONPATH, takes its prefix from the first python3 in PATH and
    links the libpython of `library_folder`. One thread is the default, because threads that have no core of their own
    make a generation several times slower; the operator sets OMP_NUM_THREADS to the whole CPUs of the pod.
    """
    return {
        "OMP_NUM_THREADS": "1",
        **environment,
        "PATH": _first(str(Path(executable).parent), environment.get("PATH", "")),
        "LD_LIBRARY_PATH": _first(library_folder, environment.get("LD_LIBRARY_PATH", "")),
    }


def _first(folder: str, folders: str) -> str:
    return f"{folder}:{folders}" if folders else folder
