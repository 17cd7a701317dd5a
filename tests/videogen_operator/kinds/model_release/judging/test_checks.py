"""Live checks: what is measured to what verdict."""

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest

from videogen_api.evaluation import Verdict
from videogen_api.model_release import Check
from videogen_operator.kinds.model_release.judging.checks import judge, judge_ratio, round_of
from videogen_operator.kinds.model_release.judging.queries import count_of, queries, step_requests, value_of
from videogen_operator.kinds.model_release.observed import Release
from videogen_operator.plan import Inputs, Unavailable
from videogen_testing.releases import SETTINGS, START, a_release

LATENCY = Check.model_validate({"name": "latency", "metric": "LatencyP95Seconds", "maximum": "30", "minimumRequests": 10})
RATIO = Check.model_validate({"name": "ratio", "metric": "LatencyP95Seconds", "maximumRatioToStable": "1.2", "minimumRequests": 10})
DOWN = Unavailable("Prometheus did not answer")


@pytest.mark.parametrize(
    ("sentence", "count", "value", "verdict", "message"),
    [
        ("a value below the maximum passes", 20.0, 12.5, Verdict.PASSED, "P95 latency 12.5 s, may be at most 30 s"),
        ("a value at the maximum passes", 20.0, 30.0, Verdict.PASSED, "P95 latency 30 s, may be at most 30 s"),
        ("a value above the maximum fails", 20.0, 30.5, Verdict.FAILED, "P95 latency 30.5 s, may be at most 30 s"),
        ("too few requests are inconclusive, however bad", 9.9, 99.0, Verdict.INCONCLUSIVE, "it answered 9 of 10 requests in the window"),
        ("no requests are inconclusive", 0.0, Unavailable("no data"), Verdict.INCONCLUSIVE, "it answered 0 of 10 requests in the window"),
        (
            "requests that cannot be counted are an error",
            DOWN,
            1.0,
            Verdict.ERROR,
            "requests could not be counted: Prometheus did not answer",
        ),
        (
            "a value that cannot be read is an error",
            20.0,
            DOWN,
            Verdict.ERROR,
            "P95 latency could not be measured: Prometheus did not answer",
        ),
        ("not a number is an error", 20.0, float("nan"), Verdict.ERROR, "P95 latency could not be measured: Prometheus has no value"),
        (
            "a question that was never asked is an error",
            None,
            None,
            Verdict.ERROR,
            "requests could not be counted: Prometheus has no value",
        ),
    ],
)
def test_absolute_maximum(sentence: str, count: float, value: float, verdict: Verdict, message: str) -> None:
    assert judge(LATENCY, count, value) == (verdict, message), sentence


@pytest.mark.parametrize(
    ("sentence", "own", "stable", "verdict"),
    [
        ("as fast as stable passes", (20.0, 10.0), (20.0, 10.0), Verdict.PASSED),
        ("at the allowed ratio passes", (20.0, 12.0), (20.0, 10.0), Verdict.PASSED),
        ("slower than the allowed ratio fails", (20.0, 12.5), (20.0, 10.0), Verdict.FAILED),
        ("a stable release without requests is inconclusive", (20.0, 50.0), (3.0, 10.0), Verdict.INCONCLUSIVE),
        ("a stable release that cannot be measured is an error", (20.0, 10.0), (20.0, DOWN), Verdict.ERROR),
        ("without own requests it is inconclusive", (0.0, 10.0), (20.0, 10.0), Verdict.INCONCLUSIVE),
    ],
)
def test_ratio_to_stable(sentence: str, own: tuple[float, float], stable: tuple[float, float], verdict: Verdict) -> None:
    assert judge_ratio(RATIO, own, stable)[0] == verdict, sentence


FLOORS = [
    ("one error in a thousand beside none passes", "ErrorRatio", None, 0.001, 0.0, Verdict.PASSED),
    ("at the floor passes", "ErrorRatio", None, 0.01, 0.0, Verdict.PASSED),
    ("above it fails", "ErrorRatio", None, 0.011, 0.0, Verdict.FAILED),
    ("a floor of its own", "ErrorRatio", "0.05", 0.011, 0.0, Verdict.PASSED),
    ("a floor of zero allows nothing beside none", "ErrorRatio", "0", 0.001, 0.0, Verdict.FAILED),
    ("templates of milliseconds may take some more", "LatencyP95Seconds", None, 0.09, 0.02, Verdict.PASSED),
    ("where the ratio allows more, the ratio counts", "ErrorRatio", "0.001", 0.23, 0.2, Verdict.PASSED),
    ("and where that is exceeded it fails", "ErrorRatio", "0.001", 0.25, 0.2, Verdict.FAILED),
]


@pytest.mark.parametrize(("sentence", "metric", "difference", "own", "stable", "verdict"), FLOORS, ids=[row[0] for row in FLOORS])
def test_a_ratio_to_nothing_has_a_floor(
    sentence: str, metric: str, difference: str | None, own: float, stable: float, verdict: Verdict
) -> None:
    check = Check.model_validate({"name": "c", "metric": metric, "maximumRatioToStable": "1.2", "minimumDifference": difference})
    assert judge_ratio(check, (1000.0, own), (1000.0, stable))[0] == verdict, sentence


