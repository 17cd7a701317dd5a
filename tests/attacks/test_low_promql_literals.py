"""A name with quotes in it, should any schema ever let one in, asks Prometheus about that name and about nothing else."""

from __future__ import annotations

import json
import re

import pytest

from videogen_api.model_release import LiveMetric
from videogen_operator.kinds.model_release.judging.queries import measure, requests, successes

NAMES = ['a"} or vector(1) or up{x="', "a\\", '\\"', "a\nb", "a\r\tb", "a{b}", "अ", "'"]
LITERAL = r'"((?:[^"\\\n]|\\.)*)"'
SELECTOR = re.compile(rf"\{{namespace={LITERAL},release={LITERAL},outcome")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("metric", LiveMetric)
def test_a_name_ends_neither_its_literal_nor_its_selector(name: str, metric: LiveMetric) -> None:
    for query in (requests(name, name, 60), successes(name, name, 60), measure(metric, name, name, 60)):
        found = SELECTOR.findall(query)
        assert found
        assert {json.loads(f'"{literal}"') for pair in found for literal in pair} == {name}
        without = SELECTOR.sub("{", query)
        assert name not in without
        assert without == SELECTOR.sub("{", query.replace(json.dumps(name, ensure_ascii=False), '"plain"'))
