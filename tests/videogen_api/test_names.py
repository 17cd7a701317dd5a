"""Release names (R-VER): built and parsed in one place."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from videogen_api.meta import ModelIdentity, ModelType, parse_release_name, release_name

numbers = st.integers(min_value=0, max_value=9999)


@given(major=numbers, minor=numbers, patch=numbers, word=st.from_regex(r"[a-z0-9]([-a-z0-9]{0,17}[a-z0-9])?", fullmatch=True))
def test_every_release_name_parses_back_and_fits_a_label(major: int, minor: int, patch: int, word: str) -> None:
    model = ModelIdentity(type=ModelType.VIDEOFUSION, version=f"{major}.{minor}.{patch}", specialization=word)
    assert parse_release_name(release_name(model)) == model
    assert len(release_name(model)) <= 63


@pytest.mark.parametrize(
    "name",
    [
        "",
        "videofusion-v1.0.0-base",
        "pib-videogen-videofusion-1.0.0-base",
        "pib-videogen-videofusion-v1.0.0",
        "pib-videogen-gan-v1.0.0-base",
        "pib-videogen-videofusion-v01.0.0-base",
    ],
)
def test_a_name_of_another_form_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"expected|version|type"):
        parse_release_name(name)
