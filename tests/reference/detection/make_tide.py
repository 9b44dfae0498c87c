#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""TIDE's split of errors for tests/detection/tide_test.cpp, of the COCO files beside this file:
tidecv 1.0.1. AP and gains as shares of 1.

usage: make_tide.py DIRECTORY
"""
import contextlib
import io
import json
import sys

from pycocotools import mask
from tidecv import TIDE, Data

NAMES = {"Loc": "localization", "Cls": "classification", "Dupe": "duplicate",
         "Bkg": "background", "Both": "both", "Miss": "missed"}


def read(path):
    with open(path) as text:
        return json.load(text)


def runs(segmentation, image):
    """Run lengths of polygons or of run lengths."""
    if segmentation is None:
        return None
    if isinstance(segmentation, list):
        return mask.merge(mask.frPyObjects(segmentation, image["height"], image["width"]))
    if isinstance(segmentation["counts"], list):
        return mask.frPyObjects(segmentation, image["height"], image["width"])
    return segmentation


def data_of(truths, found):
    """What the package's own readers do; they also want file names, and masks of all objects."""
    gt, dt = Data("truths", max_dets=100), Data("found")
    images = {image["id"]: image for image in truths["images"]}
    for image in sorted(images):
        gt.add_image(image, str(image))
    for category in truths["categories"]:
        gt.add_class(category["id"], str(category["id"]))
    for a in truths["annotations"]:
        shape = a["bbox"], runs(a.get("segmentation"), images[a["image_id"]])
        add = gt.add_ignore_region if a["iscrowd"] else gt.add_ground_truth
        add(a["image_id"], a["category_id"], *shape)
    for d in found:
        dt.add_detection(d["image_id"], d["category_id"], d["score"], d.get("bbox"),
                         runs(d.get("segmentation"), images[d["image_id"]]))
    return gt, dt


def split(truths, found, mode, foreground=0.5, background=0.1):
    tide = TIDE(foreground, background, mode)
    with contextlib.redirect_stdout(io.StringIO()):
        run = tide.evaluate(*data_of(truths, found))
        main, special = run.fix_main_errors(), run.fix_special_errors()
    counts = run.count_errors()
    return {"ap": run.ap / 100,
            "count": {NAMES[e.short_name]: n for e, n in counts.items()},
            "gain": {NAMES[e.short_name]: float(g) / 100 for e, g in main.items()},
            "special": {e.short_name: float(g) / 100 for e, g in special.items()}}


def main(folder):
    out = []
    for truths, found, mode, *limits in (
            ("real_coco100_gt", "real_coco100_bbox_dt", "bbox"),
            ("coco_bbox_gt", "coco_bbox_dt", "bbox"),
            ("coco_bbox_gt", "coco_bbox_dt", "bbox", 0.75, 0.2),
            ("coco_bbox_ties_gt", "coco_bbox_ties_dt", "bbox"),
            ("coco_segm_gt", "coco_segm_dt", "mask")):
        out.append({"truths": truths, "found": found, "mode": mode, "limits": limits or [0.5, 0.1]}
                   | split(read(f"{folder}/{truths}.json"), read(f"{folder}/{found}.json"), mode,
                           *limits))
    with open(f"{folder}/tide_expected.json", "w") as text:
        json.dump(out, text, indent=1)


main(sys.argv[1])
