"""HTTP in: progress of trainers and alerts of Alertmanager. Each request is authenticated before its body is read.

`POST /v1/progress` is Kubeflow Trainer's progress protocol; the caller is the pod that its projected token names.
`POST /v1/alerts` is Alertmanager's webhook, version 4. It is answered with 200 only once the decision about every
firing alert is written to the cluster, so that Alertmanager repeats what was lost with a crash of the operator. What
was not decided is forgotten soon: an alert that still fires comes again.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import aiohttp
from aiohttp import web
from pydantic import BaseModel, Field, ValidationError, field_validator

from videogen_api.meta import LABEL_RUN
from videogen_api.training_run import Progress
from videogen_operator.cluster import ApiError
from videogen_operator.plan import Key, Manifest
from videogen_operator.telemetry import ALERT_SECONDS, ALERTS, PROGRESS
from videogen_operator.tokens import BusyError, Caller, PodTokens
from videogen_operator.world import ObjectWorld, labels_of

REPORT_BYTES = 256 * 1024
WEBHOOK_BYTES = 4 * 1024 * 1024  # some thousand alerts
DECISION_SECONDS = 5.0
WAITING_SECONDS = 30.0  # an alert that was not decided and did not come again is forgotten
TOKEN_NEEDED = "a bearer token is needed: one that stands in the Secret of the chart's alertWebhook.existingSecret"
REPORT_SECONDS = 0.5  # a pod that reports more often than this is answered with 429
RFC_3339 = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})")
log = logging.getLogger(__name__)
Wake = Callable[[Key, bool], None]


@dataclass(slots=True)
class Waiting:
    """An alert that nobody has decided about yet."""

    alert: Manifest
    decision: asyncio.Future[str]
    until: float


class Mail:
    """What came in and is not yet decided: the newest progress of each pod, and alerts until their answer or their end."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._progress: dict[str, Manifest] = {}  # by the pod's UID
        self._alerts: dict[Key, dict[str, Waiting]] = {}  # by fingerprint
        self._arrivals: dict[Key, set[asyncio.Event]] = {}  # one for each who waits

    @property
    def progress(self) -> Mapping[str, Manifest]:
        """The last report of each pod by its UID: a name may be another pod's later, in a run that was made anew."""
        return MappingProxyType(self._progress)

    def report(self, pod_uid: str, report: Manifest) -> None:
        """Remember a pod's report; of pods that reported long ago the oldest is forgotten."""
        self._progress.pop(pod_uid, None)
        self._progress[pod_uid] = report
        while len(self._progress) > 10_000:
            del self._progress[next(iter(self._progress))]

    def alerts(self, key: Key) -> tuple[Manifest, ...]:
        """Alerts that wait for a decision of this key."""
        now = self._clock()
        return tuple(waiting.alert for waiting in self._alerts.get(key, {}).values() if now < waiting.until)

    def expect(self, key: Key, alert: Manifest) -> asyncio.Future[str]:
        """Hand in an alert; the future becomes its answer. One that waits already is not doubled and waits longer."""
        waiting, fingerprint = self._alerts.setdefault(key, {}), alert["fingerprint"]
        if fingerprint not in waiting:
            waiting[fingerprint] = Waiting(alert, asyncio.get_running_loop().create_future(), 0.0)
        waiting[fingerprint].until = self._clock() + WAITING_SECONDS
        for arrival in self._arrivals.get(key, ()):
            arrival.set()
        return waiting[fingerprint].decision

    async def arrival(self, key: Key) -> None:
        """Return once another alert for the key comes in."""
        arrival, waiting = asyncio.Event(), self._arrivals.setdefault(key, set())
        waiting.add(arrival)
        try:
            await arrival.wait()
        finally:
            waiting.discard(arrival)
            if not waiting:
                self._arrivals.pop(key, None)

    def withdraw(self, fingerprint: str) -> None:
        """The alert is over: if it was not decided yet, nothing is done about it."""
        for key in list(self._alerts):
            self.answer(key, {fingerprint: "Resolved"})

    def answer(self, key: Key, answers: Mapping[str, str]) -> None:
        """Decisions that have been written to the cluster."""
        waiting = self._alerts.get(key, {})
        for fingerprint in answers.keys() & waiting.keys():
            decision = waiting.pop(fingerprint).decision
            if not decision.done():
                decision.set_result(answers[fingerprint])
        if not waiting:
            self._alerts.pop(key, None)

    def forget(self) -> None:
        """Drop the alerts that came long ago; whoever sent them was told to send them again."""
        now = self._clock()
        living = {key: {name: one for name, one in waiting.items() if now < one.until} for key, waiting in self._alerts.items()}
        self._alerts = {key: waiting for key, waiting in living.items() if waiting}


