"""The emergencies that the trainer brings along: ten types, and a hundred scenarios made of them.

Categories are those of India's National Disaster Management Authority in short words; urgencies are two of the Common
Alerting Protocol's (OASIS CAP 1.2, section 3.2.2) in lower case. Both are free labels of a dataset, so other words do as well.
"""

from __future__ import annotations

from itertools import product

from videogen_api.emergency import EmergencyType

_TYPES = (
    ("flood", "brown flood water flows through a street between houses, people wade to higher ground", "Flood: move to higher ground now"),
    ("cyclone", "a cyclone bends palm trees on a coast, high waves and driving rain", "Cyclone: stay indoors, away from windows"),
    ("earthquake", "a damaged building after an earthquake, dust in the air, rescue workers search", "Earthquake: drop, cover and hold on"),
    ("tsunami", "a large wave rolls onto a beach, people walk up a hill", "Tsunami: leave the coast, go to high ground"),
    ("landslide", "mud and rocks slide down a green hillside onto a road", "Landslide: keep away from slopes"),
    ("heat-wave", "a hot empty street in glaring sun, a person drinks water in the shade", "Heat wave: stay in the shade, drink water"),
    ("lightning", "lightning strikes over open fields under dark clouds", "Lightning: go inside, keep away from trees"),
    ("forest-fire", "a forest fire burns on a hillside, thick smoke rises", "Forest fire: leave the area at once"),
    ("epidemic", "health workers in masks give water and medicine in a village clinic", "Epidemic: wear a mask, drink safe water"),
    ("chemical-leak", "white vapour spreads from a factory, firefighters in suits close the road", "Chemical leak: shut windows, stay in"),
)
TYPES = tuple(EmergencyType(category=category, prompt=prompt, caption=caption) for category, prompt, caption in _TYPES)

_URGENCIES = {"immediate": "happening now, seen from close by", "expected": "in the coming hours, people prepare"}
_PLACES = ("in a coastal village", "in a crowded city", "in a mountain town", "in a river valley", "near a railway station")


def built_in_scenarios() -> list[dict[str, str]]:
    """A hundred: every type in both urgencies at all five places, always in this order; rows as a table has them.

    Each type begins at another place, so that a choice at even distances has all of them.
    """
    turns = product(enumerate(TYPES), _URGENCIES.items(), range(len(_PLACES)))
    return [_scenario(kind, urgency, words, (first + turn) % len(_PLACES)) for (first, kind), (urgency, words), turn in turns]


def _scenario(kind: EmergencyType, urgency: str, words: str, place: int) -> dict[str, str]:
    prompt = f"{kind.prompt}, {_PLACES[place]}, {words}"
    return {"id": f"{kind.category}-{urgency}-{place + 1}", "category": kind.category, "urgency": urgency, "prompt": prompt}
