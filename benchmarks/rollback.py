"""`python -m benchmarks.rollback`: how long users still get the bad release after something has called for a rollback.

A stable release and a slow candidate share a service's traffic on the local cluster, and viewers ask through the gateway. How slow
it is and which limit it breaks is measured here first. 20 times a webhook as Alertmanager's names the candidate, once Prometheus
knows that it is slow; then, some times more, Prometheus, Alertmanager and the operator find out by themselves. docs/benchmarks.md
says what each figure means.
"""

from __future__ import annotations

import argparse
import base64
import json
import ssl
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from benchmarks import calibration, service
from benchmarks.figures import Figure, circumstances, percentile, table
from videogen_demo import install
from videogen_demo.kubectl import Cluster, CommandError, Manifest
from videogen_demo.load import Answer, Load
from videogen_serving.client import generate, request_body

STABLE, SLOW = "1.0.0", "1.1.0"
ALERT = "VideogenReleaseLatencyHigh"  # of the chart's rules; the operator believes it only if Prometheus says so, too
VIEWERS = 4
PAUSE_SECONDS = 0.1  # between an answer and the next request of a viewer, so that there is load and no queue
SETTLING_SECONDS = 2.0  # and a slow video for every viewer: longer than any request that is on its way
KNOWN_SECONDS = 5.0  # after the first slow answer Prometheus has scraped twice and knows it


@dataclass(frozen=True, slots=True)
class Rollback:
    """One rollback as the viewers saw it; seconds after its beginning, 0 if nothing came later."""

    last_sent: float  # last request that was sent then and answered by the bad release
    last_answered: float  # last answer of the bad release
    decided: float  # until the webhook was answered (webhook) or the release was seen rolled back (alert)


@dataclass(frozen=True, slots=True)
class Scene:
    """What every repetition needs."""

    cluster: Cluster
    load: Load
    inbox: str  # URL of the operator's webhook
    trust: ssl.SSLContext  # by which its certificate is verified
    token: str
    prometheus: str  # URL
    fault: calibration.Fault
    began: float  # time.monotonic() seconds; moments are printed from here


