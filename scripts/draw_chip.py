"""Draw images/chip.svg: the units of a chip, and four cycles of an addition as diagonals.

python scripts/draw_chip.py

Positions and delays come from the ChipSpec; the program is the example of ARCHITECTURE.md.
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from chip.spec import EAST, GROQCHIP1, WEST  # noqa: E402

WIDTH, HEIGHT, MARGIN = 980, 636, 36
INK, SOFT, GRID, PAPER = "#1d2733", "#66717f", "#e3e7ec", "#ffffff"
ZOOM = "#f6f8fa"
BLUE, ORANGE, GREEN = "#2563c9", "#d97706", "#15803d"
COLOURS = {"VXM": "#dcefe2", "MEM": "#eef1f5", "SXM": "#efe6f7", "MXM": "#fbe9dc", "C2C": "#e2edf9"}

VECTORS = 4
A_SLICE, B_SLICE, SUM_SLICE = 3, 46, 5  # east, west, east
A_READ, B_READ, ADD = 0, 1, 9  # issue cycles; the write follows from the law

# The zoomed part: positions across, cycles down.
FIRST, LAST, CYCLES = 43, 54, 24
LEFT, TOP, STEP, ROW = 96, 268, 72, 14


def text(x: float, y: float, words: str, size: int = 13, colour: str = INK, **more: str) -> str:
    """One line of text; `more` are attributes, `_` for `-`."""
    extra = "".join(f' {k.replace("_", "-")}="{v}"' for k, v in more.items())
    return f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{colour}"{extra}>{words}</text>'


def line(x1: float, y1: float, x2: float, y2: float, colour: str, width: float, **more: str) -> str:
    """A straight line."""
    extra = "".join(f' {k.replace("_", "-")}="{v}"' for k, v in more.items())
    return (
        f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" stroke="{colour}" '
        f'stroke-width="{width:g}"{extra}/>'
    )


def box(x: float, y: float, w: float, h: float, fill: str, **more: str) -> str:
    """A rectangle with round corners."""
    extra = "".join(f' {k.replace("_", "-")}="{v}"' for k, v in more.items())
    return f'<rect x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" rx="5" fill="{fill}"{extra}/>'


def floorplan() -> list[str]:
    """The east-west axis, with the zoomed part marked."""
    spec, parts = GROQCHIP1, []
    x, y, height = float(MARGIN), 84.0, 66.0
    edge, mem, middle = 46.0, 286.0, 60.0
    pitch = (mem - 14) / spec.hemisphere_slices
    parts += zoomed(y + height, middle / 2 + 7, pitch)
    for unit in ("C2C", "MXM", "SXM", "MEM", "VXM", "MEM", "SXM", "MXM", "C2C"):
        width = {"MEM": mem, "VXM": middle}.get(unit, edge)
        parts.append(box(x + 1.5, y, width - 3, height, COLOURS[unit], stroke="#b8c1cc"))
        if unit == "MEM":
            for n in range(1, spec.hemisphere_slices):
                at = x + 7 + n * pitch
                parts.append(line(at, y + 6, at, y + height - 6, "#d3dae2", 1))
            parts.append(box(x + width / 2 - 72, y + 18, 144, 30, COLOURS["MEM"]))
        middle_x = x + width / 2
        anchor = {"text_anchor": "middle"}
        label = f"MEM, {spec.hemisphere_slices} slices" if unit == "MEM" else unit
        parts.append(text(middle_x, y + 38, label, 14, font_weight="600", **anchor))
        x += width
    return parts + streams(y + height)


def zoomed(y: float, gap: float, pitch: float) -> list[str]:
    """A funnel from the middle of the floorplan to the columns below."""
    vxm, centre = GROQCHIP1.vxm_position, WIDTH / 2
    high = centre - gap - (vxm - FIRST) * pitch, centre + gap + (LAST - vxm) * pitch
    low = spot(FIRST, 0)[0] - 34, spot(LAST, 0)[0] + 34
    points = (
        f"{high[0]:g},{y - 4:g} {high[1]:g},{y - 4:g} {low[1]:g},{TOP - 38} {low[0]:g},{TOP - 38}"
    )
    return [f'<polygon points="{points}" fill="{ZOOM}"/>']


def streams(y: float) -> list[str]:
    """The two directions in which values travel."""
    parts = []
    for side, row, words in (
        (EAST, y + 20, "32 streams east, one position per cycle"),
        (WEST, y + 40, "32 streams west"),
    ):
        ends = (MARGIN + 4, WIDTH - MARGIN - 4)
        start, stop = ends if side == EAST else ends[::-1]
        parts.append(line(start, row, stop, row, SOFT, 1.4, marker_end="url(#grey)"))
        parts.append(box(WIDTH / 2 - 145, row - 9, 290, 18, ZOOM))
        middle = {"text_anchor": "middle"}
        parts.append(text(WIDTH / 2, row + 4, words, 12, SOFT, **middle))
    return parts


def spot(position: float, cycle: float) -> tuple[float, float]:
    """Where a position and a cycle are on the picture."""
    return LEFT + (position - FIRST) * STEP, TOP + cycle * ROW


def grid() -> list[str]:
    """Columns for positions, rows for cycles."""
    spec = GROQCHIP1
    names = {spec.vxm_position: "VXM"}
    names |= {spec.slice_position(i): f"MEM {i}" for i in range(spec.slices)}
    parts = []
    for position in range(FIRST, LAST + 1):
        x, bottom = spot(position, CYCLES)
        vxm = position == spec.vxm_position
        if vxm:
            parts.append(box(x - 27, TOP - 34, 54, bottom - TOP + 42, COLOURS["VXM"]))
        parts.append(line(x, TOP - 2, x, bottom, "#b9dcc5" if vxm else GRID, 1.2))
        middle = {"text_anchor": "middle"}
        parts.append(text(x, TOP - 20, names[position], 12, font_weight="600", **middle))
        parts.append(text(x, TOP - 6, f"{position}", 10, SOFT, **middle))
    for cycle in range(0, CYCLES + 1, 4):
        x, y = spot(FIRST, cycle)
        parts.append(line(x - 22, y, spot(LAST, 0)[0] + 22, y, GRID, 0.8))
        parts.append(text(x - 30, y + 4, f"{cycle}", 11, SOFT, text_anchor="end"))
    parts.append(text(MARGIN, TOP - 20, "cycle", 11, SOFT))
    return parts


def value(
    colour: str, mark: str, issue: int, delay: int, start: int, stop: int, count: int = VECTORS
) -> list[str]:
    """Vectors driven `delay` cycles after issue at `start`, on their diagonals to `stop`."""
    parts = []
    for number in range(count):
        x, y = spot(start, issue + number)
        drive = spot(start, issue + number + delay)
        end = spot(stop, issue + number + delay + abs(stop - start))
        fade = "1" if number == 0 else "0.45"
        more = {"stroke_dasharray": "2 4", "opacity": fade}
        if number == 0:
            parts.append(line(x, y, *drive, colour, 1.6, **more))
        more = {"marker_end": f"url(#{mark})", "opacity": fade}
        parts.append(line(*drive, *end, colour, 2.4 if number == 0 else 1.5, **more))
        parts.append(
            f'<circle cx="{x:g}" cy="{y:g}" r="{4 if number == 0 else 2.5}" fill="{colour}" '
            f'opacity="{fade}"/>'
        )
    return parts


def example() -> list[str]:
    """Two reads, an addition and a write."""
    spec, vxm = GROQCHIP1, GROQCHIP1.vxm_position
    a, b, total = (spec.slice_position(i) for i in (A_SLICE, B_SLICE, SUM_SLICE))
    read, alu = spec.d_func("mem.read"), spec.d_func("vxm.alu")
    assert A_READ + read + a - vxm == B_READ + read + vxm - b == ADD
    write = ADD + alu + total - vxm
    parts = value(BLUE, "blue", A_READ, read, a, vxm)
    parts += value(ORANGE, "orange", B_READ, read, b, vxm)
    parts += value(GREEN, "green", ADD, alu, vxm, total)
    x, y = spot(a, A_READ + read / 2)
    parts.append(note(x + 14, y, BLUE, f"read a at {A_READ}:", f"it is on its stream at {read}"))
    x, y = spot(b, B_READ + read)
    words = f"read b at {B_READ}:", f"it is on its stream at {B_READ + read}"
    parts.append(note(x - 60, y + 88, ORANGE, *words))
    x, y = spot(vxm, ADD + alu)
    words = f"a and b meet at {ADD}: add.", f"The sum is on its stream at {ADD + alu}"
    parts.append(note(x - 232, y + 62, GREEN, *words))
    x, y = spot(total, write)
    parts.append(note(x - 124, y - 84, GREEN, f"written as it passes, at {write}"))
    return parts


def note(x: float, y: float, colour: str, *lines: str) -> str:
    """Lines of text on paper."""
    wide = 6.6 * max(len(words) for words in lines) + 8
    parts = [box(x - 4, y - 13, wide, 16 * len(lines) + 4, PAPER, opacity="0.85")]
    parts += [text(x, y + 16 * n, words, 12, colour) for n, words in enumerate(lines)]
    return "".join(parts)


def arrowhead(name: str, colour: str) -> str:
    """A marker for the end of a line."""
    return (
        f'<marker id="{name}" viewBox="0 0 10 10" refX="8.5" refY="5" markerWidth="7" '
        f'markerHeight="7" markerUnits="userSpaceOnUse" orient="auto-start-reverse">'
        f'<path d="M0,0.8 L10,5 L0,9.2 z" fill="{colour}"/></marker>'
    )


def picture() -> str:
    """The whole SVG."""
    spec = GROQCHIP1
    heads = {"grey": SOFT, "blue": BLUE, "orange": ORANGE, "green": GREEN}
    title = f"One LPU: {spec.lanes} lanes wide, {spec.positions} positions from edge to edge"
    below = "A value driven at position p in cycle t is at position q in cycle t + |q - p|."
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'font-family="Helvetica, Arial, sans-serif">',
        f"<defs>{''.join(arrowhead(*head) for head in heads.items())}</defs>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="12" fill="{PAPER}" stroke="#d5dbe2"/>',
        text(MARGIN, 46, title, 20, font_weight="700"),
        text(MARGIN, 68, below + " Nothing waits.", 13, SOFT),
        *floorplan(),
        *grid(),
        *example(),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    target = ROOT / "images" / "chip.svg"
    parser.add_argument("picture", nargs="?", type=Path, default=target, metavar="FILE.svg")
    target = parser.parse_args().picture
    target.write_text(picture(), encoding="utf-8")
    print(target)
