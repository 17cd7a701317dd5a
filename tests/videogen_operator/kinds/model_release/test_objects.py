"""What is built for a release, and the service's route."""

import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from videogen_api.resources import number
from videogen_operator.kinds.model_release import objects, route
from videogen_operator.kinds.model_release.judging.quarantine import Entry, entries, extended
from videogen_operator.kinds.model_release.observed import Observed, Release, slots
from videogen_operator.plan import Failure
from videogen_serving.client import request_body
from videogen_testing.releases import NAMESPACE, SERVICE, SETTINGS, START, a_gateway, a_release, digest_of, merged, name_of

OF_GPUS = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}


def gpus(count: int) -> dict[str, Any]:
    return {"limits": {"nvidia.com/gpu": count}}


def pod_of(release: Release) -> dict[str, Any]:
    spec: dict[str, Any] = objects.deployment(release, SETTINGS)["spec"]["template"]["spec"]
    return spec


def test_names_are_dns_labels_and_everything_belongs_to_the_release(one: Callable[..., Release]) -> None:
    for child in objects.children(one(a_release()), SETTINGS):
        assert child["metadata"]["name"] == "pib-videogen-videofusion-v1-0-0-base"
        assert child["metadata"]["labels"] == {
            "videogen.pib.gov.in/release": "pib-videogen-videofusion-v1.0.0-base",
            "videogen.pib.gov.in/service": "standard",
            "app.kubernetes.io/managed-by": "videogen-operator",
        }
        assert [reference["uid"] for reference in child["metadata"]["ownerReferences"]] == ["uid-1.0.0"]


@pytest.mark.parametrize(("setting", "given"), [("true", ["true"]), ("", [])])
def test_only_by_the_administrators_setting_a_server_may_start_a_triton_with_known_holes(
    one: Callable[..., Release], setting: str, given: list[str]
) -> None:
    pod = objects.deployment(one(a_release()), SETTINGS | {"serving_development": setting})["spec"]["template"]["spec"]
    assert [item["value"] for item in pod["containers"][0]["env"] if item["name"] == "DEVELOPMENT"] == given


def test_the_server_is_told_what_to_serve(one: Callable[..., Release]) -> None:
    container = pod_of(one(a_release(serving={"samplingSteps": 20})))["containers"][0]
    assert {item["name"]: item["value"] for item in container["env"]} == {
        "RELEASE": name_of("1.0.0"),
        "BUNDLE_PATH": f"/storage/bundles/{name_of('1.0.0')}/abc",
        "BUNDLE_DIGEST": digest_of("1.0.0"),
        "SAMPLING_STEPS": "20",
        "MAXIMUM_STEPS": "20",
        "TIMEOUT_SECONDS": "30",
        "OMP_NUM_THREADS": "1",
    }
    assert container["startupProbe"]["httpGet"]["path"] == container["readinessProbe"]["httpGet"]["path"] == "/v2/models/video/ready"
    assert container["livenessProbe"]["httpGet"]["path"] == "/v2/health/live"


@pytest.mark.parametrize(("cpu", "threads"), {"250m": "1", "1": "1", "1500m": "1", "8": "8"}.items())
def test_the_server_computes_with_as_many_threads_as_it_has_whole_cpus(one: Callable[..., Release], cpu: str, threads: str) -> None:
    container = pod_of(one(a_release(serving={"resources": {"requests": {"cpu": cpu}}})))["containers"][0]
    assert {"name": "OMP_NUM_THREADS", "value": threads} in container["env"]


def test_a_pod_may_load_for_the_whole_start_deadline_and_answer_what_it_has_begun(one: Callable[..., Release]) -> None:
    pod = pod_of(one(a_release(serving={"startDeadlineSeconds": 600, "timeoutSeconds": 900})))
    startup = pod["containers"][0]["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 600
    assert pod["terminationGracePeriodSeconds"] >= 900 + pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]


