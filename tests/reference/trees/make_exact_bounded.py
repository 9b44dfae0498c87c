#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes exact_bounded.txt: exact greedy trees of xgboost 3.2.0 with bounded weights (max_delta_step)
and no L2, on small random tables of whole numbers with ties and missing values.

    python3 make_exact_bounded.py

Bounded weights make many splits of equal gain, so these trees depend on XGBoost's rounding: it scores
in float. Every line is a key and numbers, as in exact.txt.
"""

import json
import pathlib

import numpy
import xgboost

from make_exact import preorder

ROWS, COLS, TABLES = 40, 3, 24


def main() -> None:
    lines = []

    def line(key: str, numbers) -> None:
        lines.append(" ".join([key] + [repr(float(v)) for v in numbers]))

    for k in range(TABLES):
        random = numpy.random.default_rng(k)
        x = random.integers(0, 9, (ROWS, COLS)).astype(numpy.float32)
        x[random.random((ROWS, COLS)) < 0.1] = numpy.nan
        y = (random.standard_normal(ROWS) + numpy.nan_to_num(x[:, 0]) / 4).round(1).astype(numpy.float32)
        params = {"tree_method": "exact", "eta": 1, "base_score": 0.5, "max_depth": 3, "nthread": 1,
                  "reg_lambda": 0, "gamma": 0, "min_child_weight": 1,
                  "max_delta_step": (0.3, 0.7)[k % 2]}
        booster = xgboost.train(params, xgboost.DMatrix(x, y), 1)
        nodes: list = []
        preorder(json.loads(booster.get_dump(dump_format="json", with_stats=True)[0]), nodes)
        line(f"{k}.x", x.ravel())
        line(f"{k}.y", y)
        line(f"{k}.options", [params["max_delta_step"], params["max_depth"]])
        line(f"{k}.tree", [v for node in nodes for v in node])
    (pathlib.Path(__file__).parent / "exact_bounded.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
