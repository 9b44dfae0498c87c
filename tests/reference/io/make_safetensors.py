#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""torch.safetensors, as Hugging Face's safetensors package (0.8) writes it, and reading of a file
that quern wrote.

usage: make_safetensors.py DIRECTORY
       make_safetensors.py --check FILE     prints the tensors of a file
"""
import sys

import torch
from safetensors.torch import load_file, save_file


def main():
    if sys.argv[1] == "--check":
        for name, tensor in sorted(load_file(sys.argv[2]).items()):
            print(name, tensor.dtype, tuple(tensor.shape), tensor.flatten()[:4].tolist())
        return
    save_file({"weight": torch.arange(6, dtype=torch.float32).reshape(2, 3) / 2,
               "half": torch.tensor([1.0, -2.5], dtype=torch.bfloat16),
               "count": torch.tensor(42, dtype=torch.int64),
               "flags": torch.tensor([True, False, True])},
              f"{sys.argv[1]}/torch.safetensors", metadata={"format": "pt"})


main()