def test_the_pod_satisfies_pod_security_restricted(one: Callable[..., Release]) -> None:
    pod = pod_of(one(a_release()))
    container = pod["containers"][0]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert pod["automountServiceAccountToken"] is False
    writable = {mount["name"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
    assert {volume["name"] for volume in pod["volumes"] if "emptyDir" in volume} == writable


@pytest.mark.parametrize(
    ("sentence", "serving", "strategy", "limit", "budget"),
    [
        ("one pod: its successor first", {"replicas": 1}, (1, 0), None, False),
        ("several pods: one more for a while", {"replicas": 3}, (1, 0), None, True),
        ("several pods with GPUs: in place", {"replicas": 3, "resources": gpus(2)}, (0, 1), "2", True),
        ("one pod with a GPU: its successor first, or no change", {"replicas": 1, "resources": gpus(1)}, (1, 0), "1", False),
    ],
)
def test_updates_and_drains(
    one: Callable[..., Release], sentence: str, serving: dict[str, Any], strategy: tuple[int, int], limit: str | None, budget: bool
) -> None:
    release = one(a_release(serving=serving))
    rolling = objects.deployment(release, SETTINGS)["spec"]["strategy"]["rollingUpdate"]
    assert (rolling["maxSurge"], rolling["maxUnavailable"]) == strategy, sentence
    assert pod_of(release)["containers"][0]["resources"]["limits"].get("nvidia.com/gpu") == limit
    assert ("tolerations" in pod_of(release)) == (limit is not None)
    kinds = [child["kind"] for child in objects.children(release, SETTINGS)]
    assert ("PodDisruptionBudget" in kinds) == budget


def test_a_release_may_have_nodes_of_its_own_and_go_before_others(one: Callable[..., Release]) -> None:
    own = {"key": "videogen.pib.gov.in/pool", "operator": "Equal", "value": "emergency", "effect": "NoSchedule"}
    placement = {"priorityClassName": "emergency", "nodeSelector": {"pool": "emergency"}, "tolerations": [own]}
    serving = {"resources": gpus(1), "placement": placement}
    pod = pod_of(one(a_release(serving=serving)))
    assert (pod["priorityClassName"], pod["nodeSelector"]) == ("emergency", {"pool": "emergency"})
    assert pod["tolerations"] == [OF_GPUS, own]
    any_value = placement | {"tolerations": [own | {"operator": "Exists", "value": None}]}
    without = pod_of(one(a_release(serving={"placement": any_value})))
    assert without["tolerations"] == [{"key": own["key"], "operator": "Exists", "effect": "NoSchedule"}]


def test_defaults_of_the_chart_reach_the_pods_and_the_release_may_say_otherwise(one: Callable[..., Release]) -> None:
    own, common = {"key": "pool", "operator": "Exists"}, {"key": "spot", "operator": "Exists"}
    defaults = {"nodeSelector": {"pool": "all", "zone": "a"}, "tolerations": [common], "priorityClassName": "usual"}
    settings = SETTINGS | {"serving_placement": json.dumps(defaults), "image_pull_secrets": '[{"name": "registry"}]'}
    plain = objects.deployment(one(a_release()), settings)["spec"]["template"]["spec"]
    assert (plain["nodeSelector"], plain["tolerations"], plain["priorityClassName"]) == ({"pool": "all", "zone": "a"}, [common], "usual")
    assert plain["imagePullSecrets"] == [{"name": "registry"}]
    placement = {"nodeSelector": {"pool": "mine"}, "tolerations": [own], "priorityClassName": "first"}
    placed = objects.deployment(one(a_release(serving={"placement": placement})), settings)["spec"]["template"]["spec"]
    assert (placed["nodeSelector"], placed["tolerations"]) == ({"pool": "mine", "zone": "a"}, [own, common])
    assert placed["priorityClassName"] == "first"


def test_the_pods_are_spread_over_nodes_or_as_the_release_says(one: Callable[..., Release]) -> None:
    (usual,) = pod_of(one(a_release()))["topologySpreadConstraints"]
    assert (usual["topologyKey"], usual["whenUnsatisfiable"]) == ("kubernetes.io/hostname", "ScheduleAnyway")
    asked = {"placement": {"topologySpread": [{"topologyKey": "topology.kubernetes.io/zone"}]}}
    (spread,) = pod_of(one(a_release(serving=asked)))["topologySpreadConstraints"]
    assert (spread["topologyKey"], spread["whenUnsatisfiable"], spread["maxSkew"]) == ("topology.kubernetes.io/zone", "DoNotSchedule", 1)
    assert spread["labelSelector"] == {"matchLabels": {"videogen.pib.gov.in/release": name_of("1.0.0")}}


@pytest.mark.parametrize(("count", "more"), {0: {}, 1: {"tolerations": [OF_GPUS]}}.items())
def test_pods_of_a_release_that_says_nothing_of_it_stay_as_they_were(one: Callable[..., Release], count: int, more: dict[str, Any]) -> None:
    """Another field in the template would restart those that are not in service yet when the operator is upgraded."""
    pod = pod_of(one(a_release(serving={"resources": gpus(count)} if count else {})))
    fields = {
        "automountServiceAccountToken",
        "enableServiceLinks",
        "shareProcessNamespace",
        "terminationGracePeriodSeconds",
        "securityContext",
        "topologySpreadConstraints",
        "containers",
        "volumes",
    }
    assert pod.keys() == fields | more.keys()
    assert {name: pod[name] for name in more} == more


NEW_CHART = SETTINGS | {
    "serving_image": "videogen-serving:2",
    "scratch_size": "9Gi",
    "image_pull_secrets": '[{"name": "registry"}]',
    "serving_placement": '{"nodeSelector": {"pool": "videos"}}',
}


@pytest.mark.parametrize(
    ("sentence", "state", "edit", "same"),
    [
        ("a stable one goes on as it is", "Stable", {}, True),
        ("a canary, too", "Canary", {}, True),
        ("and a standby", "Standby", {}, True),
        ("also with more replicas", "Stable", {"replicas": 3, "capacity": "RequestNodes"}, True),
        ("until its author asks for something else", "Stable", {"resources": gpus(1)}, False),
        ("one that starts has what is right today", "Starting", {}, False),
    ],
)
def test_an_upgrade_restarts_no_pod_of_a_release_that_serves(
    snapshot: Callable[..., Observed], sentence: str, state: str, edit: dict[str, Any], same: bool
) -> None:
    status = {"rollout": {"state": state}}
    (release,) = snapshot(a_release(status=status)).releases
    running = objects.deployment(release, SETTINGS)
    (release,) = snapshot(a_release(status=status, serving=edit), running).releases
    upgraded = objects.deployment(release, NEW_CHART)
    assert (upgraded["spec"]["template"] == running["spec"]["template"]) == same, sentence
    (release,) = snapshot(a_release(status=status, serving=edit), upgraded).releases
    assert objects.deployment(release, NEW_CHART) == upgraded, "what was kept is kept again"


@pytest.mark.parametrize("state", ["Stable", "Canary", "Standby", "Held"])
@pytest.mark.parametrize("annotated", [True, False])
def test_pods_of_a_trial_are_made_anew_once_the_chart_no_longer_allows_it(
    snapshot: Callable[..., Observed], state: str, annotated: bool
) -> None:
    manifest, trial = a_release(status={"rollout": {"state": state}}), SETTINGS | {"serving_development": "true"}
    (release,) = snapshot(manifest).releases
    running = objects.deployment(release, trial | {"serving_image": "serving:trial"})
    if not annotated:
        running["metadata"].pop("annotations")
    (release,) = snapshot(manifest, running).releases
    assert env(objects.deployment(release, trial))["DEVELOPMENT"] == "true", "while it is a trial"
    ended = objects.deployment(release, SETTINGS | {"serving_image": "serving:production"})
    assert "DEVELOPMENT" not in env(ended)
    assert ended["spec"]["template"]["spec"]["containers"][0]["image"] == "serving:production"
    (release,) = snapshot(manifest, ended).releases
    assert objects.deployment(release, NEW_CHART)["spec"]["template"] == ended["spec"]["template"], "what was made anew is kept"


def env(deployment: dict[str, Any]) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in deployment["spec"]["template"]["spec"]["containers"][0]["env"]}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"asked": {}}', '{"template": {}}'])
def test_a_template_that_is_not_ours_is_made_anew(snapshot: Callable[..., Observed], text: str) -> None:
    status = {"rollout": {"state": "Stable"}}
    (release,) = snapshot(a_release(status=status)).releases
    made = objects.deployment(release, SETTINGS)
    (release,) = snapshot(
        a_release(status=status), merged(made, {"metadata": {"annotations": {objects.ANNOTATION_TEMPLATE: text}}})
    ).releases
    assert objects.deployment(release, SETTINGS) == made


