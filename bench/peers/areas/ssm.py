# SPDX-License-Identifier: Apache-2.0
"""State spaces: convolutions, kernels, scans and online memories beside torch, FFTW, jax and C++.

convolution: u (batch, length, channels) with a kernel for every channel as long as the sequence,
float32. torch: rfft, product, irfft with zero padding, as the S4 repository has it; FFTW: the same
through pyFFTW with measured plans, padded arrays made before. Both get (batch, channels, length),
which they need contiguous; quern works on (batch, length, channels). The gradient is that of input
and kernel (torch: forward and backward, since autograd has no backward alone).

s4d-kernel: H channels of N modes to the kernel of that length; torch: the S4D authors' standalone
code, 2 Re of an einsum with the (H, N, L) Vandermonde matrix, which is the form that their
extension for accelerators replaces. complex-scan: x = Lambda x + B u, y = Re(C x), one sequence, to
and from few channels; jax: lax.scan over B u, then C x, jitted.

legs: HiPPO-LegS, bilinear, 64 channels together, 256 inputs. The peer is the O(order) recurrence in
scalar C++ for one channel at a time ("scalar", compiled here with -O2).

Scans that depend on the data, retention and RWKV: see ssm_recurrences.py.

Quality: largest difference to float64 (numpy), relative to the largest value, on what both return.
"""

import ctypes
import os
import subprocess
import time

import numpy

from area import Case, Peer, PythonPeer, cached
from areas.ssm_recurrences import RECURRENCE_PEERS, curve_cases, recurrence_cases

DRIVER = "ssm_driver"


class Torch(PythonPeer):
    def __init__(self):
        super().__init__()
        import torch

        self.torch = torch
        torch.set_num_threads(self.threads)
        self.kept, self.last = {}, None

    def describe(self):
        return f"torch {self.torch.__version__}"

    def forget(self):
        super().forget()
        self.kept, self.last = {}, None

    def tensor(self, name, change=lambda x: x):
        if name not in self.kept:
            self.kept[name] = self.torch.from_numpy(
                numpy.ascontiguousarray(change(self.arrays[name])))
        return self.kept[name]

    def convolve(self, u, k):
        torch, n = self.torch, u.shape[-1]
        product = torch.fft.rfft(u, n=2 * n) * torch.fft.rfft(k, n=2 * n)
        return torch.fft.irfft(product, n=2 * n)[..., :n]

    def run(self, case, inner=1, length="16384", **_):
        torch = self.torch
        if case.startswith("convolution"):
            u = self.tensor("u", lambda x: x.transpose(0, 2, 1))
            k = self.tensor("k", lambda x: x.T)
        start = time.perf_counter()
        for _ in range(inner):
            if case == "convolution":
                self.last = self.convolve(u, k)
            elif case == "convolution-gradient":
                u.requires_grad_(True), k.requires_grad_(True)
                u.grad = k.grad = None
                self.convolve(u, k).backward(u.detach())
                self.last = k.grad
            else:
                a, c = (torch.view_as_complex(self.tensor(x)) for x in ("a", "c"))
                dta = a * self.tensor("dt")[:, None]
                powers = torch.exp(dta[..., None] * torch.arange(int(length)))
                self.last = 2 * torch.einsum("hn,hnl->hl", c * (torch.exp(dta) - 1) / a, powers).real
        return {"seconds": (time.perf_counter() - start) / inner}

    def output(self):
        return numpy.swapaxes(self.last.detach().numpy(), -1, -2).ravel()


