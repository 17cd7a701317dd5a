"""What the alert rules are compared with."""

from prometheus_client import CollectorRegistry

from videogen_operator.exporter import WorldCollector
from videogen_operator.kinds import KINDS
from videogen_operator.plan import Key
from videogen_testing.releases import NAMESPACE, SERVICE, Objects, a_release, name_of

LATENCY = {"name": "latency", "metric": "LatencyP95Seconds", "maximum": "2.5", "minimumRequests": 7}
ERRORS = {"name": "errors", "metric": "ErrorRatio", "maximum": "0.05"}
COMPARED = {"name": "compared", "metric": "LatencyP95Seconds", "maximumRatioToStable": "2"}


def value_of(metric: str, check: str) -> float | None:
    registry = CollectorRegistry()
    registry.register(WorldCollector(Objects(a_release(rollout={"checks": [LATENCY, ERRORS, COMPARED]})), KINDS))
    kind = "ErrorRatio" if check == "errors" else "LatencyP95Seconds"
    labels = {"namespace": NAMESPACE, "service": SERVICE, "release": name_of("1.0.0"), "check": check, "metric": kind}
    return registry.get_sample_value(metric, labels)


def test_a_check_with_a_bound_is_told_with_the_requests_that_it_wants() -> None:
    assert value_of("videogen_release_check_maximum", "latency") == 2.5
    assert value_of("videogen_release_check_minimum_requests", "latency") == 7


def test_the_default_number_of_requests_is_told_too() -> None:
    assert value_of("videogen_release_check_minimum_requests", "errors") == 10


def test_a_check_that_only_compares_has_no_bound_for_an_alert() -> None:
    assert value_of("videogen_release_check_maximum", "compared") is None
    assert value_of("videogen_release_check_minimum_requests", "compared") is None


def told(metric: str, labels: dict[str, str], **conditions: str) -> float | None:
    status = {"conditions": [{"type": kind, "status": "True", "reason": reason} for kind, reason in conditions.items()]}
    registry = CollectorRegistry()
    registry.register(WorldCollector(Objects(a_release(status=status | {"rollout": {"state": "Superseded"}})), KINDS))
    return registry.get_sample_value(metric, {"namespace": NAMESPACE, "release": name_of("1.0.0")} | labels)


def test_what_fails_its_checks_and_what_cannot_be_read_is_told_and_nothing_else() -> None:
    service = {"service": SERVICE}
    assert told("videogen_release_checks_failing", service, ChecksFailing="CheckFailed") == 1
    assert told("videogen_release_checks_failing", service, Ready="Stable") is None
    assert told("videogen_release_unreadable", {}, Ready="Unreadable") == 1
    assert told("videogen_release_unreadable", {}, Ready="Stable") is None


def test_a_release_that_was_replaced_is_told_by_its_state() -> None:
    assert told("videogen_release", {"service": SERVICE, "reason": "Superseded"}) == 1
    assert told("videogen_release", {"service": SERVICE, "reason": "Stable"}, Ready="Stable") == 1


def test_the_queue_is_told_by_kind_with_the_one_that_waits_longest() -> None:
    collector, registry = WorldCollector(Objects(), KINDS), CollectorRegistry()
    registry.register(collector)
    collector.waiting = lambda: [(Key("TrainingRun", "films", name), seconds) for name, seconds in (("a", 3.0), ("b", 70.0))]

    def of(kind: str) -> list[float | None]:
        return [
            registry.get_sample_value(f"videogen_reconcile_{name}", {"kind": kind}) for name in ("queue_depth", "oldest_waiting_seconds")
        ]

    assert of("TrainingRun") == [2, 70]
    assert of("ModelRelease") == [0, 0]
