"""HTTP in: progress of trainers and alerts of Alertmanager or Grafana. Each request is authenticated before its body is read.

`POST /v1/progress` is Kubeflow Trainer's progress protocol; the caller is the pod that its projected token names.
`POST /v1/records` gives results back sealed (`sealing`).
`POST /v1/alerts` is Alertmanager's webhook, version 4, and Grafana's, version 1, whose alerts have the same form. It is
answered with 200 only once the decision about every firing alert is written to the cluster, so that the sender repeats what
was lost with a crash of the operator. What was not decided is forgotten soon: an alert that still fires comes again.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from aiohttp import web
from pydantic import BaseModel, Field, ValidationError, field_validator

from videogen_api.progress import Progress
from videogen_operator.api_server.world import ObjectWorld
from videogen_operator.inbound.answers import bearer, first_problem, json_of, told
from videogen_operator.inbound.bodies import BODY_SECONDS, Bodies, CrowdedError
from videogen_operator.inbound.reporters import RefusedError, Reporters
from videogen_operator.inbound.sealing import Sealing
from videogen_operator.inbound.tokens import PodTokens
from videogen_operator.plan import Alerts, Key, Kind, Manifest
from videogen_operator.steady_clock import wall
from videogen_operator.telemetry import ALERT_SECONDS, ALERTS, PROGRESS, Received

REPORT_BYTES = 64 * 1024
WEBHOOK_BYTES = 2 * 1024 * 1024  # some thousand alerts
MOST_ALERTS = 5_000  # of one webhook
NAMED_ALERTS = 20  # malformed ones that the answer names
DECISION_SECONDS = 5.0
WAITING_SECONDS = 30.0  # an alert that was not decided and did not come again is forgotten
TOKEN_NEEDED = (
    "a bearer token is needed: one that stands in the Secret of the chart's alertWebhook.existingSecret,"
    " or a namespace's own in that of alertWebhook.namespaceTokensSecret"
)
NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")  # files of other names in the folder are the kubelet's
TOKENS_SECONDS = 1.0  # after which a token that was changed or taken away is known
REMEMBERED_REPORTS = 10_000  # pods
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
        self._reporters: dict[str, Key] = {}  # by the same
        self._alerts: dict[Key, dict[str, Waiting]] = {}  # by fingerprint
        self._arrivals: dict[Key, set[asyncio.Event]] = {}  # one for each who waits

    @property
    def progress(self) -> Mapping[str, Manifest]:
        """The last report of each pod by its UID: a name may be another pod's later, in a run that was made anew."""
        return MappingProxyType(self._progress)

    @property
    def reporters(self) -> frozenset[Key]:
        """Whom pods have reported to."""
        return frozenset(self._reporters.values())

    def report(self, key: Key, pod_uid: str, report: Manifest) -> None:
        """Remember a pod's report to that key; of pods that reported long ago the oldest is forgotten."""
        self._progress.pop(pod_uid, None)
        self._progress[pod_uid], self._reporters[pod_uid] = report, key
        while len(self._progress) > REMEMBERED_REPORTS:
            oldest = next(iter(self._progress))
            del self._progress[oldest], self._reporters[oldest]

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


