"""The alerts, evaluated by Prometheus' own test tool."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from videogen_testing.patience import HANGS

CHART = Path(__file__).parents[2] / "charts/videogen"
Render = Callable[[dict[str, Any]], list[dict[str, Any]]]

RELEASE = 'namespace="models", service="standard", release="r2"'
LIMIT = f'videogen_release_check_maximum{{{RELEASE}, check="latency", metric="LatencyP95Seconds"}}'
ERROR_LIMIT = f'videogen_release_check_maximum{{{RELEASE}, check="errors", metric="ErrorRatio"}}'
OTHERS_LIMIT = LIMIT.replace("models", "other")
LEADER, RESYNC = ('videogen_leader{job="operator", instance="a"}', 'videogen_resync_age_seconds{job="operator", instance="a"}')
STEP = 'videogen_training_metric{namespace="models", run="run", phase="train", metric="step"}'
TRAINING = 'videogen_training_run{namespace="models", run="run", reason="Training"}'


def promtool(*arguments: str) -> None:
    program = shutil.which("promtool")
    assert program, "no promtool: install Debian's package prometheus, which the local cluster needs too"
    result = subprocess.run([program, *arguments], capture_output=True, text=True, check=False, timeout=HANGS)
    assert result.returncode == 0, result.stdout + result.stderr


def latency(under_one: str, under_ten: str, outcome: str = "ok") -> dict[str, str]:
    """Series of the server: counters of requests that took at most 1 s and at most 10 s, and of all of them."""
    bounds = {"1": under_one, "10": under_ten, "+Inf": under_ten}
    buckets = {
        f'videogen_request_duration_seconds_bucket{{{RELEASE}, outcome="{outcome}", le="{le}"}}': counts for le, counts in bounds.items()
    }
    return buckets | {f'videogen_request_duration_seconds_count{{{RELEASE}, outcome="{outcome}"}}': under_ten}


def requests(good: str, bad: str, **others: str) -> dict[str, str]:
    counts = {"ok": good, "error": bad} | others
    return {f'videogen_requests_total{{{RELEASE}, outcome="{outcome}"}}': values for outcome, values in counts.items()}


def check_of(limit: str, maximum: str, minimum_requests: int = 10) -> dict[str, str]:
    """Series of the operator: bound of a live check, and how many requests it wants."""
    return {limit: f"{maximum}x60", limit.replace("check_maximum", "check_minimum_requests"): f"{minimum_requests}x60"}


def of_operator(metric: str, instance: str = "a", **labels: str) -> str:
    """A series of one operator about itself."""
    return f"{metric}{_series({'job': 'operator', 'instance': instance} | labels)}"


def listed(**results: str) -> dict[str, str]:
    """Lists of pods by what became of them."""
    return {of_operator("videogen_lists_total", resource="pods", result=result): values for result, values in results.items()}


def status_writes(result: str, values: str) -> dict[str, str]:
    return {of_operator("videogen_status_writes_total", kind="TrainingRun", result=result): values}


def told(metric: str) -> str:
    """A series of the operator about the release."""
    return f"{metric}{{{RELEASE}}}"


def in_triton(requests: str, microseconds: str) -> dict[str, str]:
    """Series of Triton itself, whose durations begin when a request arrives and not when its turn comes."""
    triton = f'{RELEASE}, model="video", version="1"'
    return {f"nv_inference_request_success{{{triton}}}": requests, f"nv_inference_request_duration_us{{{triton}}}": microseconds}


def _series(labels: dict[str, str]) -> str:
    return "{" + ", ".join(f'{name}="{value}"' for name, value in labels.items()) + "}"


def cycle(name: str = "", **labels: str) -> str:
    return f"videogen_cycle{name}{_series({'namespace': 'models', 'cycle': 'weekly'} | labels)}"


def turned(name: str) -> str:
    return f'videogen_training_{name}_time_seconds{{namespace="models", run="run", phase="review", team="qa"}}'


def turn(since: str, due: str) -> dict[str, str]:
    """Series of a phase whose turn it is, in seconds since the test's beginning."""
    return {turned("turn_since"): f"{since}x2000", turned("due"): f"{due}x2000"}


