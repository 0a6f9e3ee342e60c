"""Plots as inline SVG by matplotlib.

Why matplotlib: its SVG is a few dozen kilobytes of plain shapes and text, where Vega-Lite or Bokeh would put megabytes
of script into every page, which a strict content security policy forbids. Its colours are made to stand for CSS
variables, so that one page suits light and dark, and every text stays text, which can be searched and copied.
"""

from __future__ import annotations

import io
import logging
import re
import zlib
from collections.abc import Callable, Sequence
from itertools import takewhile

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from qm.page.markup import Html, join, tag

# Colours that stand for variables of the style sheet.
INK, MUTED, GRID, BEFORE, AFTER, BAD, PAPER = (f"#01020{i}" for i in range(3, 10))
VARIABLES = {INK: "ink", MUTED: "muted", GRID: "grid", BEFORE: "before", AFTER: "after", BAD: "bad", PAPER: "paper"}

WIDE, NARROW = 720, 340
"""Widths in pixels. Every plot is drawn for both, and the style sheet shows the one that fits."""

POINTS_PER_INCH = 72

_STYLE = {
    "axes.edgecolor": GRID,
    "axes.facecolor": "none",
    "axes.labelcolor": MUTED,
    "axes.labelsize": 12,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.unicode_minus": True,
    "figure.facecolor": "none",
    "font.family": "DejaVu Sans",
    "font.size": 12,
    "grid.color": GRID,
    "lines.linewidth": 1.5,
    "svg.fonttype": "none",
    "text.color": INK,
    # Layer names may hold dollar signs.
    "text.parse_math": False,
    "xtick.color": GRID,
    "xtick.labelcolor": MUTED,
    "xtick.labelsize": 11,
    "ytick.color": GRID,
    "ytick.labelcolor": MUTED,
    "ytick.labelsize": 11,
}

_WIDTHS = ((WIDE, "wide"), (NARROW, "narrow"))

Draw = Callable[[Figure, int], None]


def plot(
    title: str, draw: Draw, height: Callable[[int], int], *caption: str, key: Sequence[tuple[str, str]] = ()
) -> Html:
    """A plot that ``draw`` fills, given the figure and its width in pixels; ``height`` depends on the width.

    ``title`` tells what is seen to those who do not see it. ``key`` names colours: a variable, and what it stands for.
    """
    svgs = [tag("div", _svg(title, draw, width, height(width)), class_=name) for width, name in _WIDTHS]
    swatches = [tag("span", tag("span", class_=f"swatch {colour}"), text, class_="key") for colour, text in key]
    under = join(swatches, *caption)
    return tag("figure", svgs, tag("figcaption", under) if under else Html())


def place(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes at a place in pixels from the upper left corner."""
    whole, tall = (float(size) * POINTS_PER_INCH for size in figure.get_size_inches())
    axes: Axes = figure.add_axes((left / whole, 1 - (top + height) / tall, width / whole, height / tall))
    return axes


def shortened(text: str, most: int) -> str:
    """The text with its middle left out where it is long: names of layers differ at their ends."""
    if len(text) <= most:
        return text
    head = (most - 1) // 3
    return f"{text[:head]}…{text[head + 1 - most :]}"


def told_apart(names: Sequence[str], most: int) -> list[str]:
    """The names, those of a list with a long one without the words that all begin with, and shortened then."""
    if len(names) < 2 or max(map(len, names)) <= most:
        return [shortened(name, most) for name in names]
    first, last = min(names), max(names)
    alike = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False)))
    shared = len(re.sub(r"[^./:]*$", "", first[:alike]))
    return [shortened(f"…{name[shared:]}" if shared > 1 else name, most) for name in names]


def _svg(title: str, draw: Draw, width: int, height: int) -> Html:
    # A first import would otherwise tell that it builds a cache of fonts.
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    text = io.StringIO()
    with mpl.rc_context({**_STYLE, "svg.hashsalt": title}):
        figure = Figure(figsize=(width / POINTS_PER_INCH, height / POINTS_PER_INCH), dpi=POINTS_PER_INCH)
        draw(figure, width)
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(text, format="svg", metadata=nothing)
    return _inlined(text.getvalue(), title, width, height)


def _inlined(svg: str, title: str, width: int, height: int) -> Html:
    """What is inside the outermost element, with colours as variables, short numbers, and ids that are its own."""
    inside = svg[svg.index(">", svg.index("<svg")) + 1 : svg.rindex("</svg>")]
    inside = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", inside, flags=re.DOTALL)
    inside = re.sub(r"#01020[3-9]", lambda found: f"var(--{VARIABLES[found[0]]})", inside)
    inside = re.sub(r'(?<= )(?:d|transform|x|y|width|height|points)="[^"]*"', _short, inside)
    own = f"f{zlib.crc32(f'{title} {width}'.encode()):x}-"
    inside = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{own}", inside)
    inside = re.sub(r"\n\s*", "\n", inside)
    return tag(
        "svg",
        tag("title", title),
        Html(inside),
        viewBox=f"0 0 {width} {height}",
        role="img",
        style=f"max-width:{width if width == WIDE else 4 * width // 3}px",
    )


def _short(found: re.Match[str]) -> str:
    return re.sub(r"-?\d+\.\d{2,}", lambda number: f"{float(number[0]):.1f}", found[0])
