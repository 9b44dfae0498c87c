#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Every study on one page. Called by examples/run.sh, with the folder for results as argument.

set -eu
out=$1
"$QUERN_EXAMPLE_BIN" all --steps 50000 --html "$out/report.html"
"$QUERN_EXAMPLE_BIN" check -a 1 --alpha 0.4
echo "open $out/report.html"
