"""`make year`: the same seed is the same year, and its picture can be read."""

from datetime import timedelta
from itertools import combinations
from xml.etree import ElementTree as ET

import pytest
from benchmarks.drawing import SCALE, Drawing, Text, as_image, as_svg, width_of
from benchmarks.year import START, schedule, table
from benchmarks.year_chart import Chart

from videogen_testing.virtual_year import Account, Year

DAYS = 60


@pytest.fixture(scope="module")
def account() -> Account:
    return Year(schedule(), START, seed=1).live(DAYS)


@pytest.fixture(scope="module")
def drawing(account: Account) -> Drawing:
    cycles = [item for item in schedule() if item["kind"] == "FineTuneCycle"]
    return Chart(account, cycles, START, START + timedelta(days=DAYS), "A year").draw()


def test_the_first_schedules_end_and_cycles_go_on_from_them(account: Account) -> None:
    assert {stay.version for stay in account.stays if stay.state == "Stable" and stay.service == "standard"} > {"1.0.0"}
    assert any(run["metadata"]["name"].startswith("base-weekly-") for run in account.runs.values())


def test_no_version_is_made_twice(account: Account) -> None:
    made = [(run["spec"]["model"]["family"], run["spec"]["model"]["version"]) for run in account.runs.values()]
    assert len(made) == len(set(made))


def test_all_gpus_are_given_back_and_never_more_than_there_are(account: Account) -> None:
    used = {"training": 0, "serving": 0, "emergency": 0}
    for _, use, more in account.gpus:
        used[use] += more
        assert min(used.values()) >= 0
        assert sum(used.values()) <= 28


def test_the_same_seed_makes_the_same_year(account: Account) -> None:
    again = Year(schedule(), START, seed=1).live(DAYS)
    assert (again.happened, again.gpus, again.stays) == (account.happened, account.gpus, account.stays)


def test_no_text_lies_on_another(drawing: Drawing) -> None:
    boxes = [(box_of(one), one.words) for one in drawing.items if isinstance(one, Text)]
    for (one, words), (other, more) in combinations(boxes, 2):
        apart = one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
        assert apart, f"{words!r} lies on {more!r}"


def test_every_text_is_within_the_picture(drawing: Drawing) -> None:
    for one in (item for item in drawing.items if isinstance(item, Text)):
        left, top, right, bottom = box_of(one)
        assert left >= 0 and top >= 0 and right <= drawing.width and bottom <= drawing.height, one.words


def box_of(text: Text) -> tuple[float, float, float, float]:
    width = width_of(text.words, text.size)
    left = text.x - {"start": 0.0, "middle": 0.5, "end": 1.0}[text.anchor] * width
    return left, text.y - text.size / 2, left + width, text.y + text.size / 2


def test_it_is_svg_and_png(drawing: Drawing) -> None:
    assert ET.fromstring(as_svg(drawing)).tag == "{http://www.w3.org/2000/svg}svg"
    assert as_image(drawing).size == (round(drawing.width * SCALE), round(drawing.height * SCALE))


def test_the_table_has_a_line_for_each_cycle(account: Account) -> None:
    cycles = [item for item in schedule() if item["kind"] == "FineTuneCycle"]
    lines = list(table(account, cycles))
    assert all(any(line.startswith(f"| {cycle['metadata']['name']} |") for line in lines) for cycle in cycles)