class AlertTokens:
    """Who may send alerts. A Secret changes while it is mounted, and whoever has no token asks as well, as often as he likes: so the
    files are read again after a second, and not for each webhook.
    """

    def __init__(self, files: Iterable[Path] = (), folder: Path | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        """`files` have tokens of all namespaces, `folder` has a file for each namespace with its own token."""
        self._files, self._folder, self._clock = tuple(files), folder, clock
        self._known: tuple[tuple[str, bytes], ...] = ()
        self._read_at = float("-inf")

    def sender(self, token: str) -> str | None:
        """The namespace whose own token it is, "" if it is one of all namespaces, None if it is none. Looks at every token."""
        if not token:
            return None
        if self._clock() - self._read_at >= TOKENS_SECONDS:
            self._known, self._read_at = tuple(self._read()), self._clock()
        sent = token.encode()
        fits = [sender for sender, known in self._known if hmac.compare_digest(known, sent)]
        return fits[0] if fits else None

    def _read(self) -> Iterable[tuple[str, bytes]]:
        found = self._folder.iterdir() if self._folder and self._folder.is_dir() else ()
        own = sorted(path for path in found if NAMESPACE.fullmatch(path.name))
        for sender, path in [("", path) for path in self._files] + [(path.name, path) for path in own]:
            if content := _content(path):
                yield sender, content.encode()


class Inbox:
    """The endpoints as an aiohttp application."""

    def __init__(
        self,
        kinds: Iterable[Kind[Any]],
        mail: Mail,
        world: ObjectWorld,
        tokens: PodTokens,
        alert_tokens: AlertTokens,
        wake: Wake,
        clock: Callable[[], datetime] = wall,
        sealing: Sealing | None = None,
    ) -> None:
        """At least one of the kinds takes alerts. `clock` is that of the plans."""
        known = tuple(kinds)
        self._takers: tuple[Alerts, ...] = tuple(kind.alerts for kind in known if kind.alerts)
        self._mail, self._world, self._alert_tokens, self._wake = mail, world, alert_tokens, wake
        self._clock, self._sealing = clock, sealing
        self._reporters = Reporters(known, world, tokens, seconds=REPORT_SECONDS, largest=REPORT_BYTES)
        self._webhooks = Bodies()
        self._turns: dict[str, asyncio.Lock] = {}  # webhooks of one token come one after the other

    def application(self) -> web.Application:
        """Routes and limits."""
        application = web.Application(client_max_size=REPORT_BYTES)
        application.router.add_post("/v1/progress", self.take_progress)
        application.router.add_post("/v1/alerts", self.take_alerts)
        if self._sealing:
            self._sealing.add_to(application)
        return application

    async def take_progress(self, request: web.Request) -> web.Response:
        """One report of a trainer, `{"trainerStatus": {...}}`."""
        try:
            reporter, body = await self._reporters.read(request)
            report = TrainerStatus.model_validate(body["trainerStatus"]).wire()
        except RefusedError as refused:
            return told(PROGRESS, refused.result, refused.status, refused.message)
        except (ValueError, KeyError, TypeError) as error:
            return told(PROGRESS, Received.INVALID, 400, f"expected {{'trainerStatus': {{...}}}}: {first_problem(error)}")
        self._reporters.accepted(reporter)
        self._mail.report(reporter.key, reporter.uid, report)
        if not reporter.kind.is_news(self._world, reporter.pod, report):
            return told(PROGRESS, Received.COALESCED, 200, "accepted, and written with a later one")
        self._wake(reporter.key, False)
        return told(PROGRESS, Received.ACCEPTED, 200, "accepted")

    async def take_alerts(self, request: web.Request) -> web.Response:
        """A webhook of Alertmanager or Grafana: `{"version": "4", "alerts": [...]}`. A malformed alert is named, and the others count."""
        received = time.monotonic()
        sender = self._alert_tokens.sender(token := bearer(request))
        if sender is None:
            return told(ALERTS, Received.UNAUTHORIZED, 401, TOKEN_NEEDED)
        try:
            alerts, malformed = read(Webhook.model_validate(json_of(await self._webhook(request, token))).alerts)
        except CrowdedError as error:
            return told(ALERTS, Received.CROWDED, 503, f"send it again: {error}")
        except web.HTTPRequestEntityTooLarge:
            return told(ALERTS, Received.TOO_LARGE, 413, f"a webhook has at most {WEBHOOK_BYTES} bytes; send fewer alerts together")
        except ValueError as error:
            said = f"expected a webhook of Alertmanager (version 4) or Grafana (version 1): {first_problem(error)}"
            return told(ALERTS, Received.INVALID, 400, said)
        ALERTS.labels(Received.MALFORMED).inc(len(malformed))
        if malformed and not alerts:
            return web.json_response({"result": "Malformed", "message": malformed[0]}, status=400)
        self._mail.forget()
        for alert in alerts:
            if alert.status == "resolved":
                self._mail.withdraw(alert.identity(sender))
        return await self._answer(
            [alert.manifest(sender, self._clock()) for alert in alerts if alert.status == "firing"], malformed, received
        )

    async def _webhook(self, request: web.Request, token: str) -> bytes:
        """The body, when it is its turn: webhooks of other groups of alerts come at the same time, and none must be lost."""
        turn = self._turns.setdefault(token, asyncio.Lock())
        try:
            async with asyncio.timeout(BODY_SECONDS):
                await turn.acquire()
        except TimeoutError:
            raise CrowdedError("another request with this token is being read") from None
        try:
            return await self._webhooks.read(request, token, WEBHOOK_BYTES)
        finally:
            turn.release()

    async def _answer(self, firing: list[dict[str, Any]], malformed: list[str], received: float) -> web.Response:
        try:
            async with asyncio.timeout(DECISION_SECONDS):
                results = await asyncio.gather(*(self._decide(alert) for alert in firing))
        except TimeoutError:
            return told(ALERTS, Received.UNDECIDED, 503, "not decided yet; send it again")
        for result in results:
            ALERTS.labels(result).inc()
        ALERT_SECONDS.observe(time.monotonic() - received)
        advice = {answer: words for taker in self._takers for answer, words in taker.advice.items() if answer in results}
        body = (
            {"results": results} | ({"advice": advice} if advice else {}) | ({"malformed": malformed[:NAMED_ALERTS]} if malformed else {})
        )
        again = any(taker.again & set(results) for taker in self._takers)
        return web.json_response(body, status=503 if again else 200)

    async def _decide(self, alert: Manifest) -> str:
        """A namespace's own token speaks of nothing in another one."""
        for taker in self._takers:
            key = taker.key_of(alert, self._world)
            if key is not None and alert["sender"] in {"", key.namespace}:
                decision = self._mail.expect(key, alert)
                self._wake(key, True)
                return await asyncio.shield(decision)
        name, where = alert["labels"].get("alertname"), alert["labels"].get("namespace")
        log.info("alert %s with the token of %s names nothing known in namespace %s", name, alert["sender"] or "all namespaces", where)
        return self._takers[0].unknown


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

    def identity(self, sender: str) -> str:
        """The same for the same labels from the same sender: no namespace withdraws another one's."""
        own = self.fingerprint or json.dumps(self.labels, sort_keys=True)
        return f"{sender}/{own}" if sender else own

    def manifest(self, sender: str, now: datetime) -> dict[str, Any]:
        """As plans read it (`Inputs.alerts`). `sender` is the namespace whose token came with it, "" for that of all of them; `now` is the
        plans' time, and `clockAhead` by how many seconds the machine's clock is ahead of it.
        """
        return {
            "status": self.status,
            "fingerprint": self.identity(sender),
            "sender": sender,
            "startsAt": self.starts_at,
            "receivedAt": now.isoformat(),
            "clockAhead": (wall() - now).total_seconds(),
            "labels": self.labels,
            "annotations": self.annotations,
        }


class Webhook(BaseModel):
    """What Alertmanager posts (https://prometheus.io/docs/alerting/latest/configuration/#webhook_config), version 4, and what Grafana
    does (https://grafana.com/docs/grafana/latest/alerting/configure-notifications/manage-contact-points/integrations/webhook-notifier/), 1.
    """

    version: Literal["4", "1"]
    alerts: list[Any] = Field(max_length=MOST_ALERTS)


def read(alerts: list[Any]) -> tuple[list[Alert], list[str]]:
    """The alerts, and what is wrong with each that is none, with its place: one sender's mistake must not silence the others."""
    good, malformed = list[Alert](), list[str]()
    for number, alert in enumerate(alerts):
        try:
            good.append(Alert.model_validate(alert))
        except ValidationError as error:
            malformed.append(first_problem(error, "alerts", number))
    return good, malformed


def _content(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
