#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Cost of each kind of attention against the length. Called by examples/run.sh, with the folder for
# results as argument. QUERN_ATTENTION_ARGUMENTS adds arguments.

set -eu
# shellcheck disable=SC2086
"$QUERN_EXAMPLE_BIN" --html "$1/attention.html" ${QUERN_ATTENTION_ARGUMENTS:-}
