"""A plot as SVG, by hand: lines of measured points over a logarithmic axis, and a law beside them, dashed."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import log10

_WIDTH, _HEIGHT = 720, 440
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 190, 44, 52
_COLOURS = ("#1b6ca8", "#c2571a", "#3a7d44", "#8e4585", "#7a6a00", "#555555")
_TICKS = 5

Point = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What one line shows."""

    label: str
    points: Sequence[Point]
    dashed: Sequence[Point] = ()


def plot(lines: Sequence[Line], *, x: str, y: str, title: str) -> str:
    """The text of the SVG file."""
    points = [point for line in lines for point in (*line.points, *line.dashed)]
    scale = _Scale.around(points)
    body = [_axes(scale, x, y, title)]
    for number, line in enumerate(lines):
        colour = _COLOURS[number % len(_COLOURS)]
        if len(line.dashed) > 1:
            body.append(
                f'<polyline fill="none" stroke="{colour}" stroke-dasharray="4 4" points="{scale.path(line.dashed)}"/>'
            )
        body += [
            f'<circle cx="{across:.1f}" cy="{down:.1f}" r="4" fill="{colour}"/>'
            for across, down in map(scale.place, line.points)
        ]
        down = _TOP + 18 * number + 10
        body.append(f'<circle cx="{_WIDTH - _RIGHT + 16}" cy="{down - 4}" r="4" fill="{colour}"/>')
        body.append(_text(_WIDTH - _RIGHT + 28, down, line.label))
    frame = f'viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" font-size="12"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {frame}>'
    return "\n".join([head, f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>', *body, "</svg>"]) + "\n"


@dataclass(frozen=True, slots=True)
class _Scale:
    """Where a point lies on the page."""

    low_x: float
    high_x: float
    low_y: float
    high_y: float

    @classmethod
    def around(cls, points: Sequence[Point]) -> "_Scale":
        across, up = [log10(x) for x, _ in points], [y for _, y in points]
        margin_x, margin_y = 0.05 * (max(across) - min(across)) or 0.1, 0.08 * (max(up) - min(up)) or 0.1
        return cls(min(across) - margin_x, max(across) + margin_x, min(up) - margin_y, max(up) + margin_y)

    def place(self, point: Point) -> Point:
        wide, high = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
        across = (log10(point[0]) - self.low_x) / (self.high_x - self.low_x)
        up = (point[1] - self.low_y) / (self.high_y - self.low_y)
        return _LEFT + wide * across, _TOP + high * (1 - up)

    def path(self, points: Sequence[Point]) -> str:
        return " ".join(f"{across:.1f},{down:.1f}" for across, down in map(self.place, points))


def _axes(scale: _Scale, x: str, y: str, title: str) -> str:
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    parts = [
        f'<path d="M{_LEFT},{_TOP} V{bottom} H{right}" fill="none" stroke="#333"/>',
        _text(_LEFT, 24, title),
        _text((_LEFT + right) / 2, _HEIGHT - 12, x, anchor="middle"),
        f'<text transform="translate(18 {(_TOP + bottom) // 2}) rotate(-90)" text-anchor="middle">{escape(y)}</text>',
    ]
    for number in range(_TICKS):
        part = number / (_TICKS - 1)
        amount = 10 ** (scale.low_x + part * (scale.high_x - scale.low_x))
        value = scale.low_y + part * (scale.high_y - scale.low_y)
        across, down = scale.place((amount, value))
        parts += [
            f'<path d="M{across:.1f},{bottom} v5 M{_LEFT},{down:.1f} h-5" stroke="#333"/>',
            _text(across, bottom + 19, f"{amount:,.0f}", anchor="middle"),
            _text(_LEFT - 9, down + 4, f"{value:.2f}", anchor="end"),
        ]
    return "\n".join(parts)


def _text(across: float, down: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{across:.1f}" y="{down:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
