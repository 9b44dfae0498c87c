# SPDX-License-Identifier: Apache-2.0
"""Histogram boosting against XGBoost, LightGBM (also with quantised gradients) and CatBoost.

Everybody gets the same float32 rows, max_bin 255, learning rate 0.1, lambda 1, smallest hessian 1,
no sampling, and the same number of rounds. What is measured:

  ms/round   rounds on data that is binned already. The first round, in which the libraries set
             things up, is on nobody's clock: R rounds are timed after one. CatBoost's and quern's
             times come from a callback after each round, the others' from the update calls.
  bin, s     from the float array to what the rounds work on: xgboost.QuantileDMatrix,
             lightgbm.Dataset.construct, catboost.Pool + quantize, quern::tree::bin.
  fit, s     all of it: binning, set-up and rounds.
  MB         peak resident memory of a fresh process over what it held with the float rows loaded,
             while it bins and trains 10 rounds.
  Mrow/s     margins of 200,000 float rows in one call, into memory that the library returns.
  krow/s     Shapley values of 1000 float rows in one call (pred_contribs and their like), from the
             same models; quality is the AUC of their sums, which are the margins.
  us/row     one row a call, from C: the call is made in a loop in C++ (rows.cpp) through the C API:
             LightGBM's fast single row, XGBoost's predict from dense; CatBoost's only from Python.

Symmetric trees are CatBoost's against quern's (grow_policy symmetric), CatBoost's from a Pool that
is made before the clock starts, quern's from the floats.

CatBoost grows symmetric trees at depth 6 (its own method), LightGBM 64 leaves at most 6 deep. For
ten classes XGBoost takes the hessian 2p(1-p), LightGBM 10/9 p(1-p) and CatBoost p(1-p), which step
further in a round: quern takes each one's own against it, so that the accuracies after the few
rounds that are judged here compare.
Prediction is of each library's own model, trained on 200,000 rows. Quality is AUC (accuracy for ten
classes) on held-out rows, after `QUALITY` rounds (ten for Fashion-MNIST, since some take seconds).
"""

import ctypes
import os
import time

import numpy

from area import Case, Peer, PythonPeer
from areas import boosting_data
from sides import find_program

DRIVER = "boosting_driver"
QUALITY = 40
ROWS = 1000  # single rows that a pass predicts, one a call
TRAINERS = ("xgboost", "lightgbm", "lightgbm-quantised", "catboost")
PLAIN = ("xgboost", "lightgbm", "catboost")


class Booster(PythonPeer):
    """What the libraries share; a sub-class says how to bin, train and predict."""

    def __init__(self):
        super().__init__()
        self.binned, self.model, self.trained, self.answer = None, None, None, None

    def forget(self):
        super().forget()
        self.binned, self.model, self.trained, self.answer = None, None, None, None

    def features(self, held_out=False):
        """The rows as the libraries take them: a float32 array or a scipy CSR matrix."""
        tail = "v" if held_out else ""
        if "x" + tail in self.arrays:
            return self.arrays["x" + tail]
        from scipy.sparse import csr_matrix

        parts = tuple(self.arrays[name + tail] for name in ("values", "columns", "offsets"))
        return csr_matrix(parts, shape=(len(parts[2]) - 1, 1000))

    def bin(self):
        """Binned training data."""
        raise NotImplementedError

    def rounds(self, binned, rounds, options):
        """Trains 1 + rounds rounds; returns the model and the seconds of all but the first."""
        raise NotImplementedError

    def margins(self, model, rows):
        raise NotImplementedError

    def shap(self, model, rows):
        """Shapley values (rows, features + 1)."""
        raise NotImplementedError

    def prepare(self, case, **options):
        if case == "train" and self.binned is None:
            self.binned = self.bin()
        if case == "model" and self.trained != options:
            self.trained = options
            self.model = self.rounds(self.bin(), options["trees"] - 1, options)[0]

    def run(self, case, inner=1, **options):
        start = time.perf_counter()
        if case == "bin":
            binned = self.bin()
        elif case == "train":
            return {"seconds": self.rounds(self.binned, options["rounds"], options)[1]}
        elif case == "fit":
            self.rounds(self.bin(), options["rounds"] - 1, options)
        elif case == "quality":
            model, _ = self.rounds(self.binned, options["rounds"] - 1, options)
            self.answer = self.margins(model, self.features(held_out=True))
        elif case == "memory":
            return self.memory(options)
        elif case == "predict":
            for _ in range(inner):
                self.answer = self.margins(self.model, self.arrays["xv"])
        elif case == "shap":
            for _ in range(inner):
                self.answer = self.shap(self.model, self.arrays["xv"][:ROWS])
            seconds = (time.perf_counter() - start) / inner
            self.answer = self.answer.sum(axis=1)
            return {"seconds": seconds}
        elif case == "row":
            return {"seconds": ROWS * self.rows(inner)}
        else:
            raise ValueError(f"no case {case}")
        return {"seconds": (time.perf_counter() - start) / inner}

    def memory(self, options):
        from worker import memory

        before = memory(["reset"])["rss_mb"]
        self.rounds(self.bin(), options["rounds"] - 1, options)
        return {"value": memory([])["peak_mb"] - before}

    def rows(self, inner):
        """Mean seconds of one row over `inner` passes through the first ROWS rows."""
        raise NotImplementedError

    def output(self):
        return numpy.asarray(self.answer)


