"""Names of children: within their limits, and no two things share one."""

import re

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from videogen_api.meta import ModelFamily, ModelIdentity, release_name
from videogen_operator.names import job_name, release_child_name

# What the CRD admits; short and of few letters, so that names that could be mistaken for each other are common.
RUNS = st.from_regex(r"[a-b1]([-a-b1]{0,8}[a-b1])?", fullmatch=True).filter(lambda name: name[0].isalpha())
LONG_RUNS = st.from_regex(r"[a-b]([-a-b]{30,38}[a-b])", fullmatch=True)
PHASES = st.from_regex(r"[a-b1]([-a-b1]{0,28}[a-b1])?", fullmatch=True)
ATTEMPTS = st.tuples(st.one_of(RUNS, LONG_RUNS), PHASES, st.integers(1, 100_000))
MODELS = st.builds(
    ModelIdentity,
    family=st.just(ModelFamily.VIDEOFUSION),
    type=st.from_regex(r"[av1]([-av1]{0,6}[av1])?", fullmatch=True).filter(lambda word: not re.search(r"-v\d", word)),
    version=st.tuples(*[st.integers(0, 20)] * 3).map(lambda numbers: ".".join(map(str, numbers))),
    specialization=st.from_regex(r"[a0-2]([-a0-2]{0,6}[a0-2])?", fullmatch=True),
)
DNS_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")


@given(ATTEMPTS, ATTEMPTS)
@example(("a-b", "c", 1), ("a", "b-c", 1))
@example(("a", "b", 1), ("a-b", "1", 1))
@example(("a" * 40, "b-c", 1), ("a" * 40, "b", 1))
@example(("a" * 38 + "-b", "a" * 20, 1), ("a" * 38, "b-" + "a" * 20, 1))
def test_no_two_attempts_share_a_job_name(one: tuple[str, str, int], other: tuple[str, str, int]) -> None:
    assume(one != other)
    assert job_name(*one) != job_name(*other)


@given(ATTEMPTS)
def test_a_job_name_leaves_room_for_the_pods_and_services_made_of_it(attempt: tuple[str, str, int]) -> None:
    name = job_name(*attempt)
    assert len(name) <= 50
    assert DNS_1035.fullmatch(name)


def test_a_plain_name_is_kept_where_it_can_be_read_back() -> None:
    assert job_name("videofusion-1-0", "train", 12) == "videofusion-1-0-train-12"
    assert re.fullmatch(r"videofusion-1-0-curate-real-1-[0-9a-f]{8}", job_name("videofusion-1-0", "curate-real", 1))


@given(MODELS, MODELS)
@example(
    ModelIdentity(family=ModelFamily.VIDEOFUSION, version="1.0.0", specialization="0-a"),
    ModelIdentity(family=ModelFamily.VIDEOFUSION, version="1.0.0", specialization="0"),
)
def test_no_two_releases_share_the_name_of_their_children(one: ModelIdentity, other: ModelIdentity) -> None:
    assume(release_name(one) != release_name(other))
    assert release_child_name(release_name(one)) != release_child_name(release_name(other))


def test_a_type_that_looks_like_a_version_is_refused() -> None:
    with pytest.raises(ValueError, match=r"type must not contain -v and a digit: .*; found is a-v1-0-0"):
        ModelIdentity(family=ModelFamily.VIDEOFUSION, type="a-v1-0-0", version="1.0.0")
