import json
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from localcluster import addons, build, claim, cli, cluster, commands, files, monitoring, network, node, processes, services, status
from localcluster.faults import Fault
from localcluster.layout import Layout, checkout
from localcluster.versions import GO_PARTS, IMAGES

LAYOUT = Layout(repo=Path("/src/checkout"), index=0)


def entry(name: str, pid: int = 0, ticks: int = 0, since: float = 0) -> processes.Record:
    return processes.Record(name=name, version="1", pid=pid, ticks=ticks, boot=processes.boot_id(), since=since, fingerprint="f")


@pytest.mark.parametrize("part", [part for part in GO_PARTS if part.source], ids=lambda part: part.module)
def test_the_version_that_is_told_is_the_one_that_is_pinned(part: build.GoPart) -> None:
    pins = (checkout() / "localcluster" / "go" / part.module / "go.mod").read_text()
    assert re.search(rf"^\s*(?:require )?{re.escape(part.source)} v{re.escape(part.version)}(?: // indirect)?$", pins, re.MULTILINE)
    assert all(package.startswith((part.source, f"localcluster/{part.module}")) for package in part.packages.values())


@pytest.mark.parametrize(
    ("package", "binary"),
    [
        ("k8s.io/kubernetes/cmd/kubelet", "kubelet"),
        ("go.etcd.io/etcd/server/v3", "server"),
        ("github.com/kubeflow/training-operator/cmd/training-operator.v1", "training-operator.v1"),
    ],
)
def test_the_name_that_go_gives_a_binary_is_known(package: str, binary: str) -> None:
    assert build._default_name(package) == binary


def test_a_changed_pin_makes_a_part_stale(tmp_path: Path) -> None:
    layout, part = Layout(repo=tmp_path, index=0), build.GoPart(module="m", version="1", source="", packages={"tool": "m/tool"})
    folder = layout.go / "m"
    folder.mkdir(parents=True)
    (folder / "go.mod").write_text("module m\n")
    layout.bin.mkdir(parents=True)
    (layout.bin / "tool").touch()
    assert not build.current(layout, part)
    files.write(layout.bin / ".m.stamp", build.stamp(layout, part))
    assert build.current(layout, part)
    (folder / "go.sum").write_text("new")
    assert not build.current(layout, part)


def test_building_an_unknown_part_is_refused() -> None:
    with pytest.raises(Fault, match="there is no part kublet"):
        build.ensure(LAYOUT, ["kublet"])


def test_a_process_is_known_by_its_start_and_not_only_by_its_number() -> None:
    ticks = processes.start_ticks(os.getpid())
    assert ticks is not None
    assert entry("self", os.getpid(), ticks).alive()
    assert not entry("recycled", os.getpid(), ticks + 1).alive()


def test_a_process_that_waits_to_be_reaped_is_not_alive() -> None:
    child = subprocess.Popen(["sleep", "60"])
    ticks = processes.start_ticks(child.pid) or 0
    os.kill(child.pid, signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not entry("child", child.pid, ticks).alive()
    child.wait()


def test_records_survive_and_broken_ones_are_ignored(tmp_path: Path) -> None:
    layout = Layout(repo=tmp_path, index=0)
    for name, since in (("b", 2.0), ("a", 1.0)):
        one = entry(name, since=since)
        files.write_json(processes.record_path(layout, name), {field: getattr(one, field) for field in one.__dataclass_fields__})
    processes.record_path(layout, "cut-off").write_text('{"name": "cut')
    files.write_json(processes.record_path(layout, "older"), {"name": "older", "pids": [1]})
    assert [one.name for one in processes.records(layout)] == ["a", "b"]


def test_kubelets_end_first_and_the_store_last() -> None:
    names = ["etcd", "kube-apiserver", "containerd-node-1", "kubelet-node-1", "kube-controller-manager", "keeper", "kubelet-node-2"]
    ordered = [one.name for one in cluster.stop_order([entry(name) for name in names])]
    assert ordered[:2] == ["kubelet-node-1", "kubelet-node-2"]
    assert ordered[-2:] == ["kube-apiserver", "etcd"]
    assert ordered.index("kube-controller-manager") < ordered.index("kube-apiserver")


def test_every_part_has_its_place_in_the_order() -> None:
    each = node.named(LAYOUT, "node-1")
    parts = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "keeper", "prometheus", "alertmanager"]
    parts += [part.name for part in (*services.parts(LAYOUT), *node.parts(each))]
    assert all(name.startswith(cluster.STOP_ORDER) for name in parts)


