#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Recomputes the results in this folder from the inputs in it (float64, one line of update each).

Inputs: stream, rm_noise, spsa_delta, lr_X, lr_y, lr_order, rl_{s,a,r,s2} and the *_params.json.
Row k of a trajectory is the value after update k + 1. spsa_noisyopt_iter is what
noisyopt.minimizeSPSA (0.2.3) gives with its random directions replaced by spsa_delta; that is the
same formula with A = 3.

    make_stochastic.py            compares with the files, 1e-12 relative
    make_stochastic.py --write    writes them
"""

import json
import os
import sys

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))


def load(name):
    return np.load(os.path.join(HERE, name + ".npy"))


def params(name):
    with open(os.path.join(HERE, name + "_params.json"), encoding="utf-8") as file:
        return json.load(file)


def means(out):
    x = load("stream")
    k = np.arange(1, len(x) + 1)
    out["running_mean"] = np.cumsum(x) / k
    out["running_var_pop_welford"] = np.array([np.var(x[:n]) for n in k])
    w, path = 0.0, []
    for value in x:
        w += 0.07 * (value - w)
        path.append(w)
    out["const_step_alpha0.07_from0"] = np.array(path)


def robbins_monro(out):
    p, noise = params("rm"), load("rm_noise")
    diagonal, root = np.array(p["A_diag"]), np.array(p["w_star"])
    for s, schedule in enumerate(p["schedules"]):
        w, path = np.full(len(root), float(p["w0"])), []
        for k, eta in enumerate(noise):
            w = w - schedule["a"] / (k + 1) ** schedule["p"] * (diagonal * (w - root) + eta)
            path.append(w)
        out[f"rm_iter_{s}"] = np.array(path)
        out[f"rm_polyak_{s}"] = np.cumsum(path, axis=0) / np.arange(1, len(path) + 1)[:, None]


def rosenbrock(x):
    return np.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def differences(out):
    p, delta = params("spsa"), load("spsa_delta")

    def run(stability, gradient):
        x, path = np.array(p["x0"]), []
        for k in range(len(delta)):
            a = p["a"] / (k + 1 + stability) ** p["alpha"]
            c = p["c"] / (k + 1) ** p["gamma"]
            x = x - a * gradient(x, c, k)
            path.append(x)
        return np.array(path)

    def simultaneous(x, c, k):
        d = delta[k]
        return (rosenbrock(x + c * d) - rosenbrock(x - c * d)) / (2 * c * d)

    def central(x, c, k):
        return np.array([(rosenbrock(x + c * e) - rosenbrock(x - c * e)) / (2 * c)
                         for e in np.eye(len(x))])

    out["spsa_iter"] = run(p["A"], simultaneous)
    out["spsa_noisyopt_iter"] = run(3.0, simultaneous)
    out["kw_iter"] = run(p["A"], central)


def logistic(out):
    p = params("lr")
    x, y, order = load("lr_X"), load("lr_y"), load("lr_order")
    lam, step, n = p["lam"], p["step"], len(y)

    def gradient(w, rows):
        r = 1 / (1 + np.exp(-x[rows] @ w)) - y[rows]
        return x[rows].T @ r / len(rows) + lam * w

    def descent(batches):
        w, path = np.zeros(x.shape[1]), []
        for rows in batches:
            w = w - step * gradient(w, rows)
            path.append(w)
        return np.array(path)

    everything = np.arange(n)
    out["sgd"] = descent([order[i:i + 1] for i in range(n)])
    out["mbgd8"] = descent([order[i:i + 8] for i in range(0, n, 8)])
    out["bgd"] = descent([everything] * 20)
    w, path = np.zeros(x.shape[1]), []
    for _ in range(3):
        snapshot, full = w, gradient(w, everything)
        for i in order:
            w = w - step * (gradient(w, [i]) - gradient(snapshot, [i]) + full)
            path.append(w)
    out["svrg_3epochs"] = np.array(path)
    w, path = np.zeros(x.shape[1]), []
    table = np.array([gradient(w, [i]) for i in everything])
    for _ in range(3):
        for i in order:
            g = gradient(w, [i])
            w = w - step * (g - table[i] + table.mean(axis=0))
            table[i] = g
            path.append(w)
    out["saga_3epochs"] = np.array(path)
    w = np.zeros(x.shape[1])
    for _ in range(50):
        s = 1 / (1 + np.exp(-x @ w))
        hessian = (x * (s * (1 - s))[:, None]).T @ x / n + lam * np.eye(len(w))
        w = w - np.linalg.solve(hessian, gradient(w, everything))
    out["lr_optimum"] = w


def learning(out):
    s, a, r, s2 = (load("rl_" + name) for name in ("s", "a", "r", "s2"))
    v, q, visits = np.zeros(5), np.zeros((5, 2)), np.zeros((5, 2))
    for i in range(len(s)):
        v[s[i]] += 0.1 * (r[i] + 0.9 * v[s2[i]] - v[s[i]])
        visits[s[i], a[i]] += 1
        target = r[i] + 0.9 * q[s2[i]].max()
        q[s[i], a[i]] += (target - q[s[i], a[i]]) / visits[s[i], a[i]]
    out["td0_V_alpha0.1_gamma0.9"] = v
    out["qlearning_step1overvisits_gamma0.9"] = q


def main():
    out = {}
    for part in (means, robbins_monro, differences, logistic, learning):
        part(out)
    worst = 0.0
    for name, value in sorted(out.items()):
        if "--write" in sys.argv[1:]:
            np.save(os.path.join(HERE, name + ".npy"), value)
            continue
        stored = load(name)
        error = np.max(np.abs(stored - value)) / max(1.0, np.max(np.abs(stored)))
        worst = max(worst, error)
        print(f"{name:36s} {error:.1e}")
    if worst > 1e-12:
        sys.exit("a result differs")


if __name__ == "__main__":
    main()
