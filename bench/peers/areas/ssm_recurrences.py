# SPDX-License-Identifier: Apache-2.0
"""Rows of the area "ssm": selective scans, Mamba-2, retention, RWKV, causal convolutions.

torch has no operator for any of them on a CPU, so its sides are the reference forms that people run
there, written with torch's own products: the selective scan with decays and inputs of all steps
made first (selective_scan_ref) and, "torch-loop", as a loop that makes them as it goes; Mamba-2 and
retention by chunks of 64 and 128 with products inside and a loop over chunks' states
(ssd_minimal_discrete; torchscale's chunkwise form), the convolution as a grouped conv1d, RWKV-6,
RWKV-7 and gated linear attention ("gla") as a loop over time; mambapy is its parallel scan. "-gradient" is forward and backward on
both sides, "decode" one step from a state. ggml, which has these operators too but comes as no
package, is a side where `--ggml` names a built library (ssm_ggml.py).

The curve (`--curve STEPS`) is quern alone, with states carried over pieces of 1,000 steps: cost of
a step and peak memory over what was there before, from a thousand steps up.

Quality: largest difference to the same recurrence in float64, relative to the largest value.
"""

import os
import sys
import time

import numpy

from area import Case, Peer, PythonPeer, cached
from areas.ssm_ggml import Ggml, library_path


