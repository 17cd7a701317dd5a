"""Templates to look at: `contact-sheet.png` and `templates.html` in the phase's folder `samples`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from videogen_api.emergency import TEMPLATES, EmergencyType
from videogen_api.job import Job
from videogen_models.sealed import write_durably
from videogen_models.video import contact_sheet, decode_mp4
from videogen_trainer.curation.thumbnail import thumbnail
from videogen_trainer.dataset import writing
from videogen_trainer.emergency.shelf import Made
from videogen_trainer.evaluate.page import Card, page

SHOWN = 4  # frames of each template on the contact sheet
WIDTH = 240  # pixels of one of them

Frames = npt.NDArray[np.uint8]
Entry = tuple[str, EmergencyType, Made]  # the template's name, what it is of, and what became of it


def write_gallery(folder: Path, job: Job, entries: Sequence[Entry]) -> None:
    """Write both files. Raises Failure(StorageFailed)."""
    clips = {name: decode_mp4(made.video) for name, _, made in entries if made.template}
    cards = [(kind.category, _card(name, kind, made, clips.get(name))) for name, kind, made in entries]
    types = dict.fromkeys(category for category, _ in cards)
    verdict = f"{len(clips)} of {len(entries)} templates are good enough."
    sections = [(name, [card for category, card in cards if category == name]) for name in types]
    with writing(folder):
        write_durably(folder / "templates.html", page(f"Templates of {job.run}, phase {job.phase}", verdict, sections))
        if clips:
            sheet = contact_sheet([_small(clip) for clip in clips.values()], list(clips), columns=SHOWN, scale=1)
            write_durably(folder / "contact-sheet.png", sheet)


def _card(name: str, kind: EmergencyType, made: Made, clip: Frames | None) -> Card:
    if made.template is None or clip is None:
        return Card(title=name, lines=(kind.prompt, made.why), picture=None, well=False)
    template = made.template
    scores = f"coherence {template.coherence}, artefact rate {template.artefact_rate}, similarity {template.similarity or 'not known'}"
    lines = (template.caption, template.prompt, f"{template.urgency}, seed {template.seed}, {template.steps} steps", scores)
    video = f"../{TEMPLATES}/{name}.mp4"
    return Card(title=name, lines=lines, picture=thumbnail(clip[len(clip) // 2]), video=video)


def _small(clip: Frames) -> Frames:
    size = (WIDTH, max(1, round(WIDTH * clip.shape[1] / clip.shape[2])))
    picked = np.linspace(0, len(clip) - 1, min(SHOWN, len(clip))).round().astype(int)
    return np.stack([np.asarray(Image.fromarray(clip[number]).resize(size, Image.Resampling.LANCZOS)) for number in picked])
