"""A tenant's pod exposes metrics under another tenant's name, to a real Prometheus with the local cluster's configuration."""

from __future__ import annotations

import json
import shutil
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from localcluster import monitoring, targets
from videogen_testing.control_plane import eventually, free_port, process
from videogen_testing.patience import HANGS

RULES = Path(__file__).parents[2] / "charts/videogen/files/rules.yaml"
VICTIM = 'namespace="victim",service="standard",release="r1"'
OURS = "videogen.pib.gov.in/"
RELEASE_LABELS = {f"{OURS}release": "r1", f"{OURS}service": "standard"}
OPERATOR_LABELS = {"app.kubernetes.io/name": "videogen-operator"}
OPERATOR = f"""\
videogen_leader 1
videogen_resync_age_seconds 1
videogen_release_check_maximum{{{VICTIM},check="errors",metric="ErrorRatio"}} 0.05
videogen_release_check_minimum_requests{{{VICTIM},check="errors",metric="ErrorRatio"}} 1
"""
FORGED = f"""\
videogen_requests_total{{{VICTIM},job="videogen-releases",instance="r1",outcome="error"}} COUNT
videogen_leader 1
videogen_release_check_maximum{{{VICTIM},check="errors",metric="ErrorRatio"}} 0
"""
ROLLBACK_RULES = 2
WAIT_SECONDS = 240.0  # for a hang; the alert comes after a few scrapes


class Target:
    """A pod on loopback; each scrape finds the counters of its page raised by 100."""

    def __init__(self, namespace: str, name: str, page: str, labels: dict[str, str]) -> None:
        self.page, self.scrapes = page, 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.address = f"127.0.0.1:{self._server.server_port}"
        meta = {"uid": f"{namespace}-{name}", "namespace": namespace, "name": name, "labels": labels}
        notes = {"prometheus.io/scrape": "true", "prometheus.io/port": str(self._server.server_port)}
        status = {"podIP": "127.0.0.1", "phase": "Running"}
        self.pod: dict[str, Any] = {"metadata": meta | {"annotations": notes}, "spec": {"containers": []}, "status": status}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        target = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                target.scrapes += 1
                body = target.page.replace("COUNT", str(100 * target.scrapes)).encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.end_headers()
                with suppress(ConnectionError):  # a Prometheus that ends in mid-scrape
                    self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        return Handler

    @contextmanager
    def serving(self) -> Iterator[Target]:
        """Answers until the block ends."""
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()


def honest(outcome: str) -> str:
    return f'videogen_requests_total{{release="r1",outcome="{outcome}"}} COUNT\n'


class Prometheus:
    """Debian's Prometheus on loopback, with the configuration that `localcluster up` writes, and these pods."""

    def __init__(self, folder: Path, pods: list[dict[str, Any]]) -> None:
        self._folder, self.url = folder, f"http://127.0.0.1:{free_port()}"
        listed = targets.Pods()
        listed.take({"type": "LIST", "items": pods})
        for job, entries in listed.files().items():
            (folder / f"{job}.json").write_text(json.dumps(entries))
        own = self.url.removeprefix("http://")
        config = monitoring.configuration(str(RULES), own, "127.0.0.1:9", monitoring.listed_in(folder))
        (folder / "prometheus.yaml").write_text(json.dumps(config))

    @contextmanager
    def running(self) -> Iterator[Prometheus]:
        """A Prometheus that is ready."""
        program = shutil.which("prometheus")
        assert program, "no prometheus: install Debian's package prometheus, which the local cluster needs too"
        flags = [f"--config.file={self._folder / 'prometheus.yaml'}", f"--storage.tsdb.path={self._folder / 'data'}"]
        address = f"--web.listen-address={self.url.removeprefix('http://')}"
        with process([program, *flags, address, "--log.level=warn"], self._folder / "prometheus.log"):
            eventually(lambda: monitoring.answers(f"{self.url}/-/ready"), WAIT_SECONDS)
            yield self

    def ask(self, promql: str) -> list[dict[str, Any]]:
        """The series that a query gives now."""
        query = urllib.parse.urlencode({"query": promql})
        with urllib.request.urlopen(f"{self.url}/api/v1/query?{query}", timeout=HANGS) as answer:
            found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        return found

    def evaluations(self) -> int:
        """How often the group of rollback rules has been evaluated."""
        rules = 'prometheus_rule_evaluations_total{rule_group=~".*videogen-rollback"}'
        return sum(int(float(series["value"][1])) for series in self.ask(rules))

    def firing(self) -> list[str]:
        """Alerts for a rollback that fire, with the release they name."""
        found = [series["metric"] for series in self.ask('ALERTS{alertstate="firing",videogen_action="rollback"}')]
        return sorted(f"{alert['alertname']} {alert.get('namespace')}/{alert.get('release')}" for alert in found)


def attackers() -> list[Target]:
    """Who else exposes the victim's errors: strangers of each disguise, and a pod of the victim's namespace that is not the release's."""
    labels = {f"{OURS}{name}": "victim" for name in ("namespace", "job", "instance", "0x")}
    disguises = {"plain": {}, "release": RELEASE_LABELS, "operator": OPERATOR_LABELS, "target": RELEASE_LABELS | labels}
    strangers = [Target("attacker", name, FORGED, worn) for name, worn in disguises.items()]
    return [*strangers, Target("victim", "beside", FORGED, {})]


def test_forged_errors_take_no_release_back_and_its_own_do(tmp_path: Path) -> None:
    operator = Target("videogen-system", "operator", OPERATOR, OPERATOR_LABELS)
    release, hostile = Target("victim", "server", honest("ok"), RELEASE_LABELS), attackers()
    pods = [operator, release, *hostile]
    with ExitStack() as stack:
        for target in pods:
            stack.enter_context(target.serving())
        prometheus = stack.enter_context(Prometheus(tmp_path, [each.pod for each in pods]).running())

        eventually(lambda: all(target.scrapes >= 4 for target in pods), WAIT_SECONDS)
        before = prometheus.evaluations()
        eventually(lambda: prometheus.evaluations() >= before + 2 * ROLLBACK_RULES, WAIT_SECONDS)
        assert prometheus.firing() == []
        counted = prometheus.ask('videogen_requests_total{namespace="victim",release="r1"}')
        assert [(each["metric"]["instance"], each["metric"]["outcome"]) for each in counted] == [(release.address, "ok")]
        # A stranger who passes for a release is one of its own namespace.
        found = {(each["metric"]["job"], each["metric"]["namespace"]) for each in prometheus.ask("videogen_requests_total")}
        assert found == {("videogen-releases", "victim"), ("videogen-releases", "attacker")}
        leaders = prometheus.ask("videogen_leader or videogen_release_check_maximum")
        assert {each["metric"]["instance"] for each in leaders} == {operator.address}

        release.page += honest("error")
        eventually(lambda: prometheus.firing() == ["VideogenReleaseErrorsHigh victim/r1"], WAIT_SECONDS)
