from pathlib import Path

import pytest

from videogen_operator.settings import Settings, from_environment


def test_an_empty_environment_gives_the_defaults() -> None:
    assert from_environment({"PATH": "/bin"}) == Settings()


def test_values_are_read_by_their_types() -> None:
    found = from_environment(
        {
            "VIDEOGEN_NAMESPACES": "a, b,",
            "VIDEOGEN_RESYNC_SECONDS": "5",
            "VIDEOGEN_ALERT_TOKEN_FILES": "/t/one,/t/two",
            "VIDEOGEN_TRAINER_IMAGE": "trainer:1",
            "VIDEOGEN_ALERT_WINDOW_SECONDS": "15s",
            "VIDEOGEN_ALERT_NAMESPACE_TOKENS": "/t/namespaces",
        }
    )
    assert (found.namespaces, found.resync_seconds, found.trainer_image) == (("a", "b"), 5, "trainer:1")
    assert found.alert_token_files == (Path("/t/one"), Path("/t/two"))
    assert (found.alert_window_seconds, found.alert_namespace_tokens) == (15, Path("/t/namespaces"))
    assert from_environment({"VIDEOGEN_ALERT_NAMESPACE_TOKENS": ""}).alert_namespace_tokens is None
    windows = {text: from_environment({"VIDEOGEN_ALERT_WINDOW_SECONDS": text}).alert_window_seconds for text in ("1m", "90", "500ms")}
    assert windows == {"1m": 60, "90": 90, "500ms": 1}


@pytest.mark.parametrize(
    "name, value, said",
    [
        ("VIDEOGEN_RESYNC", "5", "unknown environment variable VIDEOGEN_RESYNC; accepted are"),
        ("VIDEOGEN_GATEWAY_PEERS", "[", r"VIDEOGEN_GATEWAY_PEERS is '\['; expected a JSON list of NetworkPolicyPeers"),
        ("VIDEOGEN_MONITORING_PEERS", "[{}]", "none of them empty"),
        ("VIDEOGEN_MONITORING_PEERS", '{"podSelector": {}}', "expected a JSON list of NetworkPolicyPeers"),
        ("VIDEOGEN_PROMETHEUS_HEADERS", "X-Scope-OrgID: video", "VIDEOGEN_PROMETHEUS_HEADERS is no JSON object of HTTP headers"),
        ("VIDEOGEN_PROMETHEUS_HEADERS", '{"X Scope": "video"}', "expected their names and values in ASCII"),
        ("VIDEOGEN_PROMETHEUS_HEADERS", '{"X-Scope-OrgID": "video\\nHost: other"}', "expected their names and values in ASCII"),
        ("VIDEOGEN_PROMETHEUS_HEADERS", '{"X-Scope-OrgID": 7}', "expected their names and values in ASCII"),
        ("VIDEOGEN_IMAGE_PULL_SECRETS", '[{"name": "Registry"}]', "expected a JSON list of names of Secrets"),
        ("VIDEOGEN_IMAGE_PULL_SECRETS", '[{"name": 7}]', "expected a JSON list of names of Secrets"),
        ("VIDEOGEN_RESYNC_SECONDS", "1m", "VIDEOGEN_RESYNC_SECONDS is '1m'; expected a whole number"),
        (
            "VIDEOGEN_ALERT_WINDOW_SECONDS",
            "soon",
            "VIDEOGEN_ALERT_WINDOW_SECONDS is 'soon'; expected a whole number of seconds or a duration",
        ),
    ],
)
def test_mistakes_are_named(name: str, value: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        from_environment({name: value})


def test_variables_that_kubernetes_adds_for_services_are_no_mistakes() -> None:
    links = (
        "VIDEOGEN_OPERATOR_SERVICE_HOST",
        "VIDEOGEN_OPERATOR_PORT",
        "VIDEOGEN_OPERATOR_PORT_8080_TCP_ADDR",
        "VIDEOGEN_GATEWAY_SERVICE_PORT_HTTP",
    )
    assert from_environment(dict.fromkeys(links, "tcp://10.0.0.1:8080")) == Settings()