def test_a_release_that_serves_keeps_its_image_when_the_operator_is_upgraded(snapshot: Callable[..., Observed]) -> None:
    for state, image in (("Stable", "videogen-serving:1"), ("Starting", "videogen-serving:2")):
        manifest = a_release(status={"rollout": {"state": state}})
        (release,) = snapshot(manifest).releases
        running = objects.deployment(release, SETTINGS)
        (release,) = snapshot(manifest, running).releases
        upgraded = objects.deployment(release, SETTINGS | {"serving_image": "videogen-serving:2"})
        assert upgraded["spec"]["template"]["spec"]["containers"][0]["image"] == image


# The route --------------------------------------------------------------------------------------------------------


def built(observed: Observed, **weights: int) -> dict[str, Any]:
    by_name = {name_of(version.replace("_", ".")): weight for version, weight in weights.items()}
    return route.route(observed, route.backends(observed.releases, by_name, (), START), (), SETTINGS)


@pytest.fixture
def two(snapshot: Callable[..., Observed]) -> Observed:
    return snapshot(a_release("1.0.0"), a_release("1.1.0", serving={"timeoutSeconds": 100}))


def test_the_weights_are_the_routes_and_every_backend_names_its_release(two: Observed) -> None:
    (http,) = built(two, **{"1_0_0": 90, "1_1_0": 10})["spec"]["rules"]
    assert [(b["name"], b["port"], b["weight"]) for b in http["backendRefs"]] == [
        ("pib-videogen-videofusion-v1-0-0-base", 8000, 900_000),
        ("pib-videogen-videofusion-v1-1-0-base", 8000, 100_000),
    ]
    for backend, version in zip(http["backendRefs"], ("1.0.0", "1.1.0"), strict=True):
        named = {"set": [{"name": "x-videogen-release", "value": name_of(version)}]}
        assert backend["filters"][0] == {"type": "RequestHeaderModifier", "requestHeaderModifier": named | {"remove": ["content-encoding"]}}
        assert backend["filters"][1] == {"type": "ResponseHeaderModifier", "responseHeaderModifier": named}


