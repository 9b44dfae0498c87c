# SPDX-License-Identifier: Apache-2.0
"""What an area is made of: cases, and the peers that they are run against."""

import dataclasses
import os
from typing import Callable, Optional


@dataclasses.dataclass
class Case:
    """One row of the comparison (one for each peer and thread count).

    The figure shown is work / seconds when `higher` is true (GFLOP/s, Mrow/s) and work * seconds
    when it is not (ms a round: work = 1000 / rounds); a reply that holds "value" is taken as it is.
    """

    name: str
    metric: str
    run: str  # command after "run": "gemm type=f32 n=256"
    work: float = 1.0
    higher: bool = True
    peers: tuple = ()
    data: dict = dataclasses.field(default_factory=dict)  # array name -> file in the data folder
    prepare: Optional[str] = None  # command after "prepare", before the first run, not timed
    quality: Optional[Callable] = None  # (output array, data folder) -> number
    quality_run: Optional[str] = None  # a run whose output is judged instead of the timed one
    limit: Optional[Callable] = None  # (limits, threads) -> best figure the machine allows
    slot: float = 0.1  # seconds a repeat lasts at least; 0: exactly one call
    repeats: Optional[int] = None  # at most this many
    cold: bool = False  # one call, not warmed up before: it is measured and judged (long ones)
    fresh: bool = False  # a new process for every repeat (memory)
    cold: bool = False  # the first call counts: no other warms it up (one that takes a minute)
    threads: Optional[tuple] = None  # only for these thread counts


@dataclasses.dataclass
class Peer:
    """A peer: a Python class for worker.py, or another C++ driver."""

    make: Optional[Callable] = None
    driver: Optional[str] = None


class PythonPeer:
    """Base of the peers that run in worker.py. Sub-classes time themselves."""

    threads = int(os.environ.get("OMP_NUM_THREADS", "1"))

    def __init__(self):
        self.arrays = {}

    def describe(self):
        return type(self).__name__

    def prepare(self, case, **options):
        """Whatever must be done once and is not measured."""

    def run(self, case, inner=1, **options):
        """Runs the case `inner` times; returns {"seconds": of one} or {"value": …}."""
        raise NotImplementedError

    def output(self):
        """The result of the last run as an array, from which quality is computed."""
        raise NotImplementedError

    def forget(self):
        """Drops data and everything made from it."""
        self.arrays.clear()


def cached(folder, name, make):
    """Writes make() to folder/name.npy unless it is there, and returns the file's name."""
    import numpy

    path = os.path.join(folder, name + ".npy")
    if not os.path.exists(path):
        part = os.path.join(folder, name + ".part.npy")
        numpy.save(part, make())
        os.replace(part, path)
    return name + ".npy"
