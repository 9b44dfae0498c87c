# SPDX-License-Identifier: Apache-2.0
"""Resampling against PyTorch and OpenCV.

What is measured: one call on float32 data that is there, warm, into an output that is there (torch's
out= of the ATen operator, OpenCV's dst=). Batch 8 x 64 x 128 x 128 to double, channels first ("nchw")
and last ("nhwc"); backward is the gradient of the input alone (the ATen backward operator, grad_input=).
OpenCV: one image of 1080 x 1920 x 3, channels last, to double; torch has the same numbers channels
first. Max-unpooling undoes pooling of 2 x 2 (torch has no out= that keeps its memory there, so it
allocates). quern is built with plain -O2. Limit: bytes of source and result at the measured speed of
`copy` (counted both ways, as that is). Quality: the mean of |result| of a sample, which has to agree.
"""

import time

import numpy

from area import Case, Peer, PythonPeer, cached

DRIVER = "upsampling_driver"
BATCH = (8, 64, 128, 128)
PHOTO = (1, 3, 1080, 1920)


class Torch(PythonPeer):
    def __init__(self):
        super().__init__()
        import torch

        self.torch = torch
        torch.set_num_threads(self.threads)
        self.jobs, self.last = {}, None

    def describe(self):
        return f"torch {self.torch.__version__}"

    def forget(self):
        super().forget()
        self.jobs, self.last = {}, None

    def job(self, case, mode="", layout="nchw", **_):
        torch = self.torch
        aten = torch.ops.aten
        last = torch.channels_last if layout == "nhwc" else torch.contiguous_format
        x = torch.from_numpy(self.arrays["x"]).contiguous(memory_format=last)
        n, c, h, w = x.shape
        if case in ("forward", "backward"):
            out = torch.empty((n, c, 2 * h, 2 * w)).contiguous(memory_format=last)
            flags = {"nearest": (), "bilinear": (False,), "bicubic": (False,)}[mode]
            name = {"nearest": "upsample_nearest2d", "bilinear": "upsample_bilinear2d",
                    "bicubic": "upsample_bicubic2d"}[mode]
            if case == "forward":
                call = getattr(aten, name).out
                return out, lambda: call(x, [2 * h, 2 * w], *flags, None, None, out=out)
            call = getattr(aten, name + "_backward").grad_input
            dy = torch.from_numpy(self.arrays["y"]).contiguous(memory_format=last)
            dx = torch.empty_like(x)
            sizes = ([2 * h, 2 * w], [n, c, h, w])
            return dx, lambda: call(dy, *sizes, *flags, None, None, grad_input=dx)
        if case == "shuffle":
            out = torch.empty((n, c // 4, 2 * h, 2 * w)).contiguous(memory_format=last)
            call = aten.pixel_shuffle.out
            return out, lambda: call(x, 2, out=out)
        pooled, places = torch.nn.functional.max_pool2d(torch.from_numpy(self.arrays["y"]), 2,
                                                        return_indices=True)
        keep = {}

        def unpool():
            keep["out"] = torch.nn.functional.max_unpool2d(pooled, places, 2)

        unpool()
        return keep, unpool

    def run(self, case, inner=1, **options):
        key = (case, tuple(sorted(options.items())))
        if key not in self.jobs:
            self.jobs = {key: self.job(case, **options)}
        self.last, call = self.jobs[key]
        with self.torch.inference_mode():
            start = time.perf_counter()
            for _ in range(inner):
                call()
            return {"seconds": (time.perf_counter() - start) / inner}

    def output(self):
        out = self.last["out"] if isinstance(self.last, dict) else self.last
        return out.contiguous().numpy().ravel()[:: 97].copy()


class OpenCv(PythonPeer):
    def __init__(self):
        super().__init__()
        import cv2

        self.cv2 = cv2
        cv2.setNumThreads(self.threads)
        self.jobs, self.last = {}, None

    def describe(self):
        return f"OpenCV {self.cv2.__version__}"

    def forget(self):
        super().forget()
        self.jobs, self.last = {}, None

    def run(self, case, inner=1, mode="", **_):
        cv2 = self.cv2
        kind = {"nearest": cv2.INTER_NEAREST, "bilinear": cv2.INTER_LINEAR,
                "bicubic": cv2.INTER_CUBIC}[mode]
        if mode not in self.jobs:
            x = numpy.ascontiguousarray(self.arrays["x"][0].transpose(1, 2, 0))
            h, w, c = x.shape
            self.jobs = {mode: (x, numpy.empty((2 * h, 2 * w, c), numpy.float32))}
        x, self.last = self.jobs[mode]
        size = (self.last.shape[1], self.last.shape[0])
        start = time.perf_counter()
        for _ in range(inner):
            cv2.resize(x, size, dst=self.last, interpolation=kind)
        return {"seconds": (time.perf_counter() - start) / inner}

    def output(self):
        return self.last.transpose(2, 0, 1).ravel()[:: 97].copy()


PEERS = {"torch": Peer(make=Torch), "opencv": Peer(make=OpenCv)}


def uniform(seed, shape):
    return lambda: numpy.random.default_rng(seed).uniform(-1, 1, shape).astype(numpy.float32)


def copy_limit(moved):
    def limit(limits, threads):
        return 1e3 * moved / limits["copy"] if limits.get("copy") else None

    return limit


def case_of(name, run, data, moved, peers=("torch",)):
    return Case(name=name, metric="ms", run=run, work=1e3, higher=False, peers=peers, data=data,
                quality=lambda answer, folder: float(numpy.abs(answer.astype(numpy.float64)).mean()),
                limit=copy_limit(1e-9 * moved))


def cases(folder, quick):
    n, c, h, w = (2,) + BATCH[1:] if quick else BATCH
    small = cached(folder, f"up-x-{n}", uniform(1, (n, c, h, w)))
    large = cached(folder, f"up-y-{n}", uniform(2, (n, c, 2 * h, 2 * w)))
    photo = cached(folder, "up-photo", uniform(3, PHOTO))
    size = 4 * n * c * h * w
    for mode in ("nearest", "bilinear", "bicubic"):
        for layout in ("nchw", "nhwc"):
            yield case_of(f"{mode} {layout} {n}x{c}x{h}x{w} to double",
                          f"forward mode={mode} layout={layout}", {"x": small}, 5 * size)
    for layout in ("nchw", "nhwc"):
        yield case_of(f"bilinear backward {layout}", f"backward mode=bilinear layout={layout}",
                      {"x": small, "y": large}, 5 * size)
    yield case_of("pixel shuffle nchw", "shuffle layout=nchw", {"x": small}, 2 * size)
    yield case_of("max-unpool nchw", "unpool layout=nchw", {"x": small, "y": large}, 7 * size)
    pixels = 4 * PHOTO[1] * PHOTO[2] * PHOTO[3]
    for mode in ("nearest", "bilinear", "bicubic"):
        yield case_of(f"{mode} 3x1080x1920 to double, channels first",
                      f"forward mode={mode} layout=nchw", {"x": photo}, 5 * pixels)
        yield case_of(f"{mode} 1080x1920x3 to double, channels last",
                      f"forward mode={mode} layout=nhwc", {"x": photo}, 5 * pixels, ("opencv",))