def row_loops():
    """The C loops of rows.cpp, which CMake builds beside the drivers."""
    path = find_program(os.environ["PEERS_BUILD"], "libpeers_rows.so")
    if path is None:
        raise FileNotFoundError("libpeers_rows.so is not built")
    library = ctypes.CDLL(path)
    for name in ("peers_lightgbm_rows", "peers_xgboost_rows"):
        getattr(library, name).restype = ctypes.c_double
    return library


def address(function):
    return ctypes.cast(function, ctypes.c_void_p)


class Xgboost(Booster):
    def __init__(self):
        super().__init__()
        import xgboost

        self.library = xgboost

    def describe(self):
        return f"xgboost {self.library.__version__}"

    def bin(self):
        return self.library.QuantileDMatrix(self.features(), label=self.arrays["y"], max_bin=255,
                                            nthread=self.threads)

    def parameters(self, options):
        classes, leaves = options.get("classes", 1), options.get("leaves", 0)
        result = {"tree_method": "hist", "max_bin": 255, "eta": 0.1, "lambda": 1,
                  "min_child_weight": 1, "nthread": self.threads, "verbosity": 0,
                  "objective": "binary:logistic" if classes == 1 else "multi:softprob",
                  "max_depth": options.get("depth", 6)}
        if classes > 1:
            result["num_class"] = classes
        if leaves:
            result |= {"grow_policy": "lossguide", "max_leaves": leaves, "max_depth": 0}
        return result

    def rounds(self, binned, rounds, options):
        model = self.library.Booster(self.parameters(options), [binned])
        model.update(binned, 0)
        start = time.perf_counter()
        for i in range(rounds):
            model.update(binned, i + 1)
        return model, (time.perf_counter() - start) / max(1, rounds)

    def margins(self, model, rows):
        return model.inplace_predict(rows, predict_type="margin")

    def shap(self, model, rows):
        return model.predict(self.library.DMatrix(rows, nthread=self.threads), pred_contribs=True)

    def rows(self, inner):
        rows = numpy.ascontiguousarray(self.arrays["xv"][:ROWS])
        one = numpy.empty(rows.shape[1], dtype=numpy.float32)
        array = (f'{{"data": [{one.ctypes.data}, false], "shape": [1, {one.size}], '
                 '"typestr": "<f4", "version": 3}').encode()
        config = (b'{"type": 1, "training": false, "iteration_begin": 0, "iteration_end": 0, '
                  b'"strict_shape": true, "cache_id": 0, "missing": NaN}')
        self.answer = numpy.empty(len(rows), dtype=numpy.float64)
        function = self.library.core._LIB.XGBoosterPredictFromDense
        return row_loops().peers_xgboost_rows(
            address(function), self.model.handle, array, config, ctypes.c_void_p(one.ctypes.data),
            ctypes.c_void_p(rows.ctypes.data), ctypes.c_longlong(len(rows)),
            ctypes.c_longlong(one.size), ctypes.c_void_p(self.answer.ctypes.data),
            ctypes.c_longlong(inner))