class Fftw(PythonPeer):
    def __init__(self):
        super().__init__()
        import pyfftw

        self.pyfftw, self.plans, self.last = pyfftw, None, None

    def describe(self):
        return f"FFTW through pyFFTW {self.pyfftw.__version__}"

    def forget(self):
        super().forget()
        self.plans, self.last = None, None

    def plan(self, shape):
        make, n = self.pyfftw.empty_aligned, shape[-1]
        real = make(shape[:-1] + (2 * n,), dtype="float32")
        spectrum = make(shape[:-1] + (n + 1,), dtype="complex64")
        options = {"flags": ("FFTW_MEASURE",), "threads": self.threads}
        return (real, spectrum, self.pyfftw.FFTW(real, spectrum, **options),
                self.pyfftw.FFTW(spectrum, real, direction="FFTW_BACKWARD", **options))

    def run(self, case, inner=1, **_):
        if self.plans is None:
            u = numpy.ascontiguousarray(self.arrays["u"].transpose(0, 2, 1))
            k = numpy.ascontiguousarray(self.arrays["k"].T)
            self.plans = u, k, self.plan(u.shape), self.plan(k.shape)
        u, k, (x, fx, there, back), (z, fz, kernel, _) = self.plans
        n = u.shape[-1]
        start = time.perf_counter()
        for _ in range(inner):
            x[..., :n], x[..., n:] = u, 0
            z[..., :n], z[..., n:] = k, 0
            there.execute()
            kernel.execute()
            fx *= fz
            back.execute()
            self.last = x[..., :n]
        return {"seconds": (time.perf_counter() - start) / inner}

    def output(self):
        return (numpy.swapaxes(self.last, -1, -2) / (2 * self.last.shape[-1])).ravel()


class Jax(PythonPeer):
    def __init__(self):
        flags = f"--xla_cpu_multi_thread_eigen={'true' if self.threads > 1 else 'false'}"
        os.environ.setdefault("XLA_FLAGS", f"{flags} intra_op_parallelism_threads={self.threads}")
        super().__init__()
        import jax

        self.jax, self.scan, self.last = jax, None, None

    def describe(self):
        return f"jax {self.jax.__version__} (lax.scan)"

    def forget(self):
        super().forget()
        self.scan, self.last = None, None

    def run(self, case, inner=1, **_):
        jax = self.jax
        jnp = jax.numpy
        if self.scan is None:
            def complex_of(name):
                pairs = self.arrays[name]
                return jnp.asarray(pairs[..., 0] + 1j * pairs[..., 1]).astype(jnp.complex64)

            lam, b, c = complex_of("lambda")[:, 0], complex_of("b"), complex_of("c")
            a = jnp.exp(lam * self.arrays["dt"])
            b = ((a - 1) / lam)[:, None] * b
            u = jnp.asarray(self.arrays["u"])

            def step(x, v):
                x = a * x + v
                return x, x

            self.scan = jax.jit(lambda u: (jax.lax.scan(
                step, jnp.zeros(len(a), jnp.complex64), u @ b.T)[1] @ c.T).real), u
            self.scan[0](u).block_until_ready()
        run, u = self.scan
        start = time.perf_counter()
        for _ in range(inner):
            self.last = run(u).block_until_ready()
        return {"seconds": (time.perf_counter() - start) / inner}

    def output(self):
        return numpy.asarray(self.last).ravel()


SCALAR = r"""
#include <cmath>
#include <vector>
extern "C" void legs(const float* u, long steps, long stride, long order, float* m) {
  std::vector<float> r(order);
  for (long n = 0; n < order; ++n) r[n] = std::sqrt(2.0f * n + 1);
  for (long n = 0; n < order; ++n) m[n] = 0;
  m[0] = u[0];
  for (long k = 1; k < steps; ++k) {
    const float h = 1.0f / k, w = h / 2;
    float below = 0, solved = 0;
    for (long n = 0; n < order; ++n) {
      const float right = m[n] - w * (r[n] * below + (n + 1) * m[n]) + h * r[n] * u[k * stride];
      const float x = (right - w * r[n] * solved) / (1 + w * (n + 1));
      below += r[n] * m[n];
      solved += r[n] * x;
      m[n] = x;
    }
  }
}
"""


