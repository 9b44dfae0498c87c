#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""References of resampling: recomputes upsampling.npy.gz's results with torch (2.15.0, one thread)
from the inputs in it.

upsampling.txt has a line a case: operation, parameters as key=value, then `in`, `out`, `gout`,
`gin` as offset:extent,extent,… into upsampling.npy.gz (float32), and `idx` the same for indices of
max-unpooling (int32 offsets into upsampling_indices.npy.gz).

    make_upsampling.py CASES.json BLOB.npy    writes upsampling.* from a list of torch's cases
    make_upsampling.py                        recomputes and compares
"""

import gzip
import json
import os
import sys

import numpy as np
import torch
import torch.nn.functional as F

HERE = os.path.dirname(os.path.abspath(__file__))


def text_of(a):
    return f"{a['offset']}:" + ",".join(map(str, a["shape"]))


def write(cases_path, blob_path):
    blob = np.load(blob_path).astype("<f4")
    indices, lines = [], []
    for case in json.load(open(cases_path, encoding="utf-8")):
        attrs = dict(case["attrs"])
        parts = [case["op"]]
        for key, value in attrs.items():
            if value is None:
                continue
            if isinstance(value, bool):
                value = int(value)
            if isinstance(value, (list, tuple)):
                value = ",".join(map(str, value))
            parts.append(f"{key}={value}")
        parts += [f"in={text_of(case['inputs']['x'])}", f"out={text_of(case['output'])}"]
        parts += [f"gout={text_of(case['grad_output'])}", f"gin={text_of(case['grads']['x'])}"]
        for key in case["inputs"]:
            if key != "x":  # a transposed convolution's weight and bias
                parts += [f"{key}={text_of(case['inputs'][key])}"]
                parts += [f"g{key}={text_of(case['grads'][key])}"]
        if "indices" in case:
            parts.append(f"idx={len(indices)}:" + ",".join(map(str, case["indices"]["shape"])))
            indices += case["indices"]["values"]
        lines.append(" ".join(parts))
    with open(os.path.join(HERE, "upsampling.txt"), "w", encoding="utf-8") as out:
        out.write("\n".join(lines) + "\n")
    save("upsampling.npy.gz", blob)
    save("upsampling_indices.npy.gz", np.array(indices, "<i4"))


def save(name, array):
    with open(os.path.join(HERE, name), "wb") as raw:
        with gzip.GzipFile("", "wb", 9, raw, mtime=0) as out:
            np.save(out, array)


def load(name):
    with gzip.open(os.path.join(HERE, name)) as file:
        return np.load(file)


def run(op, a, x, idx, weights):
    numbers = lambda key, kind: [kind(v) for v in a[key].split(",")] if key in a else None
    if op == "interpolate":
        scale = numbers("scale_factor", float)
        if scale is not None and len(scale) == 1:
            scale = scale[0]
        corners = a.get("align_corners")
        again = a.get("recompute_scale_factor")
        return F.interpolate(x, size=numbers("size", int), scale_factor=scale, mode=a["mode"],
                             align_corners=None if corners is None else corners == "1",
                             recompute_scale_factor=None if again is None else again == "1",
                             antialias=a.get("antialias") == "1")
    if op == "pixel_shuffle":
        return F.pixel_shuffle(x, int(a["r"]))
    if op == "pixel_unshuffle":
        return F.pixel_unshuffle(x, int(a["r"]))
    if op == "channel_shuffle":
        return F.channel_shuffle(x, int(a["groups"]))
    stride, padding = numbers("stride", int), numbers("padding", int)
    if op == "conv_transpose2d":
        return F.conv_transpose2d(x, *weights, stride, padding, numbers("output_padding", int),
                                  int(a["groups"]), numbers("dilation", int))
    if op == "max_pool2d":
        y, places = F.max_pool2d(x, int(a["kernel"]), stride, padding, int(a["dilation"]),
                                 a["ceil_mode"] == "1", return_indices=True)
        assert (places == idx).all()
        return y
    size = numbers("output_size", int)
    return F.max_unpool2d(x, idx.long(), int(a["kernel"]), int(a["stride"]), int(a["padding"]), size)


def compare():
    torch.set_num_threads(1)
    blob = load("upsampling.npy.gz")
    all_indices = load("upsampling_indices.npy.gz")

    def array(text, of=blob):
        at, shape = text.split(":")
        shape = [int(v) for v in shape.split(",")]
        at = int(at)
        return torch.from_numpy(of[at : at + int(np.prod(shape))].reshape(shape).copy())

    worst = 0.0
    for line in open(os.path.join(HERE, "upsampling.txt"), encoding="utf-8"):
        op, *rest = line.split()
        a = dict(part.split("=", 1) for part in rest)
        x = array(a["in"]).requires_grad_()
        weights = [array(a[key]).requires_grad_() for key in "wb" if key in a]
        y = run(op, a, x, array(a["idx"], all_indices) if "idx" in a else None, weights)
        y.backward(array(a["gout"]))
        pairs = [(y, a["out"]), (x.grad, a["gin"])]
        pairs += [(w.grad, a["g" + key]) for w, key in zip(weights, "wb")]
        for got, want in pairs:
            worst = max(worst, (got.detach() - array(want)).abs().max().item())
    print("largest difference", worst)
    assert worst < 1e-4


if len(sys.argv) == 3:
    write(*sys.argv[1:])
compare()
