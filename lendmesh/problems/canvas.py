"""A sheet to draw on, in SVG text: boxes, lines, words. Knows nothing of what is drawn.

Words are escaped, numbers are short, and text is measured by a rule of thumb, so that labels can be cut or left out
before they run into each other; a browser's real fonts differ from it by a few per cent.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

INK, DIM, GRID, PAPER, CARD = "#1f2a37", "#5b6775", "#e3e8ee", "#f6f8fa", "#ffffff"
TAKEN, FREE, MISSING, CLEARING, BOUND = "#2b6c8f", "#c9dfea", "#e8923f", "#b4381f", "#7a52a8"
Point = tuple[float, float]


@dataclass(frozen=True)
class Frame:
    """A part of a sheet."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def width(self) -> float:
        return self.right - self.left

    @property
    def height(self) -> float:
        return self.bottom - self.top


@dataclass(frozen=True)
class Scale:
    """Values to places along one direction of a sheet."""

    low: float
    high: float
    begin: float
    end: float

    def __call__(self, value: float) -> float:
        span = self.high - self.low
        return self.begin + (self.end - self.begin) * ((value - self.low) / span if span else 0.5)


class Sheet:
    """What has been drawn so far."""

    def __init__(self, *, width: float, height: float, title: str, about: str) -> None:
        self.width, self.height = width, height
        self._parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {short(width)} {short(height)}" '
            f'width="{short(width)}" height="{short(height)}" role="img" '
            "font-family=\"system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif\">",
            f"<title>{escape(title)}</title>",
            f"<desc>{escape(about)}</desc>",
            '<defs><pattern id="missing" width="6" height="6" patternUnits="userSpaceOnUse" '
            f'patternTransform="rotate(45)"><rect width="6" height="6" fill="#fbe3cb"/>'
            f'<rect width="2.4" height="6" fill="{MISSING}"/></pattern></defs>',
            f'<rect width="100%" height="100%" fill="{PAPER}"/>',
        ]

    def box(
        self,
        left: float,
        top: float,
        width: float,
        height: float,
        fill: str,
        *,
        round_: float = 0,
        stroke: str = "",
        hint: str = "",
    ) -> None:
        """A rectangle; ``hint`` is shown when the pointer rests on it."""
        shape = (
            f'<rect x="{short(left)}" y="{short(top)}" width="{short(max(0, width))}" height="{short(max(0, height))}"'
        )
        shape += f' fill="{fill}"' + (f' rx="{short(round_)}"' if round_ else "")
        shape += f' stroke="{stroke}"' if stroke else ""
        self._parts.append(f"{shape}><title>{escape(hint)}</title></rect>" if hint else f"{shape}/>")

    def line(self, points: Sequence[Point], colour: str, *, width: float = 1, dash: str = "", name: str = "") -> None:
        """A line through points."""
        path = "M" + "L".join(f"{short(x)} {short(y)}" for x, y in points)
        self._parts.append(
            f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="{short(width)}" stroke-linejoin="round"'
            + (f' stroke-dasharray="{dash}"' if dash else "")
            + (f' class="{name}"' if name else "")
            + "/>"
        )

    def area(self, points: Sequence[Point], fill: str, *, opacity: float = 1, hint: str = "") -> None:
        """What lies within points."""
        path = "M" + "L".join(f"{short(x)} {short(y)}" for x, y in points) + "Z"
        shape = f'<path d="{path}" fill="{fill}"' + (f' fill-opacity="{short(opacity)}"' if opacity < 1 else "")
        self._parts.append(f"{shape}><title>{escape(hint)}</title></path>" if hint else f"{shape}/>")

    def dot(self, at: Point, colour: str, radius: float = 3) -> None:
        """A point."""
        self._parts.append(f'<circle cx="{short(at[0])}" cy="{short(at[1])}" r="{short(radius)}" fill="{colour}"/>')

    def text(
        self,
        left: float,
        base: float,
        words: str,
        *,
        size: float = 12,
        fill: str = INK,
        bold: bool = False,
        anchor: str = "start",
        room: float = math.inf,
    ) -> float:
        """Words on a line, cut where there is no room; returns how wide they are, about."""
        words = cut(words, size, room, bold=bold)
        self._parts.append(
            f'<text x="{short(left)}" y="{short(base)}" font-size="{short(size)}" fill="{fill}"'
            + (' font-weight="600"' if bold else "")
            + (f' text-anchor="{anchor}"' if anchor != "start" else "")
            + f">{escape(words)}</text>"
        )
        return wide(words, size, bold=bold)

    def sideways(self, left: float, base: float, words: str, *, size: float, room: float, fill: str = INK) -> None:
        """Words that read upwards from where they begin."""
        self._parts.append(
            f'<text transform="translate({short(left)} {short(base)}) rotate(-90)" font-size="{short(size)}" '
            f'fill="{fill}">{escape(cut(words, size, room))}</text>'
        )

    def legend(self, left: float, base: float, entries: Sequence[tuple[str, str]], *, size: float = 11) -> None:
        """Coloured squares and what they mean, side by side; colours that begin with ``-`` are lines."""
        for colour, words in entries:
            if colour.startswith("-"):
                self.line([(left, base - 4), (left + 14, base - 4)], colour[1:], width=2.5)
            else:
                self.box(left, base - 9, 11, 11, colour, round_=2)
            left += 20 + self.text(left + (20 if colour.startswith("-") else 17), base, words, size=size, fill=DIM) + 14

    def done(self) -> str:
        """The whole picture."""
        return "\n".join([*self._parts, "</svg>", ""])


def short(number: float) -> str:
    """Two decimals at most."""
    return f"{number:.2f}".rstrip("0").rstrip(".") or "0"


def wide(words: str, size: float, *, bold: bool = False) -> float:
    """About how wide words are, never much less than they turn out."""
    units = 0.0
    for letter in words:
        if unicodedata.east_asian_width(letter) in "WF":
            units += 1.0
        elif letter in " .,:;'|!ijltfr()[]-·":
            units += 0.38
        elif letter in "mwMW%@—" or letter.isupper():
            units += 0.78
        else:
            units += 0.6
    return units * size * (1.06 if bold else 1)


def cut(words: str, size: float, room: float, *, bold: bool = False) -> str:
    """The words, or as many letters as fit, and an ellipsis."""
    if wide(words, size, bold=bold) <= room:
        return words
    while words and wide(words + "…", size, bold=bold) > room:
        words = words[:-1]
    return words.rstrip() + "…" if words else ""


def ticks(low: float, high: float, most: int) -> list[float]:
    """At most about ``most`` round numbers from ``low`` to ``high``."""
    if not high > low:
        return [low]
    raw = (high - low) / max(1, most)
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(at * step, 12) for at in range(first, math.floor(high / step + 1e-9) + 1)]


def spans(end_s: float, most: int) -> list[int]:
    """Round moments from 0 to ``end_s`` seconds."""
    steps = (1, 5, 15, 60, 300, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800, 2592000, 31536000)
    step = next((each for each in steps if end_s / each <= most), int(end_s) or 1)
    return list(range(0, int(end_s) + 1, step))


def counted(number: float) -> str:
    """``1,200`` or ``1.2M``: as short as an axis needs it."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(number) >= size:
            return f"{number / (1e3 if letter == 'k' else size):,.4g}{letter}"
    return f"{number:,.4g}"
