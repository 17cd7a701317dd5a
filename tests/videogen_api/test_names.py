"""Release names: built and parsed in one place."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from videogen_api.meta import ModelIdentity, ModelType, parse_release_name, release_name

numbers = st.integers(min_value=0, max_value=9999)


@given(
    type_=st.sampled_from(ModelType),
    major=numbers,
    minor=numbers,
    patch=numbers,
    word=st.from_regex(r"[a-z0-9]([-a-z0-9]{0,17}[a-z0-9])?", fullmatch=True),
)
def test_every_release_name_parses_back_and_fits_a_label(type_: ModelType, major: int, minor: int, patch: int, word: str) -> None:
    version = f"{major}.{minor}.{patch}"
    assume(len(type_ + version + word) <= 45)
    model = ModelIdentity(type=type_, version=version, specialization=word)
    assert parse_release_name(release_name(model)) == model
    assert len(release_name(model)) <= 61


def test_a_name_that_is_too_long_for_a_label_is_refused() -> None:
    fits = ModelIdentity(type=ModelType.ALIGN_YOUR_LATENTS, version="10.20.3", specialization="a" * 20)
    assert len(release_name(fits)) == 61
    with pytest.raises(ValueError, match="45 characters together"):
        ModelIdentity(type=ModelType.ALIGN_YOUR_LATENTS, version="10.20.30", specialization="a" * 20)


def test_the_longest_name_of_videofusion_is_still_accepted() -> None:
    ModelIdentity(type=ModelType.VIDEOFUSION, version="9999.9999.9999", specialization="a" * 20)


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