class Lightgbm(Booster):
    quantised = False

    def __init__(self):
        super().__init__()
        import lightgbm

        self.library = lightgbm

    def describe(self):
        return f"lightgbm {self.library.__version__}"

    def parameters(self, options):
        classes, leaves = options.get("classes", 1), options.get("leaves", 0)
        depth = options.get("depth", 6)
        result = {"max_bin": 255, "learning_rate": 0.1, "lambda_l2": 1, "min_data_in_leaf": 1,
                  "min_sum_hessian_in_leaf": 1, "num_threads": self.threads, "verbosity": -1,
                  "feature_pre_filter": False,
                  "objective": "binary" if classes == 1 else "multiclass",
                  "num_leaves": leaves or 2**depth, "max_depth": -1 if leaves else depth}
        if classes > 1:
            result["num_class"] = classes
        if self.quantised:
            result["use_quantized_grad"] = True
        return result

    def bin(self):
        data = self.library.Dataset(self.features(), label=self.arrays["y"],
                                    params=self.parameters({}), free_raw_data=True)
        return data.construct()

    def rounds(self, binned, rounds, options):
        model = self.library.Booster(self.parameters(options), binned)
        model.update()
        start = time.perf_counter()
        for _ in range(rounds):
            model.update()
        return model, (time.perf_counter() - start) / max(1, rounds)

    def margins(self, model, rows):
        return model.predict(rows, raw_score=True, num_threads=self.threads)

    def shap(self, model, rows):
        return model.predict(rows, pred_contrib=True, num_threads=self.threads)

    def rows(self, inner):
        rows = numpy.ascontiguousarray(self.arrays["xv"][:ROWS])
        api, fast = self.library.basic._LIB, ctypes.c_void_p()
        float32, raw_score = 0, 1
        code = api.LGBM_BoosterPredictForMatSingleRowFastInit(
            self.model._handle, ctypes.c_int(raw_score), ctypes.c_int(0), ctypes.c_int(-1),
            ctypes.c_int(float32), ctypes.c_int32(rows.shape[1]), b"num_threads=1",
            ctypes.byref(fast))
        if code != 0:
            raise RuntimeError("LightGBM's fast single row cannot be set up")
        self.answer = numpy.empty(len(rows), dtype=numpy.float64)
        try:
            return row_loops().peers_lightgbm_rows(
                address(api.LGBM_BoosterPredictForMatSingleRowFast), fast,
                ctypes.c_void_p(rows.ctypes.data), ctypes.c_longlong(len(rows)),
                ctypes.c_longlong(rows.shape[1]), ctypes.c_void_p(self.answer.ctypes.data),
                ctypes.c_longlong(inner))
        finally:
            api.LGBM_FastConfigFree(fast)


class LightgbmQuantised(Lightgbm):
    quantised = True

    def describe(self):
        return super().describe() + " quantised"


class Stamps:
    """CatBoost's callback: when each iteration ended."""

    def __init__(self):
        self.times = []

    def after_iteration(self, info):
        self.times.append(time.perf_counter())
        return True


