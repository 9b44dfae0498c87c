#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Outputs and gradients of softmax attention, the linear family and Performer, in float64: torch
2.15.0's scaled_dot_product_attention, the definitions of fast-transformers (2ad36b9) and of fla
(bc3b101d: retention, gla, delta_rule), performer-pytorch 1.1.4's features, and FAVOR+ by its formula.
Inputs (q, k, v, dout, g, beta, gamma, W, lens) are read from the folders beside this file (common
holds those that cases share) and stay; everything else is computed from them.

usage: make_attention.py [--check]      --check compares with what is there and writes nothing
"""
import os
import sys

import numpy as np
import torch

HERE = os.path.dirname(os.path.abspath(__file__))
torch.set_default_dtype(torch.float64)


def load(case, name):
    for folder in (case, "common"):
        path = os.path.join(HERE, folder, name + ".npy")
        if os.path.exists(path):
            return torch.from_numpy(np.load(path).astype(np.float64))
    raise FileNotFoundError(f"{case}/{name}")


def store(case, name, value):
    path = os.path.join(HERE, case, name + ".npy")
    array = value.detach().numpy().astype(np.float32)
    if "--check" in sys.argv:
        old = np.load(path)
        error = np.abs(old - array).max() / max(np.abs(array).max(), 1e-30)
        print(f"{case}/{name}: {error:.1e}")
        assert error < 1e-5, (case, name, error)
    else:
        np.save(path, array)


def run(case, function, names=("q", "k", "v")):
    """out = function(*inputs), and the gradients of sum(out * dout)."""
    inputs = [load(case, name).requires_grad_() for name in names]
    out = function(*inputs)
    store(case, "out", out)
    (out * load(case, "dout")).sum().backward()
    for name, x in zip(names, inputs):
        store(case, "d" + name, x.grad)


def lower(n):
    return torch.tril(torch.ones(n, n, dtype=torch.bool))


def softmax(**options):
    return lambda q, k, v: torch.nn.functional.scaled_dot_product_attention(q, k, v, **options)


def linear(phi, eps, causal=False, keys=None):
    """keys: how many of them are not padding."""

    def attend(q, k, v):
        q, k = phi(q), phi(k)
        if keys is not None:
            k = k * (torch.arange(k.shape[2]) < keys)[:, None]
        weights = q @ k.transpose(-1, -2)
        if causal:
            weights = weights * lower(q.shape[2])
        return weights @ v / (weights.sum(-1, keepdim=True) + eps)

    return attend


def retention(gamma):
    def attend(q, k, v):
        n = q.shape[2]
        age = (torch.arange(n)[:, None] - torch.arange(n)[None, :]).clamp(min=0)
        fade = gamma[:, None, None] ** age * lower(n)
        return (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5 * fade) @ v

    return attend


def gla(q, k, v, g):
    state, out = torch.zeros(*k.shape[:2], k.shape[3], v.shape[3]), []
    for t in range(q.shape[2]):
        state = g[:, :, t].exp()[..., None] * state + k[:, :, t, :, None] * v[:, :, t, None, :]
        out.append((q[:, :, t, :, None] * state).sum(-2) / q.shape[-1] ** 0.5)
    return torch.stack(out, 2)


def delta(q, k, v, beta):
    state, out = torch.zeros(*k.shape[:2], k.shape[3], v.shape[3]), []
    for t in range(q.shape[2]):
        answer = (k[:, :, t, :, None] * state).sum(-2)
        u = beta[:, :, t, None] * (v[:, :, t] - answer)
        state = state + k[:, :, t, :, None] * u[:, :, None, :]
        out.append((q[:, :, t, :, None] * state).sum(-2) / q.shape[-1] ** 0.5)
    return torch.stack(out, 2)


def favor(w, causal):
    def phi(x):
        x = x * x.shape[-1] ** -0.25
        return w.shape[0] ** -0.5 * torch.exp(x @ w.T - (x * x).sum(-1, keepdim=True) / 2)

    return linear(phi, 0.0, causal)


def published_features(kernel, x, w, is_query):
    """performer-pytorch's; its largest values are no part of the gradient."""
    x = x * x.shape[-1] ** -0.25
    u = x @ w.T
    if kernel == "relu":
        return torch.relu(u) + 1e-3
    most = u.amax(-1, keepdim=True) if is_query else u.amax((-1, -2), keepdim=True)
    half = (x * x).sum(-1, keepdim=True) / 2
    return w.shape[0] ** -0.5 * (torch.exp(u - half - most.detach()) + 1e-4)


def performer(kernel, w, causal):
    def attend(q, k, v):
        q = published_features(kernel, q, w, True)
        k = published_features(kernel, k, w, False)
        weights = q @ k.transpose(-1, -2)
        if not causal:
            return weights @ v / weights.sum(-1, keepdim=True)
        weights = weights * lower(q.shape[2])
        return weights @ v / (weights.sum(-1, keepdim=True) + 1e-6 * q.sum(-1, keepdim=True))

    return attend


def decode():
    case, split = "linear_elu1_decode", 30
    q, k, v = (load(case, name) for name in ("q", "k", "v"))
    q, k = (torch.nn.functional.elu(x) + 1 for x in (q, k))
    for name, count in (("split", split), ("final", q.shape[2])):
        store(case, "S_" + name, k[:, :, :count].transpose(-1, -2) @ v[:, :, :count])
        store(case, "z_" + name, k[:, :, :count].sum(2))
    weights = q @ k.transpose(-1, -2) * lower(q.shape[2])
    store(case, "out", weights @ v / (weights.sum(-1, keepdim=True) + 1e-6))


def main():
    run("softmax_full", softmax())
    run("softmax_causal", softmax(is_causal=True))
    run("softmax_gqa_causal", softmax(is_causal=True, enable_gqa=True))
    keys = load("softmax_cross_padded", "k").shape[2]
    run("softmax_cross_padded", softmax(attn_mask=(torch.arange(keys) < 48)[None, :]))
    maps = {"elu1": (lambda x: torch.nn.functional.elu(x) + 1, 1e-6),
            "relu": (torch.relu, 1e-3), "relu2": (lambda x: torch.relu(x) ** 2, 1e-3)}
    for name, (phi, eps) in maps.items():
        run(f"linear_{name}_full", linear(phi, eps))
        run(f"linear_{name}_causal", linear(phi, eps, causal=True))
    run("linear_elu1_cross_padded", linear(maps["elu1"][0], 1e-6, keys=48))
    decode()
    run("retention", retention(load("retention", "gamma")))
    run("gla", gla, ("q", "k", "v", "g"))
    run("delta_rule", delta, ("q", "k", "v", "beta"))
    for causal, end in ((False, "full"), (True, "causal")):
        run(f"favor_exact_{end}", favor(load(f"favor_exact_{end}", "W"), causal))
        for kernel in ("softmax", "relu"):
            case = f"performer_{kernel}_{end}"
            run(case, performer(kernel, load(case, "W"), causal))
    w = load("performer_softmax_full", "W")
    store("performer_softmax_full", "phi_q",
          published_features("softmax", load("performer_softmax_full", "q"), w, True))
    store("performer_softmax_full", "phi_k",
          published_features("softmax", load("performer_softmax_full", "k"), w, False))


if __name__ == "__main__":
    main()
