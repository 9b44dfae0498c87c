#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Run lengths, areas, boxes and overlaps for tests/detection/rle_test.cpp and polygon_test.cpp, from
mask_dense.npy and the polygons and boxes of mask_expected.json: pycocotools.mask 2.0.11.

usage: make_masks.py DIRECTORY
"""
import json
import sys

import numpy as np
from pycocotools import mask


def runs(pixels):
    """Lengths down the columns, zeros first."""
    flat = np.concatenate([[0], pixels.flatten(order="F") != 0, [2]])
    ends = np.flatnonzero(np.diff(flat))
    counts = np.diff(np.concatenate([[0], ends]))
    return [int(c) for c in counts]


def main(folder):
    dense = np.load(f"{folder}/mask_dense.npy")
    path = f"{folder}/mask_expected.json"
    with open(path) as text:
        out = json.load(text)
    height, width = dense.shape[1:]
    rles = [mask.encode(np.asfortranarray(d)) for d in dense]
    crowd = out["iscrowd"]
    name = lambda rle: rle["counts"].decode()
    out["size"] = [height, width]
    out["counts"] = [runs(d) for d in dense]
    out["compressed"] = [name(r) for r in rles]
    out["area"] = [int(a) for a in mask.area(rles)]
    out["bbox"] = np.asarray(mask.toBbox(rles)).tolist()
    out["iou_dt_rows_gt_cols"] = mask.iou(rles, rles, crowd).tolist()
    out["iou_nocrowd"] = mask.iou(rles, rles, [0] * len(rles)).tolist()
    out["merge_union_0_7_8"] = name(mask.merge([rles[0], rles[7], rles[8]]))
    out["merge_intersect_7_8"] = name(mask.merge([rles[7], rles[8]], intersect=True))
    for p in out["polygons"]:
        rle = mask.frPyObjects([p["xy"]], height, width)[0]
        p["compressed"], p["area"] = name(rle), int(mask.area(rle))
        p["bbox"] = mask.toBbox(rle).tolist()
    for b in out["boxes"]:
        rle = mask.frPyObjects(np.array([b["xywh"]]), height, width)[0]
        b["compressed"], b["area"] = name(rle), int(mask.area(rle))
    with open(path, "w") as text:
        json.dump(out, text)


main(sys.argv[1])
