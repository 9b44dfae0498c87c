# SPDX-License-Identifier: Apache-2.0
"""Optimisers against torch.optim, L-BFGS against scikit-learn.

What is measured: one step on parameters and gradients that are there (float32), warm. "torch-fused"
is fused=True (SGD, Adam, AdamW, Adagrad have it), "torch-foreach" foreach=True, torch's default on
accelerators and the fastest form of every other method on a CPU; without it torch loops over tensors.
torch is called from Python, as it is used. Limit: the bytes that a step must move (AdamW reads four
arrays and writes three, 28 bytes a parameter; with bfloat16 moments 20) at the measured speed of
`update`. Quality of a step: the mean of the parameters after three steps from the same start, which
has to agree. Muon's peer works in bfloat16, so there the last digits differ.

L-BFGS: logistic regression of 100,000 rows and 100 columns in float64, no intercept, C = 1, largest
gradient of the mean loss below 1e-4, from zero, until it is reached; ten pairs on both sides
(scikit-learn passes tol as SciPy's gtol). Quality: the objective at the end, less the best of both.
"""

import os
import time

import numpy

from area import Case, Peer, PythonPeer, cached

DRIVER = "optim_driver"
METHODS = {
    "sgd": ("SGD", {"lr": 1e-3}),
    "momentum": ("SGD", {"lr": 1e-3, "momentum": 0.9}),
    "nesterov": ("SGD", {"lr": 1e-3, "momentum": 0.9, "nesterov": True}),
    "adam": ("Adam", {}),
    "adamw": ("AdamW", {}),
    "adamw-bf16": ("AdamW", {}),
    "amsgrad": ("Adam", {"amsgrad": True}),
    "nadam": ("NAdam", {}),
    "radam": ("RAdam", {}),
    "adamax": ("Adamax", {}),
    "rmsprop": ("RMSprop", {}),
    "rmsprop-full": ("RMSprop", {"momentum": 0.9, "centered": True}),
    "adagrad": ("Adagrad", {}),
    "adadelta": ("Adadelta", {}),
    "asgd": ("ASGD", {}),
    "rprop": ("Rprop", {}),
    "adafactor": ("Adafactor", {}),
    "muon": ("Muon", {}),
}
# Array elements that a step reads and writes.
TRAFFIC = {"sgd": 3, "momentum": 5, "nesterov": 5, "adam": 7, "adamw": 7, "adamw-bf16": 5,
           "amsgrad": 9, "nadam": 7, "radam": 7, "adamax": 7, "rmsprop": 5, "rmsprop-full": 9,
           "adagrad": 5, "adadelta": 7, "asgd": 5, "rprop": 7}


