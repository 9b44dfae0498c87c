#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes tables of ratios into a page: page.py ROWS.json ... --out docs/benchmarks.md

Reads the rows that run.py writes with --json. The page has, for each area, a line
`<!-- table: AREA -->` and a line `<!-- end -->`: what stands between them is replaced.
"""

import argparse
import json
import pathlib
import re

COLUMNS = ("case", "what", "threads", "quern", "peer", "", "ratio", "spread", "of the limit")


def number(value):
    return "" if value is None else f"{value:.3g}"


def quality(row):
    ours, theirs = row["quality_quern"], row["quality_peer"]
    return "" if ours is None or theirs is None else f" (quality {ours:.4g} / {theirs:.4g})"


def line(row):
    spread = "" if row["spread"] is None else "{:.2f}–{:.2f}".format(*row["spread"])
    limit = "" if row["limit_fraction"] is None else f"{row['limit_fraction']:.2f}"
    cells = (row["case"] + quality(row), row["metric"], str(row["threads"]), number(row["quern"]),
             number(row["peer"]), row["peer_name"], f"**{row['ratio']:.2f}**", spread, limit)
    return "| " + " | ".join(cells) + " |"


def table(rows):
    head = ["| " + " | ".join(COLUMNS) + " |", "| " + " | ".join("---" for _ in COLUMNS) + " |"]
    return "\n".join(head + [line(row) for row in rows])


def replaced(page, area, text):
    pattern = re.compile(rf"(<!-- table: {re.escape(area)} -->\n).*?(<!-- end -->)", re.DOTALL)
    if not pattern.search(page):
        raise SystemExit(f"page.py: the page has no <!-- table: {area} --> … <!-- end -->")
    return pattern.sub(lambda found: found[1] + "\n" + text + "\n\n" + found[2], page)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", nargs="+", type=pathlib.Path)
    parser.add_argument("--out", required=True, type=pathlib.Path)
    args = parser.parse_args()
    areas = {}
    for path in args.rows:
        for row in json.loads(path.read_text()):
            if row["ratio"] is not None:
                areas.setdefault(row["area"], []).append(row)
    page = args.out.read_text(encoding="utf-8")
    for area, rows in areas.items():
        page = replaced(page, area, table(rows))
    args.out.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
