# SPDX-License-Identifier: Apache-2.0
"""Writes learners.txt: what scikit-learn's simple learners make of a small data set.

python make_learners.py      (scikit-learn 1.9.1, numpy 2.4.6)
"""
import pathlib

import numpy as np
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.naive_bayes import GaussianNB, MultinomialNB
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.svm import LinearSVC

rng = np.random.default_rng(7)
n, p, t = 90, 5, 12
scale = [1, 1, 1, 32, 1]
x = (np.round(rng.normal(size=(n + t, p)) * 64) / 64).astype(np.float32)
x[:, 3] *= 32
x[:, 4] = (x[:, 0] + x[:, 1]).astype(np.float32)  # dependent: least squares has many minimisers
score = np.stack([x[:, 0], x[:, 1] - 0.5, x[:, 2] * x[:, 0] + 0.03 * x[:, 3]], 1)
y3 = (score + 0.7 * rng.normal(size=score.shape)).argmax(1)
y2 = (y3 > 0).astype(int)
yr = (score.sum(1) + rng.normal(size=n + t)).round(3).astype(np.float32)
w = (rng.integers(0, 4, size=n) / 2).astype(np.float32)
counts = np.floor(np.abs(x) * 3)
out = {"x": x[:n], "xt": x[n:], "y3": y3[:n], "y2": y2[:n], "yr": yr[:n], "w": w}
x, xt, y3, y2, yr = (a.astype(np.float64) if a.dtype == np.float32 else a
                     for a in (x[:n], x[n:], y3[:n], y2[:n], yr[:n]))

for name, model in [("linear", LinearRegression()), ("ridge", Ridge(alpha=2.5))]:
    model.fit(x, yr, w)
    out[name] = np.append(model.coef_, model.intercept_)
for name, y in [("logistic2", y2), ("logistic3", y3)]:
    model = LogisticRegression(C=0.5, tol=1e-12, max_iter=100000).fit(x, y, w)
    out[name] = model.predict_proba(xt)
for loss in ("hinge", "squared_hinge"):
    for k, y in [("2", y2), ("3", y3)]:
        model = LinearSVC(C=0.3, loss=loss, dual=True, tol=1e-10, max_iter=10000000)
        out["svm_" + loss + k] = model.fit(x / scale, y, w).decision_function(
            xt / scale)
out["gaussian"] = GaussianNB().fit(x, y3).predict_proba(xt)
out["multinomial"] = MultinomialNB(alpha=0.7).fit(counts[:n], y3, w).predict_proba(counts[n:])
for vote in ("uniform", "distance"):
    out["knn_" + vote] = KNeighborsClassifier(7, weights=vote).fit(x, y3).predict_proba(xt)
    out["knn_regressor_" + vote] = KNeighborsRegressor(4, weights=vote).fit(x, yr).predict(xt)

with open(pathlib.Path(__file__).with_name("learners.txt"), "w") as file:
    for key, values in out.items():
        file.write(key + "".join(f" {v:.9g}" for v in np.ravel(values)) + "\n")
