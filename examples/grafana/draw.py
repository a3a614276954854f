"""Draws the answers of Prometheus, a chart for each panel of the dashboard that has a time axis."""

from html import escape

WIDTH, HEIGHT, COLUMNS = 460, 190, 2
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 34, 44
COLOURS = ["#3274d9", "#e0752d", "#56a64b", "#c4162a", "#8f3bb8", "#b88a00", "#0f8a8a", "#777777", "#d14a9a", "#333333"]


def figure(value, unit):
    """A value as the axis shows it."""
    if unit == "bytes":
        return f"{value / 1024 / 1024:.0f} MiB"
    text = f"{value * 100:.2g} %" if unit == "percentunit" else f"{value:.3g}"
    return text + (" s" if unit == "s" else "")


def chart(panel, series, marks, seconds, x0, y0):
    unit = panel["fieldConfig"]["defaults"]["unit"]
    # What was 0 all the time is left to the legend's end.
    series = sorted(series, key=lambda one: -max(value for _, value in one[1]))
    top = max((value for _, values in series for _, value in values), default=0) or 1
    right, low, high = x0 + WIDTH - RIGHT, y0 + HEIGHT - BOTTOM, y0 + TOP

    def x(at):
        return x0 + LEFT + at / seconds * (right - x0 - LEFT)

    def y(value):
        return low - value / top * (low - high)

    yield f'<text x="{x0 + LEFT}" y="{y0 + 16}" font-weight="bold">{escape(panel["title"])}</text>'
    for what, at in marks:
        yield f'<path d="M{x(at):.1f} {high}V{low}" stroke="#999" stroke-dasharray="3 3"/>'
        yield f'<text x="{x(at) + 3:.1f}" y="{high - 4}" fill="#777">{what}</text>'
    yield f'<path d="M{x0 + LEFT} {high}V{low}H{right}" stroke="#999" fill="none"/>'
    for value, place in ((top, high + 8), (0, low)):
        yield f'<text x="{x0 + LEFT - 4}" y="{place}" text-anchor="end">{figure(value, unit)}</text>'
    yield f'<text x="{right}" y="{low + 13}" text-anchor="end">{seconds:.0f} s</text>'
    for index, (_, values) in reversed(list(enumerate(series))):
        # A gap of more than a second is no line: the series was not there.
        path, last = "", None
        for at, value in values:
            path += f"{'M' if last is None or at - last > 1 else 'L'}{x(at):.1f} {y(value):.1f}"
            last = at
        colour = COLOURS[index % len(COLOURS)]
        yield f'<path d="{path}" stroke="{colour}" stroke-width="1.5" fill="none"/>'
    place, line = x0 + LEFT, low + 26
    for index, (name, _) in enumerate(series):
        width = 18 + 5.6 * len(name)
        if place + width > right and place > x0 + LEFT:
            place, line = x0 + LEFT, line + 13
        if line > y0 + HEIGHT - 2:
            break
        colour = COLOURS[index % len(COLOURS)]
        yield f'<rect x="{place:.0f}" y="{line - 7}" width="8" height="8" fill="{colour}"/>'
        yield f'<text x="{place + 11:.0f}" y="{line}">{escape(name)}</text>'
        place += width


def picture(panels, marks, seconds):
    charts = [(panel, series) for panel, series in panels if panel["type"] == "timeseries"]
    rows = -(-len(charts) // COLUMNS)
    width, height = WIDTH * COLUMNS, HEIGHT * rows
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" font-size="10">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for index, (panel, series) in enumerate(charts):
        x0, y0 = index % COLUMNS * WIDTH, index // COLUMNS * HEIGHT
        parts.extend(chart(panel, series, marks, seconds, x0, y0))
    return "\n".join(parts) + "\n</svg>\n"
