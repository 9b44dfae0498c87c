# SPDX-License-Identifier: Apache-2.0
"""ggml's side of the recurrences of the area "ssm", through its C interface.

ggml comes as no package, so it takes part where `--ggml PATH` names a built libggml.so (of a
release with `ids` in ggml_ssm_scan, July 2025 or later); the libraries that it is linked to are
found from there. Graphs and tensors are made once; what is timed is ggml_graph_compute.

Its operators take tokens first, factors instead of logarithms of decays, and softplus(dt) inside
the scan, and return the state behind the output; arrays are turned before the clock starts.
"""

import ctypes
import os
import time

import numpy

from area import PythonPeer

F32, I32 = 0, 26


class InitParams(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool)]


class Plan(ctypes.Structure):
    """ggml_cplan, with room for members that a later release may add."""

    _fields_ = [("work_size", ctypes.c_size_t), ("work", ctypes.c_void_p),
                ("threads", ctypes.c_int), ("rest", ctypes.c_void_p * 16)]


def library_path():
    return os.environ.get("PEERS_GGML")


class Ggml(PythonPeer):
    def __init__(self):
        super().__init__()
        self.library = ctypes.CDLL(library_path(), mode=ctypes.RTLD_GLOBAL)
        pointers = ("ggml_init", "ggml_new_tensor", "ggml_get_data", "ggml_new_graph",
                    "ggml_ssm_scan", "ggml_ssm_conv", "ggml_silu", "ggml_rwkv_wkv6", "ggml_rwkv_wkv7",
                    "ggml_gated_linear_attn")
        for name in pointers:
            getattr(self.library, name).restype = ctypes.c_void_p
        self.library.ggml_init.argtypes = [InitParams]
        self.library.ggml_graph_plan.restype = Plan
        self.library.ggml_cpu_init()
        self.context, self.built, self.result = None, None, None

    def describe(self):
        version = getattr(self.library, "ggml_version", None)
        if version is None:
            return "ggml"
        version.restype = ctypes.c_char_p
        return "ggml " + version().decode()

    def forget(self):
        super().forget()
        if self.context is not None:
            self.library.ggml_free(ctypes.c_void_p(self.context))
        self.context, self.built, self.result = None, None, None

    def tensor(self, array, extents=None):
        """A tensor with the array's elements; extents, fastest first, else those of the array."""
        array = numpy.ascontiguousarray(array)
        kind = I32 if array.dtype == numpy.int32 else F32
        extents = extents or array.shape[::-1]
        sizes = (ctypes.c_int64 * len(extents))(*extents)
        made = self.library.ggml_new_tensor(ctypes.c_void_p(self.context), kind, len(extents),
                                            sizes)
        data = self.library.ggml_get_data(ctypes.c_void_p(made))
        ctypes.memmove(data, array.ctypes.data, array.nbytes)
        return ctypes.c_void_p(made)

    def call(self, name, *arguments):
        made = getattr(self.library, name)(ctypes.c_void_p(self.context), *arguments)
        return ctypes.c_void_p(made)

    def scan(self, state, x, dt, a, b, c):
        ids = self.tensor(numpy.zeros(1, numpy.int32))
        parts = [self.tensor(v) for v in (state, x, dt, a, b, c)]
        return self.call("ggml_ssm_scan", *parts, ids, ctypes.c_int64(1))

    def selective(self):
        u, delta, a, b, c = (self.arrays[n] for n in ("u", "delta", "a", "b", "c"))
        channels, states = a.shape
        shape = (1, u.shape[1], 1, states)
        return self.scan(numpy.zeros((1, channels, 1, states), numpy.float32),
                         u.reshape(1, -1, channels, 1), delta, a, b.reshape(shape),
                         c.reshape(shape)), u.shape[1:]

    def ssd(self):
        """log_a = dt A with A = -1, and x is times dt."""
        x, log_a, b, c = (self.arrays[n] for n in ("x", "log_a", "b", "c"))
        _, length, heads, dim = x.shape
        raw = numpy.log(numpy.expm1(-log_a.astype(numpy.float64))).astype(numpy.float32)
        return self.scan(numpy.zeros((1, heads, dim, b.shape[-1]), numpy.float32),
                         x / -log_a[..., None], raw, -numpy.ones((heads, 1), numpy.float32), b,
                         c), (length, heads, dim)

    def tokens_first(self, name):
        return numpy.ascontiguousarray(self.arrays[name][0].transpose(1, 0, 2))

    def rwkv(self, operator, names, *more):
        heads, length, dim = self.arrays["r"].shape[1:]
        decay = self.tensor(numpy.exp(self.tokens_first("logw")))
        known = {"decay": decay, "bonus": None}
        if "bonus" in names:
            known["bonus"] = self.tensor(self.arrays["bonus"])
        parts = [known.get(n) or self.tensor(self.tokens_first(n)) for n in names]
        state = self.tensor(numpy.zeros((1, heads * dim * dim), numpy.float32))
        return self.call(operator, *parts, state, *more), (length, heads, dim)

    def rwkv6(self):
        return self.rwkv("ggml_rwkv_wkv6", ("k", "v", "r", "bonus", "decay"))

    def rwkv7(self):
        return self.rwkv("ggml_rwkv_wkv7", ("r", "decay", "k", "v", "a", "b"))

    def gla(self):
        return self.rwkv("ggml_gated_linear_attn", ("k", "v", "r", "decay"), ctypes.c_float(1))

    def conv(self):
        x, w = self.arrays["x"][0], self.arrays["w"]
        padded = numpy.concatenate([numpy.zeros((w.shape[1] - 1, x.shape[1]), numpy.float32), x])
        made = self.call("ggml_ssm_conv", self.tensor(padded.T[None]), self.tensor(w))
        return self.call("ggml_silu", made), x.shape

    def build(self, name):
        elements = sum(v.size for v in self.arrays.values())
        # Inputs, the same turned, the result with its states, a graph.
        size = 4 * 4 * elements + (64 << 20)
        self.context = self.library.ggml_init(InitParams(size, None, False))
        self.result, shape = getattr(self, name)()
        graph = ctypes.c_void_p(self.library.ggml_new_graph(ctypes.c_void_p(self.context)))
        self.library.ggml_build_forward_expand(graph, self.result)
        plan = self.library.ggml_graph_plan(graph, self.threads, None)
        work = ctypes.create_string_buffer(max(1, plan.work_size))
        plan.work = ctypes.cast(work, ctypes.c_void_p)
        self.built = name, graph, plan, work, shape

    def run(self, case, inner=1, **_):
        name = case.removesuffix("-step")
        if self.built is None or self.built[0] != name:
            self.build(name)
        _, graph, plan, _, _ = self.built
        start = time.perf_counter()
        for _ in range(inner):
            self.library.ggml_graph_compute(graph, ctypes.byref(plan))
        return {"seconds": (time.perf_counter() - start) / inner}

    def output(self):
        name, shape = self.built[0], self.built[4]
        data = self.library.ggml_get_data(self.result)
        count = int(numpy.prod(shape))
        values = numpy.frombuffer((ctypes.c_float * count).from_address(data), numpy.float32)
        values = values.reshape(shape).copy()
        if name == "selective":  # ggml's scan has no skip
            values += self.arrays["u"][0] * self.arrays["skip"]
        return (values.transpose(1, 0, 2) if name in ("rwkv6", "rwkv7", "gla") else values).ravel()
