#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Learns to rank. Called by examples/run.sh, with the folder for results as argument.
# QUERN_RANK_TRAIN and QUERN_RANK_TEST name LIBSVM files with queries (LightGBM's lambdarank sample,
# say, with its .query files beside them); without them the queries are made up.

set -eu
out=$1
train=${QUERN_RANK_TRAIN:-$out/train.txt}
test=${QUERN_RANK_TEST:-$out/test.txt}

# Documents of 20 features; the relevance 0..4 follows from three of them and some noise.
make_queries() { # QUERIES SEED
  awk -v queries="$1" -v seed="$2" 'BEGIN {
    srand(seed)
    for (q = 1; q <= queries; ++q) {
      documents = 8 + int(rand() * 16)
      for (d = 0; d < documents; ++d) {
        for (f = 1; f <= 20; ++f) x[f] = rand()
        score = 3 * x[1] * x[2] + x[3] + 0.6 * rand()
        relevance = score > 2.6 ? 4 : score > 2.1 ? 3 : score > 1.7 ? 2 : score > 1.3 ? 1 : 0
        printf "%d qid:%d", relevance, q
        for (f = 1; f <= 20; ++f) if (x[f] > 0.1) printf " %d:%.4f", f, x[f]
        printf "\n"
      }
    }
  }'
}
[ -n "${QUERN_RANK_TRAIN:-}" ] || make_queries 400 1 >"$train"
[ -n "${QUERN_RANK_TEST:-}" ] || make_queries 100 2 >"$test"

"$QUERN_EXAMPLE_BIN" "$train" --test "$test" --rounds 50 --model "$out/rank.ubj" \
  --scores "$out/scores.txt"
echo "scores of the test rows: $out/scores.txt"
