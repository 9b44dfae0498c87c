# SPDX-License-Identifier: Apache-2.0
"""Convolutions and transposed convolutions against PyTorch in channels-last memory, float32.

What is measured: the forward pass (output allocated before on our side; torch allocates its own, as
it is used), and the whole backward pass (gradients of input, weights and bias) for the output as its
own gradient. torch's backward is torch.autograd.grad on a graph that is kept. Limit: the
multiply-adds at the measured peak. Quality: the mean square of the result, which has to agree.

Shapes: those of residual and U-nets, the layers of the VQ-VAE that vq measures whole, and the
transposed convolution of the upsampling table.
"""

import time

import numpy

from area import Case, Peer, PythonPeer, cached

DRIVER = "nn_driver"


class Torch(PythonPeer):
    def __init__(self):
        super().__init__()
        import torch

        self.torch = torch
        torch.set_num_threads(self.threads)
        self.key, self.job, self.last = None, None, None

    def describe(self):
        return f"torch {self.torch.__version__} (channels last)"

    def forget(self):
        super().forget()
        self.key, self.job, self.last = None, None, None

    def make(self, kind, n, ci, h, co, k, s, p):
        torch = self.torch
        kinds = {"conv": torch.nn.Conv2d, "convT": torch.nn.ConvTranspose2d}
        layer = kinds[kind](ci, co, k, stride=s, padding=p)
        values = self.arrays["values"]
        with torch.no_grad():
            for parameter in layer.parameters():
                filled = numpy.resize(values, parameter.numel()).reshape(parameter.shape)
                parameter.copy_(torch.from_numpy(filled * numpy.float32(0.05)))
        layer = layer.to(memory_format=torch.channels_last)
        x = torch.from_numpy(numpy.resize(values, n * h * h * ci).reshape(n, h, h, ci)).permute(0, 3, 1, 2)
        x.requires_grad_()
        y = layer(x)
        return layer, x, y, y.detach().clone(memory_format=torch.channels_last)

    def run(self, case, inner=1, kind="", **sizes):
        torch = self.torch
        numbers = tuple(int(sizes[name]) for name in ("n", "ci", "h", "co", "k", "s", "p"))
        if self.key != (kind, numbers):
            self.job = None
            self.job, self.key = self.make(kind, *numbers), (kind, numbers)
        layer, x, y, dy = self.job
        if case == "forward":
            with torch.no_grad():
                start = time.perf_counter()
                for _ in range(inner):
                    result = layer(x)
        else:
            wanted = (x, *layer.parameters())
            start = time.perf_counter()
            for _ in range(inner):
                result = torch.autograd.grad(y, wanted, dy, retain_graph=True)[0]
        seconds = (time.perf_counter() - start) / inner
        self.last = result.detach().permute(0, 2, 3, 1).contiguous().numpy().ravel()
        return {"seconds": seconds}

    def output(self):
        return self.last


PEERS = {"torch": Peer(make=Torch)}


def layer_case(folder, label, direction, kind, n, ci, h, co, k, s, p):
    draw = numpy.random.default_rng(1)
    values = cached(folder, "nn-values", lambda: draw.normal(size=99991).astype(numpy.float32))
    grid = h if kind == "convT" else (h + 2 * p - k) // s + 1
    work = 2e-9 * n * grid * grid * ci * co * k * k * (1 if direction == "forward" else 2)
    return Case(
        name=f"{label} {direction}",
        metric="GFLOP/s",
        run=f"{direction} kind={kind} n={n} ci={ci} h={h} co={co} k={k} s={s} p={p}",
        work=work,
        peers=("torch",),
        data={"values": values},
        quality=lambda answer, folder: float((answer.astype(numpy.float64) ** 2).mean()),
        limit=lambda limits, threads: limits.get("fma_f32"),
    )


def cases(folder, quick):
    scale = 4 if quick else 1
    shapes = [
        ("conv 3x3 64-64 28x28", "conv", 32, 64, 28, 64, 3, 1, 1),
        ("conv 3x3 128-128 28x28", "conv", 16, 128, 28, 128, 3, 1, 1),
        ("conv 3x3 64-64 7x7", "conv", 128, 64, 7, 64, 3, 1, 1),
        ("conv 1x1 64-128 14x14", "conv", 128, 64, 14, 128, 1, 1, 0),
        ("conv 4x4/2 1-32 28x28", "conv", 128, 1, 28, 32, 4, 2, 1),
        ("conv 4x4/2 32-64 14x14", "conv", 128, 32, 14, 64, 4, 2, 1),
        ("convT 4x4/2 64-64 64x64", "convT", 8, 64, 64, 64, 4, 2, 1),
        ("convT 4x4/2 64-32 7x7", "convT", 128, 64, 7, 32, 4, 2, 1),
        ("convT 4x4/2 32-1 14x14", "convT", 128, 32, 14, 1, 4, 2, 1),
    ]
    for label, kind, n, *sizes in shapes:
        for direction in ("forward", "backward"):
            yield layer_case(folder, label, direction, kind, max(1, n // scale), *sizes)
