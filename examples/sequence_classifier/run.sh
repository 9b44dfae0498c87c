#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Fashion-MNIST pixel by pixel. Called by examples/run.sh, with the folder for results as argument.
# QUERN_SEQUENCE_ARGUMENTS adds arguments: "--mixer all" for the table of all mixers, "--rows 5000
# --epochs 1" for a quick look.

set -eu
out=$1
data=${QUERN_FASHION_MNIST:-/usr/share/datasets/fashion-mnist}

# shellcheck disable=SC2086
"$QUERN_EXAMPLE_BIN" --data "$data" --html "$out/sequence_classifier.html" \
  ${QUERN_SEQUENCE_ARGUMENTS:-}
