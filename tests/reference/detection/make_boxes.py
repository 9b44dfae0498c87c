#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Box overlaps for tests/detection/boxes_test.cpp, from the boxes beside this file:
torchvision 0.29.2 (boxiou_xyxy_*), pycocotools 2.0.11 (boxiou_expected), shapely (rotiou_expected).

usage: make_boxes.py DIRECTORY
"""
import sys

import numpy as np
import torch
import torchvision
from pycocotools import mask
from shapely.geometry import Polygon


def corners(box):
    cx, cy, w, h, degrees = box
    c, s = np.cos(np.radians(degrees)) / 2, np.sin(np.radians(degrees)) / 2
    u, v = (s * h + c * w, c * h - s * w), (-s * h + c * w, -c * h - s * w)
    return Polygon([(cx + u[0], cy + u[1]), (cx + v[0], cy + v[1]),
                    (cx - u[0], cy - u[1]), (cx - v[0], cy - v[1])])


def main(folder):
    load = lambda name: np.load(f"{folder}/{name}.npy")
    save = lambda name, array: np.save(f"{folder}/{name}.npy", np.asarray(array))
    a, b = torch.from_numpy(load("boxiou_xyxy_a")), torch.from_numpy(load("boxiou_xyxy_b"))
    ops = torchvision.ops
    save("boxiou_xyxy_iou", ops.box_iou(a, b))
    save("boxiou_xyxy_giou", ops.generalized_box_iou(a, b))
    save("boxiou_xyxy_diou", ops.distance_box_iou(a, b))
    save("boxiou_xyxy_ciou", ops.complete_box_iou(a, b))
    save("boxiou_expected", mask.iou(load("boxiou_dt_xywh"), load("boxiou_gt_xywh"),
                                     load("boxiou_gt_iscrowd")))
    first = [corners(box) for box in load("rotiou_a")]
    second = [corners(box) for box in load("rotiou_b")]
    save("rotiou_expected", [[p.intersection(q).area / p.union(q).area for q in second]
                             for p in first])


main(sys.argv[1])
