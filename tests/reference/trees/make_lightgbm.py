#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Copies LightGBM's and CatBoost's models and what they predict with them.

    python3 make_lightgbm.py DIRECTORY

DIRECTORY holds, for each model (trained by lightgbm 4.7.0 and catboost 1.2.10 on 311 rows of 9
features with about 15 % missing), `lgb_<name>.txt` or `cat_<name>.json`, its margins on the 64 rows
of `Xt.npy` (`_margin.npy`, doubles) and LightGBM's leaf numbers (`_leaf.npy`). The ranking model's
margins are on `rank_X.npy`; those of `lgb_rf` are the sum over its trees. Of the texts the list of
parameters is left out, and of the JSON all but what prediction needs.
"""

import json
import pathlib
import re
import shutil
import sys


def main() -> None:
    source = pathlib.Path(sys.argv[1])
    here = pathlib.Path(__file__).parent
    for path in sorted(source.glob("lgb_*.txt")):
        text = path.read_text()
        text = re.sub(r"\nparameters:.*\nend of parameters\n", "\nparameters:\nend of parameters\n", text, flags=re.S)
        (here / path.name).write_text(text)
    for path in sorted(source.glob("cat_*.json")):
        model = json.loads(path.read_text())
        loss = model["model_info"]["params"]["loss_function"]
        model["model_info"] = {"params": {"loss_function": loss}}
        (here / path.name).write_text(json.dumps(model) + "\n")
    for path in sorted(source.glob("lgb_*.npy")) + sorted(source.glob("cat_*.npy")):
        if path.stem.endswith(("_margin", "_leaf")):
            shutil.copy(path, here / path.name)
            (here / path.name).chmod(0o644)


if __name__ == "__main__":
    main()
