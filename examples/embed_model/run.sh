#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Trains a model with Python's XGBoost and serves it. Called by examples/run.sh, with the folder for
# results as argument. QUERN_PYTHON names a Python that has xgboost; without one, a stored model of
# XGBoost's is served.

set -eu
out=$1
python=${QUERN_PYTHON:-python3}
if "$python" -c "import xgboost" 2>/dev/null; then
  "$python" examples/embed_model/make_model.py "$out"
  "$QUERN_EXAMPLE_BIN" "$out/model.ubj" "$out/rows.csv" >"$out/predictions.csv"
  # Both columns side by side; an error if they differ by more than float sums may.
  paste -d ' ' "$out/predictions.csv" "$out/expected.csv" | awk '
    { d = $1 - $2; if (d < 0) d = -d; if (d > worst) worst = d }
    END { printf "%d rows, largest difference from XGBoost: %g\n", NR, worst; exit worst > 1e-5 }'
else
  echo "no xgboost for $python: a stored model of XGBoost's, rows from stdin"
  printf '%s\n' "0.5,-1,0.3,1.2,,0,0.1,2,3" ",,,,,,,," |
    "$QUERN_EXAMPLE_BIN" tests/reference/trees/xgb_bin.ubj | tee "$out/predictions.csv"
fi
