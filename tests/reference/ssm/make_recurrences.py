# SPDX-License-Identifier: Apache-2.0
"""python make_recurrences.py SOURCE   references of recurrences, CASE__ARRAY.npy, float64.

SOURCE holds the arrays as these systems gave them, all in float64 (`.float()` in them was patched to
`.double()`): state-spaces/mamba e9594ce with autograd (mamba_full and mamba_plain by
selective_scan_ref, ssd by ssd_minimal_discrete), fla-org/flash-linear-attention bc3b101d (rwkv6 by
naive_recurrent_rwkv6; retention checked by naive_retention), the recurrences of BlinkDL/RWKV-LM
524481d's kernels in torch (rwkv4_wkv with autograd, rwkv7), a plain loop (mamba_complexA). The
script copies what the tests read, in C order, after working each forward out again with NumPy and
comparing. numpy 2.
"""

import os
import sys

import numpy

SOURCE = sys.argv[1]
HERE = os.path.dirname(os.path.abspath(__file__))
PREFIXES = ("mamba_", "ssd__", "retention__", "rwkv4_wkv", "rwkv6__", "rwkv7__")


def load(case, *names):
    return [numpy.load(os.path.join(SOURCE, f"{case}__{name}.npy")) for name in names]


def check(what, got, want):
    error = numpy.abs(got - want).max() / numpy.abs(want).max()
    if not error < 1e-12:
        sys.exit(f"{what}: {error} apart")


def softplus(x):
    return numpy.logaddexp(0, x)


def check_mamba():
    for case in ("mamba_full", "mamba_plain"):
        u, delta, a, b, c, y = load(case, "u", "delta", "A", "B", "C", "y")
        skip, z, bias = load(case, "D", "z", "delta_bias")
        dt = softplus(delta + bias[:, None]) if case == "mamba_full" else delta
        h, out = numpy.zeros(u.shape[:2] + a.shape[1:]), numpy.empty(u.shape)
        for t in range(u.shape[2]):
            h = numpy.exp(dt[..., t, None] * a) * h + (dt * u)[..., t, None] * b[:, None, :, t]
            out[..., t] = (h * c[:, None, :, t]).sum(-1)
        if case == "mamba_full":
            out = (out + skip[:, None] * u) * z / (1 + numpy.exp(-z))
        check(case, out, y)
    u, delta, a, b, c, y = load("mamba_complexA", "u", "delta", "A", "B", "C", "y")
    h, out = numpy.zeros(u.shape[:2] + a.shape[1:], complex), numpy.empty(u.shape)
    for t in range(u.shape[2]):
        h = numpy.exp(delta[..., t, None] * a) * h + (delta * u)[..., t, None] * b
        out[..., t] = 2 * (h * c).sum(-1).real
    check("mamba_complexA", out, y)


def check_matrices():
    x, log_a, b, c, h, y = load("ssd", "X", "logA", "B", "C", "h0", "y")
    out = numpy.empty(y.shape)
    for t in range(x.shape[1]):
        h = numpy.exp(log_a[:, t, :, None, None]) * h + x[:, t, ..., None] * b[:, t, :, None, :]
        out[:, t] = (h * c[:, t, :, None, :]).sum(-1)
    check("ssd", out, y)
    q, k, v, gamma, o = load("retention", "q", "k", "v", "gamma", "o")
    s, out = numpy.zeros(q.shape[:2] + (q.shape[3], v.shape[3])), numpy.empty(o.shape)
    for t in range(q.shape[2]):
        s = gamma[:, None, None] * s + k[:, :, t, :, None] * v[:, :, t, None, :]
        out[:, :, t] = (q[:, :, t, :, None] * q.shape[3] ** -0.5 * s).sum(2)
    check("retention", out, o)


def check_rwkv():
    for case in ("rwkv4_wkv", "rwkv4_wkv_bigk"):
        w, u, k, v, y = load(case, "w", "u", "k", "v", "y")
        out = numpy.empty(y.shape)
        for t in range(k.shape[1]):
            e = k[:, : t + 1] + (t - 1 - numpy.arange(t + 1))[None, :, None] * w
            e[:, t] = k[:, t] + u
            e = numpy.exp(e - e.max(1, keepdims=True))
            out[:, t] = (e * v[:, : t + 1]).sum(1) / e.sum(1)
        check(case, out, y)
    r, k, v, logw, u, s, o = load("rwkv6", "r", "k", "v", "logw", "u", "h0", "o")
    out = numpy.empty(o.shape)
    for t in range(r.shape[2]):
        kv = k[:, :, t, :, None] * v[:, :, t, None, :]
        out[:, :, t] = (r[:, :, t, :, None] * (s + u[:, :, None] * kv)).sum(2)
        s = numpy.exp(logw[:, :, t, :, None]) * s + kv
    check("rwkv6", out, o)
    r, w, k, v, a, b, s, o = load("rwkv7", "r", "decay", "k", "v", "a", "b", "h0", "o")
    out = numpy.empty(o.shape)
    for t in range(r.shape[2]):
        sa = (s * a[:, :, t, None, :]).sum(-1)
        s = (s * w[:, :, t, None, :] + v[:, :, t, :, None] * k[:, :, t, None, :]
             + sa[..., None] * b[:, :, t, None, :])
        out[:, :, t] = (s * r[:, :, t, None, :]).sum(-1)
    check("rwkv7", out, o)


check_mamba()
check_matrices()
check_rwkv()
for name in sorted(os.listdir(SOURCE)):
    if name.startswith(PREFIXES) and name.endswith(".npy"):
        numpy.save(os.path.join(HERE, name),
                   numpy.ascontiguousarray(numpy.load(os.path.join(SOURCE, name))))
