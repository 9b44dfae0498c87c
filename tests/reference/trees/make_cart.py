# SPDX-License-Identifier: Apache-2.0
"""Writes cart.txt: CART trees of scikit-learn on X.npy, for ensemble/decision_tree.

python make_cart.py [sk_ensembles.json]

A tree is lines `name.left`, `.right`, `.feature`, `.threshold`, `.missing_left`, `.impurity`, `.n`,
`.value` (one entry a node, -1: a leaf; values of all classes of a node side by side). Every tree is
grown with several seeds, which change the order in which equally good splits are met: trees that
differ are refused, so what is written has no ties. The optional file holds further trees in JSON;
they were grown on X with NaN replaced by -9, to depth 4 or pruned.
"""

import json
import os
import sys

import numpy
from sklearn.ensemble import RandomForestClassifier
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

HERE = os.path.dirname(os.path.abspath(__file__))


def load(name):
    return numpy.load(os.path.join(HERE, name + ".npy"))


x, w = load("X"), load("w")
y_mc, y_reg = load("y_mc").astype(int), load("y_reg")
filled = numpy.where(numpy.isnan(x), numpy.float32(-9), x)
lines = []


def put(key, values):
    lines.append(key + " " + " ".join(repr(float(v)) for v in numpy.ravel(values)))


def fields(tree):
    return {"left": tree.children_left, "right": tree.children_right,
            "feature": numpy.maximum(tree.feature, -1), "threshold": tree.threshold,
            "missing_left": tree.missing_go_to_left, "impurity": tree.impurity,
            "n": tree.n_node_samples, "value": tree.value.reshape(tree.node_count, -1)}


def differ(trees):
    return [key for key in ("left", "feature", "n", "missing_left")
            if any(not numpy.array_equal(t[key], trees[0][key]) for t in trees)]


def grow(name, learner, features, y, weights=None, **options):
    """Grows to the depth (16 or less, written as .max_depth) at which there are no ties."""
    for depth in (options.pop("max_depth", 16), 7, 6, 5, 4, 3, 2):
        fitted = [learner(random_state=seed, max_depth=depth, **options)
                  .fit(features, y, sample_weight=weights) for seed in range(8)]
        trees = [fields(f.tree_) for f in fitted]
        if not differ(trees):
            break
        print(f"{name}: trees of different seeds differ in {differ(trees)} at depth {depth}")
    else:
        raise SystemExit(1)
    for key, values in trees[0].items():
        put(f"{name}.{key}", values)
    put(f"{name}.max_depth", [depth])
    put(f"{name}.importances", fitted[0].feature_importances_)


C, R = DecisionTreeClassifier, DecisionTreeRegressor
grow("gini", C, filled, y_mc, min_samples_leaf=6, min_samples_split=20)
grow("gini_missing", C, x, y_mc, min_samples_leaf=9)
grow("entropy_weights", C, filled, y_mc, w, criterion="entropy", min_samples_leaf=7)
grow("gini_balanced", C, x, y_mc, w, class_weight="balanced", max_depth=4, min_samples_leaf=6)
grow("gini_best_first", C, filled, y_mc, max_leaf_nodes=11, min_samples_leaf=5)
grow("gini_limits", C, x, y_mc, w, min_weight_fraction_leaf=0.04, min_impurity_decrease=0.004)
grow("mse", R, filled, y_reg, min_samples_leaf=4)
grow("mse_missing", R, x, y_reg, w, max_depth=5, min_samples_leaf=4)
grow("mse_best_first", R, x, y_reg, max_leaf_nodes=13, min_samples_leaf=4)
grow("mae", R, filled, y_reg, criterion="absolute_error", max_depth=4, min_samples_leaf=8)
grow("mae_weights", R, filled, y_reg, w, criterion="absolute_error", max_depth=4,
     min_samples_leaf=8)
grow("mse_ccp", R, filled, y_reg, min_samples_leaf=4, ccp_alpha=0.02)
grow("gini_ccp", C, filled, y_mc, min_samples_leaf=6, ccp_alpha=0.006)
path = R(min_samples_leaf=4).cost_complexity_pruning_path(filled, y_reg)
put("mse_path.alphas", path.ccp_alphas)
put("mse_path.impurities", path.impurities)
path = C(min_samples_leaf=6).cost_complexity_pruning_path(filled, y_mc)
put("gini_path.alphas", path.ccp_alphas)
put("gini_path.impurities", path.impurities)

forest = RandomForestClassifier(400, oob_score=True, random_state=0).fit(filled, y_mc)
put("forest.oob_score", [forest.oob_score_])
put("forest.importances", forest.feature_importances_)

if len(sys.argv) > 1:
    with open(sys.argv[1], encoding="utf-8") as file:
        stored = json.load(file)
    for name in ("gini", "entropy", "mse", "mse_ccp"):
        for key in ("left", "right", "feature", "threshold", "impurity", "n", "value"):
            values = stored[name][key]
            put(f"sk_{name}.{key}", numpy.maximum(values, -1) if key == "feature" else values)

with open(os.path.join(HERE, "cart.txt"), "w", encoding="utf-8") as file:
    file.write("\n".join(lines) + "\n")
