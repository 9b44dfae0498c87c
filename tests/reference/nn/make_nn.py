#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Layers and losses of PyTorch 2.15 in float64, on fixed seeds: for each NAME the files NAME_x, _y,
_gy (given), _gx, _p.PARAMETER and _g.PARAMETER; for losses _value and _g. The convolutions
(*_conv_*, *_convT_*: float32) and pixelcnn_* are of the same system, made the same way, with the
options that tests/nn/conv_test.cpp states.

usage: make_nn.py DIRECTORY
"""
import sys

import numpy as np
import torch
import torch.nn.functional as F

folder = sys.argv[1]
torch.manual_seed(8)
torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)


def save(name, value):
    value = value.detach().numpy() if torch.is_tensor(value) else np.asarray(value)
    np.save(f"{folder}/{name}.npy", np.ascontiguousarray(value))


def layer(name, module, *shape):
    for p in module.parameters():
        with torch.no_grad():
            p.add_(torch.randn_like(p) * 0.5)
    x = torch.randn(*shape, requires_grad=True)
    y = module(x)
    gy = torch.randn_like(y)
    y.backward(gy)
    save(name + "_x", x)
    save(name + "_y", y)
    save(name + "_gy", gy)
    save(name + "_gx", x.grad)
    for key, p in module.named_parameters():
        save(f"{name}_p.{key}", p)
        save(f"{name}_g.{key}", p.grad)
    return x


layer("layer_norm", torch.nn.LayerNorm(20), 3, 20)
layer("rms_norm", torch.nn.RMSNorm(20, eps=1e-5), 3, 20)
batch = torch.nn.BatchNorm2d(6)
x = layer("batch_norm", batch, 3, 6, 4, 2)
plain = torch.nn.BatchNorm2d(6)
plain(x)
save("batch_norm_running_mean", plain.running_mean)
save("batch_norm_running_var", plain.running_var)
plain.eval()
save("batch_norm_eval", plain(x))
layer("group_norm", torch.nn.GroupNorm(3, 6), 3, 6, 4, 2)
layer("max_pool", torch.nn.MaxPool2d(3, stride=2, padding=1, dilation=1), 2, 3, 7, 8)
layer("max_pool_ceil", torch.nn.MaxPool2d((2, 3), stride=(2, 2), dilation=(2, 1), ceil_mode=True), 2, 3, 7, 8)
layer("avg_pool", torch.nn.AvgPool2d(3, stride=2, padding=1), 2, 3, 7, 8)
layer("avg_pool_ceil", torch.nn.AvgPool2d(3, stride=2, padding=1, ceil_mode=True, count_include_pad=False), 2, 3, 8, 6)
layer("linear", torch.nn.Linear(5, 3), 2, 4, 5)
layer("glu", torch.nn.GLU(dim=1), 2, 6, 5)


def loss(name, function, prediction, target):
    prediction = prediction.clone().requires_grad_()
    value = function(prediction, target)
    value.backward()
    save(name + "_value", value.reshape(1))
    save(name + "_g", prediction.grad)


p, t = torch.randn(6, 5) * 2, torch.randn(6, 5)
save("loss_p", p)
save("loss_t", t)
loss("mse", F.mse_loss, p, t)
loss("l1", F.l1_loss, p, t)
loss("huber", lambda a, b: F.huber_loss(a, b, delta=0.7), p, t)
unit = torch.sigmoid(t)
save("loss_unit", unit)
loss("bce", lambda a, b: F.binary_cross_entropy_with_logits(a, b, pos_weight=torch.tensor(1.7)), p, unit)
share = torch.softmax(t, 1)
share[0, 1] = 0
save("loss_share", share)
logp = torch.log_softmax(p, 1)
save("loss_logp", logp)
loss("kl", lambda a, b: F.kl_div(a, b, reduction="batchmean"), logp, share)
loss("kl_log", lambda a, b: F.kl_div(a, b, reduction="batchmean", log_target=True), logp, t)
classes = torch.tensor([3, 0, -100, 4, 4, 1])
save("loss_classes", classes.to(torch.int32))
weights = torch.tensor([0.5, 1.0, 2.0, 0.25, 1.5])
save("loss_weights", weights)
loss("ce", F.cross_entropy, p, classes)
loss("ce_smooth", lambda a, b: F.cross_entropy(a, b, label_smoothing=0.1), p, classes)
loss("ce_weights", lambda a, b: F.cross_entropy(a, b, weight=weights, label_smoothing=0.1), p, classes)
loss("ce_sum", lambda a, b: F.cross_entropy(a, b, reduction="sum"), p, classes)
image, where = torch.randn(2, 5, 3, 4), torch.randint(0, 5, (2, 3, 4))
save("loss_image", image)
save("loss_where", where.to(torch.int32))
loss("ce_image", F.cross_entropy, image, where)

from safetensors.torch import save_file  # noqa: E402

torch.set_default_dtype(torch.float32)
net = torch.nn.Sequential(
    torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.ConvTranspose2d(4, 2, 2, stride=2)
)
for _ in range(3):
    net(torch.randn(4, 1, 5, 6))
net.eval()
x = torch.randn(2, 1, 5, 6)
save_file(net.state_dict(), f"{folder}/torch_network.safetensors")
save_file({"x": x, "y": net(x).detach().contiguous()}, f"{folder}/torch_network_data.safetensors")
