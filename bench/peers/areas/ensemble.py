# SPDX-License-Identifier: Apache-2.0
"""Ensembles against scikit-learn, and forests against LightGBM's boosting=rf.

Everybody gets the same float32 rows. What is measured:

  fit, s     a forest of 100 trees from the float rows: Gini, trees grown out, the square root of the
             features' number in each node; random forests with bootstrap samples, extra trees
             without. LightGBM's rf has what comes nearest, 30 trees as well, but 3 of each class:
             255 leaves of at least one row, 255 bins, 63 % of the rows, 1/28 of the features in a
             node. AdaBoost (SAMME): trees of depth 3 on all features.
  MB         peak resident memory of a fresh process over what it held with the float rows loaded,
             while it grows the same forest (of the larger set).
  krow/s     class probabilities of 10,000 float rows in one call.

Quality is the accuracy on 10,000 held-out rows.
"""

import os
import time

import numpy

from area import Case, Peer, PythonPeer
from areas import boosting_data

DRIVER = "ensemble_driver"
FORESTS = {"forest": "RandomForestClassifier", "extra": "ExtraTreesClassifier"}


class Sklearn(PythonPeer):
    def __init__(self):
        super().__init__()
        import sklearn.ensemble

        self.library, self.model, self.trained, self.answer = sklearn, None, None, None

    def describe(self):
        return f"scikit-learn {self.library.__version__}"

    def forget(self):
        super().forget()
        self.model, self.trained, self.answer = None, None, None

    def make(self, options):
        if options["kind"] == "adaboost":
            import sklearn.tree

            tree = sklearn.tree.DecisionTreeClassifier(max_depth=3)
            return self.library.ensemble.AdaBoostClassifier(tree, n_estimators=options["trees"],
                                                            random_state=1)
        make = getattr(self.library.ensemble, FORESTS[options["kind"]])
        return make(options["trees"], n_jobs=self.threads, random_state=1)

    def fit(self, options):
        model = self.make(options)
        return model.fit(self.arrays["x"], self.arrays["y"].astype(numpy.int32))

    def probabilities(self, model, rows):
        return model.predict_proba(rows)

    def prepare(self, case, **options):
        if case == "model" and self.trained != options:
            self.trained, self.model = options, self.fit(options)

    def run(self, case, inner=1, **options):
        if case == "memory":
            from worker import memory

            before = memory(["reset"])["rss_mb"]
            self.fit(options)
            return {"value": memory([])["peak_mb"] - before}
        start = time.perf_counter()
        if case == "fit":
            self.trained, self.model = options, self.fit(options)
        elif case == "predict":
            for _ in range(inner):
                self.answer = self.probabilities(self.model, self.arrays["xv"])
        else:
            raise ValueError(f"no case {case}")
        seconds = (time.perf_counter() - start) / inner
        if case == "fit":
            self.answer = self.probabilities(self.model, self.arrays["xv"])
        return {"seconds": seconds}

    def output(self):
        return numpy.asarray(self.answer, dtype=numpy.float32)


class Lightgbm(Sklearn):
    """LightGBM's random forests; it has no extra trees of this kind."""

    def __init__(self):
        super().__init__()
        import lightgbm

        self.library = lightgbm

    def describe(self):
        return f"lightgbm {self.library.__version__} rf"

    def fit(self, options):
        parameters = {"boosting": "rf", "objective": "multiclass", "num_class": 10, "max_bin": 255,
                      "num_leaves": 255, "min_data_in_leaf": 1, "min_sum_hessian_in_leaf": 0,
                      "bagging_freq": 1, "bagging_fraction": 0.63,
                      "feature_fraction_bynode": 1 / 28, "num_threads": self.threads, "seed": 1,
                      "verbosity": -1}
        data = self.library.Dataset(self.arrays["x"], label=self.arrays["y"])
        return self.library.train(parameters, data, options["trees"] // 10)  # one a class each

    def probabilities(self, model, rows):
        return model.predict(rows)


PEERS = {"sklearn": Peer(make=Sklearn), "lightgbm": Peer(make=Lightgbm)}


def accuracy(file):
    def quality(answer, folder):
        labels = numpy.load(os.path.join(folder, file))
        return numpy.mean(answer.reshape(len(labels), -1).argmax(axis=1) == labels)

    return quality


def forest_cases(folder, rows, trees, repeats, memory):
    """Random forests and extra trees on rows of Fashion-MNIST."""
    images = boosting_data.fashion_files(folder, rows, 10_000)
    name = f"Fashion-MNIST {rows // 1000}k x {trees} trees"
    judge = accuracy(images["yv"])
    for kind, label in (("forest", "random forest"), ("extra", "extra trees")):
        words = f"kind={kind} trees={trees}"
        yield Case(name=f"{label} fit, {name}", metric="s", run=f"fit {words}", higher=False,
                   peers=("sklearn",), data=images, slot=0, repeats=repeats, quality=judge,
                   cold=repeats == 1)
        if memory:
            yield Case(name=f"{label} memory, {name}", metric="MB", run=f"memory {words}",
                       higher=False, peers=("sklearn",), data=images, slot=0, repeats=1, fresh=True)
        yield Case(name=f"{label} predict, {name}", metric="krow/s", run="predict", work=10,
                   peers=("sklearn",), data=images, prepare=f"model {words}", quality=judge)
    if rows <= 10_000:
        yield Case(name=f"random forest fit, Fashion-MNIST {rows // 1000}k x 30 trees", metric="s",
                   run="fit kind=forest trees=30", higher=False, peers=("lightgbm",), data=images,
                   slot=0, repeats=1, quality=judge)


def adaboost_case(folder, rows, trees):
    images = boosting_data.fashion_files(folder, rows, 10_000)
    return Case(name=f"AdaBoost fit, Fashion-MNIST {rows // 1000}k x {trees} trees", metric="s",
                run=f"fit kind=adaboost trees={trees}", higher=False, peers=("sklearn",),
                data=images, slot=0, repeats=1, cold=True, quality=accuracy(images["yv"]))


def cases(folder, quick):
    if os.path.isdir(boosting_data.FASHION):
        yield from forest_cases(folder, 6_000 if quick else 10_000, 20 if quick else 100, 3, quick)
        yield adaboost_case(folder, 2_000, 5 if quick else 50)
        if not quick:
            yield from forest_cases(folder, 60_000, 100, 1, True)
