"""One HTML file of pictures with words, for people: it needs nothing else and loads nothing."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a;background:#fff}"
    "h1{font-size:1.6rem}h2{font-size:1.15rem;margin:2.2rem 0 .8rem}p.verdict{border-left:4px solid #2b6cb0;padding-left:1rem}"
    "ul{display:grid;grid-template-columns:repeat(auto-fill,minmax(13rem,1fr));gap:1.4rem 1.2rem;list-style:none;padding:0}"
    "li{font-size:.85rem;line-height:1.4;overflow-wrap:anywhere}li strong{display:block;margin-top:.4rem;font-weight:600}"
    "li.bad strong,li.bad .why{color:#8a2a00}img,.no{display:block;width:100%;aspect-ratio:1;object-fit:contain;background:#eee}"
    ".no{color:#555;display:grid;place-items:center}"
)
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"  # whatever a caption says


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A picture (JPEG) with its title, lines of text, and whether all is well."""

    title: str
    lines: Sequence[str]
    picture: bytes | None
    well: bool = True
    video: str = ""  # its file, relative to the page


def page(title: str, verdict: str, sections: Sequence[tuple[str, Sequence[Card]]]) -> bytes:
    """The file, UTF-8."""
    parts = [
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n<style>{_STYLE}</style>\n</head>\n<body>',
        f'<h1>{escape(title)}</h1>\n<p class="verdict">{escape(verdict)}</p>',
        *(f"<h2>{escape(name)}</h2>\n<ul>\n" + "\n".join(map(_card, cards)) + "\n</ul>" for name, cards in sections if cards),
        "</body>\n</html>\n",
    ]
    return "\n".join(parts).encode("utf-8", "replace")


def _card(card: Card) -> str:
    if card.picture is None:
        shown = '<div class="no">no picture</div>'
    else:
        shown = f'<img alt="{escape(card.title)}" src="data:image/jpeg;base64,{base64.b64encode(card.picture).decode()}">'
    if card.video:
        shown = f'<a href="{escape(card.video)}">{shown}</a>'
    lines = "".join(f'<div class="why">{escape(line)}</div>' for line in card.lines if line)
    return f'<li class="{"good" if card.well else "bad"}">{shown}<strong>{escape(card.title)}</strong>{lines}</li>'