class Recurrences(PythonPeer):
    """Base of torch's sides: arrays as tensors, forward, forward and backward."""

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

    def tensor(self, name):
        if name not in self.kept:
            self.kept[name] = self.torch.from_numpy(numpy.ascontiguousarray(self.arrays[name]))
        return self.kept[name]

    def selective(self):
        """As selective_scan_ref: decays and inputs of all steps first, then a loop over time."""
        torch = self.torch
        u, delta, a, b, c = (self.tensor(x) for x in ("u", "delta", "a", "b", "c"))
        dt, u = torch.nn.functional.softplus(delta).transpose(1, 2), u.transpose(1, 2)
        decay = torch.exp(torch.einsum("bdl,dn->bdln", dt, a))
        fed = torch.einsum("bdl,bln,bdl->bdln", dt, b, u)
        h = torch.zeros(decay.shape[0], *a.shape)
        out = []
        for t in range(u.shape[2]):
            h = decay[:, :, t] * h + fed[:, :, t]
            out.append(torch.einsum("bdn,bn->bd", h, c[:, t]))
        return (torch.stack(out, 2) + u * self.tensor("skip")[:, None]).transpose(1, 2)

    def chunked(self, q, k, v, log_decay, size):
        """(batch, heads, length, dim), log_decay (batch, heads, length)."""
        torch = self.torch
        batch, heads, length, _ = q.shape
        size = min(size, length)
        q, k, v = (x.reshape(batch, heads, length // size, size, -1) for x in (q, k, v))
        total = log_decay.reshape(batch, heads, length // size, size).cumsum(-1)
        apart = total[..., :, None] - total[..., None, :]
        mask = torch.ones(size, size, dtype=torch.bool).tril()
        inside = torch.exp(apart.masked_fill(~mask, -torch.inf))
        out = ((q @ k.transpose(-1, -2)) * inside) @ v
        fed = (k * torch.exp(total[..., -1:] - total)[..., None]).transpose(-1, -2) @ v
        last = torch.exp(total[..., -1])
        state = torch.zeros_like(fed[:, :, 0])
        before = []
        for n in range(length // size):
            before.append(state)
            state = last[:, :, n, None, None] * state + fed[:, :, n]
        out = out + (q * torch.exp(total)[..., None]) @ torch.stack(before, 2)
        return out.reshape(batch, heads, length, -1)

    def ssd(self):
        x, log_a, b, c = (self.tensor(n) for n in ("x", "log_a", "b", "c"))
        heads = x.shape[2]
        b, c = (y.expand(-1, -1, heads, -1).transpose(1, 2) for y in (b, c))
        y = self.chunked(c, b, x.transpose(1, 2), log_a.transpose(1, 2), 64)
        return y.transpose(1, 2)

    def retention(self):
        torch = self.torch
        q, k, v = (self.tensor(n) for n in ("q", "k", "v"))
        log_gamma = torch.log(self.tensor("gamma"))[None, :, None].expand(q.shape[:3])
        return self.chunked(q * q.shape[-1] ** -0.5, k, v, log_gamma, 128)

    def conv(self):
        functional = self.torch.nn.functional
        x, w = self.tensor("x").transpose(1, 2), self.tensor("w")
        y = functional.conv1d(x, w[:, None, :], padding=w.shape[1] - 1, groups=w.shape[0])
        return functional.silu(y[..., :x.shape[-1]]).transpose(1, 2)

    def rwkv6(self):
        torch = self.torch
        r, k, v, logw = (self.tensor(n) for n in ("r", "k", "v", "logw"))
        u = self.tensor("bonus")[:, :, None]
        s = torch.zeros(r.shape[0], r.shape[1], r.shape[3], v.shape[3])
        out = []
        for t in range(r.shape[2]):
            kv = k[:, :, t, :, None] * v[:, :, t, None, :]
            out.append((r[:, :, t, None, :] @ (s + u * kv)).squeeze(2))
            s = torch.exp(logw[:, :, t, :, None]) * s + kv
        return torch.stack(out, 2)

    def gla(self):
        torch = self.torch
        r, k, v, logw = (self.tensor(n) for n in ("r", "k", "v", "logw"))
        s = torch.zeros(r.shape[0], r.shape[1], r.shape[3], v.shape[3])
        out = []
        for t in range(r.shape[2]):
            s = torch.exp(logw[:, :, t, :, None]) * s + k[:, :, t, :, None] * v[:, :, t, None, :]
            out.append((r[:, :, t, None, :] @ s).squeeze(2))
        return torch.stack(out, 2)

    def rwkv7(self):
        torch = self.torch
        r, k, v, logw, a, b = (self.tensor(n) for n in ("r", "k", "v", "logw", "a", "b"))
        decay = torch.exp(logw)
        s = torch.zeros(r.shape[0], r.shape[1], v.shape[3], r.shape[3])
        out = []
        for t in range(r.shape[2]):
            sa = s @ a[:, :, t, :, None]
            s = (s * decay[:, :, t, None, :] + v[:, :, t, :, None] * k[:, :, t, None, :]
                 + sa * b[:, :, t, None, :])
            out.append((s @ r[:, :, t, :, None]).squeeze(-1))
        return torch.stack(out, 2)

    def run(self, case, inner=1, **_):
        name, gradient = case.removesuffix("-gradient"), case.endswith("-gradient")
        name = name.removesuffix("-step")
        form = getattr(self, name)
        form_inputs = [self.tensor(n) for n in self.arrays]
        start = time.perf_counter()
        for _ in range(inner):
            if gradient:
                for x in form_inputs:
                    x.requires_grad_(True)
                    x.grad = None
                form().sum().backward()
                self.last = form_inputs[0].grad
            else:
                with self.torch.no_grad():
                    self.last = form()
        return {"seconds": (time.perf_counter() - start) / inner}

    def output(self):
        return self.last.detach().numpy().ravel()


class Loop(Recurrences):
    """The selective scan as a loop that makes nothing for all steps at once."""

    def describe(self):
        return super().describe() + " (a loop over time)"

    def selective(self):
        torch = self.torch
        u, delta, a, b, c = (self.tensor(x) for x in ("u", "delta", "a", "b", "c"))
        dt = torch.nn.functional.softplus(delta)
        h = torch.zeros(u.shape[0], u.shape[2], a.shape[1])
        out = []
        for t in range(u.shape[1]):
            step = dt[:, t, :, None]
            h = torch.exp(step * a) * h + step * u[:, t, :, None] * b[:, t, None, :]
            out.append((h * c[:, t, None, :]).sum(-1))
        return torch.stack(out, 1) + u * self.tensor("skip")


class MambaPy(Recurrences):
    """The selective scan by mambapy's pscan."""

    def describe(self):
        return "mambapy (pscan)"

    def selective(self):
        from mambapy.pscan import pscan

        torch = self.torch
        u, delta, a, b, c = (self.tensor(x) for x in ("u", "delta", "a", "b", "c"))
        dt = torch.nn.functional.softplus(delta)
        fed = (dt * u)[..., None] * b[:, :, None, :]
        states = pscan(torch.exp(dt[..., None] * a), fed)
        return (states @ c[..., None]).squeeze(3) + u * self.tensor("skip")


RECURRENCE_PEERS = {"torch-reference": Peer(make=Recurrences), "torch-loop": Peer(make=Loop),
                    "mambapy": Peer(make=MambaPy)}
if library_path():
    RECURRENCE_PEERS["ggml"] = Peer(make=Ggml)


def against(exact):
    """Largest difference to exact(folder), which is worked out once."""
    kept = []

    def quality(answer, folder):
        if not kept:
            kept.append(exact(folder).ravel())
        return float(numpy.abs(answer - kept[0]).max() / numpy.abs(kept[0]).max())

    return quality


def load(folder, name):
    return numpy.load(os.path.join(folder, name)).astype(numpy.float64)


class Drawn:
    """Arrays of a case, drawn once and kept as files."""

    def __init__(self, folder, tag):
        self.folder, self.tag = folder, tag
        self.random = numpy.random.default_rng(5)
        self.files = {}

    def add(self, name, shape, change=lambda x: x):
        value = change(self.random.normal(size=shape)).astype(numpy.float32)
        file = f"ssm-{self.tag}-{name}".replace(" ", "-")
        self.files[name] = cached(self.folder, file, lambda: value)
        return self


def selective_exact(files):
    def exact(folder):
        u, delta, a, b, c = (load(folder, files[n]) for n in ("u", "delta", "a", "b", "c"))
        dt = numpy.logaddexp(0, delta)
        h, out = numpy.zeros(a.shape), numpy.empty(u.shape)
        for t in range(u.shape[1]):
            h = numpy.exp(dt[0, t, :, None] * a) * h + (dt * u)[0, t, :, None] * b[0, t]
            out[0, t] = h @ c[0, t]
        return out + u * load(folder, files["skip"])

    return exact


def with_ggml(peers):
    return peers + ("ggml",) if library_path() else peers


def rows(run, files, work, peers, quality=None, gradient=("torch-reference",),
         metric="ns/(step, channel)"):
    """Forward beside `peers`, and forward and backward beside `gradient`, unless that is None."""
    name = f"{run} {files.tag}"
    common = {"metric": metric, "work": 1e9 / work, "higher": False, "data": files.files, "slot": 0}
    yield Case(name=name, run=run, peers=peers, quality=quality, repeats=5, **common)
    if gradient is not None:
        yield Case(name=f"{name}, forward and backward", run=f"{run}-gradient", peers=gradient,
                   repeats=3, **common)


def selective_files(folder, length, d, n):
    files = Drawn(folder, f"L{length} D{d} N{n}")
    files.add("u", (1, length, d)).add("delta", (1, length, d), lambda x: x - 3)
    files.add("b", (1, length, n)).add("c", (1, length, n))
    return files.add("a", (d, n), lambda x: -numpy.exp(x)).add("skip", (d,))


def ssd_files(folder, length, heads, p, n):
    files = Drawn(folder, f"L{length} H{heads} P{p} N{n}")
    files.add("x", (1, length, heads, p)).add("b", (1, length, 1, n)).add("c", (1, length, 1, n))
    return files.add("log_a", (1, length, heads), lambda x: -0.1 * numpy.exp(x))


def rwkv_files(folder, run, length, heads, p):
    files = Drawn(folder, f"T{length} H{heads} S{p} {run}")
    shape = (1, heads, length, p)
    files.add("r", shape).add("k", shape).add("v", shape)
    files.add("logw", shape, lambda x: -0.1 * numpy.exp(x))
    if run == "gla":
        return files
    if run == "rwkv6":
        return files.add("bonus", (heads, p))
    return files.add("a", shape, lambda x: x / 20).add("b", shape, lambda x: x / 20)


def ssd_exact(files):
    def exact(folder):
        x, log_a, b, c = (load(folder, files[n])[0] for n in ("x", "log_a", "b", "c"))
        h, out = numpy.zeros(x.shape[1:] + b.shape[-1:]), numpy.empty(x.shape)
        for t in range(len(x)):
            h = numpy.exp(log_a[t])[:, None, None] * h + x[t][..., None] * b[t]
            out[t] = h @ c[t, 0]
        return out

    return exact


def retention_exact(files):
    def exact(folder):
        q, k, v = (load(folder, files[n])[0] for n in ("q", "k", "v"))
        gamma = load(folder, files["gamma"])[:, None, None]
        s, out = numpy.zeros((len(q), q.shape[2], v.shape[2])), numpy.empty(v.shape)
        for t in range(q.shape[1]):
            s = gamma * s + k[:, t, :, None] * v[:, t, None, :]
            out[:, t] = (q[:, t, None, :] @ s)[:, 0] * q.shape[2] ** -0.5
        return out

    return exact


def rwkv_exact(files):
    def exact(folder):
        r, k, v, w = (load(folder, files[n])[0] for n in ("r", "k", "v", "logw"))
        s, out = numpy.zeros((len(r), v.shape[2], r.shape[2])), numpy.empty(v.shape)
        for t in range(r.shape[1]):
            new = v[:, t, :, None] * k[:, t, None, :]
            decayed = s * numpy.exp(w[:, t])[:, None, :]
            if "bonus" in files:
                seen = s + load(folder, files["bonus"])[:, None, :] * new
                s = decayed + new
            elif "a" not in files:
                s = seen = decayed + new
            else:
                a, b = (load(folder, files[n])[0, :, t] for n in ("a", "b"))
                s = seen = decayed + new + (s @ a[..., None]) * b[:, None, :]
            out[:, t] = (seen @ r[:, t, :, None])[..., 0]
        return out

    return exact


def decode_cases(folder, quick):
    """One step of one sequence from its state."""
    d, n = (64, 16) if quick else (1536, 16)
    h, p = (4, 16) if quick else (24, 64)
    heads, s = (2, 64) if quick else (32, 64)
    for run, files, work in (("selective", selective_files(folder, 1, d, n), d),
                             ("ssd", ssd_files(folder, 1, h, p, p), h * p),
                             ("rwkv6", rwkv_files(folder, "rwkv6", 1, heads, s), heads * s),
                             ("rwkv7", rwkv_files(folder, "rwkv7", 1, heads, s), heads * s)):
        yield Case(name=f"{run} decode {files.tag}", run=f"{run}-step", metric="ns/channel",
                   work=1e9 / work, higher=False, peers=with_ggml(("torch-reference",)),
                   data=files.files, repeats=5)


def curve_cases(largest):
    steps = 1000
    while steps <= largest:
        for model in ("selective", "ssd", "retention", "rwkv7", "s5", "s4d", "legs"):
            run = f"curve model={model} steps={steps}"
            yield Case(name=f"curve {model} {steps} steps", metric="ns/step", run=run,
                       work=1e9 / steps, higher=False, slot=0, repeats=3)
            yield Case(name=f"curve {model} {steps} steps, memory", metric="MB",
                       run=f"{run} memory=1", higher=False, slot=0, fresh=True, repeats=1)
        steps *= 10


def recurrence_cases(folder, quick):
    """Sizes are those of the models: Mamba 130M, Mamba-2, RetNet, RWKV."""
    if not library_path():
        print("ssm: no --ggml LIBRARY, so ggml's rows are left out", file=sys.stderr)
    torch = ("torch-reference",)
    for length in ((256,) if quick else (2048, 16384)):
        d, n = (64, 16) if quick else (1536, 16)
        files = selective_files(folder, length, d, n)
        short = length <= 2048
        yield from rows("selective", files, length * d,
                        with_ggml(torch + ("torch-loop", "mambapy") if short else ()),
                        against(selective_exact(files.files)) if short else None,
                        gradient=("mambapy",) if short else ())
    length, heads, p, n = (256, 4, 16, 16) if quick else (2048, 24, 64, 64)
    files = ssd_files(folder, length, heads, p, n)
    yield from rows("ssd", files, length * heads * p, with_ggml(torch),
                    against(ssd_exact(files.files)))
    length, heads, dk, dv = (256, 4, 16, 32) if quick else (2048, 8, 64, 128)
    files = Drawn(folder, f"L{length} H{heads} K{dk} V{dv}")
    files.add("q", (1, heads, length, dk)).add("k", (1, heads, length, dk))
    files.add("v", (1, heads, length, dv))
    files.add("gamma", (heads,), lambda x: 1 - 2.0 ** (-5 - numpy.arange(len(x))))
    yield from rows("retention", files, length * heads, torch,
                    against(retention_exact(files.files)), metric="ns/(step, head)")
    length, heads, p = (128, 2, 64) if quick else (1024, 32, 64)
    for run in ("rwkv6", "rwkv7", "gla"):
        files = rwkv_files(folder, run, length, heads, p)
        yield from rows(run, files, length * heads * p, with_ggml(torch),
                        against(rwkv_exact(files.files)))
    length, d = (256, 64) if quick else (2048, 1536)
    files = Drawn(folder, f"L{length} D{d} K4")
    files.add("x", (1, length, d)).add("w", (d, 4))
    yield from rows("conv", files, length * d, with_ggml(torch))
    yield from decode_cases(folder, quick)
