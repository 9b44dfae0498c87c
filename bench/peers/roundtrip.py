# SPDX-License-Identifier: Apache-2.0
"""Takes models through each format to the peers and back: `roundtrip.py --build DIR`.

Models that quern trained are loaded by XGBoost (JSON, UBJ) and LightGBM (text), models that XGBoost,
LightGBM and CatBoost trained by quern, and both are converted on to the other formats. Each row of the table compares
margins on rows with missing values. Exits with 1 where one differs by more than its tolerance.
Usually called by `sh bench/run.sh roundtrip`.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import warnings

import numpy as np

warnings.filterwarnings("ignore")

# Margins are sums in double here and in LightGBM and CatBoost, in float in XGBoost.
TOLERANCE = {"XGBoost": 2e-5, "LightGBM": 1e-9, "CatBoost": 1e-9}


def data(rows, seed):
    """Features (float32, 10 % missing, the last a category), and a target for each objective."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(rows, 6)).astype(np.float32)
    x[:, 4] = np.round(x[:, 4] * 2)  # ties, zeros
    x[:, 5] = random.integers(0, 7, rows)
    score = x[:, 0] + x[:, 1] * x[:, 2] + np.sin(x[:, 5] * 2) + 0.3 * random.normal(size=rows)
    x[:, :4][random.uniform(size=(rows, 4)) < 0.1] = np.nan
    labels = {
        "reg:squarederror": score,
        "binary:logistic": score > 0,
        "multi:softprob": np.digitize(score, [-1, 1]),
        "count:poisson": np.floor(np.exp(np.clip(score, -3, 2))),
    }
    return x, {name: y.astype(np.float32) for name, y in labels.items()}


class Table:
    def __init__(self):
        self.bad = 0
        print(f"{'trained by':<10} {'model':<28} {'read by':<9} {'as':<16} {'largest difference':>18}")

    def row(self, maker, model, reader, form, expected, got):
        expected, got = np.asarray(expected, float), np.asarray(got, float)
        same = expected.size == got.size
        difference = np.abs(expected.ravel() - got.ravel()).max() if same else np.inf
        peer = reader if reader != "quern" else maker
        limit = TOLERANCE.get(peer, 1e-9) * max(1.0, np.abs(expected).max())
        if "XGBoost" in form:
            limit = max(limit, TOLERANCE["XGBoost"] * max(1.0, np.abs(expected).max()))
        verdict = "" if difference <= limit else "   TOO LARGE"
        self.bad += verdict != ""
        print(f"{maker:<10} {model:<28} {reader:<9} {form:<16} {difference:>18.2e}{verdict}", flush=True)


class Quern:
    def __init__(self, program, folder):
        self.program, self.folder = program, folder

    def call(self, *words):
        done = subprocess.run([self.program, *map(str, words)], capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(map(str, words))}: {done.stderr.strip()}")

    def path(self, name):
        return os.path.join(self.folder, name)

    def array(self, name, values):
        np.save(self.path(name), values)
        return self.path(name)

    def margins(self, model, x):
        self.call("margins", model, self.array("rows.npy", x), self.path("margins.npy"))
        return np.load(self.path("margins.npy"))

    def convert(self, model, ending):
        to = self.path("converted" + ending)
        self.call("convert", model, to)
        return to


FORMS = ((".json", "XGBoost JSON"), (".ubj", "XGBoost UBJ"), (".txt", "LightGBM text"))


def xgboost_margins(path, x, categorical):
    import xgboost

    types = ["q"] * 5 + ["c"] if categorical else None
    rows = xgboost.DMatrix(x, feature_types=types, enable_categorical=True)
    return xgboost.Booster(model_file=path).predict(rows, output_margin=True)


def lightgbm_margins(path, x):
    import lightgbm

    return lightgbm.Booster(model_file=path).predict(x.astype(float), raw_score=True)


def send(quern, table, maker, name, model, x, categorical, linear=False):
    """A model that quern can read, to both peers in each format, and back from it."""
    expected = quern.margins(model, x)
    for ending, form in FORMS:
        if linear and ending == ".txt":
            continue
        path = quern.convert(model, ending)
        if ending == ".txt":
            table.row(maker, name, "LightGBM", form, expected, lightgbm_margins(path, x))
        else:
            table.row(maker, name, "XGBoost", form, expected, xgboost_margins(path, x, categorical))
        table.row(maker, name, "quern", form, expected, quern.margins(path, x))


def of_quern(quern, table, x, labels, xt):
    for objective, y in labels.items():
        for booster in ("gbtree", "dart", "gblinear"):
            if booster == "dart" and objective != "binary:logistic":
                continue
            for column in ([], ["5"]) if booster == "gbtree" else ([],):
                model = quern.path("trained.quern")
                classes = 3 if objective == "multi:softprob" else 0
                files = quern.array("x.npy", x), quern.array("y.npy", y)
                quern.call("train", *files, model, objective, classes, booster, *column)
                name = f"{objective} {booster}" + (" cat" if column else "")
                send(quern, table, "quern", name, model, xt, bool(column), booster == "gblinear")


