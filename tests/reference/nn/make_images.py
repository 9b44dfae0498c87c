#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""References of resizing images: Pillow 13.0.0, OpenCV 5.0.0.93, torch 2.15.0 (one thread) on the
two images beside this file (13 x 17 x 3 bytes, 13 x 17 x 2 float32; height, width, channels).

images.txt has a line a case: type, system, mode, antialias, width, height, offset into
images_u8.npy.gz or images_f32.npy.gz (elements).

    make_images.py            compares
    make_images.py --write    writes
"""

import gzip
import os
import sys

import cv2
import numpy as np
import torch
from PIL import Image

HERE = os.path.dirname(os.path.abspath(__file__))
SIZES = ((23, 31), (34, 26), (8, 6))


def opencv(image, mode, width, height):
    kinds = {"nearest": cv2.INTER_NEAREST, "linear": cv2.INTER_LINEAR, "cubic": cv2.INTER_CUBIC,
             "area": cv2.INTER_AREA}
    return cv2.resize(image, (width, height), interpolation=kinds[mode])


def pillow(image, mode, width, height):
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling[mode.upper()]))


def pytorch(image, mode, antialias, width, height):
    x = torch.from_numpy(image.copy()).permute(2, 0, 1)[None]
    y = torch.nn.functional.interpolate(x, (height, width), mode=mode, antialias=antialias)
    return y[0].permute(1, 2, 0).numpy()


def cases(u8, f32):
    for width, height in SIZES:
        for mode in ("nearest", "linear", "cubic", "area"):
            yield "u8", "cv2", mode, 0, width, height, opencv(u8, mode, width, height)
            yield "f32", "cv2", mode, 0, width, height, opencv(f32, mode, width, height)
        for mode in ("nearest", "box", "bilinear", "bicubic", "lanczos"):
            yield "u8", "pil", mode, int(mode != "nearest"), width, height, pillow(u8, mode, width, height)
        for mode in ("bilinear", "bicubic"):
            for aa in (0, 1):
                yield "u8", "torch", mode, aa, width, height, pytorch(u8, mode, bool(aa), width, height)


def main():
    torch.set_num_threads(1)
    u8, f32 = (np.load(os.path.join(HERE, f"image_{kind}.npy")) for kind in ("u8", "f32"))
    data, lines = {"u8": [], "f32": []}, []
    at = {"u8": 0, "f32": 0}
    for kind, system, mode, aa, width, height, out in cases(u8, f32):
        lines.append(f"{kind} {system} {mode} {aa} {width} {height} {at[kind]}")
        data[kind].append(np.ascontiguousarray(out).ravel())
        at[kind] += out.size
    for kind in data:
        path = os.path.join(HERE, f"images_{kind}.npy.gz")
        values = np.concatenate(data[kind])
        if "--write" in sys.argv[1:]:
            with open(path, "wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as out:
                np.save(out, values)
        stored = np.load(gzip.open(path))
        print(kind, "largest difference", np.abs(values.astype(float) - stored).max())
    if "--write" in sys.argv[1:]:
        with open(os.path.join(HERE, "images.txt"), "w", encoding="utf-8") as out:
            out.write("\n".join(lines) + "\n")


main()
