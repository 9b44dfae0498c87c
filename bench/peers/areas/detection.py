# SPDX-License-Identifier: Apache-2.0
"""COCO's evaluation against pycocotools and faster-coco-eval, on the same JSON files.

5,000 images, 80 classes, some 38,000 objects (1.2 % crowds), 500,000 detections, with 10 thresholds, 4
areas and 3 limits (--quick: 500 images, 50,000). Masks and key points: 2,000 images, 40,000 detections.

  end to end, s   from two files to the 12 (10) numbers: loading, matching, accumulating, summing up.
  from memory, s  with ground truth and detections loaded; a new evaluation each time.
  memory, MB      peak of a fresh process over what it held before, end to end.
  growth          quern alone: time of 10 million detections over ten times that of one million.

Everybody uses the fastest interface of its own; pycocotools and faster-coco-eval run on one thread.
Quality is the largest difference of the numbers from pycocotools' own (0 for itself).
"""

import contextlib
import io
import json
import os
import time

import numpy

from area import Case, Peer, PythonPeer

DRIVER = "detection_driver"
PEERS_ALL = ("pycocotools", "faster-coco-eval")


class CocoPeer(PythonPeer):
    """What both share: their interfaces are the same."""

    def __init__(self):
        super().__init__()
        self.loaded, self.key, self.stats = None, None, None
        self.data, self.evaluation = self.library()

    def library(self):
        raise NotImplementedError

    def load(self, truths, found):
        with contextlib.redirect_stdout(io.StringIO()):
            truth = self.data(truths)
            return truth, truth.loadRes(found)

    def evaluate(self, truth, found, kind):
        with contextlib.redirect_stdout(io.StringIO()):
            run = self.evaluation(truth, found, kind)
            run.evaluate()
            run.accumulate()
            run.summarize()
        self.stats = numpy.array(run.stats, dtype=numpy.float64)[:10 if kind == "keypoints" else 12]

    def prepare(self, case, **options):
        if self.key != options["found"]:
            self.loaded = self.load(options["truths"], options["found"])
            self.key = options["found"]

    def run(self, case, inner=1, **options):
        kind = options["kind"]
        if case == "memory":
            from worker import memory

            before = memory(["reset"])["rss_mb"]
            self.evaluate(*self.load(options["truths"], options["found"]), kind)
            return {"value": memory([])["peak_mb"] - before}
        start = time.perf_counter()
        for _ in range(inner):
            loaded = self.loaded
            if case == "whole":
                loaded = self.load(options["truths"], options["found"])
            self.evaluate(*loaded, kind)
        return {"seconds": (time.perf_counter() - start) / inner}

    def output(self):
        return self.stats

    def forget(self):
        super().forget()
        self.loaded, self.key = None, None


class Pycocotools(CocoPeer):
    def library(self):
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

        return COCO, COCOeval

    def describe(self):
        from importlib.metadata import version

        return "pycocotools " + version("pycocotools")


class FasterCocoEval(CocoPeer):
    def library(self):
        from faster_coco_eval import COCO, COCOeval_faster

        return COCO, COCOeval_faster

    def describe(self):
        from importlib.metadata import version

        return "faster-coco-eval " + version("faster-coco-eval")


PEERS = {
    "pycocotools": Peer(make=Pycocotools),
    "faster-coco-eval": Peer(make=FasterCocoEval),
}


def rounded(values, digits=2):
    return [round(float(v), digits) for v in values]


def shape_of(kind, box, rng):
    """What an object or a detection has besides its box."""
    x, y, w, h = box
    if kind == "segm":
        angle = numpy.sort(rng.uniform(0, 2 * numpy.pi, 14))
        reach = rng.uniform(0.6, 1.0, 14)
        xy = numpy.stack([x + w / 2 * (1 + reach * numpy.cos(angle)),
                          y + h / 2 * (1 + reach * numpy.sin(angle))], axis=1)
        return {"segmentation": [rounded(xy.ravel())]}
    if kind == "keypoints":
        points = numpy.stack([x + w * rng.random(17), y + h * rng.random(17),
                              rng.integers(0, 3, 17)], axis=1)
        return {"keypoints": rounded(points.ravel(), 1)}
    return {}


def moved(kind, found, rng):
    """A detection's shape, near the object's."""
    if kind == "keypoints":
        points = numpy.array(found["keypoints"]).reshape(17, 3)
        points[:, :2] += rng.normal(0, 4, (17, 2))
        return {"keypoints": rounded(points.ravel(), 1)}
    if kind == "segm":
        from pycocotools import mask

        xy = numpy.array(found["segmentation"][0]) + rng.normal(0, 1.5)
        rle = mask.frPyObjects([xy.tolist()], 480, 640)[0]
        return {"segmentation": {"size": rle["size"], "counts": rle["counts"].decode()}}
    return {}