def test_nothing_but_a_request_for_a_video_and_the_readiness_is_routed(two: Observed) -> None:
    (rule,) = built(two, **{"1_0_0": 100})["spec"]["rules"]
    assert rule["matches"] == [
        {"method": "POST", "path": {"type": "Exact", "value": "/v2/models/video/infer"}},
        {"method": "GET", "path": {"type": "Exact", "value": "/v2/models/video/ready"}},
    ]


ROOM = {
    "one pod": ({"replicas": 1, "timeoutSeconds": 10}, 20),
    "each pod has room": ({"replicas": 3, "timeoutSeconds": 10}, 60),
    "not for everything that could be answered in an hour": ({"replicas": 2, "timeoutSeconds": 3600}, 256),
}


@pytest.mark.parametrize(("serving", "room"), ROOM.values(), ids=ROOM)
def test_the_gateway_lets_through_what_the_pods_can_answer_in_time(
    snapshot: Callable[..., Observed], serving: dict[str, int], room: int
) -> None:
    observed = snapshot(a_release("1.0.0", serving={"replicas": 1, "timeoutSeconds": 1}), a_release("1.1.0", serving=serving))
    limits = route.traffic_policy(observed, observed.releases, SETTINGS)["spec"]["circuitBreaker"]
    assert limits == {"maxConnections": room, "maxPendingRequests": room, "maxParallelRequests": room, "maxParallelRetries": 0}


def test_the_gateway_takes_the_longest_request_that_is_accepted_and_little_more(two: Observed) -> None:
    """JSON may write each of a prompt's 500 characters as two escapes of six bytes."""
    longest = request_body("\U0001f30a" * 500, 2**31 - 1, 1000)
    limit = route.traffic_policy(two, two.releases, SETTINGS)["spec"]["requestBuffer"]["limit"]
    assert 5 * len(longest) < number(limit) <= 64 * 1024


def test_an_upload_that_stands_still_ends_after_the_answer_to_any_request_would_have_come(two: Observed) -> None:
    policy = route.traffic_policy(two, two.releases, SETTINGS)
    (rule,) = built(two, **{"1_0_0": 90, "1_1_0": 10})["spec"]["rules"]
    assert (rule["timeouts"]["request"], policy["spec"]["timeout"]["http"]["streamIdleTimeout"]) == ("105s", "110s")


