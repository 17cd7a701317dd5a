"""Being asked to stop: SIGTERM from the kubelet, handed on to the processes of the pod by a file that appears."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path


class Stopped(BaseException):
    """The pod was asked to stop while none of its processes was at work. No Exception: libraries catch those while they are imported."""


class StopRequest:
    """True once the pod was asked to stop."""

    def __init__(self, marker: Path | None = None) -> None:
        self._marker = marker
        self._asked = False

    def __call__(self) -> bool:
        return self._asked or (self._marker is not None and self._marker.exists())

    def ask(self) -> None:
        """Ask to stop, and tell the processes that watch the marker."""
        self._asked = True
        if self._marker:
            self._marker.touch()


def on_termination(act: Callable[[], None]) -> None:
    """Call `act` on SIGTERM and SIGINT. PID 1 of a container has no default for them, it would go on unaware."""

    def handle(*_: object) -> None:
        act()

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)
