#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Outputs and gradients of sparse, hashed, projected and gated attention, in float64: FLASH-pytorch
0.1.9, local-attention 1.11.2, reformer-pytorch 1.4.4, torch 2.15.0's attention with a boolean mask,
and for Linformer and softmax-plus their formulas. Inputs (x, q, k, v, dout, weights, rotations) are
read from the folders beside this file (common holds those that cases share) and stay; everything
else is computed from them. Reformer's rotations are given to it, its buckets are stored too.

usage: make_sparse_gated.py [--check]      --check compares with what is there and writes nothing
"""
import math
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
    value = np.ascontiguousarray(value.detach().numpy())
    if value.dtype == np.float64:
        value = value.astype(np.float32)
    if "--check" in sys.argv:
        off = np.abs(np.load(path).astype(np.float64) - value).max()
        worst = max(1e-9, np.abs(value).max())
        print(f"{case}/{name}: {off / worst:.1e}" + (" DIFFERS" if off > 1e-5 * worst else ""))
    else:
        np.save(path, value)


def finish(case, out, inputs):
    out.backward(load(case, "dout"))
    store(case, "out", out)
    for name, x in inputs.items():
        store(case, "d" + name, x.grad)


def leaves(case, names):
    return {name: load(case, name).requires_grad_() for name in names}


def gated(case, make):
    module = make().double()
    names = {n: p for n, p in module.named_parameters() if not n.startswith("rotary")}
    with torch.no_grad():
        for name, p in names.items():
            p.copy_(load(case, "w." + name).reshape(p.shape))
    x = load(case, "x").requires_grad_()
    masked = "masked" in case
    out = module(x, mask=load(case, "mask").bool()) if masked else module(x)
    finish(case, out, {"x": x})
    for name, p in names.items():
        store(case, "dw." + name, p.grad)


def gated_cases():
    from flash_pytorch import FLASH, GAU
    from flash_pytorch.flash_pytorch import ScaleNorm
    from rotary_embedding_torch import RotaryEmbedding

    def gau(**options):
        return lambda: GAU(dim=24, query_key_dim=16, expansion_factor=2, add_residual=True,
                           **options)

    def flash(**options):
        return lambda: FLASH(dim=24, group_size=16, query_key_dim=16, expansion_factor=2, **options)

    gated("gau_relu2_full", gau())
    gated("gau_relu2_causal", gau(causal=True))
    gated("gau_laplace_causal", gau(causal=True, laplace_attn_fn=True))
    gated("gau_relu2_masked", gau())
    gated("flash_full", flash())
    gated("flash_causal", flash(causal=True))
    gated("flash_full_masked", flash())
    rotary = RotaryEmbedding(dim=8)
    gated("flash_causal_rotary_scalenorm_shift",
          flash(causal=True, rotary_pos_emb=rotary, norm_klass=ScaleNorm, shift_tokens=True))


def masked_softmax(case, visible):
    x = leaves(case, "qkv")
    q, k, v = x.values()
    out = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=visible)
    finish(case, out, x)


def pattern_cases():
    i, j = torch.arange(70)[:, None], torch.arange(70)[None, :]
    past = j <= i
    masked_softmax("sparse_strided", past & ((i - j < 8) | ((i - j) % 8 == 0)))
    masked_softmax("sparse_fixed", past & ((i // 8 == j // 8) | (j % 8 >= 6)))
    masked_softmax("sparse_atrous", past & ((i - j) % 4 == 0))
    masked_softmax("sparse_window_global", ((i - j).abs() <= 6) | (j < 3) | (i < 3))
    layout = load("sparse_block_sparse", "layout").bool()
    whole = 16 * layout.shape[0]
    seen = torch.eye(70, dtype=torch.bool)
    seen[:whole, :whole] = layout.repeat_interleave(16, 0).repeat_interleave(16, 1)
    masked_softmax("sparse_block_sparse", seen)


def local_cases():
    from local_attention import LocalAttention

    for causal in (True, False):
        for exact in (True, False):
            case = f"local_{'causal' if causal else 'full'}_{'exact' if exact else 'block'}"
            x = leaves(case, "qkv")
            module = LocalAttention(window_size=16, causal=causal, look_backward=1,
                                    look_forward=0 if causal else 1, autopad=True,
                                    exact_windowsize=exact, use_rotary_pos_emb=False)
            finish(case, module(*x.values()), x)


def formula_cases():
    x = leaves("linformer", ("q", "k", "v", "E", "F"))
    q, k, v, e, f = x.values()
    keys, values = (torch.einsum("nk,bhnd->bhkd", m, y) for m, y in ((e, k), (f, v)))
    weights = (q @ keys.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1)
    finish("linformer", weights @ values, x)
    for causal in (True, False):
        case = f"gau_softmaxplus_core_{'causal' if causal else 'full'}"
        x = leaves(case, "qkv")
        q, k, v = x.values()
        n = q.shape[1]
        seen = torch.arange(1, n + 1) if causal else torch.full((n,), n)
        logits = q @ k.transpose(-1, -2) * (seen.log() / math.log(512) / 4)[:, None]
        if causal:
            logits = logits.masked_fill(torch.ones(n, n, dtype=torch.bool).triu(1), -math.inf)
        finish(case, logits.softmax(-1) @ v, x)


def reformer_cases():
    from reformer_pytorch import LSHAttention

    for causal in (True, False):
        case = f"lsh_reformer_{'causal' if causal else 'full'}"
        x = leaves(case, ("qk", "v"))
        module = LSHAttention(bucket_size=8, n_hashes=3, causal=causal, dropout=0.0,
                              return_attn=False)
        rotations = load(case, "rotations")
        draw = torch.randn
        torch.randn = lambda *shape, **options: rotations[None].expand(1, *rotations.shape)
        try:
            out, _, buckets = module(*x.values())
        finally:
            torch.randn = draw
        finish(case, out, x)
        n = x["qk"].shape[1]
        offsets = 8 * torch.arange(3)[None, :, None]
        store(case, "buckets", (buckets.reshape(-1, 3, n) - offsets).to(torch.int32))


if __name__ == "__main__":
    gated_cases()
    pattern_cases()
    local_cases()
    formula_cases()
    reformer_cases()
