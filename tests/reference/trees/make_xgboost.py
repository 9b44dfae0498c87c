#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Copies XGBoost's models and what it predicts with them from a directory of references.

    python3 make_xgboost.py DIRECTORY

DIRECTORY holds, for each model (trained by xgboost 3.2.0 on 311 rows of 9 features with about 15 %
missing), `xgb_<name>.json`, most also as `.ubj`, its margins on the 64 rows of `Xt.npy`
(`_margin.npy`), the leaves (`_leaf.npy`), Shapley values (`_shap.npy`) and interactions of 8 rows
(`_shap_inter.npy`), and importances in `meta.json`. The ranking models' margins are on `rank_X.npy`.
For the models with categories the unseen code 17 in row 2 was replaced by 11 before predicting.
"""

import json
import pathlib
import shutil
import sys


def main() -> None:
    source = pathlib.Path(sys.argv[1])
    here = pathlib.Path(__file__).parent
    for path in sorted(source.glob("xgb_*.json")):
        for suffix in (
            ".json",
            ".ubj",
            "_margin.npy",
            "_leaf.npy",
            "_shap.npy",
            "_shap_inter.npy",
        ):
            file = source / (path.stem + suffix)
            if file.exists():
                shutil.copy(file, here / file.name)
                (here / file.name).chmod(0o644)
    for name in ("Xt.npy", "rank_X.npy"):
        shutil.copy(source / name, here / name)
        (here / name).chmod(0o644)
    lines = []
    for model, kinds in json.loads((source / "meta.json").read_text())["imp"].items():
        for kind, values in kinds.items():
            numbers = [values.get(f"f{f}", 0.0) for f in range(9)]
            lines.append(" ".join([f"xgb_{model}", kind] + [repr(v) for v in numbers]))
    (here / "xgb_importance.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
