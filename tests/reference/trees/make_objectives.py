#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What XGBoost 3.2.0 makes of losses and metrics, into objectives.txt, metrics.txt and curves.txt.

    python3 make_objectives.py DIRECTORY

DIRECTORY holds the references that make_xgboost.py copies, with the training data X.npy, y_*.npy,
w.npy, rank_y.npy, rank_group.npy, aft_*.npy, which are copied beside this script, metric_*.npy and
meta.json.

A line is a key and numbers. objectives.txt: for every case its margins, labels, weights and group
sizes, then g and h of every row as XGBoost has them: from a stump that puts the row into a leaf of
its own, whose value is -g / h (lambda 0, learning rate 1) and whose cover is h; and base_score as
XGBoost estimates it. metrics.txt: the value of each metric of given predictions, from a model
without trees and those as base margins. curves.txt: metrics by round on the training rows.
"""

import json
import pathlib
import shutil
import sys

import numpy as np
import xgboost as xgb

ROWS = 24
UNKNOWN = 1e30
HERE = pathlib.Path(__file__).parent


def line(key, values):
    return " ".join([key] + [str(v) for v in np.asarray(values).ravel()])


def derivatives(params, margin, label, weight=None, group=None):
    """g and h of every row, (outputs, rows)."""
    rows, k = margin.shape
    g, h = np.zeros((k, rows)), np.zeros((k, rows))
    fixed = {"max_depth": 1, "eta": 1, "lambda": 0, "min_child_weight": 0, "tree_method": "exact",
             "nthread": 1, "base_score": 0.5}
    for i in range(rows):
        x = np.zeros((rows, 1), np.float32)
        x[i] = 1
        data = xgb.DMatrix(x, label, weight=weight)
        if group is not None:
            data.set_group(group)
        data.set_base_margin(margin if k > 1 else margin[:, 0])
        booster = xgb.train({**fixed, **params}, data, 1)
        model = json.loads(booster.save_raw("json"))
        for c, tree in enumerate(model["learner"]["gradient_booster"]["model"]["trees"]):
            if tree["left_children"][0] < 0:  # nothing to gain by setting the row apart
                g[c, i] = h[c, i] = UNKNOWN
                continue
            leaf = tree["right_children"][0]
            h[c, i] = tree["sum_hessian"][leaf]
            g[c, i] = -tree["base_weights"][leaf] * h[c, i]
    return g.astype(np.float32), h.astype(np.float32)


def base_score(params, label, weight=None):
    data = xgb.DMatrix(np.arange(len(label), dtype=np.float32)[:, None], label, weight=weight)
    booster = xgb.train({"nthread": 1, "max_depth": 1, **params}, data, 1)
    text = json.loads(booster.save_raw("json"))["learner"]["learner_model_param"]["base_score"]
    return json.loads(text)


def objectives():
    rng = np.random.default_rng(7)
    margin = rng.normal(size=(ROWS, 1)).astype(np.float32)
    real = rng.normal(size=ROWS).astype(np.float32) * 2
    count = np.maximum(np.round(np.exp(margin[:, 0]) * rng.uniform(0.6, 1.5, ROWS)), 0)
    count = count.astype(np.float32)
    positive = (np.exp(margin[:, 0]) * rng.uniform(0.5, 2, ROWS)).astype(np.float32)
    binary = (rng.uniform(size=ROWS) < 0.4).astype(np.float32)
    classes = rng.integers(0, 3, ROWS).astype(np.float32)
    margins3 = rng.normal(size=(ROWS, 3)).astype(np.float32)
    weight = rng.uniform(0.5, 2, ROWS).astype(np.float32)
    relevance = rng.integers(0, 4, ROWS).astype(np.float32)
    times = (rng.permutation(ROWS) + 1).astype(np.float32) * np.where(rng.uniform(size=ROWS) < 0.3, -1, 1)
    groups = [9, 3, 12]
    group_weight = np.array([0.5, 2, 1.25], np.float32)
    tied = np.round(margin * 2) / 2
    cases = {
        "reg:squarederror": ({}, margin, real),
        "reg:squaredlogerror": ({}, np.abs(margin), positive),
        "reg:pseudohubererror": ({"huber_slope": 0.8}, margin, real),
        "reg:logistic": ({}, margin, binary * 0.7 + 0.1),
        "binary:logistic": ({"scale_pos_weight": 1.5}, margin, binary),
        "binary:logitraw": ({}, margin, binary),
        "binary:hinge": ({}, margin, binary),
        "count:poisson": ({"max_delta_step": 0.7}, margin, count),
        "reg:gamma": ({}, margin, positive),
        "reg:tweedie": ({"tweedie_variance_power": 1.3}, margin, count),
        "multi:softprob": ({"num_class": 3}, margins3, classes),
        "survival:cox": ({}, margin, times),
    }
    lines = []
    for name, (params, m, y) in cases.items():
        full = {"objective": name, **params}
        for w in (None, weight):
            key = name + (".w" if w is not None else "")
            g, h = derivatives(full, m, y, w)
            lines += [line(key + ".margin", m), line(key + ".label", y), line(key + ".g", g),
                      line(key + ".h", h)]
            if w is not None:
                lines.append(line(key + ".weight", w))
            lines.append(line(key + ".start", base_score(full, y, w)))
    for w in (None, weight):
        for name, params in (("reg:absoluteerror", {}),
                             ("reg:quantileerror", {"quantile_alpha": [0.1, 0.5, 0.8]})):
            key = name + (".w" if w is not None else "")
            lines += [line(key + ".label", real), line(key + ".start",
                      base_score({"objective": name, **params}, real, w))]
            if w is not None:
                lines.append(line(key + ".weight", w))
    for name in ("rank:pairwise", "rank:ndcg", "rank:map"):
        y = (relevance > 1).astype(np.float32) if name == "rank:map" else relevance
        for case, params, m, w in (("", {}, margin, None), (".w", {}, margin, group_weight),
                                   (".tied", {}, tied, None),
                                   (".top2", {"lambdarank_num_pair_per_sample": 2}, margin, None),
                                   (".plain", {"lambdarank_normalization": False,
                                               "lambdarank_score_normalization": False}, margin, None)):
            g, h = derivatives({"objective": name, **params}, m, y, w, groups)
            key = name + case
            lines += [line(key + ".margin", m), line(key + ".label", y), line(key + ".group", groups),
                      line(key + ".g", g), line(key + ".h", h)]
            if w is not None:
                lines.append(line(key + ".weight", np.repeat(w, groups)))
    for dist in ("normal", "logistic", "extreme"):
        low = rng.uniform(0.2, 5, ROWS).astype(np.float32)
        high = np.where(np.arange(ROWS) % 3 == 0, low, low * 2).astype(np.float32)
        high[np.arange(ROWS) % 4 == 1] = np.inf
        low[7] = 0
        params = {"objective": "survival:aft", "aft_loss_distribution": dist,
                  "aft_loss_distribution_scale": 1.2}
        g, h = aft_derivatives(params, margin[:, 0], low, high)
        key = "survival:aft." + dist
        lines += [line(key + ".margin", margin), line(key + ".lower", low),
                  line(key + ".upper", np.where(np.isinf(high), -1, high)), line(key + ".g", g),
                  line(key + ".h", h), line(key + ".metric", aft_metric(params, margin[:, 0], low, high))]
    (HERE / "objectives.txt").write_text("\n".join(lines) + "\n")


def aft_data(margin, low, high, x):
    data = xgb.DMatrix(x)
    data.set_float_info("label_lower_bound", low)
    data.set_float_info("label_upper_bound", high)
    data.set_base_margin(margin)
    return data


def aft_derivatives(params, margin, low, high):
    g, h = np.zeros(ROWS), np.zeros(ROWS)
    for i in range(ROWS):
        x = np.zeros((ROWS, 1), np.float32)
        x[i] = 1
        booster = xgb.train({"max_depth": 1, "eta": 1, "lambda": 0, "min_child_weight": 0,
                             "tree_method": "exact", "nthread": 1, **params},
                            aft_data(margin, low, high, x), 1)
        tree = json.loads(booster.save_raw("json"))["learner"]["gradient_booster"]["model"]["trees"][0]
        leaf = tree["right_children"][0]
        h[i] = tree["sum_hessian"][leaf]
        g[i] = -tree["base_weights"][leaf] * h[i]
    return g.astype(np.float32), h.astype(np.float32)


def aft_metric(params, margin, low, high):
    data = aft_data(margin, low, high, np.zeros((ROWS, 1), np.float32))
    # Without a tree the metric does not hear of the scale: 1.
    booster = xgb.train({"eval_metric": "aft-nloglik", **params}, data, 0)
    return float(booster.eval(data).split(":")[-1])


def metrics(source):
    rng = np.random.default_rng(11)
    n = 60
    score = np.round(rng.normal(size=n), 1).astype(np.float32)  # with ties
    weight = rng.uniform(0.5, 2, n).astype(np.float32)
    binary = (rng.uniform(size=n) < 0.4).astype(np.float32)
    real = (score + rng.normal(size=n)).astype(np.float32)
    positive = np.exp(real).astype(np.float32)
    count = np.floor(positive).astype(np.float32)
    scores3 = rng.normal(size=(n, 3)).astype(np.float32)
    classes = rng.integers(0, 3, n).astype(np.float32)
    times = ((rng.permutation(n) // 2 + 1) * np.where(rng.uniform(size=n) < 0.3, -1, 1)).astype(np.float32)
    relevance = rng.integers(0, 4, n).astype(np.float32)
    groups = [10, 1, 20, 5, 24]
    relevance[11:31] = np.maximum(relevance[11:31], 1)
    group_weight = rng.uniform(0.5, 2, len(groups)).astype(np.float32)
    identity, log, prob = "reg:squarederror", "count:poisson", "reg:logistic"
    lines = [line("weight", weight), line("groups", groups),
             line("group_weight", np.repeat(group_weight, groups))]

    def value(objective, params, m, y, metric, w, group=None):
        data = xgb.DMatrix(np.zeros((n, 1), np.float32), y, weight=w)
        data.set_base_margin(m)
        if group is not None:
            data.set_group(group)
        booster = xgb.train({"objective": objective, "eval_metric": metric, "nthread": 1, **params},
                            data, 0)
        return float(booster.eval(data).split(":")[-1]), booster.predict(data)

    def add(objective, names, m, y, params={}, ws=(None, weight), group=None, prefix=""):
        for name in names:
            for w in ws:
                v, p = value(objective, params, m, y, name, w, group)
                key = prefix + name + (".w" if w is not None else "")
                lines.extend([line(key + ".p", p), line(key + ".y", y), line(key + ".value", [v])])

    add(identity, ["rmse", "mae", "mape"], score, real)
    add(identity, ["rmsle"], np.abs(score), positive)
    add("reg:pseudohubererror", ["mphe"], score, real, {"huber_slope": 0.8})
    add(prob, ["logloss", "error", "error@0.3", "auc", "aucpr"], score, binary)
    add(log, ["poisson-nloglik", "tweedie-nloglik@1.3"], score, count)
    add(log, ["gamma-nloglik", "gamma-deviance"], score, positive)
    add("multi:softprob", ["mlogloss", "merror", "auc", "aucpr"], scores3, classes, {"num_class": 3},
        prefix="classes.")
    add("reg:quantileerror", ["quantile"], scores3, real, {"quantile_alpha": [0.1, 0.5, 0.8]})
    add("survival:cox", ["cox-nloglik"], score, times, ws=(None,))
    add("rank:ndcg", ["ndcg", "ndcg@3", "ndcg@5-"], score, relevance, group=groups,
        ws=(None, group_weight))
    add("rank:map", ["map", "map@3", "map@3-", "pre@2", "pre"], score, binary, group=groups,
        ws=(None, group_weight))
    meta = json.loads((source / "meta.json").read_text())["metrics"]
    for name in ("p", "y", "w"):
        lines.append(line("sklearn." + name, np.load(source / f"metric_{name}.npy")))
    for name, v in meta.items():
        lines.append(line("sklearn." + name, [v]))
    (HERE / "metrics.txt").write_text("\n".join(lines) + "\n")


def curves(source):
    meta = json.loads((source / "meta.json").read_text())["models"]
    lines = []
    for model, entry in meta.items():
        for metric, values in entry.get("eval", {}).items():
            lines.append(line(f"{model}.{metric}", values))
    (HERE / "curves.txt").write_text("\n".join(lines) + "\n")
    for name in ("X", "y_reg", "y_bin", "y_mc", "y_cnt", "w", "rank_y", "rank_group", "aft_lower",
                 "aft_upper"):
        shutil.copy(source / f"{name}.npy", HERE / f"{name}.npy")
        (HERE / f"{name}.npy").chmod(0o644)


if __name__ == "__main__":
    directory = pathlib.Path(sys.argv[1])
    objectives()
    metrics(directory)
    curves(directory)