def test_addresses_are_limited_only_where_the_administrator_says_so(two: Observed) -> None:
    assert "rateLimit" not in route.traffic_policy(two, two.releases, SETTINGS)["spec"]
    limited = route.traffic_policy(two, two.releases, SETTINGS | {"requests_per_minute": "30"})["spec"]["rateLimit"]["local"]["rules"]
    assert [(rule["clientSelectors"][0]["sourceCIDR"], rule["limit"]) for rule in limited] == [
        ({"type": "Distinct", "value": every}, {"requests": 30, "unit": "Minute"}) for every in ("0.0.0.0/0", "::/0")
    ]


def test_the_route_belongs_to_all_releases_and_to_the_gateway_of_the_settings(two: Observed) -> None:
    whole = built(two, **{"1_0_0": 100})
    assert whole["metadata"]["name"] == "standard"
    assert [reference["uid"] for reference in whole["metadata"]["ownerReferences"]] == ["uid-1.0.0", "uid-1.1.0"]
    assert not any(reference.get("controller") for reference in whole["metadata"]["ownerReferences"])
    assert whole["spec"]["hostnames"] == ["standard-films.videogen.local"]
    parent = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "videogen", "namespace": "videogen-system"}
    assert whole["spec"]["parentRefs"] == [parent | {"sectionName": "http"}]
    assert route.parent(SETTINGS | {"gateway_section": ""}) == parent


def test_the_gateway_waits_longer_than_the_slowest_server(two: Observed) -> None:
    assert built(two, **{"1_0_0": 90, "1_1_0": 10})["spec"]["rules"][0]["timeouts"] == {"request": "105s"}


ROLLED_BACK = {"state": "RolledBack", "retiredTime": START.isoformat()}
POSITIONS: list[tuple[str, dict[str, Any], dict[str, int], list[str], float, list[str]]] = [
    ("a newcomer comes last", {"1.1.0": "Starting"}, {"1.0.0": 100}, ["1.0.0"], 0, ["1.0.0 1000000", "1.1.0 1"]),
    ("an older newcomer comes last, too", {"1.0.0": "Starting"}, {"1.1.0": 100}, ["1.1.0"], 0, ["1.1.0 1000000", "1.0.0 1"]),
    ("nobody moves when the first one goes", {"1.0.0": "Superseded"}, {"1.1.0": 100}, ["1.0.0", "1.1.0"], 0, ["1.1.0 0", "1.1.0 1000000"]),
    ("a newcomer takes a position that is free", {"1.2.0": "Starting"}, {"1.1.0": 100}, ["", "1.1.0"], 0, ["1.2.0 1", "1.1.0 1000000"]),
    (
        "but not one that becomes free now",
        {"1.2.0": "Starting"},
        {"1.1.0": 100},
        ["1.0.0", "1.1.0"],
        0,
        ["1.1.0 0", "1.1.0 1000000", "1.2.0 1"],
    ),
    ("a position at the end is dropped", {"1.1.0": "Superseded"}, {"1.0.0": 100}, ["1.0.0", "1.1.0"], 0, ["1.0.0 1000000"]),
    (
        "what was rolled back stays for a moment",
        {"1.1.0": ROLLED_BACK},
        {"1.0.0": 100},
        ["1.0.0", "1.1.0"],
        2,
        ["1.0.0 1000000", "1.1.0 1"],
    ),
    ("and goes then", {"1.1.0": ROLLED_BACK}, {"1.0.0": 100}, ["1.0.0", "1.1.0"], 3, ["1.0.0 1000000"]),
    ("while nobody serves, nobody may get a request", {"1.1.0": "Starting"}, {}, [], 0, ["1.1.0 0"]),
]


@pytest.mark.parametrize(("sentence", "states", "percent", "before", "seconds", "expected"), POSITIONS, ids=[row[0] for row in POSITIONS])
def test_a_release_keeps_its_position_in_the_route(
    snapshot: Callable[..., Observed],
    sentence: str,
    states: dict[str, Any],
    percent: dict[str, int],
    before: list[str],
    seconds: float,
    expected: list[str],
) -> None:
    rollouts = {version: {"state": state} if isinstance(state, str) else state for version, state in states.items()}
    manifests = [a_release(version, status={"rollout": rollout}) for version, rollout in rollouts.items()]
    manifests += [a_release(version, status={"rollout": {"state": "Stable"}}) for version in percent]
    running = [child for release in snapshot(*manifests).releases for child in objects.children(release, SETTINGS)]
    observed = snapshot(*manifests, *({**child, "status": {"readyReplicas": 1}} for child in running))
    names = [name_of(version) if version else "" for version in before]
    split = route.backends(
        observed.releases, {name_of(version): share for version, share in percent.items()}, names, START + timedelta(seconds=seconds)
    )
    assert [f"{release.spec.model.version} {weight}" for release, weight in split] == expected, sentence
    again = route.route(observed, split, (), SETTINGS)
    assert [name.split("-v")[-1].removesuffix("-base") for name in slots(again)] == [
        words.split()[0] if not words.endswith(" 0") else "" for words in expected
    ]


