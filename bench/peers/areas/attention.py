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
and relative bias included. Quality, where the result is the same function of the data: the mean.
"""

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

        once()
        start = time.perf_counter()
        for _ in range(inner):
            out = once()
        seconds = (time.perf_counter() - start) / inner
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


PEERS = {"local-attention": Peer(make=LocalAttention), "reformer": Peer(make=Reformer),
         "linformer": Peer(make=Linformer), "FLASH-pytorch": Peer(make=Flash)}


def one(folder, kind, peer, n, heads=8, d=64, same=False):
    def values():
        return numpy.random.default_rng(1).normal(size=1 << 20).astype(numpy.float32)

    gated = kind in ("gau", "flash")
    for which in ("forward", "both"):
        yield Case(
            name=f"{kind} N={n} {which}",
            metric="ns a token" if gated else "ns a token and head",
            run=f"{kind} n={n} heads={heads} d={d} pass={which}",
            work=1e9 / (n if gated else n * heads),
            higher=False,
            peers=(peer,),
            data={"x": cached(folder, "attention-x", values)},
            quality=(lambda out, folder: float(out.astype(numpy.float64).mean())) if same else None,
        )


def cases(folder, quick):
    for n in (1024,) if quick else (1024, 4096, 16384):
        yield from one(folder, "local", "local-attention", n, same=True)
        yield from one(folder, "lsh", "reformer", n)
        yield from one(folder, "linformer", "linformer", n)
        yield from one(folder, "flash", "FLASH-pytorch", n)
        if n <= 4096:
            yield from one(folder, "gau", "FLASH-pytorch", n)
