#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Scores cocoapi's published fake results on 100 real images of val2014, which come with the tests.
# Called by examples/run.sh, with the folder for results as argument.

set -eu
out=$1
data=$(cd "$(dirname "$0")/../../tests/reference/detection" && pwd)

"$QUERN_EXAMPLE_BIN" "$data/real_coco100_gt.json" "$data/real_coco100_bbox_dt.json" \
  --bootstrap 1000 --json "$out/scores.json" --html "$out/report.html" \
  --title "Fake results of cocoapi on 100 images"
echo "open $out/report.html"