class Inbox:
    """The two endpoints as an aiohttp application."""

    def __init__(self, mail: Mail, world: ObjectWorld, tokens: PodTokens, alert_tokens: tuple[Path, ...], wake: Wake) -> None:
        self._mail, self._world, self._tokens, self._alert_tokens, self._wake = mail, world, tokens, alert_tokens, wake
        self._reported: dict[str, float] = {}

    def application(self) -> web.Application:
        """Routes and limits."""
        application = web.Application(client_max_size=REPORT_BYTES)
        application.router.add_post("/v1/progress", self.take_progress)
        application.router.add_post("/v1/alerts", self.take_alerts)
        return application

    async def take_progress(self, request: web.Request) -> web.Response:
        """One report of a trainer, `{"trainerStatus": {...}}`."""
        try:
            caller = await self._trainer(_bearer(request))
        except (BusyError, ApiError, aiohttp.ClientError, TimeoutError) as error:
            return _told(PROGRESS, "Unreviewed", 503, f"the token cannot be checked now: {error}")
        pod = self._pod(caller)
        if caller is None or pod is None:
            return _told(PROGRESS, "Unauthorized", 401, "the token is not that of a trainer's pod")
        if time.monotonic() - self._reported.get(caller.pod_uid, float("-inf")) < REPORT_SECONDS:
            return _told(PROGRESS, "TooOften", 429, f"report at most every {REPORT_SECONDS} s")
        try:
            report = TrainerStatus.model_validate((await _json(request))["trainerStatus"]).wire()
        except (ValueError, KeyError, TypeError) as error:
            return _told(PROGRESS, "Invalid", 400, f"expected {{'trainerStatus': {{...}}}}: {_first(error)}")
        self._remember(caller.pod_uid)
        self._mail.report(caller.pod_uid, report)
        self._wake(Key("TrainingRun", caller.namespace, labels_of(pod)[LABEL_RUN]), False)
        return _told(PROGRESS, "Accepted", 200, "accepted")

    async def take_alerts(self, request: web.Request) -> web.Response:
        """A webhook of Alertmanager: `{"version": "4", "alerts": [...]}`."""
        received = time.monotonic()
        if not self._is_alertmanager(_bearer(request)):
            return _told(ALERTS, "Unauthorized", 401, TOKEN_NEEDED)
        try:
            alerts = Webhook.model_validate(await _json(request.clone(client_max_size=WEBHOOK_BYTES))).alerts
        except ValueError as error:
            return _told(ALERTS, "Invalid", 400, f"expected an Alertmanager webhook of version 4: {_first(error)}")
        self._mail.forget()
        for alert in alerts:
            if alert.status == "resolved":
                self._mail.withdraw(alert.identity())
        return await self._answer([alert.manifest() for alert in alerts if alert.status == "firing"], received)

    async def _answer(self, firing: list[dict[str, Any]], received: float) -> web.Response:
        try:
            async with asyncio.timeout(DECISION_SECONDS):
                results = await asyncio.gather(*(self._decide(alert) for alert in firing))
        except TimeoutError:
            return _told(ALERTS, "Undecided", 503, "not decided yet; send it again")
        for result in results:
            ALERTS.labels(result).inc()
        ALERT_SECONDS.observe(time.monotonic() - received)
        return web.json_response({"results": results})

    async def _decide(self, alert: Manifest) -> str:
        labels = alert["labels"]
        release = self._world.get("ModelRelease", labels.get("namespace", ""), labels.get("release", ""))
        service = ((release or {}).get("spec") or {}).get("service")
        if not service:
            log.info("alert %s names no release: %s/%s", labels.get("alertname"), labels.get("namespace"), labels.get("release"))
            return "UnknownRelease"
        key = Key("ModelRelease", labels["namespace"], service)
        decision = self._mail.expect(key, alert)
        self._wake(key, True)
        return await asyncio.shield(decision)

    async def _trainer(self, token: str) -> Caller | None:
        """Whose token it is. One that does not even claim to be a living trainer's costs no review."""
        claimed = self._tokens.claimed(token)
        return await self._tokens.review(token) if self._pod(claimed) else None

    def _pod(self, caller: Caller | None) -> Manifest | None:
        """The trainer's pod that exists now and is the caller, not a namesake."""
        pod = self._world.get("Pod", caller.namespace, caller.pod) if caller else None
        ours = caller and pod and pod["metadata"].get("uid") == caller.pod_uid and LABEL_RUN in labels_of(pod)
        return pod if ours else None

    def _is_alertmanager(self, token: str) -> bool:
        allowed = [content for path in self._alert_tokens if (content := _content(path))]
        matches = [hmac.compare_digest(content.encode(), token.encode()) for content in allowed]
        return any(matches)

    def _remember(self, pod_uid: str) -> None:
        self._reported.pop(pod_uid, None)
        self._reported[pod_uid] = time.monotonic()
        while len(self._reported) > 10_000:
            del self._reported[next(iter(self._reported))]