def accepted(*, generation: int = 1, **conditions: str) -> dict[str, Any]:
    said = [
        {"type": kind, "status": status, "message": "no such listener", "observedGeneration": generation}
        for kind, status in conditions.items()
    ]
    parents = [{"parentRef": route.parent(SETTINGS), "controllerName": SETTINGS["gateway_controller"], "conditions": said}]
    metadata = {"name": SERVICE, "namespace": NAMESPACE, "generation": 1}
    return {"kind": "HTTPRoute", "metadata": metadata, "spec": {}, "status": {"parents": parents}}


@pytest.mark.parametrize(
    ("sentence", "found", "words", "settled"),
    [
        ("accepted and resolved", accepted(Accepted="True", ResolvedRefs="True"), "", True),
        ("accepted in an earlier form", accepted(generation=0, Accepted="True"), "", False),
        ("not accepted", accepted(Accepted="False"), "does not take HTTPRoute standard: no such listener", False),
        ("a backend is missing", accepted(Accepted="True", ResolvedRefs="False"), "does not take HTTPRoute standard", True),
        ("nobody has answered", accepted() | {"status": {}}, "has not answered for HTTPRoute standard yet", False),
    ],
)
def test_what_the_gateway_says(snapshot: Callable[..., Observed], sentence: str, found: dict[str, Any], words: str, settled: bool) -> None:
    observed = snapshot(a_release(), found)
    said = route.problem(observed, SETTINGS)
    assert words in said if words else said == "", sentence
    assert route.settled(observed, SETTINGS) == settled, sentence


FOREIGN = {
    "of another Gateway": {"parentRef": {"name": "internal"}},
    "of a Gateway of that name in the route's own namespace": {"parentRef": {"namespace": None}},
    "of another listener": {"parentRef": {"sectionName": "https"}},
    "of all listeners": {"parentRef": {"sectionName": None}},
    "of a mesh": {"parentRef": {"kind": "Service", "group": ""}},
    "of another controller": {"controllerName": "kuadrant.io/policy-controller"},
}


@pytest.mark.parametrize("change", FOREIGN.values(), ids=FOREIGN)
@pytest.mark.parametrize("status", ["True", "False"])
def test_the_word_of_others_on_the_route_counts_for_nothing(snapshot: Callable[..., Observed], change: dict[str, Any], status: str) -> None:
    found = accepted(Accepted=status)
    (answer,) = found["status"]["parents"]
    own = deepcopy(answer) | {"conditions": [{"type": "Accepted", "status": "True", "observedGeneration": 1}]}
    found["status"]["parents"] = [merged(answer, change)]
    observed = snapshot(a_release(), found)
    assert "has not answered for HTTPRoute standard yet" in route.problem(observed, SETTINGS)
    assert not route.settled(observed, SETTINGS)
    found["status"]["parents"] = [own, merged(answer, change)]
    observed = snapshot(a_release(), found)
    assert route.problem(observed, SETTINGS) == ""
    assert route.settled(observed, SETTINGS)


def a_policy(controller: str = SETTINGS["gateway_controller"], **accepted: Any) -> dict[str, Any]:
    said = {"type": "Accepted", "reason": "Conflicted", "message": "another policy targets HTTPRoute standard"} | accepted
    ancestors = [{"ancestorRef": route.parent(SETTINGS), "controllerName": controller, "conditions": [said]}]
    metadata = {"name": SERVICE, "namespace": NAMESPACE}
    return {"kind": "BackendTrafficPolicy", "metadata": metadata, "spec": {}, "status": {"ancestors": ancestors}}