def make(kind, images, each, seed=0):
    """Ground truth and results as COCO's JSON holds them."""
    rng = numpy.random.default_rng(seed)
    classes = 1 if kind == "keypoints" else 80
    often = rng.dirichlet(numpy.ones(classes) * 0.5)
    infos, truths, found = [], [], []
    for image in numpy.sort(rng.choice(600_000, images, replace=False)).tolist():
        infos.append({"id": image, "width": 640, "height": 480, "file_name": f"{image:012d}.jpg"})
        here = rng.choice(classes, size=rng.integers(1, 5), p=often)
        left = each
        for _ in range(rng.poisson(7.6)):
            w, h = numpy.minimum(numpy.exp(rng.normal(4, 0.9, 2)), (600, 450))
            box = numpy.array([rng.uniform(0, 640 - w), rng.uniform(0, 480 - h), w, h])
            category = int(rng.choice(here)) + 1
            shape = shape_of(kind, box, rng)
            truths.append({"id": len(truths) + 1, "image_id": image, "category_id": category,
                           "bbox": rounded(box), "area": round(float(w * h * 0.6), 2),
                           "iscrowd": int(kind == "bbox" and rng.random() < 0.012)} | shape)
            if kind == "keypoints":
                truths[-1]["num_keypoints"] = int(numpy.count_nonzero(shape["keypoints"][2::3]))
            for _ in range(min(left, int(rng.integers(0, 4)))):
                near = box + rng.normal(0, 0.08, 4) * (w, h, w, h)
                near[2:] = numpy.maximum(near[2:], 1)
                other = rng.random() < 0.1
                found.append({"image_id": image, "bbox": rounded(near),
                              "category_id": int(rng.integers(classes)) + 1 if other else category,
                              "score": round(float(rng.beta(2, 2)), 5)} | moved(kind, shape, rng))
                left -= 1
        for _ in range(left):
            w, h = numpy.exp(rng.normal(4, 0.9, 2))
            box = numpy.array([rng.uniform(0, 500), rng.uniform(0, 400), min(w, 140), min(h, 80)])
            found.append({"image_id": image, "bbox": rounded(box),
                          "category_id": int(rng.integers(classes)) + 1,
                          "score": round(float(rng.beta(1, 6)), 5)}
                         | moved(kind, shape_of(kind, box, rng), rng))
    names = [{"id": k + 1, "name": f"class {k + 1}"} for k in range(classes)]
    if kind != "bbox":
        for detection in found:
            del detection["bbox"]
    return {"images": infos, "categories": names, "annotations": truths}, found


def files(folder, kind, images, each):
    base = os.path.join(folder, f"{kind}_{images}_{each}")
    truths, found = base + "_truths.json", base + "_found.json"
    if not os.path.exists(found):
        for path, content in zip((truths, found), make(kind, images, each)):
            with open(path + ".part", "w") as out:
                json.dump(content, out)
            os.replace(path + ".part", path)
    return truths, found


def judge(truths, found, kind):
    """Largest difference from pycocotools' numbers, which are computed once."""

    def quality(answer, folder):
        path = found + ".stats.npy"
        if not os.path.exists(path):
            peer = Pycocotools()
            peer.evaluate(*peer.load(truths, found), kind)
            numpy.save(path, peer.stats)
        return float(numpy.max(numpy.abs(answer.reshape(-1) - numpy.load(path))))

    return quality


def cases(folder, quick):
    for kind, images, each in (("bbox", 500 if quick else 5000, 100),
                               ("segm", 200 if quick else 2000, 20),
                               ("keypoints", 200 if quick else 2000, 20)):
        truths, found = files(folder, kind, images, each)
        words = f"kind={kind} truths={truths} found={found}"
        common = {"peers": PEERS_ALL, "higher": False, "slot": 0}
        yield Case(name=f"{kind} end to end", metric="s", run=f"whole {words}",
                   quality=judge(truths, found, kind), repeats=3, **common)
        yield Case(name=f"{kind} from memory", metric="s", run=f"evaluate {words}",
                   prepare=f"load {words}", quality=judge(truths, found, kind), repeats=3, **common)
        yield Case(name=f"{kind} memory", metric="MB", run=f"memory {words}", fresh=True, repeats=1,
                   **common)
    yield Case(name="growth to 10 million", metric="x linear", higher=False, slot=0, repeats=1,
               run=f"growth detections={1_000_000 if quick else 10_000_000}")
