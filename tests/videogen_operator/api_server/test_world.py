from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from videogen_api.meta import LABEL_RUN
from videogen_operator.api_server.world import ObjectWorld, trim
from videogen_operator.plan import Index, Resource

PODS = Resource("", "v1", "pods", "Pod", keep=("spec.nodeName", "status"), annotations=(("own", 4),))


def pod(name: str = "a", version: int = 1, uid: str = "", namespace: str = "x", **labels: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace, "uid": uid or f"uid-{name}", "resourceVersion": str(version)}
    status = {"phase": "Running", "version": version}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata | {"labels": labels},
        "spec": {"nodeName": "n", "volumes": []},
        "status": status,
    }


def world() -> ObjectWorld:
    return ObjectWorld([PODS])


def test_an_older_state_never_overwrites_a_newer_one() -> None:
    w = world()
    assert w.store(pod(version=10))
    assert not w.store(pod(version=9))
    assert not w.store(pod(version=10))
    assert w.store(pod(version=11))
    assert w.get("Pod", "x", "a")["status"]["version"] == 11  # type: ignore[index]


def test_what_was_deleted_never_returns_but_a_namesake_does() -> None:
    w = world()
    w.store(pod(version=10))
    assert w.remove(pod(version=12))
    assert not w.store(pod(version=11))
    assert not w.store(pod(version=12))
    assert w.store(pod(version=13, uid="another"))


def test_what_we_have_deleted_ourselves_has_no_later_state() -> None:
    w = world()
    w.store(pod(version=10))
    deleted = pod()
    del deleted["metadata"]["resourceVersion"]
    assert w.remove(deleted)
    assert not w.store(pod(version=99))


def test_what_loses_the_label_of_its_watch_and_gets_it_back_is_seen_again() -> None:
    """A watch with a selector reports the loss as a deletion, with the version of the change."""
    w = world()
    w.store(pod(version=10))
    assert w.remove(pod(version=12))
    assert w.store(pod(version=13))
    assert not w.remove(pod(version=12)), "the same deletion, told late by another watch"
    assert w.get("Pod", "x", "a") is not None


def test_an_end_that_is_told_late_does_not_bring_back_what_a_later_one_has_ended() -> None:
    w = world()
    for version in (30, 20):
        assert not w.remove(pod(version=version))
    assert not w.store(pod(version=25))


def test_what_a_list_did_not_have_is_seen_again_in_a_later_state() -> None:
    w = world()
    w.store(pod(version=10))
    assert len(w.prune("Pod", "x", set(), "40")) == 1
    assert not w.store(pod(version=39))
    assert w.store(pod(version=41))


@pytest.mark.parametrize("namespace", ["x", None])
def test_what_is_not_served_is_forgotten_and_may_come_back_as_it_was(namespace: str | None) -> None:
    w = world()
    for item in (pod("a", **{LABEL_RUN: "1"}), pod("b")):
        w.store(item)
    w.store(pod("elsewhere", namespace="y"))
    assert [item["metadata"]["name"] for item in w.forget("Pod", namespace)] == ["a", "b", *([] if namespace else ["elsewhere"])]
    assert w.list("Pod", labels={LABEL_RUN: "1"}) == ()
    assert w.list("Pod", "x") == ()
    assert w.store(pod("a", **{LABEL_RUN: "1"}))
    assert len(w.list("Pod", labels={LABEL_RUN: "1"})) == 1


def test_a_late_deletion_of_a_predecessor_does_not_remove_its_namesake() -> None:
    w = world()
    w.store(pod(version=13, uid="another"))
    assert not w.remove(pod(version=12, uid="first"))
    assert w.get("Pod", "x", "a") is not None


def test_a_complete_list_removes_ghosts_but_nothing_that_is_younger_than_the_list() -> None:
    w = world()
    for item in (pod("listed", 1), pod("ghost", 2), pod("younger", 50), pod("elsewhere", 3, namespace="y")):
        w.store(item)
    gone = w.prune("Pod", "x", {("x", "listed")}, "40")
    assert [item["metadata"]["name"] for item in gone] == ["ghost"]
    assert [item["metadata"]["name"] for item in w.list("Pod")] == ["listed", "younger", "elsewhere"]


