#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Expected numbers of COCO's and LVIS's evaluation for tests/io/coco_test.cpp and
tests/detection/matching_test.cpp, from the ground truth and results beside this file:
pycocotools 2.0.11, lvis 0.5.3, faster-coco-eval 1.8.0.

usage: make_coco.py DIRECTORY
"""
import contextlib
import copy
import gzip
import io
import json
import sys

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


def evaluate(truths, found, kind="bbox", **params):
    """Paths or loaded files."""
    with contextlib.redirect_stdout(io.StringIO()):
        if isinstance(truths, str):
            data = COCO(truths)
        else:
            data = COCO()
            data.dataset = truths
            data.createIndex()
        # An empty list is an error there: a result that is then dropped stands for it.
        if found:
            results = data.loadRes(found)
        else:
            results = COCO()
            results.dataset = {"images": truths["images"], "annotations": [],
                               "categories": truths["categories"]}
            results.createIndex()
        run = COCOeval(data, results, kind)
        for name, value in params.items():
            setattr(run.params, name, np.array(value) if name.endswith("Thrs") else value)
        run.evaluate()
        run.accumulate()
        run.summarize()
    return run


def mean(values):
    values = values[values > -1]
    return float(np.mean(values)) if values.size else -1.0


def numbers(run):
    p, r = run.eval["precision"], run.eval["recall"]
    classes = range(p.shape[2])
    ids = run.params.catIds if run.params.useCats else [-1]
    return {
        "stats": [float(s) for s in run.stats], "cat_ids": [int(i) for i in ids],
        "iou_thrs": run.params.iouThrs.tolist(), "max_dets": list(run.params.maxDets),
        "shape_TRKAM": list(p.shape),
        "ap_per_class": [mean(p[:, :, k, 0, -1]) for k in classes],
        "ap50_per_class": [mean(p[0, :, k, 0, -1]) for k in classes],
        "ar_per_class": [mean(r[:, k, 0, -1]) for k in classes],
        "ap_per_class_area": [[mean(p[:, :, k, a, -1]) for a in range(p.shape[3])]
                              for k in classes],
        "ap_per_iou": [mean(p[t, :, :, 0, -1]) for t in range(p.shape[0])]}


def matches(run):
    """What took what at IoU 0.5, all areas; a truth of 0 is none."""
    rows = []
    for e in run.evalImgs[:len(run.params.catIds) * len(run.params.areaRng) *
                          len(run.params.imgIds)]:
        if e is None or list(e["aRng"]) != list(run.params.areaRng[0]):
            continue
        rows.append({"image_id": int(e["image_id"]), "category_id": int(e["category_id"]),
                     "dt_ids": [int(i) for i in e["dtIds"]],
                     "dt_matched_gt_id": [int(i) for i in e["dtMatches"][0]],
                     "dt_ignore": [int(i) for i in e["dtIgnore"][0]],
                     "gt_ids": [int(i) for i in e["gtIds"]],
                     "gt_ignore": [int(i) for i in e["gtIgnore"]]})
    return rows


def write(path, value):
    with open(path, "w") as out:
        json.dump(value, out)


def save(name, array):
    raw = io.BytesIO()
    np.save(raw, array)
    with open(f"{name}.npy.gz", "wb") as out:
        out.write(gzip.compress(raw.getvalue(), 9, mtime=0))


def load(path):
    with open(path) as text:
        return json.load(text)


def synthetic(folder):
    for name, kind in [("bbox", "bbox"), ("bbox_ties", "bbox"), ("segm", "segm"),
                       ("keypoints", "keypoints")]:
        base = f"{folder}/coco_{name}"
        run = evaluate(f"{base}_gt.json", f"{base}_dt.json", kind)
        write(f"{base}_expected.json", numbers(run))
        if name != "bbox_ties":
            save(f"{base}_precision_all_maxdet", run.eval["precision"][..., -1])
            save(f"{base}_scores_all_maxdet", run.eval["scores"][..., -1])
            save(f"{base}_recall", run.eval["recall"])
            write(f"{base}_matches.json", matches(run))


def variants(folder):
    base = f"{folder}/coco_bbox"
    change = {"use_cats0": {"useCats": 0}, "maxdets_1_5_300": {"maxDets": [1, 5, 300]},
              "thr_03_05_07": {"iouThrs": [0.3, 0.5, 0.75]},
              "rec_11pt": {"recThrs": np.linspace(0, 1, 11)}}
    write(f"{base}_variants_expected.json",
          {name: numbers(evaluate(f"{base}_gt.json", f"{base}_dt.json", **params))
           for name, params in change.items()})


def quirks(folder):
    """What pycocotools does with boxes beside masks and key points, other limits, one class."""
    def boxed(name):
        found = load(f"{folder}/coco_{name}_dt.json")
        for k, one in enumerate(found):
            one["bbox"] = [10, 10, 20 + 7 * k % 150, 30]
        return found

    def run(name, found=None, **params):
        truths = load(f"{folder}/coco_{name}_gt.json")
        found = found or load(f"{folder}/coco_{name}_dt.json")
        return numbers(evaluate(truths, found, name, **params))

    write(f"{folder}/coco_quirks_expected.json", {
        "segm_boxed": run("segm", boxed("segm")),
        "keypoints_boxed": run("keypoints", boxed("keypoints")),
        "keypoints_use_cats0": run("keypoints", useCats=0),
        "keypoints_maxdets_3": run("keypoints", maxDets=[3]),
        "bbox_maxdets_1_2_3_100": run("bbox", maxDets=[1, 2, 3, 100])})


def edge_cases(folder):
    cases = load(f"{folder}/coco_edge_cases.json")
    for case in cases:
        # The tools write into what they are given.
        truths, found = copy.deepcopy(case["gt"]), copy.deepcopy(case["dt"])
        case["expected"] = numbers(evaluate(truths, found, **case["params"]))
    write(f"{folder}/coco_edge_cases.json", cases)


def real_images(folder):
    base = f"{folder}/real_coco100"
    truths, found = f"{base}_gt.json", f"{base}_bbox_dt.json"
    expected = numbers(evaluate(truths, found))
    some = sorted({d["image_id"] for d in load(found)})
    expected["variant_only_images_with_detections"] = {"img_ids": some} | numbers(
        evaluate(truths, found, imgIds=some))
    write(f"{base}_bbox_expected.json", expected)
    from faster_coco_eval import COCO as FasterCOCO, COCOeval_faster

    with contextlib.redirect_stdout(io.StringIO()):
        data = FasterCOCO(truths)
        run = COCOeval_faster(data, data.loadRes(found), "bbox", extra_calc=True)
        run.run()
    write(f"{base}_bbox_f1_metrics.json", run.extended_metrics)


def lvis(folder):
    np.float = float  # lvis 0.5.3 is older than NumPy 1.24
    from lvis import LVISEval

    run = LVISEval(f"{folder}/lvis_gt.json", f"{folder}/lvis_dt.json", "bbox")
    run.run()
    write(f"{folder}/lvis_expected.json", {k: float(v) for k, v in run.get_results().items()})


def main(folder):
    synthetic(folder)
    variants(folder)
    quirks(folder)
    edge_cases(folder)
    real_images(folder)
    lvis(folder)


main(sys.argv[1])