def main(arguments: list[str]) -> int:
    """0 when every rollback happened, at whatever speed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rollback", description=__doc__)
    parser.add_argument("--webhooks", type=int, default=20, help="rollbacks by webhook")
    parser.add_argument("--alerts", type=int, default=10, help="rollbacks through Prometheus and Alertmanager")
    parser.add_argument("--pause", type=float, default=PAUSE_SECONDS, help="seconds between an answer and the viewer's next request")
    parser.add_argument("--keep", action="store_true", help="leave the service running")
    options = parser.parse_args(arguments)
    try:
        installation = _installation()
        print(circumstances(), flush=True)
        try:
            figures = _measure(installation, options)
        finally:
            if not options.keep:
                service.remove(installation.cluster)
    except CommandError as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return 1
    print("\n" + table(figures))
    return 0


def _installation() -> install.Installation:
    installation = install.ensure()
    if not installation.local:
        raise CommandError("this benchmark needs the local cluster, whose Prometheus scrapes every 2 s; unset KUBECONFIG")
    return installation


def _measure(installation: install.Installation, options: argparse.Namespace) -> list[Figure]:
    cluster = installation.cluster
    service.create_namespace(cluster)
    bundles = service.write_bundles(cluster, installation.images["trainer"], [STABLE, SLOW])
    fast, most = calibration.FAST_STEPS, calibration.MOST_STEPS
    cluster.apply(service.release(STABLE, bundles[STABLE], sampling_steps=fast, maximum_steps=most))
    service.wait_for(cluster, STABLE, "Stable")
    load = Load(install.gateway_url(cluster), install.host_name(service.SERVICE, service.NAMESPACE), viewers=VIEWERS, pause=options.pause)
    cluster.wait("the gateway to answer for the new service", lambda: _answers(load), 60)
    fault = _calibrated(load)
    prometheus = _address(cluster, "monitoring", "prometheus")
    scene = Scene(cluster, load.start(), *_inbox(cluster), _token(cluster), prometheus, fault, time.monotonic())
    try:
        cluster.apply(service.release(SLOW, bundles[SLOW], sampling_steps=fault.steps, latency_limit=f"{fault.limit:.4f}"))
        with _silence(scene):
            webhooks = [_by_webhook(scene, number) for number in range(options.webhooks)]
        alerts = [_by_alert(scene, options.webhooks + number) for number in range(options.alerts)]
    finally:
        load.stop()
        for answer in load.failures():
            how = f"status {answer.status}" if answer.status else "no answer"
            print(f"{answer.sent - scene.began:6.1f} s  a request failed after {answer.seconds:.3f} s: {how} {answer.release}", flush=True)
    return list(_figures(webhooks, alerts, load))


def _calibrated(load: Load) -> calibration.Fault:
    """A fault for this machine, by asking the stable release alone through the gateway."""

    def seconds_of(steps: int) -> float:
        began = time.monotonic()
        generate(load.url, request_body("a red square moves right", 1, steps), {"Host": load.host}, 120)
        return time.monotonic() - began

    try:
        fault = calibration.fault(seconds_of)
    except (ValueError, RuntimeError) as error:
        raise CommandError(f"the benchmark could not be calibrated: {error}") from None
    print(
        f"calibrated: a video of {calibration.FAST_STEPS} step takes {fault.fast:.3f} s, one of the slow release's {fault.steps} steps"
        f" {fault.slow:.3f} s, its limit is {fault.limit:.3f} s",
        flush=True,
    )
    return fault


def _by_webhook(scene: Scene, number: int) -> Rollback:
    began = _into_canary(scene, number)
    bad = _first_answer(scene, began)
    scene.cluster.wait("Prometheus to know that the slow release is slow", lambda: _is_known(scene, bad), 300)
    time.sleep(0.137 * (number % 7))  # not always at the same moment of anybody's cycle
    called = time.monotonic()
    answer = _post(scene, number)
    decided = time.monotonic() - called
    if answer != ["RolledBack"]:
        raise CommandError(f"the operator answered the webhook with {answer}, expected RolledBack")
    service.wait_for(scene.cluster, SLOW, "RolledBack", 300)
    time.sleep(SETTLING_SECONDS + VIEWERS * scene.fault.slow)
    return _told(scene, "webhook", number, _seen(scene, called, decided))


def _by_alert(scene: Scene, number: int) -> Rollback:
    scene.cluster.wait("the alert of the last rollback to end", lambda: not _is_firing(scene), 120)
    time.sleep(0.2 * number % 2)  # it ends in step with Prometheus; the next fault shall come at any moment of its cycle
    began = _into_canary(scene, number)
    bad = _first_answer(scene, began)
    service.wait_for(scene.cluster, SLOW, "RolledBack", 300)
    decided = time.monotonic() - bad.received
    time.sleep(SETTLING_SECONDS + VIEWERS * scene.fault.slow)
    record = (scene.cluster.get("modelrelease", service.name_of(SLOW), service.NAMESPACE) or {})["status"]["rollback"]
    if record["reason"] != "Alert":
        raise CommandError(f"the slow release was rolled back by {record['reason']}, not by the alert: {record['message']}")
    return _told(scene, "alert", number, _seen(scene, bad.received, decided))


def _into_canary(scene: Scene, number: int) -> float:
    """Let the slow release take traffic (again). Returns a moment before it could."""
    began = time.monotonic()
    if number:
        service.retry(scene.cluster, SLOW, str(number))
    service.wait_for(scene.cluster, SLOW, "Canary")
    return began


def _first_answer(scene: Scene, began: float) -> Answer:
    name = service.name_of(SLOW)

    def found() -> Answer | None:
        return next((answer for answer in scene.load.answers if answer.release == name and answer.received > began), None)

    first: Answer = scene.cluster.wait(f"an answer of {name} through the gateway", found, 60, pause=0.02)
    return first


def _seen(scene: Scene, since: float, decided: float) -> Rollback:
    bad = [answer for answer in scene.load.answers if answer.release == service.name_of(SLOW)]
    return Rollback(
        last_sent=max((answer.sent - since for answer in bad), default=0.0),
        last_answered=max(answer.received - since for answer in bad),
        decided=decided,
    )


def _told(scene: Scene, what: str, number: int, seen: Rollback) -> Rollback:
    seen = Rollback(max(0.0, seen.last_sent), max(0.0, seen.last_answered), seen.decided)
    print(
        f"{time.monotonic() - scene.began:6.1f} s  {what} {number + 1}: decided after {seen.decided:.3f} s; "
        f"last request to the bad release sent after {seen.last_sent:.3f} s, its last answer after {seen.last_answered:.3f} s",
        flush=True,
    )
    return seen


def _figures(webhooks: list[Rollback], alerts: list[Rollback], load: Load) -> Iterator[Figure]:
    """Aims are for requests: a video that is under way is not cut off, and takes as long as calibration has made it."""
    if webhooks:
        head = f"{len(webhooks)} webhooks: sent →"
        for share, aim in {0.5: 0.15, 0.99: 0.5}.items():
            yield Figure(f"{head} last request that the bad release got, p{share * 100:.0f}", _part(webhooks, "last_sent", share), "s", aim)
            yield Figure(f"{head} its last answer, p{share * 100:.0f}", _part(webhooks, "last_answered", share), "s")
            yield Figure(f"{head} decision written and answered, p{share * 100:.0f}", _part(webhooks, "decided", share), "s")
    if alerts:
        head = f"{len(alerts)} alerts by Prometheus: first slow answer →"
        yield Figure(f"{head} last request that the bad release got, p50", _part(alerts, "last_sent", 0.5), "s", 3.0)
        yield Figure(f"{head} last request that the bad release got, largest", _part(alerts, "last_sent", 1), "s")
        yield Figure(f"{head} its last answer, p50", _part(alerts, "last_answered", 0.5), "s")
        yield Figure(f"{head} its last answer, largest", _part(alerts, "last_answered", 1), "s")
    for version, what in ((STABLE, "stable"), (SLOW, "slow")):
        if seconds := [answer.seconds for answer in load.answers if answer.release == service.name_of(version)]:
            yield Figure(f"one answer of the {what} release, p50 of {len(seconds)}", percentile(seconds, 0.5), "s")
    yield Figure("requests per second", len(load.answers) / (load.answers[-1].received - load.answers[0].received), "")
    yield Figure(f"failed requests of {len(load.answers)}", len(load.failures()), "", 0)


def _part(rollbacks: list[Rollback], field: str, share: float) -> float:
    return percentile([getattr(one, field) for one in rollbacks], share)


# The operator's webhook and Prometheus, as they are reached from this machine -----------------------------------------


def _post(scene: Scene, number: int) -> list[str]:
    labels = {"alertname": ALERT, "namespace": service.NAMESPACE, "release": service.name_of(SLOW)}
    alert = {"status": "firing", "labels": labels, "startsAt": datetime.now(UTC).isoformat(), "fingerprint": f"benchmark-{number}"}
    headers = {"Authorization": f"Bearer {scene.token}"}
    results: list[str] = _json(scene.inbox, {"version": "4", "alerts": [alert]}, headers, trust=scene.trust)["results"]
    return results


def _is_known(scene: Scene, first: Answer) -> bool:
    """Whether Prometheus has measured since the first slow answer that the release is too slow, without what was before it."""
    seconds = int(time.monotonic() - first.received)
    if seconds < KNOWN_SECONDS:
        return False
    which = f'namespace="{service.NAMESPACE}",release="{service.name_of(SLOW)}",outcome="ok"'
    buckets = f"sum by (le) (rate(videogen_request_duration_seconds_bucket{{{which}}}[{seconds}s]))"
    return bool(_query(scene, f"histogram_quantile(0.95, {buckets}) > {scene.fault.limit}"))


def _is_firing(scene: Scene) -> bool:
    labels = f'alertstate="firing",alertname="{ALERT}",namespace="{service.NAMESPACE}",release="{service.name_of(SLOW)}"'
    return bool(_query(scene, f"ALERTS{{{labels}}}"))


def _query(scene: Scene, query: str) -> list[Any]:
    found: list[Any] = _json(f"{scene.prometheus}/api/v1/query?{urllib.parse.urlencode({'query': query})}")["data"]["result"]
    return found


@contextmanager
def _silence(scene: Scene) -> Iterator[None]:
    """Alertmanager keeps the slow release's alert to itself, so that nothing but the benchmark's own webhook calls for a rollback."""
    active = _json(f"{scene.prometheus}/api/v1/alertmanagers")["data"]["activeAlertmanagers"]
    if not active:
        raise CommandError("Prometheus has no Alertmanager; run `make install`")
    silences = active[0]["url"].removesuffix("/alerts")
    labels = {"namespace": service.NAMESPACE, "release": service.name_of(SLOW)}
    matchers = [{"name": name, "value": value, "isRegex": False, "isEqual": True} for name, value in labels.items()]
    now = datetime.now(UTC)
    times = {"startsAt": now.isoformat(), "endsAt": (now + timedelta(hours=2)).isoformat()}
    made = _json(f"{silences}/silences", {"matchers": matchers, "createdBy": "benchmark", "comment": "rollbacks by webhook", **times})
    try:
        yield
    finally:
        _json(f"{silences}/silence/{made['silenceID']}", method="DELETE")


def _json(
    url: str,
    body: object = None,
    headers: Mapping[str, str] | None = None,
    method: str | None = None,
    trust: ssl.SSLContext | None = None,
) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers={"Content-Type": "application/json", **(headers or {})}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10, context=trust) as answer:
            return json.loads(answer.read() or b"null")
    except (OSError, ValueError) as error:
        raise CommandError(f"{request.method or 'POST'} {url.partition('?')[0]} failed: {error}") from None


def _inbox(cluster: Cluster) -> tuple[str, ssl.SSLContext]:
    """URL of the webhook, by an address that its certificate does not name: only the authority is verified, which signs no other one."""
    trust = ssl.create_default_context(cadata=install.inbox_authority(cluster))
    trust.check_hostname = False
    return _address(cluster, install.SYSTEM, "videogen-operator", "inbox").replace("http:", "https:") + "/v1/alerts", trust


def _token(cluster: Cluster) -> str:
    secret = cluster.get("secret", install.TOKEN_SECRET, install.SYSTEM)
    if not secret:
        raise CommandError(f"there is no Secret {install.SYSTEM}/{install.TOKEN_SECRET}; run `make install`")
    return base64.b64decode(secret["data"]["token"]).decode().strip()


def _address(cluster: Cluster, namespace: str, name: str, port: str = "") -> str:
    found: Manifest | None = cluster.get("service", name, namespace)
    if not found:
        raise CommandError(f"there is no Service {namespace}/{name}; run `make install`")
    ports: list[dict[str, Any]] = found["spec"]["ports"]
    number = next((one["port"] for one in ports if port in {"", one.get("name")}), 0)
    return f"http://{found['spec']['clusterIP']}:{number}"


def _answers(load: Load) -> bool:
    request = urllib.request.Request(f"{load.url}/v2/models/video/ready", headers={"Host": load.host})
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
