"""Prometheus and Alertmanager out of Debian, run by us with our own configuration.

Both evaluate every two seconds: what matters here is how fast a fault is noticed, and the cluster is small. They see
the cluster's names (a webhook's URL may be that of a Service) by a resolv.conf of their own.
"""

import http.client
import json
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from localcluster import enforcement, files, processes, scraping
from localcluster.commands import run, succeeds
from localcluster.faults import Fault
from localcluster.layout import Layout
from localcluster.processes import Part

INTERVAL = "2s"
# After a start Prometheus knows no Alertmanager for some seconds and drops what fires then; by default it would say it
# again only after a minute.
RESEND = "--rules.alert.resend-delay=2s"
# A mount namespace in which only /etc/resolv.conf differs; then the program itself, under the same id.
WITH_CLUSTER_DNS = 'mount --bind "$1" /etc/resolv.conf && shift && exec "$@"'


def home(layout: Layout, name: str) -> Path:
    """A part's own folder."""
    return layout.home / name


def target_folder(layout: Layout) -> Path:
    """The lists of pods to scrape, one for each job, written by the keeper and watched by Prometheus."""
    return home(layout, "prometheus") / "targets"


def prepare(layout: Layout) -> None:
    """Writes both configurations; a webhook that was set by `alerts` is kept."""
    (home(layout, "prometheus") / "rules").mkdir(parents=True, exist_ok=True)
    (home(layout, "prometheus") / "data").mkdir(parents=True, exist_ok=True)
    target_folder(layout).mkdir(parents=True, exist_ok=True)
    (home(layout, "alertmanager") / "data").mkdir(parents=True, exist_ok=True)
    files.write_json(home(layout, "prometheus") / "prometheus.yaml", prometheus_config(layout))
    resolver = f"nameserver {layout.address}\nsearch svc.cluster.local cluster.local\noptions ndots:5\n"
    files.write(home(layout, "alertmanager") / "resolv.conf", resolver)
    config = home(layout, "alertmanager") / "alertmanager.yaml"
    if not config.exists():
        files.write_json(config, alertmanager_config(None, None))


def prometheus_config(layout: Layout) -> dict[str, Any]:
    """Scrapes itself and the pods that the keeper lists."""
    rules = home(layout, "prometheus") / "rules" / "*.yaml"
    return configuration(str(rules), f"{layout.address}:9090", f"{layout.address}:9093", listed_in(target_folder(layout)))


def listed_in(folder: Path) -> Callable[[str], dict[str, Any]]:
    """How Prometheus finds the pods of a job: by the job's file in this folder."""
    return lambda job: {"file_sd_configs": [{"files": [str(folder / f"{job}.json")]}]}


def configuration(rules: str, own: str, alertmanager: str, discovery: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    """A Prometheus that looks every two seconds; `discovery` says how it finds the pods of a job."""
    return {
        "global": {"scrape_interval": INTERVAL, "scrape_timeout": INTERVAL, "evaluation_interval": INTERVAL},
        "rule_files": [rules],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]},
        "scrape_configs": [
            {"job_name": "prometheus", "static_configs": [{"targets": [own]}]},
            *scraping.configs(discovery),
        ],
    }


def alertmanager_config(
    webhook: str | None, token_file: Path | None, ca_file: Path | None = None, server_name: str | None = None
) -> dict[str, Any]:
    """One receiver that is told at once, and again every minute while an alert lasts.

    Its certificate must be of the authority of `ca_file`, and for `server_name` instead of the URL's host, if they are given.
    """
    receiver: dict[str, Any] = {"name": "webhook"}
    if webhook:
        target: dict[str, Any] = {"url": webhook, "send_resolved": True}
        http: dict[str, Any] = {}
        if token_file:
            http["authorization"] = {"type": "Bearer", "credentials_file": str(token_file)}
        if ca_file:
            http["tls_config"] = {"ca_file": str(ca_file)} | ({"server_name": server_name} if server_name else {})
        if http:
            target["http_config"] = http
        receiver["webhook_configs"] = [target]
    return {
        "route": {
            "receiver": "webhook",
            "group_by": ["namespace", "release", "alertname"],
            "group_wait": "0s",
            "group_interval": "1s",
            "repeat_interval": "1m",
        },
        "receivers": [receiver],
    }


def parts(layout: Layout) -> tuple[Part, ...]:
    """Both processes, Alertmanager first, so that the first alert finds it."""
    return (alertmanager(layout), prometheus(layout))


