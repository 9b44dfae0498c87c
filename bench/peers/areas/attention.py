# SPDX-License-Identifier: Apache-2.0
"""Attention against the libraries that people take it from.

One row of the batch, float32, warm. `forward` is without anything kept for gradients; `both` is
forward and backward, gradients of all inputs and weights. Figures are ns a token and head of 8 heads
of 64 (ns a token for the gated units, whose one head is of dim 512).

local: local-attention's LocalAttention, causal, window 128, blocks of the window and the one before,
no positions on either side. lsh: reformer-pytorch's LSHAttention, shared queries and keys, causal,
buckets of 64, 4 hashes, new rotations at each call there and the same ones here. linformer:
LinformerSelfAttention with k = 256, projections included on both sides. gau, flash: FLASH-pytorch's
GAU and FLASH, dim 512, expansion 2, queries and keys of 128, groups of 256, causal; projections, norm
and relative bias included. softmax: torch's scaled_dot_product_attention, causal. linear: elu + 1 and
the normaliser, causal, against torch in chunks of 128 (the same function, written with its products),
and against ONNX Runtime's LinearAttention, which has neither map nor normaliser; linear-full: the same
without causality, two einsums in torch. performer: performer-pytorch's FastAttention with 266 features
(full: the same, not causal). decode: one step of linear attention with its state, us a token of all
heads. Quality, where the result is the same function of the data: the mean. Where a peer takes long
there are fewer repeats.

`--curve TOKENS`: quern alone, the linear kinds with one head (FLASH of dim 64) from 1k up to so many
tokens, time a token and the memory that a call takes beyond the arrays that it is given (a fresh
process each).
"""

import os
import time

import numpy

from area import Case, Peer, PythonPeer, cached

DRIVER = "attention_driver"


class Modules(PythonPeer):
    """Reference modules in torch; `MAKE` holds, by kind, a function to (module call, inputs)."""

    PACKAGE = ""

    def __init__(self):
        super().__init__()
        import torch

        self.torch = torch
        torch.set_num_threads(self.threads)
        self.key, self.job, self.last = None, None, None
        self.seconds = 0.0  # of the last call

    def describe(self):
        import importlib.metadata

        version = importlib.metadata.version(self.PACKAGE)
        return f"{self.PACKAGE} {version}, torch {self.torch.__version__}"

    def forget(self):
        super().forget()
        self.key, self.job, self.last = None, None, None

    def draw(self, number, shape):
        """The first tensors of this shape that the data's values fill, one after the other."""
        count = int(numpy.prod(shape))
        values = numpy.resize(self.arrays["x"], number * count).astype(numpy.float32)
        return [self.torch.from_numpy(values[i * count:(i + 1) * count].reshape(shape).copy())
                .requires_grad_() for i in range(number)]

    def make(self, case, n, heads, d):
        raise NotImplementedError

    def run(self, case, inner=1, **options):
        n, heads, d = (int(options.get(k, v)) for k, v in (("n", 4096), ("heads", 8), ("d", 64)))
        key = (case, n, heads, d)
        if self.key != key:
            self.job, self.key = self.make(case, n, heads, d), key
            self.seconds = 0.0
        call, inputs, dout = self.job
        both = options["pass"] == "both"

        def once():
            if not both:
                with self.torch.no_grad():
                    return call(*inputs)
            for x in inputs:
                x.grad = None
            out = call(*inputs)
            out.backward(dout)
            return out

        if self.seconds < 0.2:  # a long call warms itself
            once()
        start = time.perf_counter()
        for _ in range(inner):
            out = once()
        seconds = self.seconds = (time.perf_counter() - start) / inner
        self.last = out.detach().numpy().ravel()
        return {"seconds": seconds}

    def output(self):
        return self.last


class LocalAttention(Modules):
    PACKAGE = "local-attention"

    def make(self, case, n, heads, d):
        from local_attention import LocalAttention as Local

        module = Local(window_size=128, causal=True, look_backward=1, autopad=True,
                       use_rotary_pos_emb=False)
        q, k, v, dout = self.draw(4, (1, heads, n, d))
        return module, (q, k, v), dout.detach()


class Reformer(Modules):
    PACKAGE = "reformer-pytorch"

    def make(self, case, n, heads, d):
        from reformer_pytorch import LSHAttention

        module = LSHAttention(bucket_size=64, n_hashes=4, causal=True)
        qk, _, v, dout = self.draw(4, (heads, n, d))
        return (lambda a, b: module(a, b)[0]), (qk, v), dout.detach()


