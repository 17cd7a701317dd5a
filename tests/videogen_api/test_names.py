"""Release names: built and parsed in one place."""

import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from videogen_api.meta import TYPES, ModelFamily, ModelIdentity, NameParts, parse_release_name, release_name

numbers = st.integers(min_value=0, max_value=9999)


words = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,17}[a-z0-9])?", fullmatch=True)


@given(family=st.sampled_from(ModelFamily), type_=words, major=numbers, minor=numbers, patch=numbers, word=words)
def test_every_release_name_parses_back_and_fits_a_label(
    family: ModelFamily, type_: str, major: int, minor: int, patch: int, word: str
) -> None:
    version = f"{major}.{minor}.{patch}"
    assume(len(type_ + version + word) <= 45 and type_ not in TYPES.values() and not re.search(r"-v[0-9]", type_))
    name = release_name(ModelIdentity(family=family, type=type_, version=version, specialization=word))
    assert parse_release_name(name) == NameParts(type=type_, version=version, specialization=word)
    assert len(name) <= 61


def test_the_documents_own_name_is_that_of_a_videofusion_model_of_type_base() -> None:  # R-VER
    model = ModelIdentity(family=ModelFamily.VIDEOFUSION, type="base", version="1.2.3", specialization="multilingual")
    assert release_name(model) == "pib-videogen-base-v1.2.3-multilingual"


@pytest.mark.parametrize("family, word", [*TYPES.items()])
def test_a_model_without_a_type_is_named_after_its_family(family: ModelFamily, word: str) -> None:
    model = ModelIdentity.model_validate({"family": family.value, "version": "1.0.0"})
    assert (model.type, release_name(model)) == (word, f"pib-videogen-{word}-v1.0.0-base")


def test_a_type_that_another_family_is_known_by_is_refused() -> None:
    with pytest.raises(ValueError, match=r"default of another family.*found is text2video-zero for family VideoFusion"):
        ModelIdentity(family=ModelFamily.VIDEOFUSION, type="text2video-zero", version="1.0.0")


def test_a_type_with_a_version_inside_is_refused_because_names_could_be_read_in_two_ways() -> None:
    with pytest.raises(ValueError, match="found is base-v2"):
        ModelIdentity(family=ModelFamily.VIDEOFUSION, type="base-v2", version="1.0.0")


def test_a_wrong_family_is_the_one_thing_that_is_told() -> None:
    with pytest.raises(ValueError, match="1 validation error") as error:
        ModelIdentity.model_validate({"family": "GAN", "version": "1.0.0"})
    assert "'VideoFusion', 'AlignYourLatents' or 'Text2VideoZero'" in str(error.value)


def test_a_name_that_is_too_long_for_a_label_is_refused() -> None:
    fits = ModelIdentity(family=ModelFamily.ALIGN_YOUR_LATENTS, version="10.20.3", specialization="a" * 20)
    assert len(release_name(fits)) == 61
    with pytest.raises(ValueError, match="45 characters together"):
        ModelIdentity(family=ModelFamily.ALIGN_YOUR_LATENTS, version="10.20.30", specialization="a" * 20)


def test_the_longest_name_of_videofusion_is_still_accepted() -> None:
    ModelIdentity(family=ModelFamily.VIDEOFUSION, version="9999.9999.9999", specialization="a" * 20)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "videofusion-v1.0.0-base",
        "pib-videogen-videofusion-1.0.0-base",
        "pib-videogen-videofusion-v1.0.0",
        "pib-videogen-Base-v1.0.0-base",
        "pib-videogen-base-v1.0.0-base.1",
        "pib-videogen-videofusion-v01.0.0-base",
    ],
)
def test_a_name_of_another_form_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"expected|version|type"):
        parse_release_name(name)
