"""The environment as one frozen value. Every variable is `VIDEOGEN_` and the field's name in capitals."""

from __future__ import annotations

import json
import math
import re
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NewType

from videogen_api.placement import Placement

PREFIX = "VIDEOGEN_"
UNITS = {"ms": 0.001, "s": 1, "": 1, "m": 60, "h": 3600}
DURATION = re.compile(r"([0-9]+)(ms|s|m|h|)")  # as the chart writes Prometheus' durations
Duration = NewType("Duration", int)  # seconds
SERVICE_LINK = re.compile(r"_SERVICE_(HOST|PORT)|_PORT_[0-9]+_|_OPERATOR_PORT$")  # Kubernetes adds these for Services of the namespace


Peers = NewType("Peers", str)  # JSON: a list of NetworkPolicyPeers
Headers = NewType("Headers", str)  # JSON: an object from names of HTTP headers to their values
HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2
HEADER_VALUE = re.compile(r"[\x20-\x7e]+")
SECRET_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*")  # a DNS subdomain (RFC 1123)
DefaultPlacement = NewType("DefaultPlacement", str)  # JSON: a placement as in the API
Template = NewType("Template", str)  # with <service>, and <namespace> and <domain> if wanted
Secrets = NewType("Secrets", str)  # JSON: a list of {"name": ...}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What an administrator decides. Seconds unless said otherwise."""

    namespaces: tuple[str, ...] = ()  # namespaces to serve; empty: all
    operator_namespace: str = "videogen-system"  # holds the Lease
    lease_name: str = "videogen-operator"
    identity: str = "videogen-operator"  # who holds the Lease; in a cluster the pod's name
    lease_seconds: int = 12  # another replica takes over when the Lease was not renewed for this long

    trainer_image: str = "videogen-trainer:latest"
    serving_image: str = "videogen-serving:latest"
    serving_development: str = ""  # "true": release pods may start a Triton with known holes
    image_pull_policy: str = "IfNotPresent"
    scratch_size: str = "50Gi"  # ephemeral storage that a trainer or server may use at most
    image_pull_secrets: Secrets = Secrets("[]")  # of trainer and serving pods, in the namespace of each
    trainer_placement: DefaultPlacement = DefaultPlacement("{}")  # of all trainer pods, beside what a phase says
    nodes_on_demand: str = ""  # "true": an autoscaler brings nodes of a size that none has now, so a preflight does not look for them
    serving_placement: DefaultPlacement = DefaultPlacement("{}")  # of all serving pods, beside what a release says
    pod_user: int = 65532  # uid, gid and fsGroup of trainer and serving pods
    tracking_hosts: tuple[str, ...] = ()  # hosts of MLflow servers that runs may name, also as *.example.org; empty: none
    progress_url: str = ""  # base URL of the inbox as pods reach it, e.g. http://videogen-operator.videogen-system:8080; "": no progress

    gateway_name: str = "videogen"
    gateway_namespace: str = "videogen-system"
    gateway_section: str = ""  # listener of the Gateway; "": all
    gateway_controller: str = ""  # whose word on a route counts, as GatewayClass.spec.controllerName says; "": anybody's
    traffic_policy: str = "true"  # limits, and a user (header x-user-id) stays with one release; "": for gateways other than Envoy's
    requests_per_minute: int = 0  # of one address to a service; 0: no limit
    domain: str = "videogen.local"  # stands in the host names of services
    hostname: Template = Template("<service>-<namespace>.<domain>")  # host name of a service; a wildcard certificate covers them all
    network_policies: str = "true"  # one for each attempt and each release; "": none, for clusters that have their own
    # Who reaches the servers of releases, as lists of NetworkPolicyPeers: the gateway's pods their requests, Prometheus their metrics.
    gateway_peers: Peers = Peers(
        '[{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "envoy-gateway-system"}},'
        ' "podSelector": {"matchLabels": {"app.kubernetes.io/managed-by": "envoy-gateway", "app.kubernetes.io/component": "proxy"}}}]'
    )
    monitoring_peers: Peers = Peers(
        '[{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}},'
        ' "podSelector": {"matchLabels": {"app.kubernetes.io/name": "prometheus"}}}]'
    )
    prometheus_url: str = ""  # "": no measurements, so live checks end with Error, and no alert of the chart's can be verified
    prometheus_token_file: Path | None = None  # its bearer token, read again when it changes
    prometheus_ca: str = ""  # PEM file with the authority that it is verified by, read again when it changes; "": the system's authorities
    prometheus_headers: Headers = Headers("{}")  # of each question, such as X-Scope-OrgID
    gateway_metrics_namespace: str = "envoy-gateway-system"  # where the gateway's Envoys run: what they measured is a second signal
    alert_window_seconds: Duration = Duration(60)  # the window of the rollback alerts, by which they are verified; also as 1m or 15s

    inbox_host: str = "0.0.0.0"  # noqa: S104 - a pod's port is reached from other pods
    inbox_port: int = 8080
    inbox_ca: str = ""  # PEM file with the authority that trainers verify the inbox by; "": their system's authorities
    alert_token_files: tuple[Path, ...] = ()  # bearer tokens that Alertmanager may use; two while one is rotated
    inbox_certificate: str = ""  # PEM file, read again when it changes; "": plain HTTP, for development
    inbox_key: str = ""  # PEM file of its private key
    inbox_service: str = ""  # Service without pods of its own that this replica points at itself while it leads; "": none
    pod_address: str = ""  # where that Service finds this replica
    pod_uid: str = ""  # of the pod with which that goes
    alert_namespace_tokens: Path | None = None  # folder with a file for each namespace: its own bearer token
    record_keys: Path | None = None  # folder with a file for each key that seals records, named by its ID; empty: no phase is reused
    metrics_host: str = "0.0.0.0"  # noqa: S104
    metrics_port: int = 9090  # /metrics
    health_host: str = "0.0.0.0"  # noqa: S104
    health_port: int = 8081  # /healthz, /readyz, /leaderz

    resync_seconds: int = 60  # all watched objects are listed this often, which heals missed events
    concurrency: int = 16  # passes at the same time; rollbacks do not count
    log_level: str = "INFO"

    def for_plans(self) -> dict[str, str]:
        """What plans may know, by the field's name (`Inputs.settings`), and `progress_ca`, the content of `inbox_ca`."""
        names = (
            "trainer_image serving_image serving_development image_pull_policy pod_user progress_url scratch_size"
            " gateway_name gateway_namespace gateway_section gateway_controller traffic_policy requests_per_minute"
            " domain hostname operator_namespace image_pull_secrets trainer_placement nodes_on_demand serving_placement"
            " network_policies gateway_peers monitoring_peers gateway_metrics_namespace alert_window_seconds"
        )
        plain = {name: str(getattr(self, name)) for name in names.split()}
        records = "true" if self.record_keys else ""
        return plain | {"tracking_hosts": " ".join(self.tracking_hosts), "progress_ca": self._progress_ca(), "records": records}

    def _progress_ca(self) -> str:
        """The authority's certificate as it is now: cert-manager may exchange it while we run. Raises ValueError if there is none."""
        if not self.inbox_ca:
            return ""
        try:
            return Path(self.inbox_ca).read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{PREFIX}INBOX_CA: {self.inbox_ca} is no PEM certificate that can be read: {error}") from None


