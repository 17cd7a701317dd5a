"""HTTP in: progress of trainers and alerts of Alertmanager. Each request is authenticated before its body is read.

`POST /v1/progress` is Kubeflow Trainer's progress protocol; the caller is the pod that its projected token names.
`POST /v1/alerts` is Alertmanager's webhook, version 4. It is answered with 200 only once the decision about every
firing alert is written to the cluster, so that Alertmanager repeats what was lost with a crash of the operator.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from pydantic import ValidationError

from videogen_api.meta import LABEL_RUN
from videogen_api.training_run import Progress
from videogen_operator.cluster import ApiError
from videogen_operator.plan import Key, Manifest
from videogen_operator.telemetry import ALERT_SECONDS, ALERTS, PROGRESS
from videogen_operator.tokens import PodTokens
from videogen_operator.world import ObjectWorld, labels_of

BODY_LIMIT = 256 * 1024
DECISION_SECONDS = 5.0
REPORT_SECONDS = 0.5  # a pod that reports more often than this is answered with 429
log = logging.getLogger(__name__)
Wake = Callable[[Key, bool], None]


class Mail:
    """What came in and is not yet decided: the newest progress of each pod, and alerts until their answer."""

    def __init__(self) -> None:
        self._progress: dict[tuple[str, str], Manifest] = {}  # (namespace, pod)
        self._alerts: dict[Key, dict[str, tuple[Manifest, asyncio.Future[str]]]] = {}

    def progress(self, namespace: str) -> Mapping[str, Manifest]:
        """The last report of each pod of a namespace, by pod name."""
        return {pod: report for (of, pod), report in self._progress.items() if of == namespace}

    def report(self, namespace: str, pod: str, report: Manifest) -> None:
        """Remember a pod's report; of pods that reported long ago the oldest is forgotten."""
        self._progress.pop((namespace, pod), None)
        self._progress[namespace, pod] = report
        while len(self._progress) > 10_000:
            del self._progress[next(iter(self._progress))]

    def alerts(self, key: Key) -> tuple[Manifest, ...]:
        """Alerts that wait for a decision of this key."""
        return tuple(alert for alert, _ in self._alerts.get(key, {}).values())

    def expect(self, key: Key, alert: Manifest) -> asyncio.Future[str]:
        """Hand in an alert; the future becomes its answer. One that waits already is not doubled."""
        waiting = self._alerts.setdefault(key, {})
        if alert["fingerprint"] not in waiting:
            waiting[alert["fingerprint"]] = (alert, asyncio.get_running_loop().create_future())
        return waiting[alert["fingerprint"]][1]

    def answer(self, key: Key, answers: Mapping[str, str]) -> None:
        """Decisions that have been written to the cluster."""
        waiting = self._alerts.get(key, {})
        for fingerprint in answers.keys() & waiting.keys():
            _, future = waiting.pop(fingerprint)
            if not future.done():
                future.set_result(answers[fingerprint])
        if not waiting:
            self._alerts.pop(key, None)


class Inbox:
    """The two endpoints as an aiohttp application."""

    def __init__(self, mail: Mail, world: ObjectWorld, tokens: PodTokens, alert_tokens: tuple[Path, ...], wake: Wake) -> None:
        self._mail, self._world, self._tokens, self._alert_tokens, self._wake = mail, world, tokens, alert_tokens, wake
        self._reported: dict[str, float] = {}

    def application(self) -> web.Application:
        """Routes and limits."""
        application = web.Application(client_max_size=BODY_LIMIT)
        application.router.add_post("/v1/progress", self.take_progress)
        application.router.add_post("/v1/alerts", self.take_alerts)
        return application

    async def take_progress(self, request: web.Request) -> web.Response:
        """One report of a trainer, `{"trainerStatus": {...}}`."""
        try:
            caller = await self._tokens.review(_bearer(request))
        except (ApiError, aiohttp.ClientError, TimeoutError) as error:
            return _told(PROGRESS, "Unreviewed", 503, f"the token cannot be checked now: {error}")
        pod = self._world.get("Pod", caller.namespace, caller.pod) if caller else None
        if caller is None or pod is None or pod["metadata"].get("uid") != caller.pod_uid or LABEL_RUN not in labels_of(pod):
            return _told(PROGRESS, "Unauthorized", 401, "the token is not that of a trainer's pod")
        if time.monotonic() - self._reported.get(caller.pod_uid, 0.0) < REPORT_SECONDS:
            return _told(PROGRESS, "TooOften", 429, f"report at most every {REPORT_SECONDS} s")
        try:
            report = Progress.model_validate((await request.json())["trainerStatus"]).wire()
        except (ValueError, KeyError, TypeError, ValidationError) as error:
            return _told(PROGRESS, "Invalid", 400, f"expected {{'trainerStatus': {{...}}}}: {str(error)[:300]}")
        self._remember(caller.pod_uid)
        self._mail.report(caller.namespace, caller.pod, report)
        self._wake(Key("TrainingRun", caller.namespace, labels_of(pod)[LABEL_RUN]), False)
        return _told(PROGRESS, "Accepted", 200, "accepted")

    async def take_alerts(self, request: web.Request) -> web.Response:
        """A webhook of Alertmanager: `{"version": "4", "alerts": [...]}`."""
        received = time.monotonic()
        if not self._is_alertmanager(_bearer(request)):
            return _told(ALERTS, "Unauthorized", 401, "a bearer token of alertTokenFiles is needed")
        try:
            firing = [alert for alert in _webhook(await request.json()) if alert["status"] == "firing"]
        except (ValueError, KeyError, TypeError) as error:
            return _told(ALERTS, "Invalid", 400, f"expected an Alertmanager webhook of version 4: {error}")
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
        if release is None:
            log.info("alert %s names no release: %s/%s", labels.get("alertname"), labels.get("namespace"), labels.get("release"))
            return "UnknownRelease"
        key = Key("ModelRelease", labels["namespace"], release["spec"]["service"])
        decision = self._mail.expect(key, alert)
        self._wake(key, True)
        return await asyncio.shield(decision)

    def _is_alertmanager(self, token: str) -> bool:
        allowed = [content for path in self._alert_tokens if (content := _content(path))]
        matches = [hmac.compare_digest(content.encode(), token.encode()) for content in allowed]
        return any(matches)

    def _remember(self, pod_uid: str) -> None:
        self._reported.pop(pod_uid, None)
        self._reported[pod_uid] = time.monotonic()
        while len(self._reported) > 10_000:
            del self._reported[next(iter(self._reported))]


def _webhook(body: Any) -> list[dict[str, Any]]:
    if body["version"] != "4":
        raise ValueError(f"version is {body['version']!r}, must be '4'")
    now = datetime.now(UTC).isoformat()
    return [
        {
            "status": str(alert["status"]),
            "fingerprint": str(alert.get("fingerprint") or json.dumps(alert["labels"], sort_keys=True)),
            "startsAt": str(alert["startsAt"]),
            "receivedAt": now,
            "labels": {str(key): str(value) for key, value in alert["labels"].items()},
            "annotations": {str(key): str(value) for key, value in alert.get("annotations", {}).items()},
        }
        for alert in body["alerts"][:64]
    ]


def _bearer(request: web.Request) -> str:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _content(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _told(counter: Any, result: str, status: int, message: str) -> web.Response:
    counter.labels(result).inc()
    return web.json_response({"result": result, "message": message}, status=status)