class Scalar(PythonPeer):
    """The recurrence of one channel, channel after channel."""

    def __init__(self):
        super().__init__()
        folder = os.path.join(os.path.expanduser("~"), ".cache", "quern-bench")
        os.makedirs(folder, exist_ok=True)
        source, library = os.path.join(folder, "legs.cpp"), os.path.join(folder, "liblegs.so")
        with open(source, "w", encoding="utf-8") as file:
            file.write(SCALAR)
        subprocess.run(["g++", "-O2", "-shared", "-fPIC", source, "-o", library], check=True)
        self.legs, self.last = ctypes.CDLL(library).legs, None

    def describe(self):
        return "scalar C++ (g++ -O2), a channel at a time"

    def run(self, case, inner=1, order="256", **_):
        u, order = self.arrays["u"], int(order)
        steps, channels = u.shape
        m = numpy.empty((channels, order), numpy.float32)
        start = time.perf_counter()
        for _ in range(inner):
            for c in range(channels):
                self.legs(ctypes.c_void_p(u.ctypes.data + 4 * c), ctypes.c_long(steps),
                          ctypes.c_long(channels), ctypes.c_long(order),
                          ctypes.c_void_p(m.ctypes.data + 4 * c * order))
        self.last = m
        return {"seconds": (time.perf_counter() - start) / inner}

    def output(self):
        return self.last.T.ravel()


PEERS = {"torch": Peer(make=Torch), "fftw": Peer(make=Fftw), "jax": Peer(make=Jax),
         "scalar": Peer(make=Scalar), **RECURRENCE_PEERS}


CHECKED = 8  # channels that are worked out in float64


def against(exact, channels):
    """Largest difference to exact() on the first channels, which are worked out once."""
    kept = []

    def quality(answer, folder):
        if not kept:
            kept.append(exact(folder).reshape(-1, min(CHECKED, channels)))
        got = answer.reshape(-1, channels)[:, :CHECKED]
        return float(numpy.abs(got - kept[0]).max() / numpy.abs(kept[0]).max())

    return quality


def load(folder, name):
    return numpy.load(os.path.join(folder, name)).astype(numpy.float64)


def complex_of(folder, name):
    pairs = load(folder, name)
    return pairs[..., 0] + 1j * pairs[..., 1]


def convolution_cases(folder, batch, channels, length):
    draw = numpy.random.default_rng(1)
    tag = f"{batch}x{length}x{channels}"
    u = cached(folder, f"ssm-u-{tag}", lambda: draw.normal(
        size=(batch, length, channels)).astype(numpy.float32))
    k = cached(folder, f"ssm-k-{tag}", lambda: (draw.normal(size=(length, channels)) * numpy.exp(
        -numpy.arange(length) / length * 4)[:, None]).astype(numpy.float32))

    def spectra(folder):
        x, y = load(folder, u)[..., :CHECKED], load(folder, k)[..., :CHECKED]
        return numpy.fft.rfft(x, n=2 * length, axis=1), numpy.fft.rfft(y, n=2 * length, axis=0)

    def forward(folder):
        fu, fk = spectra(folder)
        return numpy.fft.irfft(fu * fk, axis=1)[:, :length]

    def kernel_gradient(folder):
        fu, _ = spectra(folder)
        return numpy.fft.irfft((fu * fu.conj()).sum(0), axis=0)[:length]

    for run, peers, exact in (("convolution", ("torch", "fftw"), forward),
                              ("convolution-gradient", ("torch",), kernel_gradient)):
        yield Case(name=f"{run} B{batch} H{channels} L{length}", metric="ms", run=run, work=1e3,
                   higher=False, peers=peers, data={"u": u, "k": k}, quality=against(exact, channels),
                   slot=0, repeats=5)


def kernel_case(folder, channels, modes, length):
    draw = numpy.random.default_rng(2)
    tag = f"{channels}x{modes}"
    lin = numpy.stack([numpy.full(modes, -0.5), numpy.pi * numpy.arange(modes)], -1)
    a = cached(folder, f"ssm-a-{tag}", lambda: numpy.broadcast_to(
        lin, (channels, modes, 2)).astype(numpy.float32))
    c = cached(folder, f"ssm-c-{tag}", lambda: draw.normal(
        size=(channels, modes, 2)).astype(numpy.float32))
    dt = cached(folder, f"ssm-dt-{tag}", lambda: numpy.exp(draw.uniform(
        numpy.log(1e-3), numpy.log(1e-1), size=channels)).astype(numpy.float32))

    def exact(folder):
        z = complex_of(folder, a) * load(folder, dt)[:, None]
        weight = complex_of(folder, c) * numpy.expm1(z) / complex_of(folder, a)
        kernel = numpy.empty((length, min(CHECKED, channels)))
        for h in range(kernel.shape[1]):
            kernel[:, h] = 2 * (numpy.exp(numpy.outer(numpy.arange(length), z[h])) @ weight[h]).real
        return kernel

    return Case(name=f"s4d-kernel H{channels} N{2 * modes} L{length}", metric="ms",
                run=f"s4d-kernel length={length}", work=1e3, higher=False, peers=("torch",),
                data={"a": a, "c": c, "dt": dt}, quality=against(exact, channels), slot=0, repeats=2)


