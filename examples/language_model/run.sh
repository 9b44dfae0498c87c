#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Learns the King James Bible (package bible-kjv), writes a little, and compares mixers. Called by
# examples/run.sh, with the folder for results as argument. QUERN_LM_ARGUMENTS adds arguments to
# training (--steps 5000, say), QUERN_LM_COMPARE are those of the comparison; QUERN_LM_TEXT names
# another text.

set -eu
out=$1
text=${QUERN_LM_TEXT:-}
if [ -z "$text" ]; then
  text=$out/text
  [ -s "$text" ] || bible 'gen1:1-rev22:21' </dev/null >"$text"
fi

# shellcheck disable=SC2086
"$QUERN_EXAMPLE_BIN" train --text "$text" --folder "$out" ${QUERN_LM_ARGUMENTS:-}
"$QUERN_EXAMPLE_BIN" generate --folder "$out" --prompt "And God said"
# shellcheck disable=SC2086
"$QUERN_EXAMPLE_BIN" compare --text "$text" --html "$out/language_model.html" \
  ${QUERN_LM_COMPARE:---steps 200}
