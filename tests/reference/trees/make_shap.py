#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Copies LightGBM's and CatBoost's Shapley values from a directory of references, as floats.

    python3 make_shap.py DIRECTORY

DIRECTORY holds `lgb_<name>_shap.npy` (lightgbm 4.7.0, pred_contrib) and `cat_<name>_shap.npy`
(catboost 1.2.10, ShapValues) of the 64 rows of `Xt.npy`, the mean last; with several classes
class-major within a row. lgb_rf's are sums over the trees.
"""

import pathlib
import sys

import numpy


def main() -> None:
    source, here = pathlib.Path(sys.argv[1]), pathlib.Path(__file__).parent
    for path in sorted([*source.glob("lgb_*_shap.npy"), *source.glob("cat_*_shap.npy")]):
        values = numpy.load(path)
        numpy.save(here / path.name, numpy.ascontiguousarray(values, dtype=numpy.float32))


if __name__ == "__main__":
    main()