def prometheus(layout: Layout) -> Part:
    """Prometheus, reloadable so that rule files can be dropped in."""
    folder = home(layout, "prometheus")
    return Part(
        name="prometheus",
        version=debian_version("prometheus"),
        argv=enforcement.in_judged_group(
            "/usr/bin/prometheus",
            f"--config.file={folder / 'prometheus.yaml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            "--storage.tsdb.retention.time=2d",
            f"--web.listen-address={layout.address}:9090",
            "--web.enable-lifecycle",
            RESEND,
            "--log.level=warn",
        ),
        ready=lambda: answers(f"{layout.prometheus_url}/-/ready"),
        configs=(folder / "prometheus.yaml",),
    )


def alertmanager(layout: Layout) -> Part:
    """Alertmanager, alone: without the gossip that several would need."""
    folder = home(layout, "alertmanager")
    program = (
        "/usr/bin/prometheus-alertmanager",
        f"--config.file={folder / 'alertmanager.yaml'}",
        f"--storage.path={folder / 'data'}",
        f"--web.listen-address={layout.address}:9093",
        "--cluster.listen-address=",
        "--log.level=warn",
    )
    private = ("unshare", "--mount", "--propagation", "slave", "/bin/sh", "-c", WITH_CLUSTER_DNS, "alertmanager")
    return Part(
        name="alertmanager",
        version=debian_version("prometheus-alertmanager"),
        argv=enforcement.in_judged_group(*private, folder / "resolv.conf", *program),
        ready=lambda: answers(f"{layout.alertmanager_url}/-/ready"),
        configs=(folder / "resolv.conf",),
    )


def debian_version(package: str) -> str:
    """The upstream part of an installed package's version."""
    if not succeeds(["dpkg-query", "-W", package]):
        return "unknown"
    return run(["dpkg-query", "-W", "-f", "${Version}", package]).partition("+")[0].partition("-")[0]


def answers(url: str, method: str = "GET") -> bool:
    """Whether an address answers with success. Never through a proxy."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(urllib.request.Request(url, method=method), timeout=5):
            return True
    except (urllib.error.URLError, OSError):
        return False


def speaks_http(url: str) -> bool:
    """Whether an HTTP server is there, whatever it answers."""
    address = urlsplit(url)
    connection = http.client.HTTPConnection(str(address.hostname), address.port or 80, timeout=2)
    try:
        connection.request("GET", "/")
        connection.getresponse()
        return True
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def set_rules(layout: Layout, file: Path) -> None:
    """Takes over a file of alert rules; takes effect at once."""
    if not file.is_file():
        raise Fault(f"the rule file {file} does not exist")
    rules = home(layout, "prometheus") / "rules"
    rules.mkdir(parents=True, exist_ok=True)
    (rules / f"{file.stem}.yaml").write_text(file.read_text())
    if not answers(f"{layout.prometheus_url}/-/reload", "POST"):
        raise Fault(f"Prometheus did not take over {file}; its log says why: {layout.logs / 'prometheus.log'}")


def set_webhook(
    layout: Layout, url: str | None, token_file: Path | None, ca_file: Path | None = None, server_name: str | None = None
) -> None:
    """Sends all alerts to one address, with a bearer token, by TLS if an authority is given; takes effect at once."""
    folder = home(layout, "alertmanager")
    if url and urlsplit(url).scheme not in ("http", "https"):
        raise Fault(f"{url} is no address for a webhook: http://host:port/path is")
    token, authority = folder / "token", folder / "ca.crt"
    for what, file, own_copy, mode in (("token", token_file, token, 0o600), ("authority's", ca_file, authority, 0o644)):
        if file:
            if not file.is_file():
                raise Fault(f"the {what} file {file} does not exist")
            files.write(own_copy, file.read_text().strip(), mode)
    config = alertmanager_config(url, token if token_file else None, authority if ca_file else None, server_name)
    files.write_json(folder / "alertmanager.yaml", config)
    entry = processes.record(layout, "alertmanager")
    if entry and entry.alive() and not answers(f"{layout.alertmanager_url}/-/reload", "POST"):
        raise Fault(f"alertmanager refused its configuration; see {layout.logs / 'alertmanager.log'}")


def purge(layout: Layout) -> None:
    """Forgets series, silences, rules, the webhook and its token."""
    for name in ("prometheus", "alertmanager"):
        shutil.rmtree(home(layout, name), ignore_errors=True)


def webhook(layout: Layout) -> str:
    """Where alerts go now; empty if nowhere."""
    config = json.loads((home(layout, "alertmanager") / "alertmanager.yaml").read_text())
    targets = config["receivers"][0].get("webhook_configs", [])
    return str(targets[0]["url"]) if targets else ""