STUCK, PASSES, LISTS, WATCHES, STATUSES, UNSTABLE = (
    "VideogenOperatorStuck",
    "VideogenPassesFailing",
    "VideogenListsFailing",
    "VideogenWatchesFailing",
    "VideogenStatusWritesFailing",
    "VideogenLeadershipUnstable",
)
LATENCY, ERRORS, OVERLOADED, DEAF, STALLED, FAILING, UNREADABLE, OVERDUE, SPENT, NO_RUNS, PHASE_DUE = (
    "VideogenReleaseLatencyHigh",
    "VideogenReleaseErrorsHigh",
    "VideogenReleaseOverloaded",
    "VideogenOperatorDeaf",
    "VideogenTrainingStalled",
    "VideogenReleaseChecksFailing",
    "VideogenReleaseUnreadable",
    "VideogenCycleOverdue",
    "VideogenCycleBudgetExceeded",
    "VideogenCycleStalled",
    "VideogenPhaseDue",
)
NAMED = {"namespace": "models", "release": "r2", "videogen_action": "rollback"}
TOLD = {"namespace": "models", "release": "r2"}  # to people: no rollback
OF_A_CYCLE = {"namespace": "models"}

# what is so: (series, alert, time, labels of the firing alert, or None if it must be silent)
ROWS: dict[str, tuple[dict[str, str], str, str, dict[str, str] | None]] = {
    "a release slower than its limit fires": (latency("0+0x60", "0+5x60") | check_of(LIMIT, "2"), LATENCY, "2m", NAMED),
    "a release that fails its checks alone fires": ({told("videogen_release_checks_failing"): "0x4 1x100"}, FAILING, "7m", TOLD),
    "and is silent when it passes": ({told("videogen_release_checks_failing"): "1x4 0x100"}, FAILING, "7m", None),
    "a release that cannot be read fires": ({told("videogen_release_unreadable"): "1x100"}, UNREADABLE, "7m", TOLD),
    "but not while an upgrade lasts": ({told("videogen_release_unreadable"): "0x48 1x100"}, UNREADABLE, "7m", None),
    "a stage beyond its window fires": ({cycle("_overdue"): "0x4 1x100"}, OVERDUE, "7m", OF_A_CYCLE),
    "and is silent when it is done": ({cycle("_overdue"): "1x4 0x100"}, OVERDUE, "7m", None),
    "a phase in the last tenth of its window fires": (turn("0", "6000"), PHASE_DUE, "97m", OF_A_CYCLE),
    "one that has more time does not": (turn("0", "6000"), PHASE_DUE, "80m", None),
    "one whose window has no end does not": ({turned("turn_since"): "0x2000"}, PHASE_DUE, "97m", None),
    "a run that has used up its budget fires": ({cycle("_budget_exceeded"): "0x4 1x100"}, SPENT, "7m", OF_A_CYCLE),
    "and is silent when it goes on": ({cycle("_budget_exceeded"): "1x4 0x100"}, SPENT, "7m", None),
    "a cycle that can make no run fires": ({cycle(reason="TemplateInvalid"): "1x100"}, NO_RUNS, "7m", OF_A_CYCLE),
    "one that waits for its time does not": ({cycle(reason="Scheduled"): "1x100"}, NO_RUNS, "7m", None),
    "a fast release does not": (latency("0+5x60", "0+5x60") | check_of(LIMIT, "2"), LATENCY, "2m", None),
    "a release without a latency check does not": (latency("0+0x60", "0+5x60") | check_of(ERROR_LIMIT, "0.1"), LATENCY, "2m", None),
    "a release without requests does not": (latency("7x60", "9x60") | check_of(LIMIT, "2"), LATENCY, "2m", None),
    "another namespace's limit does not count": (latency("0+0x60", "0+5x60") | check_of(OTHERS_LIMIT, "2"), LATENCY, "2m", None),
    "slow requests fewer than the check wants do not fire": (
        latency("0x60", "0x20 1+1x3 4x36") | check_of(LIMIT, "2"),
        LATENCY,
        "2m",
        None,
    ),
    "as many slow requests as the check wants fire": (latency("0x60", "0x20 1+1x3 4x36") | check_of(LIMIT, "2", 4), LATENCY, "2m", NAMED),
    "requests that the client got wrong do not make a slow release fast": (
        latency("0+500x60", "0+500x60", "invalid") | latency("0+0x60", "0+5x60") | check_of(LIMIT, "2"),
        LATENCY,
        "2m",
        NAMED,
    ),
    "nor do those that the client left": (
        latency("0+500x60", "0+500x60", "cancelled") | latency("0+0x60", "0+5x60") | check_of(LIMIT, "2"),
        LATENCY,
        "2m",
        NAMED,
    ),
    "requests that the client left do not make up the number": (
        latency("0+0x60", "0+5x60", "cancelled") | latency("0x60", "0x20 1x40") | check_of(LIMIT, "2"),
        LATENCY,
        "2m",
        None,
    ),
    "requests that ran out of time are slow": (latency("0x60", "0+5x60", "timeout") | check_of(LIMIT, "2"), LATENCY, "2m", NAMED),
    "a slow release fires also while two operators export its limit": (
        latency("0+0x60", "0+5x60")
        | check_of(LIMIT.replace("}", ', instance="a"}'), "2")
        | check_of(LIMIT.replace("}", ', instance="b"}'), "2"),
        LATENCY,
        "2m",
        NAMED,
    ),
    "of two latency checks the stricter one counts": (
        latency("0+0x60", "0+5x60") | check_of(LIMIT, "2") | check_of(LIMIT.replace('"latency"', '"loose"'), "100"),
        LATENCY,
        "2m",
        NAMED,
    ),
    "each of two latency checks wants its own number of requests": (
        latency("0+0x60", "0+5x60") | check_of(LIMIT, "2", 1000) | check_of(LIMIT.replace('"latency"', '"loose"'), "100", 1),
        LATENCY,
        "2m",
        None,
    ),
    "a release that fails too often fires": (requests("0+9x60", "0+1x60") | check_of(ERROR_LIMIT, "0.05"), ERRORS, "2m", NAMED),
    "one within its error limit does not": (requests("0+99x60", "0+1x60") | check_of(ERROR_LIMIT, "0.05"), ERRORS, "2m", None),
    "one that has no requests any more does not": (requests("3x60", "3x60") | check_of(ERROR_LIMIT, "0.05"), ERRORS, "2m", None),
    "one failed request with no other in the window does not": (
        requests("7x60", "0x20 1x40") | check_of(ERROR_LIMIT, "0.05"),
        ERRORS,
        "115s",
        None,
    ),
    "it does where its check wants but one": (
        requests("7x60", "0x20 1x40") | check_of(ERROR_LIMIT, "0.05", 1),
        ERRORS,
        "115s",
        NAMED,
    ),
    "requests from before the window do not make up the number": (
        requests("0+100x9 900x51", "0x20 1x40") | check_of(ERROR_LIMIT, "0.05"),
        ERRORS,
        "2m",
        None,
    ),
    "requests that the client got wrong or left do not hide failures": (
        requests("0+9x60", "0+1x60", invalid="0+500x60", cancelled="0+500x60") | check_of(ERROR_LIMIT, "0.05"),
        ERRORS,
        "2m",
        NAMED,
    ),
    "a release whose requests wait long in the queue is overloaded, and not rolled back": (
        in_triton("0+5x300", "0+15000000x300") | {LIMIT: "2x300"},
        OVERLOADED,
        "12m",
        TOLD,
    ),
    "one whose requests do not wait is not": (in_triton("0+5x300", "0+5000000x300") | {LIMIT: "2x300"}, OVERLOADED, "12m", None),
    "one that waited for less than five minutes is not": (
        in_triton("0+5x300", "0x120 0+15000000x180") | {LIMIT: "2x300"},
        OVERLOADED,
        "13m",
        None,
    ),
    "an operator that leads and lists is not deaf": ({LEADER: "1x200", RESYNC: "30x200"}, DEAF, "10m", None),
    "one that leads but has not listed for long is": ({LEADER: "1x200", RESYNC: "0+5x200"}, DEAF, "10m", {}),
    "a standby that does not list is not, while another leads": (
        {LEADER: "0x200", RESYNC: "0+5x200", LEADER.replace('"a"', '"b"'): "1x200", RESYNC.replace('"a"', '"b"'): "9x200"},
        DEAF,
        "10m",
        None,
    ),
    "no operator at all is deaf": ({"up": "1x200"}, DEAF, "10m", {}),
    "a key that waits for long fires": (
        {of_operator("videogen_reconcile_oldest_waiting_seconds", kind="TrainingRun"): "0+5x200"},
        STUCK,
        "10m",
        {},
    ),
    "a burst that is worked off does not": (
        {of_operator("videogen_reconcile_oldest_waiting_seconds", kind="TrainingRun"): "0+5x40 0x160"},
        STUCK,
        "10m",
        None,
    ),
    "passes that end with unexpected errors again and again fire": (
        {of_operator("videogen_reconcile_total", kind="TrainingRun", result="Error"): "0+1x200"},
        PASSES,
        "10m",
        {},
    ),
    "passes that are repeated because something was refused do not": (
        {of_operator("videogen_reconcile_total", kind="TrainingRun", result="Retry"): "0+1x200"},
        PASSES,
        "10m",
        None,
    ),
    "a resource of which each list fails fires": (listed(Failed="0+1x300", Done="5x300"), LISTS, "16m", {}),
    "also if the operator ends itself because of it": (listed(Failed="0 1 2 3x30 0 1 2 3x30 0 1 2 3x30 0 1 2 3x100"), LISTS, "14m", {}),
    "one that is listed now and then does not": (listed(Failed="0+1x300", Done="0+0x60 1x60 2x60 3x120"), LISTS, "16m", None),
    "nor does a kind that is not served": (listed(Failed="0 1 1x300", Absent="0+1x300"), LISTS, "16m", None),
    "a watch that fails for minutes fires": (
        {of_operator("videogen_watch_requests_total", resource="pods", result="Failed"): "0+1x200"},
        WATCHES,
        "12m",
        {},
    ),
    "one that is opened anew again and again does not": (
        {
            of_operator("videogen_watch_requests_total", resource="pods", result="Begun"): "0+1x200",
            of_operator("videogen_watch_requests_total", resource="pods", result="Failed"): "0 1 2 2x200",
        },
        WATCHES,
        "12m",
        None,
    ),
    "statuses that fail again and again fire": (status_writes("Failed", "0+1x200"), STATUSES, "10m", {}),
    "one that is tried once a minute does": (status_writes("Failed", " ".join(f"{n}x11" for n in range(14))), STATUSES, "11m", {}),
    "a burst of failures that is over does not": (status_writes("Failed", "0+5x4 20x200"), STATUSES, "6m", None),
    "statuses that others have changed meanwhile do not": (status_writes("Conflict", "0+1x200"), STATUSES, "10m", None),
    "statuses that are written do not": (status_writes("Done", "0+1x200"), STATUSES, "10m", None),
    "a burst of failed watches in many namespaces does not": (
        {of_operator("videogen_watch_requests_total", resource="pods", result="Failed"): "0+20x4 80x200"},
        WATCHES,
        "6m",
        None,
    ),
    "a burst of unexpected errors does not": (
        {of_operator("videogen_reconcile_total", kind="TrainingRun", result="Error"): "0+5x4 20x200"},
        PASSES,
        "6m",
        None,
    ),
    "a restart that knows its Lease a while later does not": (
        {of_operator("videogen_lease_transitions"): "57x60 0x8 57x200"},
        UNSTABLE,
        "30m",
        None,
    ),
    "a Lease that goes from one to the other fires": (
        {
            of_operator("videogen_lease_transitions"): "3x60 4x60 5x60 6x60 7x60 8x100",
            of_operator("videogen_lease_transitions", "b"): "_x100 4x20 5x60 6x60 7x60 8x100",
        },
        UNSTABLE,
        "33m",
        {},
    ),
    "a rolling upgrade does not": ({of_operator("videogen_lease_transitions"): "3x120 4x60 5x200"}, UNSTABLE, "30m", None),
    "a leader that restarts in its own pod fires": (
        {
            of_operator("process_start_time_seconds"): "1x60 2x60 3x60 4x60 5x200",
            of_operator("videogen_leader"): "1x500",
            of_operator("videogen_lease_transitions"): "3x500",
        },
        UNSTABLE,
        "30m",
        {},
    ),
    "other programs that restart do not": ({of_operator("process_start_time_seconds"): "1x60 2x60 3x60 4x60 5x200"}, UNSTABLE, "30m", None),
    "training that steps is not stalled": ({STEP: "0+1x400", TRAINING: "1x400"}, STALLED, "25m", None),
    "training whose step stands still is": ({STEP: "7x400", TRAINING: "1x400"}, STALLED, "25m", {"namespace": "models"}),
    "training that has just begun is not": ({STEP: "_x250 7x60", TRAINING: "1x400"}, STALLED, "25m", None),
    "fine-tuning whose step stands still is": (
        {STEP: "7x400", TRAINING.replace("Training", "FineTuning"): "1x400"},
        STALLED,
        "25m",
        {"namespace": "models"},
    ),
    "a run that is evaluating is not": ({STEP: "7x400", TRAINING: "0x400"}, STALLED, "25m", None),
}


