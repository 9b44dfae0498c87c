#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# A spoken "front center" as each measure remembers it. Called by examples/run.sh, with the folder
# for results as argument. QUERN_HIPPO_WAVE names another sound file.

set -eu
out=$1
wave=${QUERN_HIPPO_WAVE:-/usr/share/sounds/alsa/Front_Center.wav}
"$QUERN_EXAMPLE_BIN" --wave "$wave" --html "$out/hippo.html"
echo "open $out/hippo.html"
