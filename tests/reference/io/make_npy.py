#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Small NPY files as NumPy writes them, for tests/io/npy_test.cpp (NumPy 1.24 or later).

usage: make_npy.py DIRECTORY
"""
import io
import sys

import numpy as np
from numpy.lib import format as npy


def main(folder):
    counting = np.arange(6).reshape(2, 3) - 2
    for code in ["i1", "<i2", ">i4", "<i8", "<f4", ">f8", "<f2"]:
        name = code.replace("<", "le_").replace(">", "be_")
        np.save(f"{folder}/{name}.npy", counting.astype(code))
    np.save(f"{folder}/fortran.npy", np.asfortranarray(counting.astype("<f8")))
    np.save(f"{folder}/cube_fortran.npy", np.asfortranarray(np.arange(24, dtype="<u2").reshape(2, 3, 4)))
    np.save(f"{folder}/bool.npy", np.array([True, False, True]))
    np.save(f"{folder}/scalar.npy", np.float32(2.5))
    np.save(f"{folder}/empty.npy", np.zeros((0, 5), dtype="<f4"))
    for version in [(2, 0), (3, 0)]:
        with open(f"{folder}/version{version[0]}.npy", "wb") as out:
            npy.write_array(out, counting.astype("<f4"), version=version)
    np.save(f"{folder}/structured.npy", np.zeros(2, dtype=[("a", "<f4"), ("b", "<i4")]))


main(sys.argv[1])
