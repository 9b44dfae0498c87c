# SPDX-License-Identifier: Apache-2.0
"""Writes unbiased_rank.txt: small groups, and what XGBoost's lambdarank_unbiased makes of them.
Made with XGBoost 3.2.0. Whitespace between all numbers:

    groups rows-of-a-group features
    x (rows, features), labels (rows)
    then until the end, for each case: objective pairs bias_norm rounds positions, ti+ (positions) and
    tj- (positions) after the last round, and the margins (rows).
Trees are exact, of depth 2, eta 0.3, lambda 1, without min_child_weight.
"""
import json
import sys

import numpy as np
import xgboost as xgb

rng = np.random.default_rng(11)
groups, size, features = 14, 9, 3
n = groups * size
x = rng.normal(size=(n, features)).astype(np.float32)
relevance = x @ [1.0, -0.7, 0.3] + rng.normal(size=n) * 0.5
# Rows that were shown first are marked relevant more often, whatever they are.
shown = np.tile(np.arange(size), groups)
y = ((relevance > 0) & (rng.random(n) < 1 / (1 + 0.4 * shown))).astype(np.float32)

cases = [
    ("rank:ndcg", 6, 1.0, 4),
    ("rank:ndcg", 20, 0.0, 3),
    ("rank:pairwise", 5, 2.0, 4),
    ("rank:map", 6, 1.0, 3),
]


def numbers(values):
    return " ".join(np.format_float_positional(v, unique=True, trim="-") for v in np.ravel(values))


with open(sys.argv[1] if len(sys.argv) > 1 else "unbiased_rank.txt", "w") as out:
    out.write(f"{groups} {size} {features}\n")
    for row in x:
        out.write(numbers(row) + "\n")
    out.write(numbers(y) + "\n")
    for objective, pairs, norm, rounds in cases:
        param = dict(objective=objective, lambdarank_pair_method="topk",
                     lambdarank_num_pair_per_sample=pairs, lambdarank_unbiased=True,
                     lambdarank_bias_norm=norm, tree_method="exact", max_depth=2, eta=0.3,
                     min_child_weight=0, nthread=1)
        data = xgb.DMatrix(x, y, group=[size] * groups)
        booster = xgb.train(param, data, rounds)
        state = json.loads(booster.save_config())["learner"]["objective"]
        margins = booster.predict(data, output_margin=True)
        base = json.loads(booster.save_config())["learner"]["learner_model_param"]["base_score"]
        plus, minus = np.float32(state["ti+"]), np.float32(state["tj-"])
        margins = margins.astype(np.float64) - float(base.strip("[]"))  # ranks know no constant
        out.write(f"{objective} {pairs} {norm} {rounds} {len(plus)}\n")
        for values in (plus, minus, margins.astype(np.float32)):
            out.write(numbers(values) + "\n")