class Linformer(Modules):
    PACKAGE = "linformer"

    def make(self, case, n, heads, d):
        from linformer import LinformerSelfAttention

        module = LinformerSelfAttention(dim=heads * d, seq_len=n, heads=heads, k=256)
        x, dout = self.draw(2, (1, n, heads * d))
        return module, (x,), dout.detach()


class Flash(Modules):
    PACKAGE = "FLASH-pytorch"

    def make(self, case, n, heads, d):
        from flash_pytorch import FLASH, GAU

        dim = heads * d
        if case == "gau":
            module = GAU(dim=dim, query_key_dim=128, causal=True, expansion_factor=2)
        else:
            module = FLASH(dim=dim, group_size=256, query_key_dim=128, causal=True,
                           expansion_factor=2)
        x, dout = self.draw(2, (1, n, dim))
        return module, (x,), dout.detach()


class TorchAttention(Modules):
    """torch's own attention, and linear attention written with its products."""

    PACKAGE = "torch"

    def make(self, case, n, heads, d):
        torch = self.torch
        q, k, v, dout = self.draw(4, (1, heads, n, d))

        def softmax(q, k, v):
            return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)

        def features(x):
            return torch.nn.functional.elu(x) + 1

        def full(q, k, v):
            q, k = features(q), features(k)
            sums = torch.einsum("bhnd,bhne->bhde", k, v)
            total = torch.einsum("bhnd,bhd->bhn", q, k.sum(2)) + 1e-6
            return torch.einsum("bhnd,bhde->bhne", q, sums) / total.unsqueeze(-1)

        def chunked(q, k, v, size=128):
            size = min(size, n)
            q, k = (features(x).reshape(1, heads, n // size, size, d) for x in (q, k))
            v = v.reshape(1, heads, n // size, size, d)
            sums = k.transpose(-1, -2) @ v
            sums = torch.cumsum(sums, 2) - sums
            keys = torch.cumsum(k, 3)
            before = k.sum(3).cumsum(2) - k.sum(3)
            scores = torch.tril(q @ k.transpose(-1, -2))
            total = (q * (keys + before.unsqueeze(3))).sum(-1, keepdim=True) + 1e-6
            return ((scores @ v + q @ sums) / total).reshape(1, heads, n, d)

        call = {"softmax": softmax, "linear": chunked, "linear-full": full}[case]
        return call, (q, k, v), dout.detach()


class Performer(Modules):
    PACKAGE = "performer-pytorch"

    def make(self, case, n, heads, d):
        from performer_pytorch import FastAttention

        module = FastAttention(dim_heads=d, nb_features=266, causal=case == "performer")
        q, k, v, dout = self.draw(4, (1, heads, n, d))
        return module, (q, k, v), dout.detach()


class OnnxRuntime(Modules):
    """The operator LinearAttention, with its update rule "linear"."""

    PACKAGE = "onnxruntime"

    def make(self, case, n, heads, d):
        import onnx
        import onnxruntime

        decode = case == "decode"
        steps = 1 if decode else n
        tensor = onnx.helper.make_tensor_value_info
        flat, state = [1, steps, heads * d], [1, heads, d, d]
        names = ["q", "k", "v"] + (["past"] if decode else [])
        node = onnx.helper.make_node(
            "LinearAttention", names, ["out", "present"], domain="com.microsoft",
            q_num_heads=heads, kv_num_heads=heads, update_rule="linear", scale=1.0)
        inputs = [tensor(name, 1, state if name == "past" else flat) for name in names]
        graph = onnx.helper.make_graph([node], "linear", inputs,
                                       [tensor("out", 1, flat), tensor("present", 1, state)])
        model = onnx.helper.make_model(graph, ir_version=10, opset_imports=[
            onnx.helper.make_opsetid("", 21), onnx.helper.make_opsetid("com.microsoft", 1)])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        session = onnxruntime.InferenceSession(model.SerializeToString(), options,
                                               providers=["CPUExecutionProvider"])
        feed = {name: x.detach().numpy() for name, x in zip(names, self.draw(3, flat))}
        if decode:
            feed["past"] = numpy.zeros(state, numpy.float32)
        # Values stay where they are: what is measured is the operator, not copies around it.
        binding = session.io_binding()
        for name, value in feed.items():
            binding.bind_cpu_input(name, value)
        binding.bind_output("out")
        binding.bind_output("present")

        class Out:
            def detach(self):
                return self

            def numpy(self):
                return binding.copy_outputs_to_cpu()[0]

        def call(*_):
            session.run_with_iobinding(binding)
            return Out()

        return call, (), None


PEERS = {"torch": Peer(make=TorchAttention), "performer-pytorch": Peer(make=Performer),
         "onnxruntime": Peer(make=OnnxRuntime), "local-attention": Peer(make=LocalAttention), "reformer": Peer(make=Reformer),
         "linformer": Peer(make=Linformer), "FLASH-pytorch": Peer(make=Flash)}


# About what a peer takes, ns a token and head: forward, and forward and backward. Softmax and GAU
# (by its eight heads' worth) grow with the length: at 4096.
PEER_NS = {"linear": (1300, 4200), "linear-full": (520, 1900), "performer-full": (9800, 21000),
           "performer": (230000, 0), "softmax": (4900, 17000), "local": (2200, 5500),
           "lsh": (31000, 66000), "linformer": (4600, 13000), "flash": (5000, 15500),
           "gau": (107000, 134000), "decode": (0, 0)}


def repeats(kind, n, heads, which):
    """Fewer where the peer takes seconds; None: as many as are asked for."""
    seconds = 1e-9 * PEER_NS[kind][which == "both"] * n * heads
    if kind in ("softmax", "gau"):
        seconds *= n / 4096
    elif kind.startswith("linear") and n > 4096:
        seconds *= n / 8192  # their caches are full
    return 2 if seconds > 2 else 3 if seconds > 0.3 else None


def inputs(folder):
    def values():
        return numpy.random.default_rng(1).normal(size=1 << 20).astype(numpy.float32)

    return {"x": cached(folder, "attention-x", values)}


def one(folder, kind, peer, n, heads=8, d=64, same=False, passes=("forward", "both")):
    gated = kind in ("gau", "flash", "decode")
    few = "" if heads == 8 else f" {heads} head"
    for which in passes:
        yield Case(
            name=f"{kind} N={n}{few} {which}" if kind != "decode" else f"decode d={d}{few}",
            metric="us a token" if kind == "decode" else
            "ns a token" if gated else "ns a token and head",
            run=f"{kind} n={n} heads={heads} d={d} pass={which}",
            work=1e6 if kind == "decode" else 1e9 / (n if gated else n * heads),
            higher=False,
            peers=(peer,) if isinstance(peer, str) else peer,
            data=inputs(folder),
            quality=(lambda out, folder: float(out.astype(numpy.float64).mean())) if same else None,
            repeats=repeats(kind, n, heads, which),
        )


def curve_cases(folder, largest):
    n = 1024
    while n <= largest:
        for kind in ("linear", "linear-full", "performer", "performer-full", "flash"):
            for which in ("forward", "both"):
                run = f"n={n} heads=1 d=64 pass={which}"
                yield Case(name=f"curve {kind} N={n} {which}", metric="ns a token",
                           run=f"{kind} {run}", work=1e9 / n, higher=False, data=inputs(folder),
                           repeats=3)
                yield Case(name=f"curve {kind} N={n} {which} memory", metric="MB",
                           run=f"memory kind={kind} {run}", higher=False, data=inputs(folder),
                           slot=0, repeats=1, fresh=True)
        n *= 4


def cases(folder, quick):
    if os.environ.get("PEERS_CURVE"):
        yield from curve_cases(folder, int(os.environ["PEERS_CURVE"]))
        return
    both, forward = ("forward", "both"), ("forward",)
    for n in (1024,) if quick else (1024, 4096, 16384, 65536):
        for heads in (8, 1):
            yield from one(folder, "linear", "torch", n, heads=heads, same=True)
            yield from one(folder, "linear", "onnxruntime", n, heads=heads, passes=forward)
        yield from one(folder, "linear-full", "torch", n, same=True,
                       passes=both if n <= 16384 else forward)
        if n <= 16384:
            yield from one(folder, "performer-full", "performer-pytorch", n)
            yield from one(folder, "softmax", "torch", n, same=True,
                           passes=both if n <= 4096 else forward)
        if n <= 4096:
            yield from one(folder, "performer", "performer-pytorch", n, passes=forward)
    for d in (64, 128):
        yield from one(folder, "decode", "onnxruntime", 1024, d=d, passes=forward)
    yield from one(folder, "decode", "onnxruntime", 1024, heads=1, passes=forward)
    for n in (1024,) if quick else (1024, 4096, 16384):
        yield from one(folder, "local", "local-attention", n, same=True)
        yield from one(folder, "lsh", "reformer", n, passes=both if n <= 4096 else forward)
        yield from one(folder, "linformer", "linformer", n)
        yield from one(folder, "flash", "FLASH-pytorch", n)
        if n <= 4096:
            yield from one(folder, "gau", "FLASH-pytorch", n,
                           passes=both if n <= 1024 else forward)
