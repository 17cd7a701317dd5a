"""A curation's report for people: one HTML file that needs nothing else, `datasets/<name>/reports/<version>.html`.

It is not part of the sealed version: a rejected version has one too, and what was rejected does not change a digest.
"""

from __future__ import annotations

import base64
from html import escape
from itertools import pairwise

from videogen_trainer.curation.rejection import plain
from videogen_trainer.curation.tally import Example, Spread, Tally

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a;background:#fff}"
    "h1{font-size:1.6rem}h2{font-size:1.15rem;margin:2.2rem 0 .8rem}table{border-collapse:collapse;font-size:.95rem}"
    "td,th{padding:.2rem .8rem;text-align:left;font-weight:400;border-bottom:1px solid #ddd}thead th{color:#555;font-size:.85rem}"
    "td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}"
    "ul{display:grid;grid-template-columns:repeat(auto-fill,minmax(14rem,1fr));gap:1.4rem 1.2rem;list-style:none;padding:0}"
    "li{font-size:.85rem;line-height:1.4;overflow-wrap:anywhere}li strong{display:block;margin-top:.4rem;font-weight:600}"
    "li q{display:-webkit-box;-webkit-box-orient:vertical;-webkit-line-clamp:4;overflow:hidden}li div.why{color:#8a2a00}"
    "img,.no{display:block;width:100%;aspect-ratio:16/9;object-fit:contain;background:#eee}"
    ".no{color:#555;display:grid;place-items:center}"
    "p.verdict{border-left:4px solid #2b6cb0;padding-left:1rem}"
    "svg{max-width:100%;height:auto}rect{fill:#2b6cb0}text{font:12px system-ui,sans-serif}"
)
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"  # nothing is loaded, whatever a caption says
_BAR, _ROW = 320, 20  # pixels


def _text(text: str) -> str:
    """For HTML, and for who reads the file in a terminal."""
    return escape(plain(text))


def page(title: str, verdict: str, tally: Tally) -> str:
    """The file's text."""
    return "\n".join(
        [
            f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{_text(title)}</title>',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n<style>{_STYLE}</style>\n</head>\n<body>',
            f'<h1>{_text(title)}</h1>\n<p class="verdict">{_text(verdict)}</p>',
            _counts(tally),
            _bars("Length of the videos, seconds", tally.seconds),
            _bars("Motion of the clips that were kept, of 255", tally.motion),
            _examples("Kept", tally.kept_examples),
            *(_examples(f"Rejected: {cause} ({count:,})", tally.rejected_examples[cause]) for cause, count in tally.by_frequency()),
            "</body>\n</html>\n",
        ]
    )


def _counts(tally: Tally) -> str:
    rows = [("Kept: Train", tally.train), ("Kept: HeldOut", tally.held_out)]
    rows += [(f"Rejected: {cause}", count) for cause, count in tally.by_frequency()]
    body = "".join(_count(name, count, tally.examined) for name, count in rows)
    head = f'<thead><tr><th>Of {tally.videos:,} videos</th><th class="n">clips</th><th class="n">share</th></tr></thead>'
    return f"<h2>Counts</h2>\n<table>{head}<tbody>{body}</tbody></table>\n<p>A video that gives no clip counts like one clip.</p>"


def _count(name: str, count: int, examined: int) -> str:
    share = 100 * count / max(1, examined)
    return f'<tr><th scope="row">{_text(name)}</th><td class="n">{count:,}</td><td class="n">{share:.1f} %</td></tr>'


def _bars(title: str, spread: Spread) -> str:
    if not spread.counts:
        return ""
    most = max(spread.counts)
    bars = "".join(
        f'<text x="90" y="{row * _ROW + 14}" text-anchor="end">{_text(label)}</text>'
        f'<rect x="100" y="{row * _ROW + 3}" width="{count * _BAR // most}" height="{_ROW - 6}"></rect>'
        f'<text x="{106 + count * _BAR // most}" y="{row * _ROW + 14}">{count:,}</text>'
        for row, (label, count) in enumerate(zip(_labels(spread.borders), spread.counts, strict=True))
    )
    height = len(spread.counts) * _ROW
    size = f'width="520" height="{height}" viewBox="0 0 520 {height}"'
    return f'<h2>{_text(title)}</h2>\n<svg {size} role="img" aria-label="{_text(title)}">{bars}</svg>'


def _labels(borders: tuple[float, ...]) -> list[str]:
    between = [f"{low:g} – {high:g}" for low, high in pairwise(borders)]
    return [f"< {borders[0]:g}", *between, f"≥ {borders[-1]:g}"]


def _examples(title: str, examples: list[Example]) -> str:
    return f"<h2>{_text(title)}</h2>\n<ul>\n" + "\n".join(map(_example, examples)) + "\n</ul>" if examples else ""


def _example(example: Example) -> str:
    if example.picture is None:
        shown = '<div class="no">no picture</div>'
    else:
        shown = f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(example.picture).decode()}">'
    caption = f"<q>{_text(example.caption)}</q>" if example.caption else ""
    why = f'<div class="why">{_text(example.why)}</div>' if example.why else ""
    return f"<li>{shown}<strong>{_text(example.source)}</strong>{caption}{why}</li>"