def scan_case(folder, length, states, inputs):
    draw = numpy.random.default_rng(3)
    tag = f"{length}x{states}x{inputs}"

    def normal(*shape):
        return draw.normal(size=shape).astype(numpy.float32)

    u = cached(folder, f"ssm-su-{tag}", lambda: normal(length, inputs))
    poles = numpy.stack([numpy.full(states, -0.5), numpy.pi * numpy.arange(states)], -1)[:, None]
    lam = cached(folder, f"ssm-sl-{tag}", lambda: poles.astype(numpy.float32))
    b = cached(folder, f"ssm-sb-{tag}", lambda: normal(states, inputs, 2))
    c = cached(folder, f"ssm-sc-{tag}", lambda: normal(inputs, states, 2))
    dt = cached(folder, f"ssm-sd-{tag}", lambda: numpy.exp(draw.uniform(
        numpy.log(1e-3), numpy.log(1e-1), size=states)).astype(numpy.float32))

    def exact(folder):
        pole = complex_of(folder, lam)[:, 0]
        z = pole * load(folder, dt)
        multiplier = numpy.exp(z)
        v = load(folder, u) @ ((numpy.expm1(z) / pole)[:, None] * complex_of(folder, b)).T
        x = numpy.zeros(states, complex)
        for t in range(length):
            x = v[t] = multiplier * x + v[t]
        return (v @ complex_of(folder, c)[:CHECKED].T).real

    return Case(name=f"complex-scan L{length} P{states} H{inputs}", metric="ns/(step, state)",
                run="complex-scan", work=1e9 / (length * states), higher=False, peers=("jax",),
                data={"u": u, "lambda": lam, "b": b, "c": c, "dt": dt},
                quality=against(exact, inputs), slot=0, repeats=5)


def legs_case(folder, order, channels, steps):
    draw = numpy.random.default_rng(4)
    u = cached(folder, f"ssm-legs-{steps}x{channels}", lambda: draw.normal(
        size=(steps, channels)).cumsum(0).astype(numpy.float32) / 16)

    def exact(folder):
        inputs, r = load(folder, u)[:, :CHECKED], numpy.sqrt(2 * numpy.arange(order) + 1.0)
        a = -numpy.tril(numpy.outer(r, r), -1) - numpy.diag(numpy.arange(order) + 1.0)
        m = numpy.zeros((order, inputs.shape[1]))
        m[0] = inputs[0]
        eye = numpy.eye(order)
        for k in range(1, steps):
            right = m + a @ m / (2 * k) + numpy.outer(r / k, inputs[k])
            m = numpy.linalg.solve(eye - a / (2 * k), right)
        return m

    return Case(name=f"legs N{order}, {channels} channels", metric="ns/(step, order, channel)",
                run=f"legs order={order}", work=1e9 / (steps * order * channels), higher=False,
                peers=("scalar",), data={"u": u}, quality=against(exact, channels))


def cases(folder, quick):
    if os.environ.get("PEERS_CURVE"):
        yield from curve_cases(int(os.environ["PEERS_CURVE"]))
        return
    yield from convolution_cases(folder, *((2, 64, 2048) if quick else (4, 512, 16384)))
    yield kernel_case(folder, *((32, 32, 2048) if quick else (512, 32, 16384)))
    yield scan_case(folder, *((4096, 64, 8) if quick else (65536, 256, 16)))
    yield legs_case(folder, 64 if quick else 256, 64, 256)
    yield from recurrence_cases(folder, quick)