@pytest.mark.parametrize(("seconds", "shown"), [(5, "5s"), (60, "1m"), (65, "1m5s"), (3700, "1h1m"), (90000, "1d1h")])
def test_ages_are_shown_as_kubectl_does(seconds: float, shown: str) -> None:
    assert status.age(seconds) == shown


def test_a_dead_part_is_shown(tmp_path: Path) -> None:
    layout = Layout(repo=tmp_path, index=0)
    one = entry("etcd", pid=2**22, since=40)
    files.write_json(processes.record_path(layout, "etcd"), {field: getattr(one, field) for field in one.__dataclass_fields__})
    assert status.lines(layout, 100)[1].split() == ["etcd", "DEAD", str(2**22), "1m", "1"]


def test_a_file_is_replaced_only_if_it_differs(tmp_path: Path) -> None:
    secret = tmp_path / "folder" / "token"
    assert files.write(secret, "one", 0o600)
    assert not files.write(secret, "one", 0o600)
    assert files.write(secret, "two", 0o600)
    assert (secret.read_text(), secret.stat().st_mode & 0o777) == ("two", 0o600)
    assert list(secret.parent.iterdir()) == [secret]


@pytest.mark.parametrize("content", [None, "", '{"cut'])
def test_a_file_that_a_crash_cut_off_counts_as_missing(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "state.json"
    if content is not None:
        path.write_text(content)
    assert files.read_json(path) is None


def test_parts_of_a_digest_do_not_run_into_each_other() -> None:
    assert files.digest("ab", "c") != files.digest("a", "bc")


def test_a_failed_command_is_one_sentence_with_its_last_words() -> None:
    with pytest.raises(Fault, match=r"failed with exit code 3: the reason$"):
        commands.run(["sh", "-c", "echo the reason >&2; exit 3"])
    with pytest.raises(Fault, match="the program no-such-program is not installed"):
        commands.run(["no-such-program"])


@pytest.fixture
def owners(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(claim, "OWNERS", tmp_path / "owners.json")
    monkeypatch.setattr(claim, "OWNERS_LOCK", tmp_path / "owners.lock")
    monkeypatch.setattr(network, "routed", lambda prefixes, _: "10.245" in prefixes)
    return tmp_path


def a_checkout(folder: Path, name: str) -> Path:
    (folder / name / ".localcluster").mkdir(parents=True)
    return folder / name


def test_two_checkouts_get_different_indices_past_foreign_routes(owners: Path) -> None:
    one, two = a_checkout(owners, "one"), a_checkout(owners, "two")
    assert claim.acquire(one).index == 0
    assert claim.acquire(two).index == 2  # 10.245 is routed somewhere else
    assert claim.acquire(one).index == 0
    assert claim.known_layout(two).index == 2


def test_a_checkout_whose_addresses_were_taken_meanwhile_is_told_by_whom(owners: Path) -> None:
    one, two = a_checkout(owners, "one"), a_checkout(owners, "two")
    claim.release(claim.acquire(one))
    assert claim.other_holder(claim.known_layout(one)) == ""
    assert claim.acquire(two).index == 0
    assert claim.other_holder(claim.known_layout(one)) == str(two)  # its `down` must leave the other's pods alone
    assert claim.other_holder(claim.known_layout(two)) == ""
    with pytest.raises(Fault, match=r"the cluster of .*/two now has the addresses"):
        claim.acquire(one)


def test_a_deleted_checkout_holds_nothing(owners: Path) -> None:
    files.write_json(claim.OWNERS, {"0": str(owners / "gone")})
    assert claim.acquire(a_checkout(owners, "one")).index == 0


def test_alerts_go_to_one_webhook_at_once_with_a_token() -> None:
    config = monitoring.alertmanager_config("http://operator:8080/v1/alerts", Path("/token"))
    assert config["route"] == {
        "receiver": "webhook",
        "group_by": ["namespace", "release", "alertname"],
        "group_wait": "0s",
        "group_interval": "1s",
        "repeat_interval": "1m",
    }
    (target,) = config["receivers"][0]["webhook_configs"]
    assert target["http_config"]["authorization"] == {"type": "Bearer", "credentials_file": "/token"}
    assert "webhook_configs" not in monitoring.alertmanager_config(None, None)["receivers"][0]


def test_the_webhooks_certificate_is_verified_by_the_authority_and_name_that_were_given() -> None:
    config = monitoring.alertmanager_config("https://10.96.0.7:8080/v1/alerts", Path("/token"), Path("/ca.crt"), "operator.svc")
    (target,) = config["receivers"][0]["webhook_configs"]
    assert target["http_config"]["tls_config"] == {"ca_file": "/ca.crt", "server_name": "operator.svc"}


def test_a_webhook_that_is_no_address_is_refused() -> None:
    with pytest.raises(Fault, match="is no address for a webhook"):
        monitoring.set_webhook(LAYOUT, "operator:8080/alerts", None)


def test_everything_listens_on_addresses_of_the_cluster() -> None:
    each = node.named(LAYOUT, "node-2")
    kubelet = node.kubelet_config(each)
    assert {kubelet["address"], kubelet["healthzBindAddress"]} == {"10.244.0.2"}
    proxy = services.proxy_config(LAYOUT)
    assert proxy["healthzBindAddress"] == "10.244.0.1:10256"
    assert services.corefile(LAYOUT).count("bind 10.244.0.1\n") == 2


def test_images_are_never_collected_because_nobody_could_pull_them() -> None:
    config = node.kubelet_config(node.named(LAYOUT, "node-1"))
    assert (config["imageGCHighThresholdPercent"], config["imageMaximumGCAge"]) == (100, "0s")


def test_the_injected_init_container_is_let_in_by_pod_security_restricted() -> None:
    (container,) = addons.init_template(addons.LOCAL_IMAGES)
    context = container["securityContext"]
    assert context["runAsNonRoot"]
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not context["allowPrivilegeEscalation"]
    compile(container["command"][2].replace("{{.MaxTries}}", "3"), "init", "exec")


def test_the_local_add_ons_run_only_images_that_are_built_here() -> None:
    assert {getattr(addons.LOCAL_IMAGES, name) for name in addons.AddonImages.__dataclass_fields__} <= set(IMAGES.values())
    applied = json.dumps(addons._everything(addons.LOCAL_IMAGES))
    assert not re.search(r'"image": "(?!localhost/)', applied)


def test_every_command_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.parser().parse_args(["--help"])
    shown = capsys.readouterr().out
    for name in (
        "up",
        "down",
        "status",
        "kubeconfig",
        "load-image",
        "build-base",
        "alerts",
        "node",
        "tools",
        "install-addons",
        "install-monitoring",
    ):
        assert re.search(rf"^    {name}\s+\w", shown, re.MULTILINE), name


def test_a_fault_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    monkeypatch.setattr(cli.layout, "checkout", lambda: tmp_path)
    assert cli.main(["kubeconfig"]) == 1
    assert capsys.readouterr().err == "localcluster: there is no kubeconfig yet; `localcluster up` makes it\n"