class TrainerStatus(Progress):
    """What a trainer reports. The schema of a status only says that a time is text; here it must be one."""

    @field_validator("last_updated_time")
    @classmethod
    def _is_a_time(cls, value: str | None) -> str | None:
        if value is not None:
            if not RFC_3339.fullmatch(value):
                raise ValueError("a time with its zone is expected (RFC 3339), such as 2026-11-01T00:00:00Z")
            datetime.fromisoformat(value)
        return value


class Alert(BaseModel):
    """One alert of a webhook; what is not named here is not read."""

    status: Literal["firing", "resolved"]
    labels: dict[str, str]
    annotations: dict[str, str] = {}
    starts_at: str = Field(alias="startsAt")
    fingerprint: str = ""

    def identity(self) -> str:
        """The same for the same labels."""
        return self.fingerprint or json.dumps(self.labels, sort_keys=True)

    def manifest(self) -> dict[str, Any]:
        """As plans read it (`Inputs.alerts`)."""
        return {
            "status": self.status,
            "fingerprint": self.identity(),
            "startsAt": self.starts_at,
            "receivedAt": datetime.now(UTC).isoformat(),
            "labels": self.labels,
            "annotations": self.annotations,
        }


class Webhook(BaseModel):
    """What Alertmanager posts (https://prometheus.io/docs/alerting/latest/configuration/#webhook_config)."""

    version: Literal["4"]
    alerts: list[Alert]


async def _json(request: web.BaseRequest) -> Any:
    """The body, whatever charset its sender names. Raises ValueError if it is no JSON."""
    try:
        return json.loads(await request.read())
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _first(error: Exception) -> str:
    """The first thing that is wrong, with its place."""
    if not isinstance(error, ValidationError):
        return str(error)[:300]
    found = error.errors(include_url=False)[0]
    return f"{'.'.join(str(part) for part in found['loc']) or 'the body'}: {found['msg']}, found {str(found['input'])[:100]}"


def _bearer(request: web.Request) -> str:
    """The token, or nothing; none has other characters than ASCII (RFC 6750, 2.1)."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.isascii() else ""


def _content(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _told(counter: Any, result: str, status: int, message: str) -> web.Response:
    counter.labels(result).inc()
    return web.json_response({"result": result, "message": message}, status=status)
