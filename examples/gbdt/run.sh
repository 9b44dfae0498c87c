#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Trains on Fashion-MNIST (H. Xiao, K. Rasul, R. Vollgraf, arXiv:1708.07747): 60,000 pictures of
# clothing, ten classes. Called by examples/run.sh, with the folder for results as argument.
# QUERN_GBDT_ARGUMENTS adds arguments of `gbdt train`.

set -eu
gbdt=$QUERN_EXAMPLE_BIN
out=$1
data=${QUERN_FASHION_MNIST:-/usr/share/datasets/fashion-mnist}

# shellcheck disable=SC2086
"$gbdt" train "$data/train-images-idx3-ubyte.gz" \
  --test "$data/t10k-images-idx3-ubyte.gz" \
  --class-names "T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot" \
  --rounds 100 --max_depth 6 --eta 0.3 \
  --model "$out/fashion-mnist.quern" --report "$out/report.html" \
  --title "Boosted trees on Fashion-MNIST" ${QUERN_GBDT_ARGUMENTS:-}
"$gbdt" predict "$out/fashion-mnist.quern" "$data/t10k-images-idx3-ubyte.gz" \
  --what class --out "$out/classes.csv"
echo "open $out/report.html"
