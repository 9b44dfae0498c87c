#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes exact.txt, XGBoost's exact greedy trees on a tiny table, from a directory of references.

    python3 make_exact.py DIRECTORY

DIRECTORY holds tiny_X.npy (20, 3), tiny_y.npy, tiny_exact.json (trees that xgboost 3.2.0 grew with
tree_method exact, base_score 0.5, eta 1 and four settings; and the five best splits of the root, by
enumeration).
Every line is a key and numbers. Trees are in preorder: feature (-1: a leaf), threshold, whether
missing values go left, gain, cover, value.
"""

import json
import pathlib
import sys

import numpy


def preorder(node: dict, out: list) -> None:
    if "leaf" in node:
        out.append((-1, 0, 0, 0, node["cover"], node["leaf"]))
        return
    left, right = sorted(node["children"], key=lambda c: c["nodeid"] != node["yes"])
    missing_left = int(node["missing"] == node["yes"])
    feature = int(node["split"][1:])
    out.append((feature, node["split_condition"], missing_left, node["gain"], node["cover"], 0))
    preorder(left, out)
    preorder(right, out)


def main() -> None:
    source = pathlib.Path(sys.argv[1])
    lines = []

    def line(key: str, numbers) -> None:
        lines.append(" ".join([key] + [repr(float(v)) for v in numbers]))

    line("x", numpy.load(source / "tiny_X.npy").ravel())
    line("y", numpy.load(source / "tiny_y.npy"))
    for k, setting in enumerate(json.loads((source / "tiny_exact.json").read_text())):
        p = setting["params"]
        options = ("reg_lambda", "gamma", "min_child_weight", "max_depth")
        line(f"{k}.options", [p[name] for name in options])
        nodes: list = []
        preorder(setting["dump"], nodes)
        line(f"{k}.tree", [v for node in nodes for v in node])
        line(f"{k}.margin", setting["pred"])
        best = setting["root_candidates_top5"]
        line(f"{k}.best", [v for c in best
                           for v in (c["feature"], c["thr"], c["default_left"], c["loss_chg"])])
    (pathlib.Path(__file__).parent / "exact.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
