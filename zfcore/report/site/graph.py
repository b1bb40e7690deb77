"""A network's graph as a row of boxes, with shapes, that reads from left to right."""

from __future__ import annotations

from html import escape

from ...data.decode import printable
from ...network.tables import Row

COLUMN, ROW, BOX_WIDTH, BOX_HEIGHT, MARGIN = 138, 62, 116, 42, 8
PER_LINE = 8  # boxes side by side before the graph goes on below


def graph(rows: list[Row], links: dict[str, str], input_shape: tuple[int, ...]) -> str:
    """The layers as an SVG element; a box links to its layer's page where there is one.

    Parameters
    ----------
    rows : `network.layers()`, in topological order
    links : address by layer name
    input_shape : (height, width, channels)
    """
    depth: dict[str, int] = {"input": 0}
    lanes: dict[int, int] = {0: 1}
    places: dict[str, tuple[int, int]] = {"input": (0, 0)}
    for row in rows:
        level = 1 + max((depth[name.removesuffix(".pre")] for name in row.inputs), default=0)
        depth[row.name] = level
        places[row.name] = (level, lanes.get(level, 0))
        lanes[level] = lanes.get(level, 0) + 1
    tall = max(lanes.values())
    lines = max(depth.values()) // PER_LINE + 1
    width = min(max(depth.values()) + 1, PER_LINE) * COLUMN + 2 * MARGIN
    height = lines * (tall * ROW + MARGIN) + MARGIN

    def corner(name: str) -> tuple[float, float]:
        level, lane = places[name]
        line, column = divmod(level, PER_LINE)
        return MARGIN + column * COLUMN, MARGIN + line * (tall * ROW + MARGIN) + lane * ROW

    parts = [f'<svg class="graph" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="group" '
             f'aria-label="The network, from the image to its output: {len(rows)} layers">']
    for row in rows:
        x, y = corner(row.name)
        for name in row.inputs:
            from_x, from_y = corner(name.removesuffix(".pre"))
            start, end = (from_x + BOX_WIDTH, from_y + BOX_HEIGHT / 2), (x, y + BOX_HEIGHT / 2)
            if x < from_x:  # around the corner, to the line below
                parts.append(f'<path class="wire" d="M{start[0]} {start[1]}h8V{y - 6}H{x - 6}V{end[1]}H{end[0]}"/>')
            else:
                bend = (start[0] + end[0]) / 2
                parts.append(f'<path class="wire" d="M{start[0]} {start[1]}H{bend}V{end[1]}H{end[0]}"/>')
    parts.append(_box(*corner("input"), "input", " x ".join(map(str, input_shape)), "image", None))
    for row in rows:
        shape = " x ".join(map(str, row.output_shape))
        parts.append(_box(*corner(row.name), row.name, shape, row.type, links.get(row.name)))
    return "".join(parts) + "</svg>"


def _box(x: float, y: float, name: str, shape: str, kind: str, link: str | None) -> str:
    shown = printable(name)
    shown = shown if len(shown) <= 17 else shown[:8] + "..." + shown[-6:]
    text = (f"<title>{escape(printable(name))}: {escape(kind)}, {shape}</title>"
            f'<rect x="{x}" y="{y}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="7"/>'
            f'<text class="name" x="{x + 9}" y="{y + 18}">{escape(shown)}</text>'
            f'<text class="shape" x="{x + 9}" y="{y + 33}">{shape}</text>')
    kind_class = f"box {kind.lower()}"
    if link is None:
        return f'<g class="{escape(kind_class)}">{text}</g>'
    return f'<a class="{escape(kind_class)} linked" href="{escape(link)}">{text}</a>'
