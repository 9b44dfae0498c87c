#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Draws ratios to peers as bars: chart.py ROWS.json ... --out docs/images/peers.svg

Reads the rows that run.py writes with --json; a bar is the median ratio, its whisker the spread.
"""

import argparse
import html
import json
import math
import pathlib

BAR, GAP, LEFT, WIDTH, TOP = 18, 8, 330, 860, 64
STYLE = """text{font:13px system-ui,sans-serif;fill:#24292f}.s{fill:#57606a;font-size:12px}
.t{font-weight:600;font-size:15px}.b{fill:#2f81b7}.w{fill:#c4643f}line{stroke:#57606a}
.g{stroke:#d0d7de}.card{fill:#fff;stroke:#d0d7de}"""


def label(row):
    threads = f"{row['threads']} thread" + ("s" if row["threads"] > 1 else "")
    return f"{row['case']}, {row['metric']}, {threads}"


def draw(rows, title):
    top = max(2.0, max(row["ratio"] for row in rows))
    scale = lambda x: LEFT + (WIDTH - LEFT - 120) * math.log2(1 + x) / math.log2(1 + top)
    height = TOP + len(rows) * (BAR + GAP) + 16
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img"'
        f' aria-label="{html.escape(title)}"><style>{STYLE}</style>',
        f'<rect class="card" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="6"/>',
        f'<text class="t" x="16" y="26">{html.escape(title)}</text>',
        '<text class="s" x="16" y="46">times better than the peer named at the bar; 1 is as good,'
        " whiskers show the spread of the repeats</text>",
    ]
    one = scale(1)
    out.append(f'<line class="g" x1="{one}" x2="{one}" y1="{TOP - 6}" y2="{height - 12}"/>')
    for i, row in enumerate(rows):
        y = TOP + i * (BAR + GAP)
        end = scale(row["ratio"])
        kind = "b" if row["ratio"] >= 1 else "w"
        out.append(f'<text x="{LEFT - 8}" y="{y + 13}" text-anchor="end">'
                   f"{html.escape(label(row))}</text>")
        out.append(f'<rect class="{kind}" x="{LEFT}" y="{y}" width="{end - LEFT:.1f}" '
                   f'height="{BAR}" rx="2"/>')
        low, high = (scale(v) for v in row["spread"] or (row["ratio"], row["ratio"]))
        out.append(f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{y + BAR / 2}" y2="{y + BAR / 2}"/>')
        out.append(f'<text x="{max(end, high) + 6:.1f}" y="{y + 13}">{row["ratio"]:.2f} × '
                   f"{html.escape(row['peer_name'])}</text>")
    out.append("</svg>")
    return "\n".join(out) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", nargs="+", type=pathlib.Path)
    parser.add_argument("--out", required=True, type=pathlib.Path)
    parser.add_argument("--title", default="quern beside the libraries people use")
    args = parser.parse_args()
    rows = [row for path in args.rows for row in json.loads(path.read_text())
            if row["ratio"] is not None]
    args.out.write_text(draw(rows, args.title), encoding="utf-8")


if __name__ == "__main__":
    main()