class Catboost(Booster):
    def __init__(self):
        super().__init__()
        import catboost

        self.library, self.pool = catboost, None

    def forget(self):
        super().forget()
        self.pool = None

    def prepare(self, case, **options):
        super().prepare(case, **options)
        if case == "model":
            self.pool = self.library.Pool(self.arrays["xv"]) if options.get("symmetric") else None

    def describe(self):
        return f"catboost {self.library.__version__}"

    def bin(self):
        pool = self.library.Pool(self.features(), label=self.arrays["y"], thread_count=self.threads)
        pool.quantize(border_count=254)
        return pool

    def rounds(self, binned, rounds, options):
        classes, leaves = options.get("classes", 1), options.get("leaves", 0)
        shape = {"grow_policy": "Lossguide", "max_leaves": leaves, "depth": 16} if leaves else {
            "depth": options.get("depth", 6)}
        model = self.library.CatBoost(dict(
            loss_function="Logloss" if classes == 1 else "MultiClass", iterations=rounds + 1,
            learning_rate=0.1, l2_leaf_reg=1, border_count=254, thread_count=self.threads,
            boosting_type="Plain", bootstrap_type="No", random_strength=0, random_seed=0,
            leaf_estimation_iterations=1, leaf_estimation_method="Newton", metric_period=10**6,
            allow_writing_files=False, logging_level="Silent", **shape))
        stamps = Stamps()
        model.fit(binned, callbacks=[stamps])
        return model, (stamps.times[-1] - stamps.times[0]) / max(1, rounds)

    def margins(self, model, rows):
        rows = rows if self.pool is None else self.pool
        return model.predict(rows, prediction_type="RawFormulaVal", thread_count=self.threads)

    def shap(self, model, rows):
        return model.get_feature_importance(self.library.Pool(rows), type="ShapValues",
                                            thread_count=self.threads)

    def rows(self, inner):
        rows = [row.reshape(1, -1) for row in self.arrays["xv"][:ROWS]]
        predict, answer = self.model.predict, []
        start = time.perf_counter()
        for _ in range(inner):
            answer = [predict(row, prediction_type="RawFormulaVal", thread_count=1)[0]
                      for row in rows]
        seconds = (time.perf_counter() - start) / inner / len(rows)
        self.answer = numpy.array(answer)
        return seconds


PEERS = {
    "xgboost": Peer(make=Xgboost),
    "lightgbm": Peer(make=Lightgbm),
    "lightgbm-quantised": Peer(make=LightgbmQuantised),
    "catboost": Peer(make=Catboost),
}


def auc(labels, scores):
    """Area under the ROC curve by ranks, ties sharing theirs."""
    _, place, count = numpy.unique(scores, return_inverse=True, return_counts=True)
    last = numpy.cumsum(count)
    rank = (last - (count - 1) / 2)[place]
    positive = labels > 0.5
    hits = positive.sum()
    return (rank[positive].sum() - hits * (hits + 1) / 2) / (hits * (len(labels) - hits))


def judge(file, classes=1):
    """AUC of margins, or accuracy of (rows, classes) margins."""

    def quality(answer, folder):
        labels = numpy.load(os.path.join(folder, file))
        if classes > 1:
            return numpy.mean(answer.reshape(len(labels), classes).argmax(axis=1) == labels)
        answer = answer.reshape(-1)
        return auc(labels[:len(answer)], answer)

    return quality


def train_case(name, files, rounds, quality_rounds=QUALITY, peers=TRAINERS, **shape):
    """Milliseconds a round; the reply's seconds are of one round."""
    words = " ".join(f"{key}={value}" for key, value in shape.items())
    return Case(
        name=name, metric="ms/round", run=f"train rounds={rounds} {words}", work=1e3, higher=False,
        peers=peers, data=files, prepare="train", slot=0,
        quality_run=f"quality rounds={quality_rounds} {words}",
        quality=judge(files["yv"], shape.get("classes", 1)))


def whole_cases(name, files, **shape):
    """Binning, a short fit from floats, and memory."""
    words = " ".join(f"{key}={value}" for key, value in shape.items())
    common = {"data": files, "higher": False, "slot": 0}
    yield Case(name=f"{name} binning", metric="s", run="bin", peers=PLAIN, **common)
    yield Case(name=f"{name} fit, 20 rounds", metric="s", run=f"fit rounds=20 {words}",
               peers=TRAINERS, **common)
    yield Case(name=f"{name} memory", metric="MB", run=f"memory rounds=10 {words}", peers=TRAINERS,
               fresh=True, repeats=3, **common)


