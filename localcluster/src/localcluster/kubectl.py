"""Talking to the API server through kubectl: the only client that a bare machine gets from the build."""

import json
import os
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from localcluster.commands import run, succeeds
from localcluster.faults import Fault
from localcluster.objects import Manifest, as_list


class Kubectl:
    """One kubectl with one kubeconfig."""

    def __init__(self, program: Path | str, kubeconfig: Path | None) -> None:
        self.program = str(program)
        # None leaves the choice to kubectl itself: $KUBECONFIG, ~/.kube/config or the pod it runs in.
        self.flags = ["--kubeconfig", str(kubeconfig)] if kubeconfig else []

    def __call__(self, *words: str, stdin: str | None = None, timeout: float = 120) -> str:
        return run([self.program, *self.flags, *words], stdin=stdin, env=self._environment(), timeout=timeout)

    def works(self, *words: str) -> bool:
        """Whether a question is answered with yes."""
        return succeeds([self.program, *self.flags, *words])

    def get(self, *words: str) -> Any:
        """An object or list as JSON; None if there is no such thing."""
        text = self("get", *words, "--ignore-not-found", "-o", "json")
        return json.loads(text) if text.strip() else None

    def apply(self, manifests: Iterable[Manifest]) -> None:
        """Applies objects by server-side apply, as one owner."""
        self.apply_text(as_list(manifests))

    def apply_text(self, text: str) -> None:
        """Applies manifests given as JSON or YAML."""
        self("apply", "--server-side", "--force-conflicts", "--field-manager=localcluster", "-f", "-", stdin=text)

    def wait(self, seconds: int, *words: str) -> None:
        """Waits for a condition, with a sentence if it does not come."""
        # A little longer than kubectl's own limit, so that its reason is what is shown.
        self("wait", f"--timeout={seconds}s", *words, timeout=seconds + 15)

    def retry(self, seconds: float, *words: str, stdin: str | None = None) -> str:
        """Repeats a command that may fail for a known while, such as until a webhook answers."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                return self(*words, stdin=stdin)
            except Fault:
                if time.monotonic() > deadline:
                    raise
                time.sleep(1)

    @staticmethod
    def _environment() -> dict[str, str]:
        # A proxy of the caller's session must not stand between kubectl and the cluster's own addresses.
        dropped = {"http_proxy", "https_proxy", "all_proxy"}
        return {name: value for name, value in os.environ.items() if name.lower() not in dropped}


def passthrough(program: Path, kubeconfig: Path, words: list[str]) -> int:
    """Runs kubectl for the user, on the user's terminal."""
    return subprocess.run([str(program), "--kubeconfig", str(kubeconfig), *words], check=False).returncode
