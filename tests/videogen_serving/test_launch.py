"""How Triton is started."""

from __future__ import annotations

from pathlib import Path

from videogen_serving.launch import triton_command, triton_environment
from videogen_serving.settings import Settings

SETTINGS = Settings(
    release="pib-videogen-videofusion-v1.0.0-base", bundle_path=Path("/storage/b"), bundle_digest="sha256:" + "0" * 64, timeout_seconds=33
)


def test_one_fixed_model_and_nothing_that_changes_the_server() -> None:
    command = triton_command(SETTINGS, Path("/opt/tritonserver"), Path("/models"), "secret")
    assert command[0] == "/opt/tritonserver/bin/tritonserver"
    assert {"--model-repository=/models", "--model-control-mode=none", "--strict-readiness=true", "--http-port=8000"} <= set(command)
    assert "--http-restricted-api=model-repository,shared-memory,logging,trace:videogen-internal=secret" in command
    assert "--allow-grpc=false" in command


def test_a_request_in_work_may_end_before_the_server_does() -> None:
    assert "--exit-timeout-secs=33" in triton_command(SETTINGS, Path("/t"), Path("/m"), "secret")


def test_the_stub_finds_this_interpreter_first() -> None:
    environment = triton_environment({"PATH": "/bin", "RELEASE": "r"}, "/env/bin/python3", "/env/lib")
    assert environment == {"PATH": "/env/bin:/bin", "LD_LIBRARY_PATH": "/env/lib", "RELEASE": "r", "OMP_NUM_THREADS": "1"}


def test_the_number_of_threads_is_the_administrators() -> None:
    assert triton_environment({"OMP_NUM_THREADS": "8"}, "/bin/python3", "/lib")["OMP_NUM_THREADS"] == "8"
