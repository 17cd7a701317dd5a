"""The real operator as a supervised process: when it ends it is started again, as a kubelet would.

The processes are forked from a server that has imported the operator already, so that a restart costs its own work and
not a second of imports. What runs is `videogen_operator.main.main()` with an environment of its own.
"""

import asyncio
import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Mapping
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Self

from videogen_testing.control_plane import free_port, status_of
from videogen_testing.patience import HANGS

ALERT_TOKEN = "alertmanager-secret"
_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["videogen_operator.main", "videogen_testing.supervision"])


def operate(environment: Mapping[str, str], log: str) -> None:
    """In the child: become the operator. Warnings are errors."""
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["videogen-operator"]
    warnings.simplefilter("error")
    from videogen_operator.main import main

    main()


class SupervisedOperator:
    """One operator for one namespace, behind `server`."""

    def __init__(self, kubeconfig: Path, namespace: str, folder: Path, **changes: str) -> None:
        self.namespace, self.log = namespace, folder / f"operator-{namespace}.log"
        self.metrics_port, self.inbox_port, self.health_port = free_port(), free_port(), free_port()
        tokens = folder / f"alert-token-{namespace}"
        tokens.write_text(ALERT_TOKEN + "\n")
        own = {
            "KUBECONFIG": str(kubeconfig),
            "VIDEOGEN_NAMESPACES": namespace,
            "VIDEOGEN_OPERATOR_NAMESPACE": namespace,
            "VIDEOGEN_GATEWAY_NAMESPACE": namespace,
            "VIDEOGEN_IDENTITY": "operator-under-test",
            "VIDEOGEN_LEASE_SECONDS": "120",  # a busy machine ends no life; the next one has the same identity and does not wait
            "VIDEOGEN_METRICS_HOST": "127.0.0.1",
            "VIDEOGEN_METRICS_PORT": str(self.metrics_port),
            "VIDEOGEN_HEALTH_HOST": "127.0.0.1",
            "VIDEOGEN_HEALTH_PORT": str(self.health_port),
            "VIDEOGEN_INBOX_HOST": "127.0.0.1",
            "VIDEOGEN_INBOX_PORT": str(self.inbox_port),
            "VIDEOGEN_ALERT_TOKEN_FILES": str(tokens),
        }
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("VIDEOGEN_", "KUBE"))}
        self.environment = kept | own | changes
        self.exits: list[int] = []  # exit codes, negative for a signal
        self._child: ForkServerProcess | None = None
        self._supervision: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._supervision = asyncio.create_task(self._supervise())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._supervision is not None
        self._supervision.cancel()
        await asyncio.gather(self._supervision, return_exceptions=True)
        self.kill()
        if self._child is not None:
            await asyncio.to_thread(self._child.join, HANGS)

    def kill(self) -> None:
        """SIGKILL; the process has no time for anything."""
        if self._child is not None and self._child.pid is not None and self._child.is_alive():
            os.kill(self._child.pid, signal.SIGKILL)

    def probe(self, path: str) -> int:
        """Status of /leaderz, /readyz or /healthz; 0 if nobody answers."""
        return status_of(f"http://127.0.0.1:{self.health_port}/{path}")

    async def ready(self, seconds: float = HANGS) -> None:
        """Wait until it leads and has listed everything. AssertionError with the end of the log if that takes too long."""
        try:
            async with asyncio.timeout(seconds):
                while await asyncio.to_thread(self.probe, "leaderz") != 200:  # noqa: ASYNC110 - another process
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise AssertionError(f"it does not lead within {seconds} s; exits {self.exits}\n{self.last_words()}") from None

    def last_words(self) -> str:
        """The end of the log."""
        return self.log.read_text()[-4000:] if self.log.exists() else ""

    async def _supervise(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._child = await asyncio.to_thread(self._start)
            ended = asyncio.Event()
            loop.add_reader(self._child.sentinel, ended.set)
            try:
                await ended.wait()
            finally:
                loop.remove_reader(self._child.sentinel)
            await asyncio.to_thread(self._child.join)
            assert self._child.exitcode is not None
            self.exits.append(self._child.exitcode)

    def _start(self) -> ForkServerProcess:
        child = _SERVER.Process(target=operate, args=(self.environment, str(self.log)), daemon=True)
        child.start()
        return child
