# SPDX-License-Identifier: Apache-2.0
"""Kernels against PyTorch (its CPU build calls MKL for products) and Eigen.

What is measured: one call on data that is already there, into an output that is already there
(torch's out=), warm, repeated until a slot of 0.1 s is full. quern is called through its public
functions, built with plain -O2. Torch is called from Python, so on the 4k arrays its figure holds
about a microsecond of dispatch; the 32k arrays (in L2) tell the loops apart, the 16M ones are bound
by memory. Eigen is compiled at -O2 ("eigen") and with -march=native ("eigen-native"), both with
OpenMP. Quality is an error: for products the largest over some rows, in units of
eps * sum |a||b|; for functions the largest relative error; for reductions relative to sum |x|.
Every one is against the next wider type.
"""

import math
import os
import time

import numpy

from area import Case, Peer, PythonPeer, cached

DRIVER = "kernels_driver"
ELEMENTWISE = ("exp", "log", "tanh", "sigmoid", "erf", "softplus")
DTYPES = {"f32": numpy.float32, "f64": numpy.float64}
EIGENS = ("eigen", "eigen-native")


class Torch(PythonPeer):
    """torch on `threads` threads, into outputs that exist before the clock starts."""

    def __init__(self):
        super().__init__()
        import torch

        self.torch = torch
        torch.set_num_threads(self.threads)
        self.results, self.last = {}, None

    def describe(self):
        return f"torch {self.torch.__version__} ({self.torch.backends.cpu.get_cpu_capability()})"

    def forget(self):
        super().forget()
        self.results, self.last = {}, None

    def call(self, case):
        """A closure that does the work once, made once."""
        torch = self.torch
        one = torch.from_numpy(self.arrays["a" if case == "gemm" else "x"])
        if case == "gemm":
            two = torch.from_numpy(self.arrays["b"])
            out = torch.empty((one.shape[0], two.shape[1]), dtype=one.dtype)
            return out, lambda: torch.mm(one, two, out=out)
        if case == "softmax":
            out = torch.empty_like(one)
            return out, lambda: torch.softmax(one, dim=1, out=out)
        if case in ("sum", "dot"):
            out = torch.empty((), dtype=one.dtype)
            if case == "sum":
                return out, lambda: torch.sum(one, dim=0, out=out)
            two = torch.from_numpy(self.arrays["y"])
            return out, lambda: torch.dot(one, two, out=out)
        out = torch.empty_like(one)
        if case == "softplus":
            function = torch._C._nn.softplus  # the only entry that takes out=
            return out, lambda: function(one, out=out)
        function = getattr(torch, case)
        return out, lambda: function(one, out=out)

    def run(self, case, inner=1, **options):
        key = (case, tuple(options.items()))
        if key not in self.results:
            self.results[key] = self.call(case)
        self.last, call = self.results[key]
        with self.torch.inference_mode():
            start = time.perf_counter()
            for _ in range(inner):
                call()
            return {"seconds": (time.perf_counter() - start) / inner}

    def output(self):
        return self.last.numpy()


PEERS = {
    "torch": Peer(make=Torch),
    "eigen": Peer(driver="eigen_driver"),
    "eigen-native": Peer(driver="eigen_native_driver"),
}


def uniform(seed, shape, dtype, low=-1.0, high=1.0):
    return lambda: numpy.random.default_rng(seed).uniform(low, high, shape).astype(dtype)


def gemm_quality(left, right):
    """Largest error over some rows, in units of eps * |a||b|; doubles against long doubles."""

    def quality(answer, folder):
        single = answer.dtype == numpy.float32
        wide, count = (numpy.float64, 64) if single else (numpy.longdouble, 4)
        a = numpy.load(os.path.join(folder, left)).astype(wide)
        b = numpy.load(os.path.join(folder, right)).astype(wide)
        rows = numpy.linspace(0, len(a) - 1, min(count, len(a))).astype(int)
        scale = numpy.abs(a[rows]) @ numpy.abs(b) * numpy.finfo(answer.dtype).eps
        return numpy.max(numpy.abs(answer[rows] - a[rows] @ b) / scale)

    return quality


def reference(name, x):
    """float64 values of an element-wise function on at most 100,000 inputs."""
    if name in ("exp", "log", "tanh"):
        return getattr(numpy, name)(x)
    if name == "sigmoid":
        return 1 / (1 + numpy.exp(-x))
    if name == "softplus":
        return numpy.log1p(numpy.exp(x))
    return numpy.array([math.erf(value) for value in x])


