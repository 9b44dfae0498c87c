#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# sh examples/run.sh [example ...]   builds the examples named (gbdt when none is) and runs each on
# real data, as examples/<name>/run.sh says; results are written to out/<name>. Installs the Debian
# packages it lacks.

set -eu
cd "$(dirname "$0")/.."
. scripts/packages.sh

case ${1:-} in -h | --help)
  sed -n '4,6s/^# //p' "$0"
  exit 0
  ;;
esac
[ $# -gt 0 ] || set -- gbdt
for name in "$@"; do
  [ -d "examples/$name" ] || die "no such example: $name ($(cd examples && echo ./*/ | tr -d ./))"
done

# An example's further packages (its data, say) are in examples/<name>/packages.
packages="$packages_base $packages_examples"
for name in "$@"; do
  [ ! -f "examples/$name/packages" ] || packages="$packages $(cat "examples/$name/packages")"
done
# shellcheck disable=SC2086
need_packages "examples" $packages

mkdir -p build
configure_examples() {
  cmake --preset release -DQUERN_BUILD_BENCHMARKS=OFF -B build/examples >build/configure.log 2>&1 || {
    cat build/configure.log >&2
    return 1
  }
}
stage "examples: configure" configure_examples
for name in "$@"; do
  stage "$name: build" cmake --build build/examples -j "$(parallel_jobs)" --target \
    "quern_example_$name"
  out=out/$name
  mkdir -p "$out"
  QUERN_EXAMPLE_BIN=$(pwd)/build/examples/examples/$name
  QUERN_EXAMPLE_OUT=$(pwd)/$out
  export QUERN_EXAMPLE_BIN QUERN_EXAMPLE_OUT
  if [ -f "examples/$name/run.sh" ]; then
    stage "$name: run" sh "examples/$name/run.sh" "$QUERN_EXAMPLE_OUT"
  else
    stage "$name: run" "$QUERN_EXAMPLE_BIN"
  fi
done