def of_xgboost(quern, table, x, labels, xt):
    import xgboost

    for objective, y in labels.items():
        for booster in ("gbtree", "dart", "gblinear"):
            for categorical in (False, True) if booster == "gbtree" else (False,):
                types = ["q"] * 5 + ["c"] if categorical else None
                rows = xgboost.DMatrix(x, y, feature_types=types, enable_categorical=True)
                params = {"objective": objective, "booster": booster, "max_depth": 5, "nthread": 1}
                if objective == "multi:softprob":
                    params["num_class"] = 3
                if booster == "dart":
                    params["rate_drop"] = 0.3
                model = xgboost.train(params, rows, 12)
                test = xgboost.DMatrix(xt, feature_types=types, enable_categorical=True)
                expected = model.predict(test, output_margin=True)
                name = f"{objective} {booster}" + (" cat" if categorical else "")
                for ending, form in FORMS[:2]:
                    path = quern.path("xgboost" + ending)
                    model.save_model(path)
                    table.row("XGBoost", name, "quern", form, expected, quern.margins(path, xt))
                send(quern, table, "XGBoost", name, path, xt, categorical, booster == "gblinear")


def of_lightgbm(quern, table, x, labels, xt):
    import lightgbm

    names = {"reg:squarederror": "regression", "binary:logistic": "binary"}
    names |= {"multi:softprob": "multiclass", "count:poisson": "poisson"}
    variants = {
        "": {},
        "cat": {"categorical_feature": [5]},
        "zeros missing": {"zero_as_missing": True},
        "no missing": {"use_missing": False},
        "linear": {"linear_tree": True},
        "rf": {"boosting": "rf", "bagging_fraction": 0.6, "bagging_freq": 1},
        "dart": {"boosting": "dart"},
    }
    for objective, y in labels.items():
        for variant, more in variants.items():
            if variant == "linear" and objective != "reg:squarederror":
                continue
            params = {"objective": names[objective], "num_leaves": 15, "verbosity": -1}
            params |= {"num_threads": 1, "num_class": 3 if objective == "multi:softprob" else 1}
            wide = x.astype(float)
            model = lightgbm.train(params | more, lightgbm.Dataset(wide, y, params=more), 12)
            expected = model.predict(xt.astype(float), raw_score=True)
            if variant == "rf":
                expected = expected / 12  # a forest's margin is the mean of its trees
            path = quern.path("lightgbm.txt")
            model.save_model(path)
            name = f"{names[objective]} {variant}".strip()
            table.row("LightGBM", name, "quern", "LightGBM text", expected, quern.margins(path, xt))
            text = quern.convert(path, ".txt")
            table.row("LightGBM", name, "LightGBM", "LightGBM text", expected, lightgbm_margins(text, xt))
            if variant in ("zeros missing", "linear"):
                continue  # what XGBoost's formats cannot hold
            path = quern.convert(path, ".ubj")
            back = xgboost_margins(path, xt, variant == "cat")
            table.row("LightGBM", name, "XGBoost", "XGBoost UBJ", expected, back)


def of_catboost(quern, table, x, labels, xt):
    import catboost

    losses = {"reg:squarederror": "RMSE", "binary:logistic": "Logloss"}
    losses |= {"multi:softprob": "MultiClass", "count:poisson": "Poisson"}
    for objective, y in labels.items():
        loss = losses[objective]
        model = catboost.CatBoost(
            {"loss_function": loss, "iterations": 12, "depth": 5, "thread_count": 1,
             "allow_writing_files": False, "verbose": False}
        )
        model.fit(x, y)
        path = quern.path("catboost.json")
        model.save_model(path, format="json")
        expected = model.predict(xt, prediction_type="RawFormulaVal")
        table.row("CatBoost", loss, "quern", "CatBoost JSON", expected, quern.margins(path, xt))
        text = quern.convert(path, ".txt")
        table.row("CatBoost", loss, "LightGBM", "LightGBM text", expected, lightgbm_margins(text, xt))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", default="build", help="folder that holds the built programs")
    parser.add_argument("--program", help="the program peers_formats, where it is elsewhere")
    options = parser.parse_args()
    program = options.program or os.path.join(options.build, "bench", "peers", "peers_formats")
    x, labels = data(2000, 1)
    xt, _ = data(500, 2)
    table = Table()
    with tempfile.TemporaryDirectory() as folder:
        quern = Quern(program, folder)
        for part in (of_quern, of_xgboost, of_lightgbm, of_catboost):
            part(quern, table, x, labels, xt)
    if table.bad:
        print(f"{table.bad} differ by more than their tolerance")
    return 1 if table.bad else 0


if __name__ == "__main__":
    sys.exit(main())