class Torch(PythonPeer):
    """torch.optim; `mode` is fused or foreach."""

    mode = "fused"

    def __init__(self):
        super().__init__()
        import torch

        self.torch = torch
        torch.set_num_threads(self.threads)
        self.key, self.job, self.last = None, None, None

    def describe(self):
        return f"torch {self.torch.__version__} ({self.mode})"

    def forget(self):
        super().forget()
        self.key, self.job, self.last = None, None, None

    def make(self, method, tensors, rows, size):
        torch = self.torch
        shape = (size,) if rows == 0 else (rows, size // rows)

        def filled(array):
            return torch.from_numpy(numpy.resize(array, tensors * size).astype(numpy.float32))

        values, gradients = filled(self.arrays["p"]), filled(self.arrays["g"])
        parameters = []
        for k in range(tensors):
            p = torch.nn.Parameter(values[k * size:(k + 1) * size].clone().view(shape))
            p.grad = gradients[k * size:(k + 1) * size].clone().view(shape)
            parameters.append(p)
        name, options = METHODS[method]
        options = dict(options)
        if name != "Muon":
            options[self.mode] = True
        return parameters, getattr(torch.optim, name)(parameters, **options)

    def run(self, case, inner=1, method="", tensors="1", rows="0", size="16", **_):
        arguments = (method, int(tensors), int(rows), int(size))
        if case == "check":
            parameters, optimizer = self.make(method, 1, int(rows), int(size))
            gradient = parameters[0].grad.clone()
            for _ in range(3):
                # Nesterov's foreach form adds the buffer to the gradient itself.
                parameters[0].grad.copy_(gradient)
                optimizer.step()
            self.last = parameters[0].detach().numpy().ravel().copy()
            return {"seconds": 0.0}
        if self.key != arguments:
            self.job = None
            self.job, self.key = self.make(*arguments), arguments
            self.job[1].step()
        step = self.job[1].step
        start = time.perf_counter()
        for _ in range(inner):
            step()
        return {"seconds": (time.perf_counter() - start) / inner}

    def output(self):
        return self.last


class TorchForeach(Torch):
    mode = "foreach"


class Sklearn(PythonPeer):
    def __init__(self):
        super().__init__()
        import sklearn
        from sklearn.linear_model import LogisticRegression

        self.version, self.make, self.last = sklearn.__version__, LogisticRegression, None

    def describe(self):
        return f"scikit-learn {self.version}"

    def run(self, case, inner=1, **_):
        start = time.perf_counter()
        for _ in range(inner):
            model = self.make(C=1.0, solver="lbfgs", tol=1e-4, max_iter=1000, fit_intercept=False)
            model.fit(self.arrays["x"], self.arrays["y"])
        seconds = (time.perf_counter() - start) / inner
        self.last = model.coef_.ravel().astype(numpy.float64)
        return {"seconds": seconds}

    def output(self):
        return self.last


PEERS = {"torch-fused": Peer(make=Torch), "torch-foreach": Peer(make=TorchForeach),
         "sklearn": Peer(make=Sklearn)}


def memory_limit(count, method, scale):
    def limit(limits, threads):
        if method not in TRAFFIC or not limits.get("update"):
            return None
        return 4e-9 * TRAFFIC[method] * count / limits["update"] * scale

    return limit


def step_case(folder, method, count, tensors, peers, rows=0, micro=False):
    draw = numpy.random.default_rng(1)
    p = cached(folder, "optim-p", lambda: draw.normal(size=1 << 20).astype(numpy.float32))
    g = cached(folder, "optim-g", lambda: draw.normal(size=1 << 20).astype(numpy.float32))
    size = count // tensors
    scale = 1e6 if micro else 1e3
    label = f"{count // 10**6}M" if tensors == 1 else f"{tensors} x {size}"
    if rows:
        label = f"{rows}x{size // rows}"
    return Case(
        name=f"{method} {label}",
        metric="us a step" if micro else "ms a step",
        run=f"step method={method} tensors={tensors} rows={rows} size={size}",
        work=scale,
        higher=False,
        peers=peers,
        data={"p": p, "g": g},
        quality=lambda answer, folder: float(answer.astype(numpy.float64).mean()),
        quality_run=f"check method={method} rows={64 if rows else 0} size=16384",
        limit=memory_limit(count, method, scale) if count >= 10**7 else None,
    )


def lbfgs_case(folder, rows, cols):
    def table():
        return numpy.random.default_rng(2).normal(size=(rows, cols))

    def labels():
        draw = numpy.random.default_rng(3)
        x = table()
        z = x @ draw.normal(size=cols) * (2 / numpy.sqrt(cols)) + 0.5
        return (draw.uniform(size=rows) < 1 / (1 + numpy.exp(-z))).astype(numpy.float64)

    x = cached(folder, f"optim-x-{rows}x{cols}", table)
    y = cached(folder, f"optim-y-{rows}x{cols}", labels)

    def objective(w, folder):
        z = numpy.load(os.path.join(folder, x)) @ w
        target = numpy.load(os.path.join(folder, y))
        return float((numpy.logaddexp(0, z) - target * z).mean() + 0.5 / rows * (w @ w))

    return Case(
        name=f"lbfgs logistic {rows // 1000}k x {cols}",
        metric="ms",
        run="lbfgs",
        work=1e3,
        higher=False,
        peers=("sklearn",),
        data={"x": x, "y": y},
        quality=objective,
    )


def cases(folder, quick):
    big = 5 * 10**6 if quick else 5 * 10**7
    yield step_case(folder, "adamw", big, 1, ("torch-fused", "torch-foreach"))
    yield step_case(folder, "adamw-bf16", big, 1, ("torch-fused",))
    yield step_case(folder, "adamw", 16000, 1000, ("torch-fused",), micro=True)
    middle = 10**6 if quick else 10**7
    for method in METHODS:
        if method.startswith("adamw") or method in ("adafactor", "muon"):
            continue
        yield step_case(folder, method, middle, 1, ("torch-foreach",))
    yield step_case(folder, "adafactor", 1 << 22, 1, ("torch-foreach",), rows=2048)
    yield step_case(folder, "muon", 1 << 20, 1, ("torch-foreach",), rows=1024)
    yield lbfgs_case(folder, 20000 if quick else 100000, 100)
