"""Figures of speed.py for people: the tables and the plot of docs/python/performance.md.

    python report.py FIGURES.json
"""

import json
import math
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parents[3] / "docs/python"

CLIENTS = {"product": "alluxio-dataset", "sdk": "alluxiofs 1.0.0", "s3fs": "s3fs"}
ROWS = {
    "cat": "256 MiB by one `cat`",
    "ranges": "1,000 random ranges of 64 KiB",
    "ls": "`ls` of 10,000 files",
    "small-files": "5,000 files of 16 KiB, 8 threads",
}
#: How many times as fast as which client.
TARGETS = {"sdk": 5.0, "s3fs": 2.0}

BEGIN, END = "<!-- tables: begin -->\n", "<!-- tables: end -->\n"

BAR_HEIGHT, ROW_HEIGHT, LABEL_WIDTH, PLOT_WIDTH, TOP = 18, 30, 190, 520, 46
#: The plot's ends: a target missed by half, and one passed sixteenfold.
LEAST, MOST = 0.5, 16.0


def main():
    figures_file = Path(sys.argv[1])
    figures = json.loads(figures_file.read_text())
    (DOCS / "performance.json").write_text(figures_file.read_text())
    (DOCS / "performance.svg").write_text(plot(figures))
    document = DOCS / "performance.md"
    document.write_text(with_tables(document.read_text(), figures))


def with_tables(document, figures):
    before, rest = document.split(BEGIN)
    after = rest.split(END)[1]
    return f"{before}{BEGIN}{tables(figures)}{END}{after}"


def results(figures):
    """Each row against each other client: how many times as fast when warm, and the first time."""
    for row, clients in figures["rows"].items():
        for other, target in TARGETS.items():
            first, again = (
                clients[other][which]["seconds"] / clients["product"][which]["seconds"]
                for which in ("first", "again")
            )
            yield row, other, target, first, again


def tables(figures):
    lines = [
        figures["machine"],
        "",
        "| row | what | against | first | warm | target, warm | |",
        "|---|---|---|---|---|---|---|",
    ]
    for row, other, target, first, again in results(figures):
        verdict = "holds" if again >= target else "**missed**"
        lines.append(
            f"| {row} | {ROWS[row]} | {CLIENTS[other]} | {short(first)} times as fast | "
            f"{short(again)} times as fast | ≥ {short(target)} | {verdict} |"
        )
    lines += [
        "",
        "| row | client | first, s | warm, s | CPU, first, s | CPU, warm, s | CPU, warm, s/GiB | peak RSS, MiB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row, clients in figures["rows"].items():
        for name, taken in clients.items():
            first, again = taken["first"], taken["again"]
            per_gib = again["cpu_seconds_per_gib"]
            lines.append(
                f"| {row} | {CLIENTS[name]} | {short(first['seconds'])} | {short(again['seconds'])} | "
                f"{short(first['cpu_seconds'])} | {short(again['cpu_seconds'])} | "
                f"{'–' if per_gib is None else short(per_gib)} | {again['peak_rss_mib']:.0f} |"
            )
    return "\n".join(lines) + "\n"


def plot(figures):
    """Each target's fulfilment on a logarithmic scale, with a line at 1."""
    bars = [(f"{row}, {other}", again / target) for row, other, target, _, again in results(figures)]
    height, width = TOP + len(bars) * ROW_HEIGHT + 24, LABEL_WIDTH + PLOT_WIDTH + 80
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        '<text x="10" y="20" font-size="14">How far each target is passed when warm (1 = just '
        "reached, logarithmic)</text>",
    ]
    for tick in (0.5, 1, 2, 4, 8, 16):
        x, color = place(tick), "#c00" if tick == 1 else "#ddd"
        lines.append(
            f'<line x1="{x:.0f}" y1="{TOP}" x2="{x:.0f}" y2="{height - 24}" stroke="{color}"/>'
            f'<text x="{x:.0f}" y="{height - 8}" text-anchor="middle" fill="#555">{tick}</text>'
        )
    for index, (label, fulfilment) in enumerate(bars):
        y, start, end = TOP + index * ROW_HEIGHT + 6, place(LEAST), place(fulfilment)
        text_y, color = y + BAR_HEIGHT - 5, "#4a7" if fulfilment >= 1 else "#e90"
        lines.append(
            f'<text x="{LABEL_WIDTH - 8}" y="{text_y}" text-anchor="end">{label}</text>'
            f'<rect x="{start:.0f}" y="{y}" width="{max(end - start, 1):.0f}" height="{BAR_HEIGHT}" '
            f'fill="{color}"/><text x="{end + 5:.0f}" y="{text_y}">{short(fulfilment)}</text>'
        )
    return "\n".join([*lines, "</svg>"]) + "\n"


def place(fulfilment):
    clamped = min(max(fulfilment, LEAST), MOST)
    return LABEL_WIDTH + math.log(clamped / LEAST) / math.log(MOST / LEAST) * PLOT_WIDTH


def short(value):
    """Three digits that matter."""
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3
    return f"{value:.{digits}f}"


if __name__ == "__main__":
    main()
