"""The inbox's certificate: read again when its file changes, because cert-manager renews it while the operator runs."""

from __future__ import annotations

import logging
import os
import ssl
import time
from collections.abc import Callable
from pathlib import Path

LOOK_SECONDS = 1.0
log = logging.getLogger(__name__)
Stamp = tuple[int, ...]


class Certificate:
    """A PEM certificate chain with its key; `context` is what a new connection is served with."""

    def __init__(self, certificate: Path, key: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises ValueError if the files cannot be read or do not belong together."""
        self._files, self._clock = (certificate, key), clock
        self._looked, self._stamp = clock(), _stamp(self._files)
        try:
            self._context = self._load()
        except (OSError, ValueError) as error:
            raise ValueError(f"{certificate} with {key} is no PEM certificate chain with its private key: {error}") from None

    def context(self) -> ssl.SSLContext:
        """TLS 1.2 or newer, with the newest certificate that could be read; files are looked at once a second at most."""
        if self._clock() - self._looked >= LOOK_SECONDS:
            self._looked = self._clock()
            self._renew(_stamp(self._files))
        return self._context

    def _renew(self, stamp: Stamp) -> None:
        if stamp == self._stamp:
            return
        try:
            self._context = self._load()
        except (OSError, ValueError) as error:  # half of the two files is there: the next look sees both
            log.warning("the new certificate %s cannot be used yet, the old one stays: %s", self._files[0], error)
        else:
            self._stamp = stamp
            log.info("certificate %s was read again", self._files[0])

    def _load(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*self._files)
        return context


def _stamp(files: tuple[Path, ...]) -> Stamp:
    """Changes with the files, also when a mounted Secret's symbolic link is put elsewhere."""
    found: list[int] = []
    for file in files:
        try:
            state = os.stat(file)
        except OSError:
            return ()
        found += [state.st_ino, state.st_mtime_ns, state.st_size]
    return tuple(found)