def test_a_release_that_must_be_better_than_stable_is_held_to_that() -> None:
    check = Check.model_validate({"name": "c", "metric": "LatencyP95Seconds", "maximumRatioToStable": "0.5"})
    assert judge_ratio(check, (20.0, 9.0), (20.0, 10.0))[0] == Verdict.FAILED
    assert judge_ratio(check, (20.0, 5.0), (20.0, 10.0))[0] == Verdict.PASSED


def at(now: datetime) -> Inputs:
    return Inputs(now=now, settings=SETTINGS)


def canary(one: Callable[..., Release]) -> Release:
    rollout = {
        "state": "Canary",
        "stepStartTime": START.isoformat(),
        "trafficStartTime": (START - timedelta(seconds=20)).isoformat(),
    }
    checks = [LATENCY.wire(), RATIO.wire()]
    return one(a_release(rollout={"checks": checks, "checkIntervalSeconds": 10}, status={"rollout": rollout}))


def test_a_round_is_judged_only_when_it_is_due_and_measured(one: Callable[..., Release]) -> None:
    release = canary(one)
    answers = {step_requests(release.name): 143.7}
    for check in (LATENCY, RATIO):
        answers |= {count_of(release.name, check): 20.0, value_of(release.name, check): 11.0}
    stable = {count_of(release.name, RATIO, of_stable=True): 20.0, value_of(release.name, RATIO, of_stable=True): 10.0}
    assert round_of(release, answers | stable, now=START + timedelta(seconds=9)) is None
    assert round_of(release, {}, now=START + timedelta(seconds=10)) is None
    judged = round_of(release, answers | stable, now=START + timedelta(seconds=10))
    assert judged is not None
    assert (judged.requests, [check.verdict for check in judged.verdicts]) == (143, [Verdict.PASSED, Verdict.PASSED])
    assert judged.verdicts[1].message == "P95 latency 11 s, may be at most 1.2 times the stable release's 10 s"


def test_a_check_with_both_bounds_must_hold_both(one: Callable[..., Release]) -> None:
    both = Check.model_validate({**LATENCY.wire(), "maximumRatioToStable": "1.2"})
    release = one(
        a_release(
            rollout={"checks": [both.wire()], "checkIntervalSeconds": 10},
            status={"rollout": {"state": "Canary", "stepStartTime": START.isoformat()}},
        )
    )
    asked = {step_requests(release.name): 50.0, count_of(release.name, both): 20.0, value_of(release.name, both): 15.0}
    stable = {count_of(release.name, both, of_stable=True): 20.0, value_of(release.name, both, of_stable=True): 10.0}
    judged = round_of(release, asked | stable, now=START + timedelta(seconds=10))
    assert judged is not None
    assert judged.verdicts[0].verdict == Verdict.FAILED


def test_only_what_is_needed_now_is_asked(snapshot: Callable[..., object]) -> None:
    state = {"state": "Canary", "stepStartTime": START.isoformat(), "trafficStartTime": (START - timedelta(seconds=20)).isoformat()}
    observed = snapshot(
        a_release("1.0.0", rollout={"checks": []}, status={"rollout": {"state": "Stable", "stepStartTime": START.isoformat()}}),
        a_release("1.1.0", rollout={"checks": [RATIO.wire()], "checkIntervalSeconds": 10}, status={"rollout": state}),
    )
    assert queries(observed, at(START + timedelta(seconds=9))) == ()  # type: ignore[arg-type]
    asked = queries(observed, at(START + timedelta(seconds=15)))  # type: ignore[arg-type]
    old, new = (f'namespace="films",release="pib-videogen-videofusion-v1.{minor}.0-base",' for minor in (0, 1))
    assert [query.promql for query in asked] == [
        f'sum(increase(videogen_requests_total{{{new}outcome="ok"}}[15s])) or vector(0)',
        f'sum(increase(videogen_request_duration_seconds_count{{{new}outcome=~"ok|timeout|error"}}[35s])) or vector(0)',
        f'histogram_quantile(0.95, sum by (le) (rate(videogen_request_duration_seconds_bucket{{{new}outcome=~"ok|timeout|error"}}[35s])))',
        f'sum(increase(videogen_request_duration_seconds_count{{{old}outcome=~"ok|timeout|error"}}[35s])) or vector(0)',
        f'histogram_quantile(0.95, sum by (le) (rate(videogen_request_duration_seconds_bucket{{{old}outcome=~"ok|timeout|error"}}[35s])))',
    ]


def test_after_promotion_only_absolute_maxima_are_asked_with_and_without_a_standby(snapshot: Callable[..., object]) -> None:
    stable = a_release(
        "1.1.0",
        rollout={"checks": [LATENCY.wire(), RATIO.wire()], "checkIntervalSeconds": 10},
        status={"rollout": {"state": "Stable", "stepStartTime": START.isoformat(), "trafficStartTime": START.isoformat()}},
    )
    standby = a_release("1.0.0", status={"rollout": {"state": "Standby", "retiredTime": START.isoformat()}})
    later = START + timedelta(seconds=100)
    asked = queries(snapshot(stable, standby), at(later))  # type: ignore[arg-type]
    assert queries(snapshot(stable), at(later)) == asked  # type: ignore[arg-type]
    assert [query.name.split("/")[1:] for query in asked] == [["latency", "requests"], ["latency", "value"]]
    assert "[60s]" in asked[0].promql
