"""The environment as one frozen value. Every variable is `VIDEOGEN_` and the field's name in capitals."""

from __future__ import annotations

import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

PREFIX = "VIDEOGEN_"
SERVICE_LINK = re.compile(r"_SERVICE_(HOST|PORT)|_PORT_[0-9]+_|_OPERATOR_PORT$")  # Kubernetes adds these for Services of the namespace


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What an administrator decides. Seconds unless said otherwise."""

    namespaces: tuple[str, ...] = ()  # namespaces to serve; empty: all
    operator_namespace: str = "videogen-system"  # holds the Lease
    lease_name: str = "videogen-operator"
    identity: str = "videogen-operator"  # who holds the Lease; in a cluster the pod's name
    lease_seconds: int = 15  # another replica takes over when the Lease was not renewed for this long

    trainer_image: str = "videogen-trainer:latest"
    serving_image: str = "videogen-serving:latest"
    image_pull_policy: str = "IfNotPresent"
    pod_user: int = 65532  # uid, gid and fsGroup of trainer and serving pods
    progress_url: str = ""  # base URL of the inbox as pods reach it, e.g. http://videogen-operator.videogen-system:8080; "": no progress

    gateway_name: str = "videogen"
    gateway_namespace: str = "videogen-system"
    gateway_section: str = ""  # listener of the Gateway; "": all
    sticky_users: str = "true"  # a user (header x-user-id) stays with one release; "": for gateways other than Envoy's
    domain: str = "videogen.local"  # hostname of a service is <service>.<namespace>.<domain>
    prometheus_url: str = ""  # "": no measurements, so live checks end with Error

    inbox_host: str = "0.0.0.0"  # noqa: S104 - a pod's port is reached from other pods
    inbox_port: int = 8080
    alert_token_files: tuple[Path, ...] = ()  # bearer tokens that Alertmanager may use; two while one is rotated
    metrics_host: str = "0.0.0.0"  # noqa: S104
    metrics_port: int = 9090  # /metrics, /healthz, /readyz

    resync_seconds: int = 60  # all watched objects are listed this often, which heals missed events
    concurrency: int = 16  # passes at the same time; rollbacks do not count
    log_level: str = "INFO"

    def for_plans(self) -> dict[str, str]:
        """What plans may know, by the field's name (`Inputs.settings`)."""
        names = (
            "trainer_image serving_image image_pull_policy pod_user progress_url"
            " gateway_name gateway_namespace gateway_section sticky_users domain operator_namespace"
        )
        return {name: str(getattr(self, name)) for name in names.split()}


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
    if kind is int:
        if not value.isdigit():
            raise ValueError(f"{name} is {value!r}; expected a whole number, for example 60")
        return int(value)
    return value
