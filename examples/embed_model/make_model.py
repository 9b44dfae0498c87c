#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Trains a model with Python's XGBoost, for embed_model to serve: make_model.py [FOLDER].

Writes model.ubj, rows.csv (with missing values) and expected.csv (what XGBoost predicts for them).
"""

import os
import sys

import numpy as np
import xgboost

folder = sys.argv[1] if len(sys.argv) > 1 else "."
random = np.random.default_rng(1)
x = random.normal(size=(5000, 8)).astype(np.float32)
y = x[:, 0] * x[:, 1] + x[:, 2] > 0
x[random.uniform(size=x.shape) < 0.1] = np.nan
params = {"objective": "binary:logistic", "max_depth": 6, "eta": 0.1}
model = xgboost.train(params, xgboost.DMatrix(x[1000:], y[1000:]), 100)
model.save_model(os.path.join(folder, "model.ubj"))
with open(os.path.join(folder, "rows.csv"), "w") as rows:
    for row in x[:1000]:
        rows.write(",".join("" if np.isnan(v) else repr(float(v)) for v in row) + "\n")
np.savetxt(os.path.join(folder, "expected.csv"), model.predict(xgboost.DMatrix(x[:1000])), "%.6g")
