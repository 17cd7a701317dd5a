"""One HTML file of tables and of pictures with words, for people: it needs nothing else and loads nothing."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from videogen_trainer.curation.rejection import plain

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a;background:#fff}"
    "h1{font-size:1.6rem}h2{font-size:1.15rem;margin:2.2rem 0 .8rem}p.verdict{border-left:4px solid #2b6cb0;padding-left:1rem}"
    "ul{display:grid;grid-template-columns:repeat(auto-fill,minmax(13rem,1fr));gap:1.4rem 1.2rem;list-style:none;padding:0}"
    "li{font-size:.85rem;line-height:1.4;overflow-wrap:anywhere}li strong{display:block;margin-top:.4rem;font-weight:600}"
    "li.bad strong,li.bad .why{color:#8a2a00}img,.no{display:block;width:100%;aspect-ratio:1;object-fit:contain;background:#eee}"
    ".no{color:#555;display:grid;place-items:center}img.strip{aspect-ratio:auto}"
    "table{border-collapse:collapse;font-size:.95rem}td,th{padding:.2rem .8rem .2rem 0;text-align:left;font-weight:400;vertical-align:top}"
    "td,th{border-bottom:1px solid #ddd;overflow-wrap:anywhere}thead th,tbody th{color:#555}"
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
    strip: bool = False  # whether the picture is several frames wide


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows of texts below a heading; the first cell of a row says what the others are about."""

    title: str
    head: Sequence[str] = ()
    rows: Sequence[Sequence[str]]


def _text(text: str) -> str:
    """For HTML, and for who reads the file in a terminal."""
    return escape(plain(text))


def page(title: str, verdict: str, sections: Sequence[tuple[str, Sequence[Card]]], tables: Sequence[Table] = ()) -> bytes:
    """The file, UTF-8: tables, then pictures."""
    parts = [
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{_text(title)}</title>',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n<style>{_STYLE}</style>\n</head>\n<body>',
        f'<h1>{_text(title)}</h1>\n<p class="verdict">{_text(verdict)}</p>',
        *(_table(table) for table in tables if table.rows),
        *(f"<h2>{_text(name)}</h2>\n<ul>\n" + "\n".join(map(_card, cards)) + "\n</ul>" for name, cards in sections if cards),
        "</body>\n</html>\n",
    ]
    return "\n".join(parts).encode("utf-8", "replace")


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{_text(cell)}</th>' for cell in table.head)
    rows = "\n".join(
        f'<tr><th scope="row">{_text(first)}</th>' + "".join(f"<td>{_text(cell)}</td>" for cell in rest) + "</tr>"
        for first, *rest in table.rows
    )
    above = f"<thead><tr>{head}</tr></thead>" if head else ""
    return f"<h2>{_text(table.title)}</h2>\n<table>{above}<tbody>\n{rows}\n</tbody></table>"


def _card(card: Card) -> str:
    if card.picture is None:
        shown = '<div class="no">no picture</div>'
    else:
        strip = ' class="strip"' if card.strip else ""
        shown = f'<img{strip} alt="{_text(card.title)}" src="data:image/jpeg;base64,{base64.b64encode(card.picture).decode()}">'
    if card.video:
        shown = f'<a href="{_text(card.video)}">{shown}</a>'
    lines = "".join(f'<div class="why">{_text(line)}</div>' for line in card.lines if line)
    return f'<li class="{"good" if card.well else "bad"}">{shown}<strong>{_text(card.title)}</strong>{lines}</li>'
