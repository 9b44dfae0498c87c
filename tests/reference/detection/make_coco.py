#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Expected numbers of COCO's and LVIS's evaluation for tests/io/coco_test.cpp, from the ground truth
and results beside this file: pycocotools 2.0.11, lvis 0.5.3.

usage: make_coco.py DIRECTORY
"""
import gzip
import io
import json
import sys

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


def evaluate(truths, found, kind):
    data = COCO(truths)
    run = COCOeval(data, data.loadRes(found), kind)
    run.evaluate()
    run.accumulate()
    run.summarize()
    return run


def mean(values):
    values = values[values > -1]
    return float(np.mean(values)) if values.size else -1.0


def save(name, array):
    raw = io.BytesIO()
    np.save(raw, array)
    with open(f"{name}.npy.gz", "wb") as out:
        out.write(gzip.compress(raw.getvalue(), 9, mtime=0))


def main(folder):
    for name, kind in [("bbox", "bbox"), ("bbox_ties", "bbox"), ("segm", "segm"),
                       ("keypoints", "keypoints")]:
        base = f"{folder}/coco_{name}"
        run = evaluate(f"{base}_gt.json", f"{base}_dt.json", kind)
        p, r = run.eval["precision"], run.eval["recall"]
        classes = range(p.shape[2])
        expected = {
            "stats": run.stats.tolist(), "cat_ids": list(run.params.catIds),
            "iou_thrs": run.params.iouThrs.tolist(), "max_dets": list(run.params.maxDets),
            "shape_TRKAM": list(p.shape),
            "ap_per_class": [mean(p[:, :, k, 0, -1]) for k in classes],
            "ap50_per_class": [mean(p[0, :, k, 0, -1]) for k in classes],
            "ar_per_class": [mean(r[:, k, 0, -1]) for k in classes],
            "ap_per_class_area": [[mean(p[:, :, k, a, -1]) for a in range(p.shape[3])]
                                  for k in classes],
            "ap_per_iou": [mean(p[t, :, :, 0, -1]) for t in range(p.shape[0])]}
        with open(f"{base}_expected.json", "w") as out:
            json.dump(expected, out)
        if name != "bbox_ties":
            save(f"{base}_precision_all_maxdet", p[..., -1])
            save(f"{base}_scores_all_maxdet", run.eval["scores"][..., -1])
            save(f"{base}_recall", r)
    from lvis import LVISEval

    lvis = LVISEval(f"{folder}/lvis_gt.json", f"{folder}/lvis_dt.json", "bbox")
    lvis.run()
    with open(f"{folder}/lvis_expected.json", "w") as out:
        json.dump(dict(lvis.get_results()), out)


main(sys.argv[1])
