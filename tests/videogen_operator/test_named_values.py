"""Messages that send somebody to the chart name values that the chart has."""

import re
from pathlib import Path
from typing import Any

import yaml

from videogen_operator.inbound.inbox import TOKEN_NEEDED
from videogen_operator.metrics_query import Prometheus
from videogen_operator.plan import Query, Unavailable

CHART = Path(__file__).parents[2] / "charts" / "videogen" / "values.yaml"


def value_named_in(message: str) -> Any:
    """What stands at the path that the message names."""
    found = re.search(r"the chart's ([A-Za-z]+(\.[A-Za-z]+)+)", message)
    assert found, message
    value = yaml.safe_load(CHART.read_text())
    for part in found[1].split("."):
        value = value[part]
    return value


async def test_without_prometheus_the_message_names_the_value_to_set() -> None:
    answer = (await Prometheus("").ask([Query("q", "up")]))["q"]
    assert isinstance(answer, Unavailable)
    assert value_named_in(answer.reason) == ""


def test_without_a_token_the_answer_names_the_value_to_set() -> None:
    assert value_named_in(TOKEN_NEEDED) == ""
