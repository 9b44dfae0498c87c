# SPDX-License-Identifier: Apache-2.0
"""python make_state_spaces.py SOURCE   references of state spaces, CASE__ARRAY.npy, float64.

SOURCE holds the arrays as these systems gave them, all in float64 (`.float()` in them was patched to
`.double()`): state-spaces/s4 e757cef (HiPPO's matrices, nplr, S4D), scipy.signal.cont2discrete
(disc), hippo-code 2011482's formulas with scipy's solve_triangular (legs_online) and in C++
(legs_long), srush/annotated-s4 f19e246 in jax x64 (s4), lindermanlab/S5 3c18fdb in jax x64 (s5),
NicolasZucchet/minimal-LRU bbd71b1 (lru), ruke1ire/RTF 1d9e1e5 and exact solves (rtf), plain loops
(scan). The script copies what the tests read, in C order, after working each formula out again with
NumPy and SciPy and comparing. numpy 2, scipy 1.11 or later.
"""

import os
import sys

import numpy
import scipy.linalg
import scipy.signal

SOURCE = sys.argv[1]
HERE = os.path.dirname(os.path.abspath(__file__))
PREFIXES = ("hippo_", "disc_", "legs_", "nplr_", "s4_", "s4d_", "s5_", "lru__", "rtf", "scan__")


def load(case, *names):
    arrays = [numpy.load(os.path.join(SOURCE, f"{case}__{name}.npy")) for name in names]
    return arrays if len(arrays) > 1 else arrays[0]


def check(what, got, want, tolerance):
    error = numpy.abs(got - want).max() / max(numpy.abs(want).max(), 1e-300)
    if not error < tolerance:
        sys.exit(f"{what}: {error} apart")


def hippo(measure, n):
    i, j = numpy.arange(n)[:, None], numpy.arange(n)[None]
    r = numpy.sqrt(2 * numpy.arange(n) + 1.0)
    if measure == "legs":
        return -(numpy.outer(r, r) * (i > j) + (i + 1) * (i == j)), r
    if measure == "legt":
        return -numpy.outer(r, r) / 2 * numpy.where(i < j, (-1.0) ** (i - j), 1), r / 2
    if measure == "lmu":
        return (2 * i + 1.0) * numpy.where(i < j, -1, (-1.0) ** (i - j + 1)), \
            (2 * numpy.arange(n) + 1) * (-1.0) ** numpy.arange(n)
    if measure == "lagt":
        return -1.0 * (i > j) - (i == j) / 2, numpy.ones(n)
    return None


def check_matrices():
    for measure in ("legs", "legt", "lmu", "lagt"):
        for n in (4, 8, 32):
            a, b = hippo(measure, n)
            check(f"hippo_{measure}", a, load(f"hippo_{measure}_N{n}", "A"), 1e-14)
            check(f"hippo_{measure}", b, load(f"hippo_{measure}_N{n}", "B").ravel(), 1e-14)
    for method in ("euler", "backward_diff", "bilinear", "gbt", "zoh"):
        for measure in ("legs", "legt"):
            a, b = hippo(measure, 8)
            ad, bd, *_ = scipy.signal.cont2discrete((a, b[:, None], a, b[:, None]), 0.01, method,
                                                    alpha=0.25)
            case = f"disc_{measure}_N8_{method}_dt0.01"
            check(case, ad, load(case, "Ad"), 1e-13)
            check(case, bd.ravel(), load(case, "Bd").ravel(), 1e-13)


def check_online():
    a, b = hippo("legs", 32)
    u, snaps, want = load("legs_online_N32_L2000", "u", "snaps", "coef_bilinear")
    m, eye = numpy.zeros(32), numpy.eye(32)
    m[0] = u[0]
    for k in range(1, snaps[-1]):
        right = m + a @ m / (2 * k) + b * u[k] / k
        m = scipy.linalg.solve_triangular(eye - a / (2 * k), right, lower=True)
    check("legs_online", m, want[-1], 1e-11)


def check_models():
    for kind in ("lin", "inv", "legs", "real", "quad"):
        a, c, dt, want = load(f"s4d_{kind}", "A", "C", "dt", "K_zoh")
        z = a.astype(complex) * dt[:, None]
        powers = numpy.exp(z[..., None] * numpy.arange(want.shape[1]))
        check(f"s4d_{kind}", 2 * numpy.einsum("hn,hnl->hl", c * numpy.expm1(z) / a, powers).real,
              want, 1e-11)
    for case in ("s4_N8_L64", "s4_N16_L256"):
        ab, bb, cb, want = load(case, "Ab", "Bb", "Cb", "K_dplr")
        x, taps = bb.ravel(), []
        for _ in want:
            taps.append((cb.ravel() @ x).real)
            x = ab @ x
        check(case, numpy.array(taps), want, 1e-10)
    a, b, c, d, u, want = load("s5_zoh", "Lambda_bar", "B_bar", "C", "D", "u", "y_conj")
    x, y = numpy.zeros(len(a), complex), []
    for v in u:
        x = a * x + b @ v
        y.append(2 * (c @ x).real + d * v)
    check("s5_zoh", numpy.array(y), want, 1e-11)
    for length in (12, 13):
        a, b, h0, want = load(f"rtf_slow_L{length}", "a", "b", "h0", "K_exact")
        for k in range(len(a)):
            n = a.shape[1]
            companion = numpy.vstack([-a[k], numpy.eye(n)[:-1]])
            power = numpy.linalg.matrix_power(companion, length)
            readout = numpy.linalg.solve((numpy.eye(n) - power).T, b[k])
            x, taps = numpy.eye(n)[0], [h0[k]]
            for _ in range(1, length):
                taps.append(readout @ x)
                x = companion @ x
            check("rtf_slow", numpy.array(taps), want[k], 1e-9)


def main():
    check_matrices()
    check_online()
    check_models()
    for name in sorted(os.listdir(SOURCE)):
        if name.endswith(".npy") and name.startswith(PREFIXES):
            array = numpy.load(os.path.join(SOURCE, name))
            numpy.save(os.path.join(HERE, name), array.copy(order="C"))


if __name__ == "__main__":
    main()