def from_environment(environment: Mapping[str, str]) -> Settings:
    """Settings from variables. Raises ValueError that names a variable that is unknown or cannot be read."""
    known = {PREFIX + field.name.upper(): field.name for field in fields(Settings)}
    given = {name: value for name, value in environment.items() if name.startswith(PREFIX) and not SERVICE_LINK.search(name)}
    if unknown := sorted(given.keys() - known.keys()):
        raise ValueError(f"unknown environment variable {unknown[0]}; accepted are {', '.join(sorted(known))}")
    types = typing.get_type_hints(Settings)
    values: dict[str, Any] = {known[name]: _read(name, value, types[known[name]]) for name, value in given.items()}
    return Settings(**values)


def _read(name: str, value: str, kind: object) -> object:
    parts = [part.strip() for part in value.split(",") if part.strip()]
    if kind == tuple[str, ...]:
        return tuple(parts)
    if kind == tuple[Path, ...]:
        return tuple(Path(part) for part in parts)
    if reader := READERS.get(kind):
        return reader(name, value)
    if kind == Path | None:
        return Path(value) if value else None
    if kind is Duration:
        if not (duration := DURATION.fullmatch(value)):
            raise ValueError(f"{name} is {value!r}; expected a whole number of seconds or a duration, for example 60, 15s or 1m")
        return math.ceil(int(duration[1]) * UNITS[duration[2]])
    if kind is int:
        if not value.isdigit():
            raise ValueError(f"{name} is {value!r}; expected a whole number, for example 60")
        return int(value)
    return value


def _placement(name: str, value: str) -> DefaultPlacement:
    try:
        Placement.model_validate_json(value)
    except ValueError as error:
        raise ValueError(f"{name} is {value[:200]!r}; expected a placement as in the API, as JSON, for example {{}}: {error}") from None
    return DefaultPlacement(value)


def _secrets(name: str, value: str) -> Secrets:
    try:
        found = json.loads(value)
    except ValueError:
        found = None
    if not isinstance(found, list) or not all(isinstance(one, dict) and list(one) == ["name"] and _is_name(one["name"]) for one in found):
        raise ValueError(f'{name} is {value[:200]!r}; expected a JSON list of names of Secrets, for example [{{"name": "registry"}}]')
    return Secrets(value)


def _is_name(value: object) -> bool:
    """Whether a Secret can have that name."""
    return isinstance(value, str) and len(value) <= 253 and SECRET_NAME.fullmatch(value) is not None


def _headers(name: str, value: str) -> Headers:
    try:
        found = json.loads(value)
    except ValueError:
        found = None
    if not isinstance(found, dict) or not all(_is_header(*one) for one in found.items()):
        raise ValueError(
            f'{name} is no JSON object of HTTP headers; expected their names and values in ASCII, for example {{"X-Scope-OrgID": "video"}}'
        )
    return Headers(value)


def _is_header(name: str, value: object) -> bool:
    return bool(HEADER_NAME.fullmatch(name)) and isinstance(value, str) and bool(HEADER_VALUE.fullmatch(value))


def _peers(name: str, value: str) -> Peers:
    """Whether the peers are right the API server says; here only what would stop a plan is refused."""
    try:
        found = json.loads(value)
    except ValueError:
        found = None
    if not isinstance(found, list) or not all(isinstance(peer, dict) and peer for peer in found):
        raise ValueError(f"{name} is {value[:200]!r}; expected a JSON list of NetworkPolicyPeers, none of them empty, for example []")
    return Peers(value)


def _template(name: str, value: str) -> Template:
    if "<service>" not in value:
        raise ValueError(f"{name} is {value!r}; expected a host name with <service> in it, for example <service>-<namespace>.<domain>")
    return Template(value)


READERS: dict[object, Callable[[str, str], object]] = {
    Peers: _peers,
    Headers: _headers,
    DefaultPlacement: _placement,
    Secrets: _secrets,
    Template: _template,
}
