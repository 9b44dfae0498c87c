#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Scores cocoapi's published fake results on 100 real images of val2014, which come with the tests,
# and compares them with those of a detector that takes chairs for persons. Called by examples/run.sh, with the folder
# for results as argument.

set -eu
out=$1
data=$(cd "$(dirname "$0")/../../tests/reference/detection" && pwd)

"$QUERN_EXAMPLE_BIN" "$data/real_coco100_gt.json" "$data/real_coco100_bbox_dt.json" \
  --bootstrap 1000 --json "$out/scores.json" --html "$out/report.html" \
  --title "Fake results of cocoapi on 100 images"
sed 's/"category_id":62,/"category_id":1,/g' "$data/real_coco100_bbox_dt.json" >"$out/no_chairs.json"
"$QUERN_EXAMPLE_BIN" "$data/real_coco100_gt.json" "$out/no_chairs.json" \
  --compare "$data/real_coco100_bbox_dt.json" --html "$out/comparison.html" \
  --title "A detector that takes chairs for persons"
echo "open $out/report.html and $out/comparison.html"
