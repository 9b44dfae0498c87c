#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Ensembles on Fashion-MNIST, on adult where QUERN_ADULT names the file (UCI's adult.data), and three
# pictures of why they help. Called by examples/run.sh, with the folder for results as argument.
# QUERN_ENSEMBLES_ARGUMENTS adds arguments.

set -eu
out=$1
data=${QUERN_FASHION_MNIST:-/usr/share/datasets/fashion-mnist}

# shellcheck disable=SC2086
"$QUERN_EXAMPLE_BIN" --fashion-mnist "$data" ${QUERN_ADULT:+--adult "$QUERN_ADULT"} \
  --report "$out/report.html" ${QUERN_ENSEMBLES_ARGUMENTS:-}
echo "open $out/report.html"
