#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# A VQ-VAE and a PixelCNN prior on Fashion-MNIST (H. Xiao, K. Rasul, R. Vollgraf, arXiv:1708.07747).
# Called by examples/run.sh, with the folder for results as argument. QUERN_VQVAE_ARGUMENTS adds
# arguments.

set -eu
out=$1
data=${QUERN_FASHION_MNIST:-/usr/share/datasets/fashion-mnist}
# shellcheck disable=SC2086
"$QUERN_EXAMPLE_BIN" --data "$data" --html "$out/vqvae.html" --save "$out" \
  ${QUERN_VQVAE_ARGUMENTS:-}
