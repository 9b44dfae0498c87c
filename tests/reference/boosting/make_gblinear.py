# SPDX-License-Identifier: Apache-2.0
"""Writes gblinear.txt: small weighted data with missing values, and what XGBoost's gblinear
(updater coord_descent) makes of them. Whitespace between all numbers:

    rows features
    x (rows, features), nan is missing
    y_reg (rows), y_class (rows), row weights (rows)
    then until the end, for each case: objective classes rounds eta lambda alpha feature_selector
    top_k, and the weights (features + 1, outputs), biases last. base_score is 0.5 in all of them.
Made with XGBoost 3.2.0.
"""
import json
import sys

import numpy as np
import xgboost as xgb

rng = np.random.default_rng(7)
n, m = 80, 5
x = rng.normal(size=(n, m)).astype(np.float32)
x[:, 3] = x[:, 0] * 0.8 + x[:, 3] * 0.4  # correlated: descent needs its rounds
y_reg = (x @ [1.0, -2.0, 0.0, 0.5, 0.1] + 0.3 + rng.normal(size=n) * 0.2).astype(np.float32)
y_class = np.digitize(y_reg, [-1.0, 1.0]).astype(np.float32)
x[rng.random((n, m)) < 0.1] = np.nan
w = rng.uniform(0.5, 2.0, size=n).astype(np.float32)

cases = [
    ("reg:squarederror", 1, 1, 0.5, 0.0, 0.0, "cyclic", 0),
    ("reg:squarederror", 1, 7, 0.3, 0.01, 0.02, "cyclic", 0),
    ("reg:squarederror", 1, 400, 0.5, 0.01, 0.02, "cyclic", 0),
    ("binary:logistic", 1, 5, 0.5, 0.001, 0.0, "cyclic", 0),
    ("binary:logistic", 1, 400, 0.5, 0.01, 0.005, "cyclic", 0),
    ("multi:softprob", 3, 4, 0.4, 0.001, 0.001, "cyclic", 0),
    ("reg:squarederror", 1, 1, 0.5, 0.0, 0.0, "greedy", 0),
    ("reg:squarederror", 1, 4, 0.3, 0.01, 0.02, "greedy", 2),
    ("multi:softprob", 3, 3, 0.4, 0.001, 0.001, "greedy", 3),
    ("reg:squarederror", 1, 1, 0.5, 0.0, 0.0, "thrifty", 0),
    ("binary:logistic", 1, 6, 0.5, 0.001, 0.001, "thrifty", 2),
    ("multi:softprob", 3, 3, 0.4, 0.001, 0.001, "thrifty", 4),
]


def numbers(values):
    return " ".join(np.format_float_positional(v, unique=True, trim="-") for v in np.ravel(values))


with open(sys.argv[1] if len(sys.argv) > 1 else "gblinear.txt", "w") as out:
    out.write(f"{n} {m}\n")
    for row in x:
        out.write(numbers(row) + "\n")
    for values in (y_reg, y_class, w):
        out.write(numbers(values) + "\n")
    for objective, classes, rounds, eta, reg_lambda, alpha, selector, top_k in cases:
        y = y_reg if objective.startswith("reg:") else y_class
        if objective.startswith("binary:"):
            y = (y_class > 0).astype(np.float32)
        param = dict(booster="gblinear", updater="coord_descent", feature_selector=selector,
                     top_k=top_k, objective=objective, eta=eta, alpha=alpha, base_score=0.5,
                     nthread=1)
        param["lambda"] = reg_lambda
        if classes > 1:
            param["num_class"] = classes
        booster = xgb.train(param, xgb.DMatrix(x, y, weight=w), rounds)
        model = json.loads(booster.save_raw("json"))
        weights = model["learner"]["gradient_booster"]["model"]["weights"]
        out.write(f"{objective} {classes} {rounds} {eta} {reg_lambda} {alpha} {selector} {top_k}\n")
        out.write(numbers(np.asarray(weights, dtype=np.float32)) + "\n")