def test_conditions_of_others_are_not_kept_and_a_change_of_them_is_no_news() -> None:
    resource = Resource("g", "v1", "runs", "Run", conditions=frozenset({"Succeeded"}))
    w = ObjectWorld([resource])

    def run(version: int, *types: str) -> dict[str, Any]:
        conditions = [{"type": one, "status": "True"} for one in types]
        metadata = {"name": "a", "namespace": "x", "uid": "u", "resourceVersion": str(version)}
        return {"apiVersion": "g/v1", "kind": "Run", "metadata": metadata, "status": {"conditions": conditions, "release": "r"}}

    assert w.store(run(1, "Approved", "Succeeded"))
    assert not w.store(run(2, "Succeeded", "Approved", "Paid"))
    found = w.get("Run", "x", "a")
    assert found is not None
    assert found["status"] == {"conditions": [{"type": "Succeeded", "status": "True"}], "release": "r"}
    assert found["metadata"]["resourceVersion"] == "2"
    assert w.store(run(3, "Approved"))


def test_lists_are_sorted_and_filtered_by_namespace_and_labels() -> None:
    w = world()
    for item in (pod("c", run="1"), pod("a", run="1"), pod("b", run="2"), pod("a", uid="u", namespace="y", run="1")):
        w.store(item)
    assert [(i["metadata"]["namespace"], i["metadata"]["name"]) for i in w.list("Pod", labels={"run": "1"})] == [
        ("x", "a"),
        ("x", "c"),
        ("y", "a"),
    ]
    assert [i["metadata"]["name"] for i in w.list("Pod", "x")] == ["a", "b", "c"]


def test_only_what_plans_read_is_kept() -> None:
    item = pod()
    item["metadata"] |= {"managedFields": [1], "annotations": {"stranger": "x" * 200_000, "own": "1" * 200_000}}
    kept = trim(item, PODS)
    assert kept["spec"] == {"nodeName": "n"}
    assert kept["metadata"]["annotations"] == {"own": "1111"}
    assert "managedFields" not in kept["metadata"]


EVENTS = st.lists(
    st.tuples(st.sampled_from("ab"), st.integers(1, 30), st.sampled_from(["one", "two"]), st.booleans()),
    max_size=30,
    unique_by=lambda e: e[1],
)


@given(EVENTS, st.randoms(use_true_random=False))
def test_events_in_any_order_lead_to_the_newest_state(events: list[tuple[str, int, str, bool]], random: Any) -> None:
    """Each UID lives in one stretch of versions; whatever the order of arrival, the newest living state of it stays."""
    history: dict[str, list[tuple[int, str, bool]]] = {}
    for name, version, label, deleted in sorted(events, key=lambda event: event[1]):
        history.setdefault(name, []).append((version, label, deleted))
    shuffled = []
    for name, states in history.items():
        generation = 0
        for version, label, deleted in states:
            shuffled.append((pod(name, version, uid=f"{name}-{generation}", **{LABEL_RUN: label}), deleted))
            generation += deleted
    random.shuffle(shuffled)
    w = world()
    for item, deleted in shuffled:
        w.remove(item) if deleted else w.store(item)
    for name, states in history.items():
        version, label, deleted = states[-1]
        found = w.get("Pod", "x", name)
        assert (found is None) if deleted else (found is not None and found["status"]["version"] == version)
        listed = w.list("Pod", "x", {LABEL_RUN: label})
        assert deleted or name in [item["metadata"]["name"] for item in listed]


@pytest.mark.parametrize("label", ["run", LABEL_RUN])
def test_a_changed_label_moves_the_object_to_another_list(label: str) -> None:
    w = world()
    w.store(pod(version=1, **{label: "old"}))
    w.store(pod(version=2, **{label: "new"}))
    assert w.list("Pod", labels={label: "old"}) == ()
    assert len(w.list("Pod", labels={label: "new"})) == 1


NODE_OF = Index("Pod", "node", lambda item: [item["spec"]["nodeName"]])