def alert_test(series: dict[str, str], alert: str, at: str, labels: dict[str, str] | None) -> dict[str, Any]:
    return {
        "interval": "5s",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {
                "expr": f'count by (namespace, release, videogen_action) (ALERTS{{alertname="{alert}", alertstate="firing"}})',
                "eval_time": at,
                "exp_samples": [{"labels": _series(labels), "value": 1}] if labels is not None else [],
            }
        ],
    }


def check(rules: Path, test: dict[str, Any], folder: Path) -> None:
    file = folder / "test.yaml"
    file.write_text(yaml.safe_dump({"rule_files": [str(rules)], "evaluation_interval": "5s", "tests": [test]}))
    promtool("test", "rules", str(file))


@pytest.mark.parametrize(("series", "alert", "at", "labels"), ROWS.values(), ids=ROWS.keys())
def test_so_is_it_that(tmp_path: Path, series: dict[str, str], alert: str, at: str, labels: dict[str, str] | None) -> None:
    check(CHART / "files/rules.yaml", alert_test(series, alert, at, labels), tmp_path)


def test_the_people_are_told_the_measured_share_and_not_the_bound(tmp_path: Path) -> None:
    test = alert_test(requests("0+9x60", "0+1x60") | check_of(ERROR_LIMIT, "0.05"), ERRORS, "2m", NAMED)
    told = {
        "summary": "Release r2 answers with errors",
        "description": "10% of the requests to models/r2 in service standard fail, above the limit of its error check.",
        "runbook_url": "docs/runbooks.md#videogenreleaseerrorshigh",
    }
    alert = {"exp_labels": NAMED | {"service": "standard", "severity": "critical"}, "exp_annotations": told}
    test["alert_rule_test"] = [{"alertname": ERRORS, "eval_time": "2m", "exp_alerts": [alert]}]
    check(CHART / "files/rules.yaml", test, tmp_path)


