#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Derives the polynomials of include/quern/kernels/math-inl.hpp (needs mpmath).

Each is a weighted minimax fit: Remez exchange at 60 digits, which minimises the largest
|weight(x) (f(x) - P(x))|. The weight turns the polynomial's error into the relative error of the
function that is built from it. Coefficients are then rounded to the format one at a time, lowest
degree first, and the rest is fitted again around the rounded ones, which keeps nearly all of the
accuracy of the unrounded fit. Prints C++ hexadecimal constants, lowest degree first, and the error
left after rounding, in units of 2^-24 (float) or 2^-53 (double), half an ulp.

  python3 make_math_polynomials.py [name-part]
"""
import sys

import mpmath as mp
from mpmath import mpf

mp.mp.dps = 60
FORMATS = {"float": (24, -149), "double": (53, -1074)}


def rounded(x, bits):
    """x to the nearest number of `bits` significant bits."""
    if x == 0:
        return mpf(0)
    exponent = int(mp.floor(mp.log(abs(x), 2))) + 1
    scale = mpf(2) ** (bits - exponent)
    return mp.nint(x * scale) / scale


def value(coefficients, x):
    total = mpf(0)
    for c in reversed(coefficients):
        total = total * x + c
    return total


def chebyshev_points(lo, hi, count):
    return [
        (lo + hi) / 2 - (hi - lo) / 2 * mp.cos(mp.pi * i / (count - 1)) for i in range(count)
    ]


def remez(f, weight, lo, hi, degree, rounds=12):
    """Coefficients c_0..c_degree that minimise max |weight (f - P)| on [lo, hi]."""
    count = degree + 2
    # Points strictly inside: weights may vanish at an end.
    points = [
        (lo + hi) / 2 - (hi - lo) / 2 * mp.cos(mp.pi * (2 * i + 1) / (2 * count))
        for i in range(count)
    ]
    grid = chebyshev_points(lo, hi, 40 * count)[1:-1]
    f_grid = [f(x) for x in grid]
    w_grid = [weight(x) for x in grid]
    for _ in range(rounds):
        rows = mp.matrix(count, count)
        right = mp.matrix(count, 1)
        for i, x in enumerate(points):
            for k in range(degree + 1):
                rows[i, k] = x**k
            rows[i, degree + 1] = (-1) ** i / weight(x)
            right[i] = f(x)
        solution = mp.lu_solve(rows, right)
        coefficients = [solution[k] for k in range(degree + 1)]
        level = abs(solution[degree + 1])
        errors = [w * (fx - value(coefficients, x)) for x, fx, w in zip(grid, f_grid, w_grid)]
        # One extremum of each run of equal sign; drop from the ends what is too many.
        peaks = []
        for i, e in enumerate(errors):
            if peaks and (errors[peaks[-1]] > 0) == (e > 0):
                if abs(e) > abs(errors[peaks[-1]]):
                    peaks[-1] = i
            else:
                peaks.append(i)
        while len(peaks) > count:
            peaks.pop(0 if abs(errors[peaks[0]]) < abs(errors[peaks[-1]]) else -1)
        if len(peaks) < count:
            break
        points = [grid[i] for i in peaks]
        if max(abs(e) for e in errors) < level * mpf("1.001"):
            break
    return coefficients


def fitted(f, weight, lo, hi, degree, bits):
    """Minimax coefficients of `bits` bits each: rounded all at once, or one by one with a new fit
    in between (which can fail where a fixed coefficient leaves no alternating error); the better."""
    plain = [rounded(c, bits) for c in remez(f, weight, lo, hi, degree)]
    fixed = []
    for k in range(degree + 1):
        done = list(fixed)

        def rest(x, done=done, k=k):
            return (f(x) - value(done, x)) / x**k

        def rest_weight(x, k=k):
            return abs(weight(x) * x**k)

        fixed.append(rounded(remez(rest, rest_weight, lo, hi, degree - k)[0], bits))
    return min(plain, fixed, key=lambda c: worst(f, weight, lo, hi, c))


def worst(f, weight, lo, hi, coefficients):
    grid = chebyshev_points(lo, hi, 2001)[1:-1]
    return max(abs(weight(x) * (f(x) - value(coefficients, x))) for x in grid)


def hexadecimal(x, bits):
    if bits == 24:
        return float(x).hex().replace("000000p", "p").rstrip() + "f"
    return float(x).hex()


def taylor(terms, z):
    """sum of terms(k) z^k, for functions that cancel near 0."""
    total, k = mpf(0), 0
    while True:
        term = terms(k) * z**k
        total += term
        k += 1
        if abs(term) < mpf(10) ** -58 or z == 0:
            return total


LN2 = mp.log(2)
SLACK = mpf("1.002")  # range reduction may round to the wrong side of a half


def exp_rest(r):  # (e^r - 1 - r) / r^2
    return taylor(lambda k: 1 / mp.factorial(k + 2), r)


def exp2_rest(r):  # (2^r - 1) / r
    return taylor(lambda k: LN2 ** (k + 1) / mp.factorial(k + 1), r)


def atanh_rest(z):  # (2 atanh(s) - 2 s) / (s z), z = s^2
    return taylor(lambda k: mpf(2) / (2 * k + 3), z)


def erf_rest(z):  # erf(x) / x - 1, z = x^2
    return taylor(
        lambda k: 2 / mp.sqrt(mp.pi) * (-1) ** k / (mp.factorial(k) * (2 * k + 1)), z
    ) - 1


def log_erfc(a):
    return mp.log(mp.erfc(a))


def jobs():
    # Intervals around 0 are a hair asymmetric, so that no point of the exchange falls on 0, where
    # the weight vanishes.
    aside = mpf("1.00001")
    half = LN2 / 2 * SLACK
    for name, degrees in (("exp", {"float": 4, "double": 9}),):
        # e^r - 1 = r + r^2 q(r): the weight makes it the relative error of e^r - 1.
        yield name, exp_rest, lambda r: abs(r * r / mp.expm1(r)), -half * aside, half, degrees
    h = mpf("0.5") * SLACK
    yield "exp2", exp2_rest, lambda r: abs(r) / mpf(2) ** r, -h * aside, h, {"float": 5, "double": 10}

    def atanh_weight(z):  # relative to 2 atanh(s)
        s = mp.sqrt(z)
        return s * z / (2 * mp.atanh(s))

    z_log = ((mp.sqrt(2) - 1) / (mp.sqrt(2) + 1)) ** 2
    yield "log", atanh_rest, atanh_weight, mpf("1e-9"), z_log * SLACK, {"float": 2, "double": 6}
    yield "log1p", atanh_rest, atanh_weight, mpf("1e-9"), mpf(1) / 9, {"float": 3, "double": 10}
    for form, split, d_small, d_large in (("float", mpf(1), 6, 6), ("double", mpf(1), 13, 19)):
        yield (
            "erf_small", erf_rest, lambda z: 1 / (1 + erf_rest(z)), mpf("1e-9"), split**2,
            {form: d_small},
        )
        top = mpf("3.95") if form == "float" else mpf("5.95")
        yield "erf_large", log_erfc, lambda a: mp.erfc(a) / mp.erf(a), split, top, {form: d_large}


def main():
    part = sys.argv[1] if len(sys.argv) > 1 else ""
    for name, f, weight, lo, hi, degrees in jobs():
        if part not in name:
            continue
        for form, degree in degrees.items():
            bits = FORMATS[form][0]
            coefficients = fitted(f, weight, lo, hi, degree, bits)
            error = worst(f, weight, lo, hi, coefficients) * mpf(2) ** bits
            print(f"{name} {form} degree {degree}: error {mp.nstr(error, 3)} half ulp")
            print("  " + ", ".join(hexadecimal(c, bits) for c in coefficients), flush=True)


if __name__ == "__main__":
    main()