def on(node: str, version: int, name: str = "a") -> dict[str, Any]:
    return pod(name, version) | {"spec": {"nodeName": node}}


def test_an_index_follows_each_state_of_an_object() -> None:
    w = ObjectWorld([PODS], [NODE_OF])
    w.store(on("n1", 1))
    w.store(on("n1", 2, "b"))
    assert [item["metadata"]["name"] for item in w.find(NODE_OF, "n1", "x")] == ["a", "b"]
    w.store(on("n2", 3))
    assert [item["metadata"]["name"] for item in w.find(NODE_OF, "n1")] == ["b"]
    assert w.find(NODE_OF, "n2", "y") == ()
    w.remove(on("n2", 4))
    assert w.find(NODE_OF, "n2") == ()


def test_an_index_visits_no_object_but_those_that_it_finds() -> None:
    visits: list[str] = []

    def named(item: Any) -> list[str]:
        visits.append(item["metadata"]["name"])
        return [item["metadata"]["name"]]

    index = Index("Pod", "name", named)
    w = ObjectWorld([PODS], [index])
    for number in range(5):
        w.store(pod(f"pod-{number}"))
    visits.clear()
    assert len(w.find(index, "pod-3", "x")) == 1
    assert visits == []


def test_what_an_index_cannot_read_is_only_not_found() -> None:
    w = ObjectWorld([PODS], [NODE_OF])
    assert w.store(pod() | {"spec": {"nodeName": 7}})
    assert w.store(pod("b") | {"spec": {}})
    assert w.find(NODE_OF, "7") == ()
    assert len(w.list("Pod")) == 2


def test_a_list_is_of_the_newest_states() -> None:
    w = world()
    w.store(pod(version=1))
    assert len(w.list("Pod")) == len(w.list("Pod", "x")) == 1
    w.store(pod("b", version=2))
    w.store(pod(version=3))
    assert [item["metadata"]["resourceVersion"] for item in w.list("Pod", "x")] == ["3", "2"]
    w.remove(pod("b", version=4))
    assert [item["metadata"]["name"] for item in w.list("Pod")] == ["a"]


class Status(BaseModel):
    phase: str = ""
    version: int = 0


def test_a_part_is_read_once_for_everybody_until_it_changes() -> None:
    w = world()
    w.store(pod(version=1))
    first = w.read(Status, w.list("Pod")[0], "status")
    same = pod(version=2, extra="label")
    same["status"] = dict(pod(version=1)["status"])
    w.store(same)
    assert w.read(Status, w.list("Pod")[0], "status") is first
    w.store(pod(version=3))
    assert w.read(Status, w.list("Pod")[0], "status").version == 3
    with pytest.raises(ValidationError):
        w.read(Status, {"metadata": {"uid": "u"}, "status": {"version": "none"}}, "status")


def test_only_so_many_readings_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("videogen_operator.api_server.world.REMEMBERED_READ", 2)
    w, items = world(), [pod(name) for name in "abc"]
    first = [w.read(Status, item, "status") for item in items]
    assert w.read(Status, items[2], "status") is first[2]
    assert w.read(Status, items[0], "status") is not first[0]


def test_of_a_kind_that_is_kept_by_owner_only_what_one_of_them_controls_is_in_memory() -> None:
    """Workloads of other teams are read and dropped, however many there are."""
    w = ObjectWorld([Resource("kueue.x-k8s.io", "v1beta2", "workloads", "Workload", owners=frozenset({"PyTorchJob"}))])

    def workload(called: str, **owner: Any) -> dict[str, Any]:
        metadata = {"name": called, "namespace": "x", "uid": called, "resourceVersion": "1", "ownerReferences": [owner] if owner else []}
        return {"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "Workload", "metadata": metadata}

    assert w.store(workload("ours", kind="PyTorchJob", name="run-train-1", uid="1", controller=True))
    assert not w.store(workload("another-kind", kind="Job", name="batch", uid="2", controller=True))
    assert not w.store(workload("no-controller", kind="PyTorchJob", name="run-train-1", uid="1"))
    assert not w.store(workload("nobodys"))
    assert [item["metadata"]["name"] for item in w.list("Workload")] == ["ours"]
