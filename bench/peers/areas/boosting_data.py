# SPDX-License-Identifier: Apache-2.0
"""Data sets of the boosting area, made from fixed seeds (or read), kept as .npy files."""

import gzip
import os

import numpy

from area import cached

FASHION = "/usr/share/datasets/fashion-mnist"  # where Debian's package puts it


def draw(rng, logit):
    """0/1 labels with the given log-odds."""
    return (rng.random(len(logit)) < 1 / (1 + numpy.exp(-logit))).astype(numpy.float32)


def collisions(rows, seed):
    """28 columns in the manner of HIGGS: five objects (pt, eta, phi, tag), missing energy, and
    seven invariant masses made from them. The tags have three values."""
    rng = numpy.random.default_rng(seed)
    pt = rng.lognormal(0, 0.5, (5, rows))
    eta = rng.normal(0, 1, (5, rows))
    phi = rng.uniform(-numpy.pi, numpy.pi, (5, rows))
    tag = rng.choice([0.0, 1.087, 2.173], (4, rows), p=[0.5, 0.3, 0.2])
    energy = rng.lognormal(0, 0.6, (2, rows))
    pairs = ((0, 1), (0, 2), (1, 2), (1, 3), (2, 3), (3, 4), (0, 4))
    mass = numpy.stack([
        numpy.sqrt(2 * pt[i] * pt[j] * (numpy.cosh(eta[i] - eta[j]) - numpy.cos(phi[i] - phi[j])))
        for i, j in pairs])
    peak = numpy.exp(-((mass - 1.6) / 0.5) ** 2)
    logit = 2.2 * peak[0] + 1.8 * peak[2] * (tag[0] > 1) - 1.5 * peak[4]
    logit += 0.6 * tag[1] * (pt[1] - 1)
    logit += 0.8 * numpy.tanh(energy[0] - energy[1]) + 0.5 * numpy.log(mass[5] + 0.1) - 0.9
    columns = numpy.concatenate([pt, eta, phi, tag, energy, mass]).T
    return columns.astype(numpy.float32, order="C"), draw(rng, 1.3 * logit)


def holes(rows, seed):
    """50 normal columns, 30 % of the values missing; that a value is missing also tells."""
    rng = numpy.random.default_rng(seed)
    x = rng.normal(size=(rows, 50))
    gone = rng.random(x.shape) < 0.3
    logit = x[:, 0] * x[:, 1] + numpy.abs(x[:, 2]) - 0.8 + gone[:, 3] - 0.5 * x[:, 4:10].sum(axis=1)
    y = draw(rng, logit)
    x[gone] = numpy.nan
    return x.astype(numpy.float32), y


def one_hot(rows, seed):
    """20 categories of 50 values each as 1000 columns: (row offsets, columns, values), labels."""
    effect = numpy.random.default_rng(1).normal(0, 0.6, (20, 50))
    rng = numpy.random.default_rng(seed)
    code = (50 * rng.random((rows, 20)) ** 1.5).astype(numpy.int32)
    logit = effect[numpy.arange(20), code].sum(axis=1) + 1.5 * ((code[:, 0] < 8) & (code[:, 1] < 8))
    columns = code + 50 * numpy.arange(20, dtype=numpy.int32)
    offsets = numpy.arange(0, 20 * rows + 1, 20, dtype=numpy.int64)
    values = numpy.ones(20 * rows, dtype=numpy.float32)
    return offsets, columns.reshape(-1), values, draw(rng, logit)


def idx(path):
    """The array in an IDX.gz file of bytes."""
    with gzip.open(path) as file:
        blob = file.read()
    shape = numpy.frombuffer(blob, ">i4", count=blob[3], offset=4)
    return numpy.frombuffer(blob, numpy.uint8, offset=4 + 4 * blob[3]).reshape(shape)


def fashion(part, rows):
    images = idx(os.path.join(FASHION, part + "-images-idx3-ubyte.gz"))[:rows]
    labels = idx(os.path.join(FASHION, part + "-labels-idx1-ubyte.gz"))[:rows]
    return images.reshape(len(images), -1).astype(numpy.float32), labels.astype(numpy.float32)


def stored(folder, name, fields, make):
    """Files of the named fields, made together when one is missing."""
    made = []

    def part(i):
        if not made:
            made.extend(make())
        return made[i]

    return {field: cached(folder, f"boosting-{name}-{field}", lambda i=i: part(i))
            for i, field in enumerate(fields)}


def dense_files(folder, name, make, train, test):
    """x, y to train on and xv, yv held out."""
    files = stored(folder, f"{name}-{train}", ("x", "y"), lambda: make(train, 11))
    return files | stored(folder, f"{name}-{test}", ("xv", "yv"), lambda: make(test, 12))


def sparse_files(folder, train, test):
    fields = ("offsets", "columns", "values", "y")
    files = stored(folder, f"one-hot-{train}", fields, lambda: one_hot(train, 11))
    held = tuple(field + "v" for field in fields)
    return files | stored(folder, f"one-hot-{test}", held, lambda: one_hot(test, 12))


def fashion_files(folder, train, test):
    files = stored(folder, f"fashion-{train}", ("x", "y"), lambda: fashion("train", train))
    return files | stored(folder, f"fashion-{test}", ("xv", "yv"), lambda: fashion("t10k", test))
