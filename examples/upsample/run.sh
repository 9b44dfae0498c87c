#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Enlarges a picture threefold and sets all interpolations side by side. Called by examples/run.sh
# from the top folder, with the folder for results as argument. QUERN_UPSAMPLE_PICTURE: another
# picture.

set -eu
out=$1
picture=${QUERN_UPSAMPLE_PICTURE:-docs/images/gbdt.png}
"$QUERN_EXAMPLE_BIN" "$picture" --scale 3 --mode lanczos --out "$out/upsampled.png" \
  --sheet "$out/sheet.png"
echo "open $out/sheet.png"
