"""What this operator has made is taken up by that of what was released last: somebody upgrades, and goes back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from videogen_testing import released
from videogen_testing.control_plane import Api, eventually
from videogen_testing.operator_process import OperatorProcess
from videogen_testing.runs import RUNS, TRAIN, a_claim, a_run, ended, first_job, play, running, trained


def test_the_operator_that_was_released_last_ends_a_run_that_this_one_began(
    api: Api, namespace: str, operator: OperatorProcess, tmp_path: Path
) -> None:
    operator.start()
    api.create(f"/api/v1/namespaces/{namespace}/persistentvolumeclaims", a_claim())
    api.create(RUNS.format(namespace), a_run(namespace=namespace, phases=[TRAIN | {"workers": {"replicas": 2}}]))
    job = first_job(api, namespace)
    play(api, namespace, job, running())

    def succeeded() -> dict[str, Any]:
        conditions = api.get(f"{RUNS.format(namespace)}/run")["status"].get("conditions", [])
        return next((one for one in conditions if one["type"] == "Succeeded"), {})

    eventually(lambda: succeeded().get("reason") == "Training")
    operator.stop(signal.SIGTERM)
    sources = released.sources(tmp_path / "released")
    operator.environment["PYTHONPATH"] = os.pathsep.join(str(sources / part / "src") for part in ("operator", "crds"))
    assert imported(operator).startswith(str(sources))
    operator.start()
    play(api, namespace, job, ended(0, trained().model_dump_json(by_alias=True, exclude_none=True)))
    eventually(lambda: succeeded().get("status") == "True")


def imported(operator: OperatorProcess) -> str:
    """Where the operator's code would come from."""
    command = [sys.executable, "-c", "import videogen_operator; print(videogen_operator.__file__)"]
    return subprocess.run(command, env=operator.environment, check=True, capture_output=True, text=True).stdout
