"""Rectangles, lines, marks and texts, written as SVG and as PNG: what a chart needs, without a library for charts.

Units are pixels of the SVG. The PNG has twice as many in each direction, and Pillow's own font, so that it looks the same everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal
from xml.sax.saxutils import escape

from PIL import Image, ImageDraw, ImageFont

SCALE = 2  # of the PNG
FAMILY = "Helvetica, Arial, Liberation Sans, sans-serif"
INK = "#1f2933"
Anchor = Literal["start", "middle", "end"]
Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Shape:
    """A polygon, or an open line if it has no fill."""

    points: tuple[Point, ...]
    fill: str = ""
    stroke: str = ""
    width: float = 1
    title: str = ""  # what a browser shows under the pointer


@dataclass(frozen=True, slots=True)
class Text:
    """One line of text; `y` is its middle."""

    x: float
    y: float
    words: str
    size: float = 11
    colour: str = INK
    anchor: Anchor = "start"
    title: str = ""


@dataclass(slots=True)
class Drawing:
    """Shapes and texts in the order in which they are drawn."""

    width: float
    height: float = 0
    items: list[Shape | Text] = field(default_factory=list)

    def box(self, x: float, y: float, width: float, height: float, fill: str, *, stroke: str = "", title: str = "") -> None:
        """A rectangle."""
        self.items.append(Shape(((x, y), (x + width, y), (x + width, y + height), (x, y + height)), fill, stroke, title=title))

    def line(self, *points: Point, colour: str = INK, width: float = 1) -> None:
        """Straight lines from point to point."""
        self.items.append(Shape(points, "", colour, width))

    def polygon(self, *points: Point, fill: str, stroke: str = "", title: str = "") -> None:
        """A closed area."""
        self.items.append(Shape(points, fill, stroke, title=title))

    def text(
        self, x: float, y: float, words: str, *, size: float = 11, colour: str = INK, anchor: Anchor = "start", title: str = ""
    ) -> None:
        """A line of text."""
        self.items.append(Text(x, y, words, size, colour, anchor, title))


def width_of(words: str, size: float) -> float:
    """Width of a text."""
    return float(_font(size).getlength(words)) / SCALE


def write(drawing: Drawing, path: Path) -> list[Path]:
    """Write `path` as .svg and .png -> the files."""
    svg, png = path.with_suffix(".svg"), path.with_suffix(".png")
    svg.write_text(as_svg(drawing), encoding="utf-8")
    as_image(drawing).save(png, optimize=True)
    return [svg, png]


def as_svg(drawing: Drawing) -> str:
    """The drawing as an SVG document."""
    size = f'width="{drawing.width:g}" height="{drawing.height:g}" viewBox="0 0 {drawing.width:g} {drawing.height:g}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="{FAMILY}">'
    return "\n".join([head, f'<rect {size.rpartition(" viewBox")[0]} fill="white"/>', *map(_element, drawing.items), "</svg>", ""])


def _element(item: Shape | Text) -> str:
    title = f"<title>{escape(item.title)}</title>" if item.title else ""
    if isinstance(item, Text):
        place = f'x="{item.x:.1f}" y="{item.y:.1f}" font-size="{item.size:g}" text-anchor="{item.anchor}"'
        return f'<text {place} fill="{item.colour}" dominant-baseline="central">{escape(item.words)}{title}</text>'
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in item.points)
    stroke = f' stroke="{item.stroke}" stroke-width="{item.width:g}"' if item.stroke else ""
    name = "polygon" if item.fill else "polyline"
    return f'<{name} points="{points}" fill="{item.fill or "none"}"{stroke}>{title}</{name}>'


def as_image(drawing: Drawing) -> Image.Image:
    """The drawing as an image."""
    image = Image.new("RGB", (round(drawing.width * SCALE), round(drawing.height * SCALE)), "white")
    pen = ImageDraw.Draw(image)
    for item in drawing.items:
        if isinstance(item, Text):
            anchor = {"start": "lm", "middle": "mm", "end": "rm"}[item.anchor]
            pen.text((item.x * SCALE, item.y * SCALE), item.words, fill=item.colour, font=_font(item.size), anchor=anchor)
            continue
        points = [(round(x * SCALE), round(y * SCALE)) for x, y in item.points]
        if item.fill:
            pen.polygon(points, fill=item.fill)
        if item.stroke:
            closed = [*points, points[0]] if item.fill else points
            pen.line(closed, fill=item.stroke, width=max(1, round(item.width * SCALE)), joint="curve")
    return image


@cache
def _font(size: float) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size * SCALE)
    assert isinstance(font, ImageFont.FreeTypeFont), "Pillow is built without FreeType"
    return font