def test_the_number_of_requests_is_counted_in_the_window_of_the_chart(render: Render, tmp_path: Path) -> None:
    """A slow request every 5 s: more than nine in a minute, fewer in 20 s."""
    series = latency("0x60", "0+1x60") | check_of(LIMIT, "2", 9)
    for window, labels in {"1m": NAMED, "20s": None}.items():
        rules = tmp_path / f"{window}.yaml"
        rules.write_text(yaml.safe_dump(groups(render, window=window)))
        check(rules, alert_test(series, LATENCY, "2m", labels), tmp_path)


def groups(render: Render, **values: Any) -> dict[str, Any]:
    objects = render({"prometheusRule": {"enabled": True}, "alerts": values})
    return dict(next(item for item in objects if item["kind"] == "PrometheusRule")["spec"])


def test_by_default_the_prometheus_rule_is_the_file(render: Render) -> None:
    assert groups(render) == yaml.safe_load((CHART / "files/rules.yaml").read_text())


def test_values_change_windows_intervals_fors_and_labels(render: Render, tmp_path: Path) -> None:
    changed = groups(render, window="15s", interval="2s", rollbackFor="4s", pageFor="1m", labels={"team": "video"})
    rollback, health = changed["groups"]
    assert {group["interval"] for group in changed["groups"]} == {"2s"}
    assert all("[15s]" in rule["expr"] and "[1m]" not in rule["expr"] for rule in rollback["rules"])
    assert {rule["for"] for rule in rollback["rules"]} == {"4s"}
    assert {rule["for"] for rule in health["rules"]} == {"1m"}
    assert all(rule["labels"]["team"] == "video" for rule in rollback["rules"] + health["rules"])
    elsewhere = groups(render, runbookUrl="https://git.example.org/runbooks.md")["groups"][1]["rules"][0]["annotations"]
    assert elsewhere["runbook_url"] == "https://git.example.org/runbooks.md#videogenoperatordeaf"
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(changed))
    promtool("check", "rules", str(tmp_path / "rules.yaml"))


def test_the_config_map_has_the_same_rules(render: Render, tmp_path: Path) -> None:
    objects = render({"prometheusRule": {"enabled": True}, "alerts": {"configMap": True, "window": "30s"}})
    config = next(item for item in objects if item["kind"] == "ConfigMap")
    rule = next(item for item in objects if item["kind"] == "PrometheusRule")
    (tmp_path / "rules.yaml").write_text(config["data"]["videogen.rules.yaml"])
    assert yaml.safe_load(config["data"]["videogen.rules.yaml"]) == rule["spec"]
    promtool("check", "rules", str(tmp_path / "rules.yaml"))


def test_rollback_alerts_do_not_wait_and_name_the_release(render: Render) -> None:
    for rule in groups(render)["groups"][0]["rules"]:
        assert "for" not in rule
        assert rule["labels"]["videogen_action"] == "rollback"
        assert "by (namespace, service, release" in rule["expr"]
