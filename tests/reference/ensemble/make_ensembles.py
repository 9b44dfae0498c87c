# SPDX-License-Identifier: Apache-2.0
"""Writes ensembles.txt: what scikit-learn's AdaBoost, voting and stacking make of small data.

python make_ensembles.py      (scikit-learn 1.9.1, numpy 2.4.6)

AdaBoost R2 is restated here: scikit-learn draws rows by their weights, quern hands the weights on.
"""
import pathlib

import numpy as np
from sklearn.ensemble import AdaBoostClassifier, StackingClassifier, StackingRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.naive_bayes import GaussianNB
from sklearn.tree import DecisionTreeClassifier

here = pathlib.Path(__file__).parent
given = {line.split()[0]: np.array(line.split()[1:], float)
         for line in open(here / "learners.txt")}
x, xt = given["x"].reshape(-1, 5), given["xt"].reshape(-1, 5)
y3, y2, yr = given["y3"].astype(int), given["y2"].astype(int), given["yr"]
out = {}

for key, y in [("adaboost2", y2), ("adaboost3", y3)]:
    model = AdaBoostClassifier(DecisionTreeClassifier(max_depth=1), n_estimators=12).fit(x, y)
    out[key + "_weights"] = model.estimator_weights_
    out[key + "_errors"] = model.estimator_errors_
    out[key + "_proba"] = model.predict_proba(xt)

# The rows of the trees' references: nine features, three classes, missing values as -9.
trees = here.parent / "trees"
tx, txt = (np.nan_to_num(np.load(trees / name), nan=-9) for name in ("X.npy", "Xt.npy"))
model = AdaBoostClassifier(DecisionTreeClassifier(max_depth=1), n_estimators=20)
model.fit(tx, np.load(trees / "y_mc.npy"))
out["trees_weights"], out["trees_errors"] = model.estimator_weights_, model.estimator_errors_
out["trees_decision"] = model.decision_function(txt)

weights, fitted, w = [], [], np.ones(len(x))
for _ in range(6):
    fitted.append(Ridge(alpha=1.5).fit(x, yr, w))
    loss = np.abs(fitted[-1].predict(x) - yr)
    loss /= loss.max()
    mean = (w * loss).sum() / w.sum()
    beta = mean / (1 - mean)
    weights.append(np.log(1 / beta))
    w *= beta ** (1 - loss)
    w *= len(w) / w.sum()
said = np.array([model.predict(xt) for model in fitted])
order = said.argsort(0, kind="stable")
reached = np.array(weights)[order].cumsum(0)
at = (reached >= 0.5 * sum(weights)).argmax(0)
out["r2_weights"] = weights
out["r2_predictions"] = np.take_along_axis(said, order, 0)[at, np.arange(len(xt))]

rng = np.random.default_rng(1)
votes = rng.dirichlet(np.ones(3), size=(3, 16)).astype(np.float32)
votes[:, 0] = [[.5, .4, .1], [.1, .5, .4], [.1, .4, .5]]  # a vote for each
out["votes"] = votes
out["votes_soft_123"] = np.average(votes, axis=0, weights=[1, 2, 3])
out["votes_hard"] = [np.bincount(row, minlength=3).argmax() for row in votes.argmax(2).T]

folds = [(np.flatnonzero(np.arange(len(x)) % 4 != k), np.flatnonzero(np.arange(len(x)) % 4 == k))
         for k in range(4)]
for key, y, through in [("stack2", y2, False), ("stack3", y3, True)]:
    first = [("normal", GaussianNB()), ("logistic", LogisticRegression(C=2, tol=1e-10, max_iter=9999))]
    model = StackingClassifier(first, LogisticRegression(tol=1e-10, max_iter=99999), cv=folds,
                               passthrough=through).fit(x, y)
    out[key] = model.predict_proba(xt)
model = StackingRegressor([("a", Ridge(alpha=3)), ("b", Ridge(alpha=40))], Ridge(alpha=1), cv=folds)
out["stack_regressor"] = model.fit(x, yr).predict(xt)

with open(here / "ensembles.txt", "w") as file:
    for key, values in out.items():
        file.write(key + "".join(f" {v:.9g}" for v in np.ravel(values)) + "\n")
