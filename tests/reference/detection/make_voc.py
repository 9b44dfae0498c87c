#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Pascal VOC's numbers for tests/detection/voc_eval_test.cpp, of the boxes in voc_case.json: the rule
of the development kit (VOCevaldet.m), written down anew with NumPy. What Object-Detection-Metrics
(dcb285e) said of the same boxes is kept as it is (`odm_no_difficult`, voc_odm_sample2.json).

usage: make_voc.py DIRECTORY
"""
import json
import operator
import sys

import numpy as np


def overlaps(box, truths):
    b, t = np.asarray(box, float), np.asarray(truths, float).reshape(-1, 4)
    low, high = np.maximum(b[:2], t[:, :2]), np.minimum(b[2:], t[:, 2:])
    inter = np.prod(np.maximum(high - low + 1, 0), axis=1)
    size = lambda x: np.prod(x[..., 2:] - x[..., :2] + 1, axis=-1)
    return inter / (size(b) + size(t) - inter)


def verdicts(truths, found, name, threshold, compare):
    """1, 0 or None (neither way) by descending score, and the number of objects."""
    mine = [t for t in truths if t["class"] == name]
    taken, out = set(), []
    for d in sorted((d for d in found if d["class"] == name), key=lambda d: -d["score"]):
        here = [i for i, t in enumerate(mine) if t["image"] == d["image"]]
        out.append(0)
        if not here:
            continue
        iou = overlaps(d["xyxy"], [mine[i]["xyxy"] for i in here])
        best = here[int(np.argmax(iou))]
        if not compare(iou.max(), threshold):
            continue
        if mine[best]["difficult"]:
            out[-1] = None
        elif best not in taken:
            taken.add(best)
            out[-1] = 1
    return [v for v in out if v is not None], sum(not t["difficult"] for t in mine)


def both(truths, found, name, threshold, compare):
    flags, positives = verdicts(truths, found, name, threshold, compare)
    right = np.cumsum(flags)
    recall, precision = right / positives, right / np.arange(1, len(flags) + 1)
    eleven = sum(precision[recall >= k / 10].max(initial=0) for k in range(11)) / 11
    edge = np.concatenate([[0], recall, [1]])
    best = np.maximum.accumulate(np.concatenate([[0], precision, [0]])[::-1])[::-1]
    step = np.flatnonzero(edge[1:] != edge[:-1]) + 1
    return float(np.sum((edge[step] - edge[step - 1]) * best[step])), float(eleven)


def main(folder):
    path = f"{folder}/voc_case.json"
    with open(path) as text:
        data = json.load(text)
    for threshold, classes in data["expected"]["devkit"].items():
        for name, expected in classes.items():
            for suffix, compare in (("_ge", operator.ge), ("_gt", operator.gt)):
                every, eleven = both(data["gt"], data["det"], name, float(threshold), compare)
                expected["all_point" + suffix] = every
                expected["eleven_point" + suffix] = eleven
    with open(path, "w") as text:
        json.dump(data, text)


main(sys.argv[1])
