#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Trajectories of torch.optim (2.15) and optax (0.2.8) on the given p0 and grads beside this file,
with the hyper-parameters of meta.json: parameters after each of 20 steps.

usage: make_optim.py DIRECTORY [--torch-only]
"""
import json
import sys

import numpy as np
import torch


def load(folder, name):
    return np.load(f"{folder}/{name}.npy")


def scheduler_of(name, optimizer):
    s = torch.optim.lr_scheduler
    if name == "adamw_cosine":
        return s.CosineAnnealingLR(optimizer, 15, 1e-4)
    if name == "sgd_step":
        return s.StepLR(optimizer, 6, 0.5)
    if name == "sgd_exp":
        return s.ExponentialLR(optimizer, 0.9)
    if name == "sgd_onecycle":
        return s.OneCycleLR(optimizer, 0.05, total_steps=21)
    warm = s.LinearLR(optimizer, 0.1, 1, 5)
    return s.SequentialLR(optimizer, [warm, s.LinearLR(optimizer, 1, 0, 15)], [5])


def run_torch(folder, name, given):
    options = {k: v for k, v in given.items() if k not in ("peer", "clip", "scheduler", "input")}
    if "betas" in options:
        options["betas"] = tuple(options["betas"])
    inputs = given.get("input", "p0,grads").split(",")
    p = torch.nn.Parameter(torch.from_numpy(load(folder, inputs[0]).copy()))
    optimizer = getattr(torch.optim, given["peer"].split(".")[-1])([p], **options)
    scheduler = scheduler_of(name, optimizer) if given["scheduler"] else None
    path = []
    for gradient in load(folder, inputs[1]):
        p.grad = torch.from_numpy(gradient.copy())
        if given.get("clip"):
            kind, bound = given["clip"]
            clip = torch.nn.utils
            (clip.clip_grad_norm_ if kind == "norm" else clip.clip_grad_value_)([p], bound)
        optimizer.step()
        if scheduler:
            scheduler.step()
        path.append(p.detach().numpy().copy())
    return np.stack(path)


def run_optax(folder, name):
    import jax
    import optax

    warm = optax.warmup_cosine_decay_schedule(0, 0.01, 5, 20, 1e-4)
    transform = {
        "optax_lion": lambda: optax.lion(0.001, weight_decay=.1),
        "optax_adamw": lambda: optax.adamw(0.01, weight_decay=.1),
        "optax_adamw_epsroot": lambda: optax.adamw(0.01, eps_root=1e-6, weight_decay=0),
        "optax_lamb": lambda: optax.lamb(0.01, weight_decay=.1),
        "optax_lars": lambda: optax.lars(0.01, weight_decay=.01, momentum=.9),
        "optax_adabelief": lambda: optax.adabelief(0.01),
        "optax_yogi": lambda: optax.yogi(0.01),
        "optax_sgd_globalclip": lambda: optax.chain(optax.clip_by_global_norm(1),
                                                    optax.sgd(0.01, .9, nesterov=True)),
        "optax_rmsprop": lambda: optax.rmsprop(0.01),
        "optax_adamw_warmcos": lambda: optax.adamw(warm, weight_decay=.1),
    }[name]()
    p = jax.numpy.asarray(load(folder, "p0"))
    state, path = transform.init(p), []
    for gradient in load(folder, "grads"):
        updates, state = transform.update(jax.numpy.asarray(gradient), state, p)
        p = optax.apply_updates(p, updates)
        path.append(np.asarray(p))
    return np.stack(path)


def main(folder, torch_only):
    with open(f"{folder}/meta.json", encoding="ascii") as file:
        parameters = json.load(file)["params"]
    for name, given in parameters.items():
        if given["peer"].startswith("torch"):
            given.setdefault("scheduler", False)
            np.save(f"{folder}/{name}.npy", run_torch(folder, name, given))
        elif not torch_only:
            np.save(f"{folder}/{name}.npy", run_optax(folder, name))
    adam = load(folder, "adam")
    average, rows = load(folder, "p0").astype(np.float32), []
    for row in adam:
        average = np.float32(0.9) * average + np.float32(0.1) * row
        rows.append(average)
    np.save(f"{folder}/ema_of_adam_decay0.9_init_p0.npy", np.stack(rows))
    means = np.cumsum(adam.astype(np.float64), axis=0) / np.arange(1, len(adam) + 1)[:, None]
    np.save(f"{folder}/polyak_mean_of_adam_f64.npy", means)


if __name__ == "__main__":
    main(sys.argv[1], "--torch-only" in sys.argv)
