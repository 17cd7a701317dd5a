"""HTTP in: `POST /v1/records`. A pod says what it has computed before it ends, and gets it back as a record with the operator's seal.

Whether it may say so decides the kind (`Kind.record`); here is who asks, how often, and the seal. Nothing waits for the answer but the
pod, which puts the record into the storage: there a later run finds it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from aiohttp import web

from videogen_api.bundle import canonical_json
from videogen_api.records import RECORD_BYTES
from videogen_operator.api_server.world import ObjectWorld
from videogen_operator.inbound.answers import first_problem, told
from videogen_operator.inbound.reporters import RefusedError, Reporters
from videogen_operator.inbound.tokens import PodTokens
from videogen_operator.plan import Kind
from videogen_operator.seals import Seals
from videogen_operator.telemetry import RECORDS, Received

REPORT_BYTES = 16 * 1024
REPORT_SECONDS = 1.0  # a pod that asks more often than this is answered with 429
log = logging.getLogger(__name__)


class Sealing:
    """The endpoint."""

    def __init__(
        self,
        kinds: Iterable[Kind[Any]],
        world: ObjectWorld,
        tokens: PodTokens,
        seals: Callable[[], Seals],
        clock: Callable[[], datetime],
    ) -> None:
        self._world, self._seals, self._clock = world, seals, clock
        self._reporters = Reporters(kinds, world, tokens, seconds=REPORT_SECONDS, largest=REPORT_BYTES)

    def add_to(self, application: web.Application) -> None:
        """The route."""
        application.router.add_post("/v1/records", self.take_report)

    async def take_report(self, request: web.Request) -> web.Response:
        """`{"report": {...}}` -> `{"record": {...}}`."""
        try:
            reporter, body = await self._reporters.read(request)
        except RefusedError as refused:
            return told(RECORDS, refused.result, refused.status, refused.message)
        except ValueError as error:
            return told(RECORDS, Received.INVALID, 400, f"expected {{'report': {{...}}}}: {first_problem(error)}")
        seals, metadata = self._seals(), reporter.pod["metadata"]
        if not seals.keys or reporter.kind.record is None:
            return told(RECORDS, Received.OFF, 404, "nothing is sealed here: the chart's reuse.enabled is false, or its Secret has no key")
        self._reporters.accepted(reporter)
        try:
            record = reporter.kind.record(self._world, reporter.pod, body, self._clock())
        except ValueError as error:
            log.info("what pod %s/%s says is not sealed: %s", metadata["namespace"], metadata["name"], error)
            return told(RECORDS, Received.REFUSED, 409, first_problem(error))
        whole = seals.sealed(record, reporter.key.namespace)
        if (size := len(canonical_json(whole))) > RECORD_BYTES:
            message = f"the record has {size} bytes, and only one of {RECORD_BYTES} could be found again"
            return told(RECORDS, Received.TOO_LARGE, 413, message)
        RECORDS.labels(Received.SEALED).inc()
        return web.json_response({"record": whole})
