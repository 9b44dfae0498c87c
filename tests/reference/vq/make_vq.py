#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Recomputes the results in this folder from the inputs in it, with the systems that made them
(torch 2.15.0, vector-quantize-pytorch 1.32.0, faiss-cpu 1.15.1; float64 numpy for exact arg-mins).

Inputs: x, codebook, *_w, ema_x_steps, pq_codebooks, rvq_codebooks, fsq_*_z, fsq_*_gout, lfq_z,
gumbel_logits, gumbel_noise, gumbel_gout, pixelcnn_{codes,emb,W*,mask*}. `sonnetrun_*` came from dm-sonnet 2.0.2 with tensorflow
2.21.0 (snt.nets.VectorQuantizer, snt.nets.VectorQuantizerEMA); what it computes is written out
below.

    make_vq.py            compares with the files
    make_vq.py --write    writes them
"""

import os
import sys

import faiss
import numpy as np
import torch
from vector_quantize_pytorch import FSQ

HERE = os.path.dirname(os.path.abspath(__file__))
WRITE = "--write" in sys.argv[1:]


def load(name):
    return np.load(os.path.join(HERE, name + ".npy"))


def give(name, value):
    value = np.asarray(value)
    if WRITE:
        np.save(os.path.join(HERE, name + ".npy"), value)
        return
    stored = load(name)
    exact = np.issubdtype(stored.dtype, np.integer)
    scale = np.abs(stored).max() if stored.size else 0
    wrong = np.abs(value.astype(np.float64) - stored).max()
    assert wrong <= (0 if exact else 2e-5 * max(scale, 1e-30)), (name, wrong, scale)
    print(f"{name}: {wrong:.2g} off {scale:.3g}")


def argmin64(x, codebook):
    x, c = x.astype(np.float64), codebook.astype(np.float64)
    d = ((x[:, None] - c[None]) ** 2).sum(-1)
    return d.argmin(1).astype(np.int32), d.min(1)


def losses():
    x, codebook = load("x"), load("codebook")
    idx, dist = argmin64(x, codebook)
    give("idx", idx)
    give("dist2_f64", dist)
    index = faiss.IndexFlatL2(x.shape[1])
    index.add(codebook)
    d4, i4 = index.search(x, 4)
    give("faiss_k4_dist2", d4)
    give("faiss_k4_idx", i4.astype(np.int32))
    unit = codebook / np.linalg.norm(codebook, axis=1, keepdims=True)
    xn = x / np.linalg.norm(x, axis=1, keepdims=True)
    give("cosine_idx", (xn @ unit.T).argmax(1).astype(np.int32))
    give("cosine_out", unit[(xn @ unit.T).argmax(1)])
    for beta in (0.25, 1.0):
        w = torch.from_numpy(load(f"ste_beta{beta}_w"))
        xt = torch.from_numpy(x).requires_grad_()
        ct = torch.from_numpy(codebook).requires_grad_()
        q = ct[torch.from_numpy(idx).long()]
        loss = (w * (xt + (q - xt).detach())).sum() / len(x)
        loss = loss + ((q - xt.detach()) ** 2).mean() + beta * ((q.detach() - xt) ** 2).mean()
        loss.backward()
        give(f"ste_beta{beta}_grad_x", xt.grad.numpy())
        if beta == 0.25:
            give(f"ste_beta{beta}_grad_codebook", ct.grad.numpy())
    q = codebook[idx]
    give("sonnet_grad_x_of_loss", 0.25 * 2 * (x - q) / x.size)
    gc = np.zeros_like(codebook)
    np.add.at(gc, idx, 2 * (q - x) / x.size)
    give("sonnet_grad_codebook_of_loss", gc)


def rotation():
    x, w = load("x"), load("rotation_w")
    q = load("codebook")[load("idx")]
    e = x / np.linalg.norm(x, axis=1, keepdims=True)
    u = q / np.linalg.norm(q, axis=1, keepdims=True)
    r = (e + u) / np.linalg.norm(e + u, axis=1, keepdims=True)
    s = np.linalg.norm(q, axis=1, keepdims=True) / np.linalg.norm(x, axis=1, keepdims=True)
    dot = lambda a, b: (a * b).sum(1, keepdims=True)
    give("rotation_out", s * (x - 2 * r * dot(r, x) + 2 * u * dot(e, x)))
    give("rotation_grad_x", s * (w - 2 * r * dot(r, w) + 2 * e * dot(u, w)))


def kmeans():
    x = load("x").astype(np.float64)
    means = x[:12].copy()
    for _ in range(10):
        idx, _ = argmin64(x, means)
        bins = np.bincount(idx, minlength=12)
        for k in range(12):
            if bins[k]:
                means[k] = x[idx == k].mean(0)
    give("kmeans_bins_of_last_assign", bins)
    give("kmeans_start_is_first_rows_means10", means)


def averages():
    steps, eps, decay = load("ema_x_steps"), 1e-5, 0.99
    for kind in ("sonnet", "vqpt"):
        codebook = load("codebook").astype(np.float64)
        k = len(codebook)
        size = np.zeros(k) if kind == "sonnet" else np.ones(k)
        total = np.zeros_like(codebook) if kind == "sonnet" else codebook.copy()
        for t, x in enumerate(steps, 1):
            idx, dist = argmin64(x, codebook)
            count = np.bincount(idx, minlength=k)
            sums = np.zeros_like(codebook)
            np.add.at(sums, idx, x.astype(np.float64))
            size = decay * size + (1 - decay) * count
            total = decay * total + (1 - decay) * sums
            bias = 1 - decay**t if kind == "sonnet" else 1
            n = (size / bias).sum()
            smooth = (size / bias + eps) / (n + k * eps) * n
            codebook = total / bias / smooth[:, None]
            run = "sonnetrun" if kind == "sonnet" else kind
            give(f"ema_{run}_codebook_{t}", codebook)
            give(f"ema_{run}_idx_{t}", idx)
            give(f"ema_{run}_loss_{t}", 0.25 * dist.sum() / x.size)
            if kind == "sonnet":
                give(f"ema_sonnet_cluster_size_smoothed_{t}", smooth)
            else:
                give(f"ema_vqpt_cluster_size_{t}", size)
                give(f"ema_vqpt_embed_avg_{t}", total)


def several():
    x = load("x")
    books = load("pq_codebooks")
    parts = np.split(x, len(books), axis=1)
    idx = np.stack([argmin64(p, b)[0] for p, b in zip(parts, books)], 1)
    give("pq_idx", idx)
    give("pq_quantized", np.concatenate([b[i] for b, i in zip(books, idx.T)], 1))
    rest, out, codes, left = x.astype(np.float64), 0, [], []
    for book in load("rvq_codebooks").astype(np.float64):
        codes.append(argmin64(rest, book)[0])
        rest, out = rest - book[codes[-1]], out + book[codes[-1]]
        left.append((rest**2).mean())
    give("rvq_idx", np.stack(codes, 1))
    give("rvq_quantized", out)
    give("rvq_cum_residual_mse", np.array(left))


def scalar():
    for name, levels, symmetric in (("a", [8, 5, 5, 5], 0), ("b", [8, 8, 8, 6, 5], 0), ("c", [5, 5, 5], 1)):
        fsq = FSQ(levels, preserve_symmetry=bool(symmetric))
        z = torch.from_numpy(load(f"fsq_{name}_z")).requires_grad_()
        codes = fsq.quantize(z)
        codes.backward(torch.from_numpy(load(f"fsq_{name}_gout")))
        give(f"fsq_{name}_codes", codes.detach().numpy())
        give(f"fsq_{name}_idx", fsq.codes_to_indices(codes).numpy().astype(np.int32))
        give(f"fsq_{name}_gz", z.grad.numpy())


def gumbel(tau=0.7):
    logits = torch.from_numpy(load("gumbel_logits")).requires_grad_()
    y = ((logits + torch.from_numpy(load("gumbel_noise"))) / tau).softmax(-1)
    give("gumbel_soft", y.detach().numpy())
    give("gumbel_idx", y.argmax(-1).numpy().astype(np.int32))
    y.backward(torch.from_numpy(load("gumbel_gout")))
    give("gumbel_glogits_straight_through", logits.grad.numpy())


def lookup_free(s=100.0):
    z = torch.from_numpy(load("lfq_z")).double().requires_grad_()
    bits = z.shape[1]
    give("lfq_quantized", np.where(load("lfq_z") > 0, 1.0, -1.0))
    give("lfq_idx", ((load("lfq_z") > 0) @ (2 ** np.arange(bits)[::-1])).astype(np.int32))
    code = torch.tensor([[1.0 if i >> (bits - 1 - j) & 1 else -1 for j in range(bits)] for i in range(2**bits)])
    p = (2 * s * z @ code.double().T).softmax(-1)
    entropy = lambda p: -(p * p.clamp(min=1e-5).log()).sum(-1)
    sign = torch.where(z > 0, 1.0, -1.0).double()
    loss = 0.1 * (entropy(p).mean() - entropy(p.mean(0))) + 0.25 * ((z - sign) ** 2).mean()
    loss.backward()
    give("lfq_gz_of_aux_loss", z.grad.numpy())


def pixelcnn():
    import torch.nn.functional as F

    t = lambda name: torch.from_numpy(load("pixelcnn_" + name))
    weights = {name: t(name).requires_grad_() for name in ("WA", "WB", "W1", "WO")}
    codes = t("codes").long()
    h = F.conv2d(t("emb")[codes].permute(0, 3, 1, 2), weights["WA"] * t("maskA"), padding=1)
    give("pixelcnn_h_after_A", h.detach().numpy())
    a, b = F.conv2d(h, weights["WB"] * t("maskB"), padding=1).chunk(2, 1)
    h = h + F.conv2d(torch.tanh(a) * torch.sigmoid(b), weights["W1"])
    logits = F.conv2d(torch.relu(h), weights["WO"])
    give("pixelcnn_logits", logits.detach().numpy())
    F.cross_entropy(logits, codes).backward()
    for name, weight in weights.items():
        give("pixelcnn_g" + name, weight.grad.numpy())


for step in (pixelcnn, losses, rotation, kmeans, averages, several, scalar, gumbel, lookup_free):
    step()