def curve_cases(folder, largest):
    """Time and memory of a round against the number of rows, 10k to `largest` by factors of ten."""
    rows = 10_000
    while rows <= largest:
        label = f"{rows // 1000}k" if rows < 1_000_000 else f"{rows // 1_000_000}M"
        files = boosting_data.dense_files(folder, "dense", boosting_data.collisions, rows, 100_000)
        yield train_case(f"curve {label} x 28 depth 6", files, 50 if rows < 1_000_000 else 5, depth=6)
        yield Case(name=f"curve {label} x 28 memory", metric="MB", run="memory rounds=10 depth=6",
                   peers=TRAINERS, fresh=True, repeats=1, data=files, higher=False, slot=0)
        rows *= 10


def predict_cases(files, rows, quick):
    for trees, shape in ((100, "depth=6"), (50 if quick else 500, "leaves=255")):
        model = f"model trees={trees} {shape}"
        label = f"{trees} x {shape.replace('=', ' ')}"
        yield Case(name=f"predict {label}", metric="Mrow/s", run="predict", work=1e-6 * rows,
                   peers=PLAIN, data=files, prepare=model, quality=judge(files["yv"]))
        if shape == "depth=6":
            yield Case(name=f"shap {label}", metric="krow/s", run="shap", work=1e-3 * ROWS,
                       peers=PLAIN, data=files, prepare=model, quality=judge(files["yv"]))
            yield Case(name=f"one row {label}", metric="us/row", run="row", work=1e6 / ROWS,
                       higher=False,
                       peers=PLAIN, data=files, prepare=model, quality=judge(files["yv"]),
                       threads=(1,))


def symmetric_case(files, rows):
    return Case(name="predict 100 x symmetric depth 6", metric="Mrow/s", run="predict",
                work=1e-6 * rows, peers=("catboost",), data=files,
                prepare="model trees=100 depth=6 symmetric=1", quality=judge(files["yv"]))


def cases(folder, quick):
    make = boosting_data
    if "PEERS_CURVE" in os.environ:
        yield from curve_cases(folder, int(os.environ["PEERS_CURVE"]))
        return
    rows, label = (200_000, "200k") if quick else (1_000_000, "1M")
    dense = make.dense_files(folder, "dense", make.collisions, rows, 100_000)
    yield train_case(f"dense {label} x 28 depth 6", dense, 10, depth=6)
    yield train_case(f"dense {label} x 28 255 leaves", dense, 5, leaves=255)
    yield from whole_cases(f"dense {label} x 28", dense, depth=6)
    few = 50_000 if quick else 200_000
    small = make.dense_files(folder, "dense", make.collisions, few, 200_000)
    yield from predict_cases(small, 200_000, quick)
    yield symmetric_case(small, 200_000)
    holes = make.dense_files(folder, "holes", make.holes, 100_000, 20_000)
    yield train_case("100k x 50, 30 % NaN, depth 6", holes, 20, depth=6)
    sparse = make.sparse_files(folder, 200_000, 20_000)
    yield train_case("one-hot 200k x 1000 depth 6", sparse, 20, depth=6)
    if os.path.isdir(make.FASHION):
        images = make.fashion_files(folder, 6_000 if quick else 60_000, 10_000)
        name = "Fashion-MNIST" + (" 6k" if quick else "")
        for hessian, peers in (("doubled", ("xgboost",)), ("exact", ("catboost",)),
                               ("friedman", ("lightgbm", "lightgbm-quantised"))):
            yield train_case(f"{name} depth 6, {hessian} hessian", images, 2, 10, peers, depth=6,
                             classes=10, hessian=hessian)
        yield Case(name=f"{name} binning", metric="s", run="bin", peers=PLAIN, data=images,
                   higher=False, slot=0)
