"""The pre-rendered videos of a bundle, in memory: they are there also when nothing can be generated any more."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from videogen_api.emergency import TEMPLATE_INDEX, Template, TemplateIndex
from videogen_models.sealed import CorruptError
from videogen_serving.request import InvalidRequestError


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredVideo:
    """An mp4 file and its record."""

    template: Template
    video: bytes


@dataclass(frozen=True, slots=True)
class StoredVideos:
    """All of a bundle by category, in the order of their variations."""

    by_category: dict[str, list[StoredVideo]]

    def find(self, category: str, variation: int | None, drawn: int) -> StoredVideo:
        """The video that is asked for; without a variation the one that the number `drawn` picks.

        Raises InvalidRequestError naming what there is.
        """
        if not self.by_category:
            raise InvalidRequestError("TEMPLATE: this release has no templates; a BuildTemplates phase of its run would make them")
        if not (stored := self.by_category.get(category)):
            raise InvalidRequestError(f"TEMPLATE is {category[:100]!r}; this release has {', '.join(sorted(self.by_category))}")
        if variation is None:
            return stored[drawn % len(stored)]
        found = next((one for one in stored if one.template.variation == variation), None)
        if found is None:
            known = ", ".join(str(one.template.variation) for one in stored)
            raise InvalidRequestError(f"VARIATION is {variation}; of {category} this release has {known}")
        return found


def read_templates(folder: Path) -> StoredVideos:
    """The templates of a bundle that the caller has verified; none if it has no index. Raises CorruptError."""
    path = folder / TEMPLATE_INDEX
    if not path.is_file():
        return StoredVideos({})
    stored: defaultdict[str, list[StoredVideo]] = defaultdict(list)
    try:
        for template in TemplateIndex.model_validate_json(path.read_bytes()).templates:
            stored[template.category].append(StoredVideo(template=template, video=(folder / template.file).read_bytes()))
    except (OSError, ValidationError) as error:
        raise CorruptError(f"{path}: {error}") from error
    return StoredVideos({name: sorted(videos, key=lambda one: one.template.variation) for name, videos in stored.items()})
