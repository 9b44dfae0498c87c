#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""COCO's evaluation of rotated boxes for tests/io/coco_test.cpp: pycocotools 2.0.11 with the IoU of
polygons cut by shapely, as detectron2's evaluator puts its own IoU in. Boxes are cx cy w h degrees;
some are upright, x y w h. Made from a fixed seed.

usage: make_rotated.py DIRECTORY
"""
import contextlib
import io
import json
import sys

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from shapely.geometry import Polygon


def centred(box):
    if len(box) == 5:
        return box
    x, y, w, h = box
    return [x + w / 2, y + h / 2, w, h, 0]


def polygon(box):
    cx, cy, w, h, degrees = centred(box)
    c, s = np.cos(np.radians(degrees)) / 2, np.sin(np.radians(degrees)) / 2
    u, v = (s * h + c * w, c * h - s * w), (-s * h + c * w, -c * h - s * w)
    return Polygon([(cx + u[0], cy + u[1]), (cx + v[0], cy + v[1]),
                    (cx - u[0], cy - u[1]), (cx - v[0], cy - v[1])])


class RotatedEval(COCOeval):
    def computeIoU(self, imgId, catId):
        gt, dt = self._gts[imgId, catId], self._dts[imgId, catId]
        if not gt and not dt:
            return []
        order = np.argsort([-d["score"] for d in dt], kind="mergesort")
        dt = [dt[i] for i in order][:self.params.maxDets[-1]]
        out = np.zeros((len(dt), len(gt)))
        for i, d in enumerate(dt):
            for j, g in enumerate(gt):
                p, q = polygon(d["bbox"]), polygon(g["bbox"])
                inter = p.intersection(q).area
                whole = p.area if g["iscrowd"] else p.area + q.area - inter
                out[i, j] = inter / whole if whole > 0 else 0
        return out


def make(rng):
    truths, found = [], []
    classes = [2, 5, 9]
    for image in range(1, 31):
        for _ in range(rng.integers(0, 7)):
            w, h = np.exp(rng.normal(3.8, 0.7, 2))
            box = [rng.uniform(0, 300), rng.uniform(0, 300), w, h, rng.uniform(-200, 200)]
            if rng.random() < 0.1:
                box = box[:4]
            category = int(rng.choice(classes))
            truths.append({"id": len(truths) + 1, "image_id": image, "category_id": category,
                           "bbox": [round(float(v), 2) for v in box],
                           "area": round(float(w * h), 3), "iscrowd": int(rng.random() < 0.06)})
            for _ in range(rng.integers(0, 4)):
                near = np.array(centred(box)) + rng.normal(0, 1, 5) * (w / 12, h / 12, w / 12,
                                                                       h / 12, 8)
                near[2:4] = np.maximum(near[2:4], 1)
                found.append({"image_id": image,
                              "category_id": category if rng.random() < 0.9 else 5,
                              "bbox": [round(float(v), 2) for v in near],
                              "score": round(float(rng.random()), 5)})
    rng.shuffle(found)
    images = [{"id": i, "width": 400, "height": 400} for i in range(1, 31)]
    return {"images": images, "categories": [{"id": k, "name": f"c{k}"} for k in classes],
            "annotations": truths}, found


def mean(values):
    values = values[values > -1]
    return float(np.mean(values)) if values.size else -1.0


def main(folder):
    truths, found = make(np.random.default_rng(7))
    base = f"{folder}/coco_rotated"
    for name, value in (("gt", truths), ("dt", found)):
        with open(f"{base}_{name}.json", "w") as text:
            json.dump(value, text)
    with contextlib.redirect_stdout(io.StringIO()):
        data, results = COCO(f"{base}_gt.json"), COCO()
        results.dataset = truths | {"annotations": [
            d | {"id": i + 1, "area": d["bbox"][2] * d["bbox"][3], "iscrowd": 0}
            for i, d in enumerate(found)]}
        results.createIndex()
        run = RotatedEval(data, results, "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    p, r = run.eval["precision"], run.eval["recall"]
    classes = range(p.shape[2])
    with open(f"{base}_expected.json", "w") as text:
        json.dump({"stats": [float(s) for s in run.stats], "cat_ids": [2, 5, 9],
                   "iou_thrs": run.params.iouThrs.tolist(),
                   "ap_per_class": [mean(p[:, :, k, 0, -1]) for k in classes],
                   "ap50_per_class": [mean(p[0, :, k, 0, -1]) for k in classes],
                   "ar_per_class": [mean(r[:, k, 0, -1]) for k in classes],
                   "ap_per_class_area": [[mean(p[:, :, k, a, -1]) for a in range(p.shape[3])]
                                         for k in classes],
                   "ap_per_iou": [mean(p[t, :, :, 0, -1]) for t in range(p.shape[0])]}, text)


main(sys.argv[1])
