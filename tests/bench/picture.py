"""A table of the bench as an SVG: one bar a line."""

from html import escape

from tests.bench.measure import Line

_ROW, _LEFT, _WIDE = 26, 330, 360


def picture(title: str, lines: list[Line]) -> str:
    """Bars of values in one unit each, scaled to the longest of that unit."""
    longest = {
        unit: max(line.value for line in lines if line.unit == unit) or 1
        for unit in {line.unit for line in lines}
    }
    height = _ROW * (len(lines) + 2)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_LEFT + _WIDE + 200}" height="{height}"'
        ' font-family="sans-serif" font-size="13">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="10" y="20" font-weight="bold">{escape(title)}</text>',
    ]
    for number, line in enumerate(lines):
        top = _ROW * (number + 1) + 8
        width = max(1.0, line.value / longest[line.unit] * _WIDE)
        colour = {None: "#8a8f98", True: "#2a7f62", False: "#b3541e"}[line.good]
        ratio = "" if line.ratio is None else f" ({line.ratio:.2f}x {line.peer})"
        parts += [
            f'<text x="{_LEFT - 8}" y="{top + 14}" text-anchor="end">{escape(line.name)}</text>',
            f'<rect x="{_LEFT}" y="{top}" width="{width:.1f}" height="18" fill="{colour}"/>',
            f'<text x="{_LEFT + width + 6:.1f}" y="{top + 14}">{line.value:.3g} {escape(line.unit + ratio)}</text>',
        ]
    return "\n".join([*parts, "</svg>\n"])