def elementwise_quality(name, file):
    def quality(answer, folder):
        step = max(1, len(answer) // 100_000)
        x = numpy.load(os.path.join(folder, file), mmap_mode="r")[::step].astype(numpy.float64)
        expected = reference(name, x)
        scale = numpy.maximum(numpy.abs(expected), 1e-30)
        return numpy.max(numpy.abs(answer[::step] - expected) / scale)

    return quality


def softmax_quality(file):
    def quality(answer, folder):
        x = numpy.load(os.path.join(folder, file), mmap_mode="r")[:64].astype(numpy.float64)
        e = numpy.exp(x - x.max(axis=1, keepdims=True))
        expected = e / e.sum(axis=1, keepdims=True)
        return numpy.max(numpy.abs(answer[:64] - expected) / expected)

    return quality


def reduce_quality(files):
    def quality(answer, folder):
        product = numpy.ones(())
        for file in files:
            product = product * numpy.load(os.path.join(folder, file)).astype(numpy.float64)
        return abs(float(answer) - product.sum()) / numpy.abs(product).sum()

    return quality


def gemm_case(folder, kind, name, shape):
    m, n, k = shape
    dtype = DTYPES[kind]
    left = cached(folder, f"kernels-a-{kind}-{m}x{k}", uniform(1, (m, k), dtype))
    right = cached(folder, f"kernels-b-{kind}-{k}x{n}", uniform(2, (k, n), dtype))
    return Case(
        name=name,
        metric="GFLOP/s",
        run=f"gemm type={kind}",
        work=2e-9 * m * n * k,
        peers=("torch",) + EIGENS,
        data={"a": left, "b": right},
        quality=gemm_quality(left, right),
        limit=lambda limits, threads: limits.get(f"fma_{kind}"),
    )


def gemm_cases(folder, quick):
    for kind in DTYPES:
        for n in (256, 1024) if quick else (256, 512, 1024, 2048):
            yield gemm_case(folder, kind, f"gemm {kind} {n}", (n, n, n))
        for n in (1024,) if quick else (1024, 2048, 4096):
            yield gemm_case(folder, kind, f"gemm {kind} {n}x{n} k=64", (n, n, 64))


def time_limit(flops, moved):
    """Nanoseconds an element takes at best: by arithmetic in a cache, by copying outside."""

    def limit(limits, threads):
        bounds = []
        if flops and limits.get("fma_f32"):
            bounds.append(flops / limits["fma_f32"])
        if moved and limits.get("copy"):
            bounds.append(moved / limits["copy"])
        return max(bounds) if bounds else None

    return limit


def elementwise_cases(folder, quick):
    """45 FLOP-times of the FMA peak an element is the stated reach of exp in a cache."""
    sizes = {"4k": 1 << 12, "32k": 1 << 15, "16M": 1 << 24}
    if quick:
        sizes.pop("16M")
    for label, count in sizes.items():
        for name in ELEMENTWISE:
            low, high = (1e-3, 100.0) if name == "log" else (-8.0, 8.0)
            file = cached(folder, f"kernels-{low:g}-{high:g}-{label}",
                          uniform(3, count, numpy.float32, low, high))
            yield Case(
                name=f"{name} f32 {label}",
                metric="ns/elem",
                run=f"{name} type=f32",
                work=1e9 / count,
                higher=False,
                peers=("torch",),
                data={"x": file},
                quality=elementwise_quality(name, file),
                limit=time_limit(45 if name == "exp" else 0, 8 if label == "16M" else 0),
            )


def reduce_cases(folder, quick):
    rows = cached(folder, "kernels-rows-4096x1024", uniform(4, (4096, 1024), numpy.float32, -8, 8))
    yield Case(
        name="softmax rows f32 4096x1024",
        metric="ns/elem",
        run="softmax type=f32",
        work=1e9 / (4096 * 1024),
        higher=False,
        peers=("torch",),
        data={"x": rows},
        quality=softmax_quality(rows),
    )
    for label, count in (("32k", 1 << 15), ("16M", 1 << 24)):
        x = cached(folder, f"kernels-x-{label}", uniform(5, count, numpy.float32))
        y = cached(folder, f"kernels-y-{label}", uniform(6, count, numpy.float32))
        for name, files in (("sum", (x,)), ("dot", (x, y))):
            moved = 4 * len(files) if label == "16M" else 0
            yield Case(
                name=f"{name} f32 {label}",
                metric="ns/elem",
                run=f"{name} type=f32",
                work=1e9 / count,
                higher=False,
                peers=("torch",),
                data=dict(zip("xy", files)),
                quality=reduce_quality(files),
                limit=lambda limits, threads, moved=moved: (
                    moved / limits["read"] if moved and limits.get("read") else None),
            )


def cases(folder, quick):
    yield from gemm_cases(folder, quick)
    yield from elementwise_cases(folder, quick)
    yield from reduce_cases(folder, quick)