@pytest.mark.parametrize(
    ("sentence", "found", "words"),
    [
        ("in force", a_policy(status="True"), ""),
        (
            "another policy has the route",
            a_policy(status="False"),
            "is not in force (Conflicted): another policy targets HTTPRoute standard",
        ),
        ("another controller says so", a_policy("example.org/other", status="False"), ""),
        ("nobody has said anything", a_policy(status="False") | {"status": {}}, ""),
    ],
)
def test_what_the_gateway_says_of_the_traffic_policy(
    snapshot: Callable[..., Observed], sentence: str, found: dict[str, Any], words: str
) -> None:
    said = route.policy_problem(snapshot(a_release(), found), SETTINGS)
    assert words in said if words else said == "", sentence


def test_a_missing_gateway_and_a_refused_route_say_what_to_do(snapshot: Callable[..., Observed]) -> None:
    observed = snapshot(a_release(), a_gateway("another"))
    assert "does not exist; create it" in route.problem(observed, SETTINGS | {"gateway_name": "gone"})
    refused = Failure("HTTPRoute", SERVICE, 404, "not found")
    assert "are the Gateway API's CRDs installed?" in route.problem(observed, SETTINGS, (refused,))


# The quarantine ---------------------------------------------------------------------------------------------------


def entry(number: int) -> Entry:
    return Entry(digest_of(str(number)), name_of("1.0.0"), "Alert", f"2026-11-01T00:00:{number:02}Z")


def test_the_quarantine_survives_in_the_route_and_keeps_the_newest(snapshot: Callable[..., Observed]) -> None:
    observed = snapshot(a_release())
    written = route.route(observed, (), extended([entry(n) for n in range(40)], (), ()), SETTINGS)
    kept = entries(snapshot(a_release(), written))
    assert kept == tuple(entry(n) for n in range(8, 40))


@pytest.mark.parametrize(
    "text", ["", "{", "{}", "[1]", '[{"digest":"x"}]', '[{"digest":"x","release":"y","reason":"Nonsense","time":"z"}]']
)
def test_an_annotation_that_is_not_ours_is_no_quarantine(snapshot: Callable[..., Observed], text: str) -> None:
    broken = route.route(snapshot(a_release()), (), (), SETTINGS)
    broken["metadata"]["annotations"] = {"videogen.pib.gov.in/quarantine": text}
    assert entries(snapshot(a_release(), broken)) == ()


def test_a_digest_that_became_stable_leaves_the_quarantine() -> None:
    assert extended([entry(1), entry(2)], (), [digest_of("1")]) == (entry(2),)


@pytest.mark.parametrize(
    ("template", "host"),
    [
        ("", "standard-films.videogen.local"),
        ("<service>.<namespace>.<domain>", "standard.films.videogen.local"),
        ("<service>.video.example.org", "standard.video.example.org"),
    ],
)
def test_the_host_name_is_the_administrators_template(two: Observed, template: str, host: str) -> None:
    assert route.hostname(two, SETTINGS | {"hostname": template}) == host


def other_route(name: str, namespace: str, host: str, created: str) -> dict[str, Any]:
    return {
        "kind": "HTTPRoute",
        "metadata": {"name": name, "namespace": namespace, "creationTimestamp": created},
        "spec": {"hostnames": [host]},
    }


def test_of_two_services_with_one_host_name_the_later_one_is_told(two: Observed) -> None:
    host = "standard-films.videogen.local"
    early, late = (other_route("standard-films", "", host, time) for time in ("2026-11-01T00:00:00Z", "2026-11-03T00:00:00Z"))
    early["metadata"]["namespace"] = late["metadata"]["namespace"] = "elsewhere"
    own = other_route("standard", "films", host, "2026-11-02T00:00:00Z")
    foreign = other_route("a", "b", "a-b.videogen.local", "2026-11-01T00:00:00Z")
    assert route.taken(replace(two, route=own, others=(late, foreign)), SETTINGS) == ""
    assert route.taken(replace(two, route=None, others=(foreign,)), SETTINGS) == ""
    for mine in (own, None):
        said = route.taken(replace(two, route=mine, others=(early, foreign)), SETTINGS)
        assert said.startswith(f"host name {host} is that of service standard-films in namespace elsewhere, which had it first; rename")


def test_a_host_name_that_dns_does_not_allow_is_told(two: Observed) -> None:
    said = route.taken(replace(two, namespace="n" * 60), SETTINGS)
    assert "has a part of more than 63 characters; shorten spec.service" in said
