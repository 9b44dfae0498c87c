# SPDX-License-Identifier: Apache-2.0
"""Stochastic gradients of logistic regression against scikit-learn: 100,000 rows of 100 columns.

The objective of both is mean log-loss + l2/2 |w|^2 with l2 = 1e-4, without an intercept; quality is
the objective's distance from its least value (found by Newton's method in float64).

sgd: milliseconds an epoch of a run of 5. quern takes mini-batches of 32 in a new random order each
epoch with its default steps; SGDClassifier takes single rows (it has nothing else), shuffled, with
its default schedule. "equal loss" means: the quality column must not be worse on our side.

saga, svrg: milliseconds until the distance is below a gap. Both sides look once for the least
number of epochs that reaches it, which is not timed, and are then timed on a whole run of that many
from zeros. SVRG's epochs include their full gradient. The peer is LogisticRegression(solver="saga")
for both: scikit-learn has no SVRG. Its random order is not quern's.
"""

import time
import warnings

import numpy

from area import Case, Peer, PythonPeer, cached

DRIVER = "stochastic_driver"
ROWS, COLUMNS, L2, EPOCHS = 100_000, 100, 1e-4, 5
DTYPES = {"f32": numpy.float32, "f64": numpy.float64}


def objective(w, x, y):
    margin = x @ w
    return numpy.mean(numpy.logaddexp(0, margin) - y * margin) + L2 / 2 * (w @ w)


class Sklearn(PythonPeer):
    """SGDClassifier and LogisticRegression's saga, through fit()."""

    def __init__(self):
        super().__init__()
        import sklearn
        import sklearn.linear_model

        self.sklearn, self.epochs, self.w = sklearn, {}, None
        warnings.filterwarnings("ignore")  # that a fixed number of epochs has not converged

    def describe(self):
        return f"scikit-learn {self.sklearn.__version__}"

    def forget(self):
        super().forget()
        self.epochs = {}

    def fit(self, case, epochs):
        models, x, y = self.sklearn.linear_model, self.arrays["x"], self.arrays["y"]
        if case == "sgd":
            model = models.SGDClassifier(loss="log_loss", alpha=L2, fit_intercept=False,
                                         max_iter=epochs, tol=None, random_state=1)
        else:
            model = models.LogisticRegression(solver="saga", C=1 / (L2 * len(y)), tol=1e-30,
                                              fit_intercept=False, max_iter=epochs, random_state=1)
        self.w = model.fit(x, y).coef_[0].astype(numpy.float64)

    def prepare(self, case, gap="0", **options):
        if case == "sgd":
            self.epochs[case] = EPOCHS
            return
        x, y = self.arrays["x"].astype(numpy.float64), self.arrays["y"].astype(numpy.float64)
        least = objective(self.arrays["optimum"], x, y)
        epochs = 1
        while epochs < 200:
            self.fit(case, epochs)
            if objective(self.w, x, y) - least < float(gap):
                break
            epochs += 1
        self.epochs[case] = epochs

    def run(self, case, inner=1, **options):
        start = time.perf_counter()
        for _ in range(inner):
            self.fit(case, self.epochs[case])
        return {"seconds": (time.perf_counter() - start) / inner}

    def output(self):
        return self.w


PEERS = {"sklearn": Peer(make=Sklearn)}


def rows(dtype):
    return numpy.random.default_rng(1).uniform(-1, 1, (ROWS, COLUMNS)).astype(dtype)


def labels(dtype):
    random = numpy.random.default_rng(2)
    w = 0.3 * random.standard_normal(COLUMNS)
    p = 1 / (1 + numpy.exp(-(rows(numpy.float64) @ w)))
    return (random.uniform(size=ROWS) < p).astype(dtype)


def optimum(dtype):
    x, y = rows(dtype).astype(numpy.float64), labels(numpy.float64)
    w = numpy.zeros(COLUMNS)
    for _ in range(8):
        p = 1 / (1 + numpy.exp(-(x @ w)))
        hessian = (x * (p * (1 - p))[:, None]).T @ x / ROWS + L2 * numpy.eye(COLUMNS)
        w -= numpy.linalg.solve(hessian, x.T @ (p - y) / ROWS + L2 * w)
    return w


def distance(files):
    def quality(answer, folder):
        x, y, best = (numpy.load(f"{folder}/{files[k]}").astype(numpy.float64)
                      for k in ("x", "y", "optimum"))
        return objective(answer.astype(numpy.float64), x, y) - objective(best, x, y)

    return quality


def cases(folder, quick):
    for kind in ("f32",) if quick else ("f32", "f64"):
        dtype = DTYPES[kind]
        files = {
            "x": cached(folder, f"stochastic-x-{kind}", lambda: rows(dtype)),
            "y": cached(folder, f"stochastic-y-{kind}", lambda: labels(dtype)),
            "optimum": cached(folder, f"stochastic-w-{kind}", lambda: optimum(dtype)),
        }
        gap = 1e-5 if kind == "f32" else 1e-8
        bytes_moved = ROWS * COLUMNS * numpy.dtype(dtype).itemsize
        yield Case(
            name=f"sgd {kind}, epoch",
            metric="ms",
            run=f"sgd type={kind} batch=32 epochs={EPOCHS}",
            prepare="sgd",
            work=1e3 / EPOCHS,
            higher=False,
            peers=("sklearn",),
            data=files,
            quality=distance(files),
            limit=lambda limits, threads, moved=bytes_moved: (
                moved * 1e-6 / limits["read"] if limits.get("read") else None),
        )
        for method in ("saga", "svrg"):
            yield Case(
                name=f"{method} {kind}, to {gap:g}",
                metric="ms",
                run=f"{method} type={kind}",
                prepare=f"{method} type={kind} gap={gap}",
                work=1e3,
                higher=False,
                peers=("sklearn",),
                data=files,
                quality=distance(files),
            )
