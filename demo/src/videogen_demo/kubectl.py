"""A few lines over kubectl: the demonstration does what a platform engineer would type, and nothing else."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Manifest = dict[str, Any]
REPOSITORY = Path(__file__).resolve().parents[3]


class CommandError(RuntimeError):
    """A command failed; the message has the command and the end of what it said."""


def run(arguments: Sequence[str | Path], *, stdin: str | None = None, timeout: float = 600) -> str:
    """Standard output of a command. Raises CommandError with its last lines if it fails."""
    words = [str(argument) for argument in arguments]
    done = subprocess.run(words, input=stdin, text=True, capture_output=True, timeout=timeout, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[-2000:]
        raise CommandError(f"{' '.join(words[:8])} failed with {done.returncode}: {said}")
    return done.stdout


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster, through a kubeconfig; None leaves it to kubectl itself what $KUBECONFIG means, a list of files as well."""

    kubeconfig: Path | None

    @property
    def flags(self) -> list[str]:
        """What tells kubectl and Helm which cluster is meant."""
        return ["--kubeconfig", str(self.kubeconfig)] if self.kubeconfig else []

    @property
    def kubectl(self) -> str:
        """The kubectl on PATH, or the one that the local cluster has built."""
        built = REPOSITORY / ".localcluster/bin/kubectl"
        found = str(built) if built.exists() else shutil.which("kubectl")
        if not found:
            raise CommandError("kubectl is not on PATH and the local cluster has not built it; run `make cluster`")
        return found

    def __call__(self, *arguments: str, stdin: str | None = None, timeout: float = 600) -> str:
        """Run kubectl."""
        return run([self.kubectl, *self.flags, *arguments], stdin=stdin, timeout=timeout)

    def apply(self, *manifests: Mapping[str, Any]) -> None:
        """Server-side apply of manifests."""
        body = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(manifests)})
        self("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=body)

    def get(self, kind: str, name: str, namespace: str = "") -> Manifest | None:
        """An object, or None."""
        scope = ["-n", namespace] if namespace else []
        text = self("get", kind, name, *scope, "--ignore-not-found", "-o", "json")
        return json.loads(text) if text.strip() else None

    def list(self, kind: str, namespace: str, selector: str = "") -> list[Manifest]:
        """All objects of a kind in a namespace."""
        chosen = ["-l", selector] if selector else []
        items: list[Manifest] = json.loads(self("get", kind, "-n", namespace, *chosen, "-o", "json"))["items"]
        return items

    def wait(self, what: str, probe: Callable[[], Any], timeout: float, pause: float = 1.0) -> Any:
        """The first true value that probe() gives. Raises CommandError after `timeout` seconds."""
        end = time.monotonic() + timeout
        while not (value := probe()):
            if time.monotonic() > end:
                raise CommandError(f"waited {timeout:.0f} s in vain for: {what}")
            time.sleep(pause)
        return value


def condition(item: Manifest | None, kind: str) -> Manifest:
    """A condition of an object, or an empty dict."""
    conditions = ((item or {}).get("status") or {}).get("conditions") or []
    return next((entry for entry in conditions if entry["type"] == kind), {})
