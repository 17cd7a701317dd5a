"""What the operator tells Prometheus after strangers and tenants have done what they can: no label has a value of theirs, but objects' names."""

import re
import socket
from collections.abc import Iterator
from datetime import UTC, datetime

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from videogen_operator import telemetry
from videogen_operator.handlers import OTHERS
from videogen_operator.kinds import KINDS
from videogen_operator.kinds.model_release.judging.alerts import Answer
from videogen_operator.main import WRITTEN, everything
from videogen_testing.control_plane import Api, eventually
from videogen_testing.operator_process import OperatorProcess
from videogen_testing.patience import HANGS
from videogen_testing.runs import RUNS, a_claim, a_run
from videogen_testing.webhook import an_alert, post

PLURALS = {resource.plural for resource in (*everything(), *WRITTEN)}
RESULTS: dict[str, set[str]] = {
    "videogen_reconcile": set(telemetry.Passed),
    "videogen_status_writes": set(telemetry.Written),
    "videogen_lists": set(telemetry.Listed),
    "videogen_watch_requests": set(telemetry.Watching),
    "videogen_progress_reports": set(telemetry.Received),
    "videogen_records": set(telemetry.Received),
    "videogen_alerts": set(telemetry.Received) | set(Answer),
}
CLOSED: dict[str, set[str]] = {
    "kind": {kind.name for kind in KINDS} | {resource.kind for resource in everything()},
    "resource": PLURALS | {"", OTHERS},
    "verb": {"GET", "POST", "PUT", "PATCH", "DELETE"},
    "port": {"inbox", "metrics", "health"},
}
CODE, BOUND = re.compile(r"[1-5][0-9]{2}|none"), re.compile(r"[0-9.]+|\+Inf")
OBJECTS = {gauge.name: set(gauge.labels) for kind in KINDS for gauge in kind.gauges}  # named after objects: 2,000 series in a namespace


def samples(operator: OperatorProcess) -> Iterator[tuple[str, Sample]]:
    for family in text_string_to_metric_families(operator.metrics()):
        for sample in family.samples:
            if family.name.startswith("videogen_"):
                yield family.name.removesuffix("_created"), sample  # of counters also the time of their first


def wrong(family: str, label: str, value: str) -> bool:
    """Whether that value is none of those that the label may have."""
    if family in OBJECTS or family == "videogen_series_left_out":
        return label not in OBJECTS.get(family, {"namespace", "metric"})
    if label == "result":
        return value not in RESULTS[family]
    if label == "reason":
        return value not in set(telemetry.Closed)
    if label in {"code", "le"}:
        return not (CODE if label == "code" else BOUND).fullmatch(value)
    return value not in CLOSED[label]


def value_of(operator: OperatorProcess, name: str, **labels: str) -> float | None:
    return next((sample.value for _, sample in samples(operator) if sample.name == name and sample.labels == labels), None)


def test_labels_have_closed_sets_of_values_whatever_is_sent(api: Api, namespace: str, operator: OperatorProcess) -> None:
    operator.start()
    api.create(f"/api/v1/namespaces/{namespace}/persistentvolumeclaims", a_claim())
    api.create(RUNS.format(namespace), a_run("strange-run", namespace))
    alerts = [an_alert("strange-release", namespace, datetime.now(UTC)), {"strange": "alert"}]
    for path in ("/v1/progress", "/v1/records", "/v1/alerts", "/v1/strange"):
        for token in ("strange", "alertmanager-secret", "namespace-secret"):
            for body in ({"strange": 1}, {"version": "4", "alerts": alerts}, b"strange"):
                post(operator.inbox_port, path, token, body)
    for port in (operator.inbox_port, operator.metrics_port, operator.health_port):
        with socket.create_connection(("127.0.0.1", port), timeout=HANGS) as connection:
            connection.sendall(b"STRANGE strange strange\r\n\r\n")
            assert b" 400 " in connection.recv(1024)
    eventually(lambda: value_of(operator, "videogen_reconcile_total", kind="TrainingRun", result="Done"))
    found = list(samples(operator))
    assert not [(family, label, value) for family, sample in found for label, value in sample.labels.items() if wrong(family, label, value)]
    assert {family for family, _ in found} >= {*RESULTS, "videogen_http_refused"}, "what was sent is counted"
    assert value_of(operator, "videogen_alerts_total", result="Malformed")
    assert not [sample for family, sample in found if family not in OBJECTS and "strange" in str(sample.labels)]


def test_queues_lists_and_watches_are_told_of_each_kind_and_resource(namespace: str, operator: OperatorProcess) -> None:
    operator.environment["VIDEOGEN_RESYNC_SECONDS"] = "1"
    operator.start()
    found = {(sample.name, *sorted(sample.labels.values())): sample.value for _, sample in samples(operator)}  # rendered once a second
    for kind in KINDS:
        assert found["videogen_reconcile_queue_depth", kind.name] == 0
        assert found["videogen_reconcile_oldest_waiting_seconds", kind.name] == 0
    for resource in everything():
        assert sum(found.get(("videogen_lists_total", one, resource.plural), 0) for one in ("Done", "Absent")) >= 1, resource.plural
        assert found["videogen_list_age_seconds", resource.plural] >= 0
    eventually(lambda: value_of(operator, "videogen_watch_requests_total", resource="trainingruns", result="Begun"))
    eventually(lambda: (value_of(operator, "videogen_lists_total", resource="pods", result="Done") or 0) >= 3)
    eventually(lambda: value_of(operator, "videogen_lease_transitions") == 1)  # from no holder to this one
