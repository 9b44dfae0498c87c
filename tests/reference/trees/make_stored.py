#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes stored.txt from a directory of references: lines of a key and numbers.

    python3 make_stored.py DIRECTORY

DIRECTORY holds what xgboost 3.2.0, lightgbm 4.7.0 and scikit-learn 1.9.1 gave on 311 rows of nine
features: predictions of the models on Xt.npy (`<model>.pred`), quantile cuts of X.npy for max_bin 8
(`cuts8.ptr`, `.val`; `cuts8_w`: weighted by w.npy) and votes of three members (`vote.inputs`:
member, row, class).
"""

import pathlib
import sys

import numpy


def main() -> None:
    source = pathlib.Path(sys.argv[1])
    here = pathlib.Path(__file__).parent
    lines = []

    def put(key, values):
        lines.append(" ".join([key] + [f"{v:.9g}" for v in numpy.ravel(values).astype(float)]))

    for path in sorted(source.glob("*_pred.npy")):
        if path.stem.startswith(("xgb_", "lgb_")):
            put(path.stem.replace("_pred", ".pred"), numpy.load(path))
    for name in ("cuts8", "cuts8_w"):
        for part in ("ptr", "val"):
            put(f"{name}.{part}", numpy.load(source / f"xgb_{name}_{part}.npy"))
    put("vote.inputs", numpy.load(source / "sk_vote_inputs.npy"))
    put("vote.soft_123", numpy.load(source / "sk_vote_soft_123.npy"))
    put("vote.hard", numpy.load(source / "sk_vote_hard.npy"))
    (here / "stored.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
