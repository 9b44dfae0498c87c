#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Trains U-Nets and FCNs with each kind of upsampling on scenes of Fashion-MNIST. Called by
# examples/run.sh, with the folder for results as argument. QUERN_SEGMENT_ARGUMENTS adds arguments.

set -eu
out=$1
data=${QUERN_FASHION_MNIST:-/usr/share/datasets/fashion-mnist}

# shellcheck disable=SC2086
"$QUERN_EXAMPLE_BIN" --data "$data" --html "$out/segment.html" ${QUERN_SEGMENT_ARGUMENTS:-}
