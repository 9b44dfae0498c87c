#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes what XGBoost 3.2.0 dumps for some of the models in this folder.

    python3 make_dumps.py

`<model>_dump.txt`: trees as text with statistics, as Booster.get_dump(with_stats=True) gives them,
each ended by a line "----". `<model>_named_dot.txt`: the first tree as Graphviz, with features called
a, b c, d0, d1, …, with statistics for xgb_cat only.
"""

import pathlib

import xgboost

TREES = {"xgb_reg_exact_w": 2, "xgb_cat": 2, "xgb_cat_onehot": 1, "xgb_mc": 3, "xgb_linear": 1}


def main() -> None:
    here = pathlib.Path(__file__).parent
    names = ["a", "b c"] + [f"d{i}" for i in range(7)]
    for name, count in TREES.items():
        model = xgboost.Booster(model_file=here / f"{name}.json")
        parts = model.get_dump(with_stats=True)[:count]
        (here / f"{name}_dump.txt").write_text("".join(p + "----\n" for p in parts))
    for name, stats in (("xgb_reg_exact_w", False), ("xgb_cat", True)):
        model = xgboost.Booster(model_file=here / f"{name}.json")
        model.feature_names = names
        part = model.get_dump(dump_format="dot", with_stats=stats)[0]
        (here / f"{name}_named_dot.txt").write_text(part)


if __name__ == "__main__":
    main()
