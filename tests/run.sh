#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# sh tests/run.sh [preset ...]   builds the tests with each preset (dev, asan, clang, static-simd;
# dev when none is named) in build/<preset> and runs them. Installs the Debian packages it lacks.

set -eu
cd "$(dirname "$0")/.."
. scripts/packages.sh

case ${1:-} in -h | --help)
  sed -n '4,5s/^# //p' "$0"
  exit 0
  ;;
esac
[ $# -gt 0 ] || set -- dev
mkdir -p build

for preset in "$@"; do
  packages="$packages_base $packages_tests"
  case $preset in
    dev | static-simd) packages="$packages $packages_examples" ;;
    asan) packages="$packages $packages_clang" ;;
    clang) packages="$packages $packages_examples $packages_bench $packages_clang" ;;
    *) die "no such preset: $preset (dev, asan, clang, static-simd)" ;;
  esac
  # shellcheck disable=SC2086
  need_packages "preset $preset" $packages
  stage "$preset: configure" configure "$preset"
  stage "$preset: build" build "$preset"
  # What no other preset compiles with clang.
  [ "$preset" != clang ] || stage "clang: syntax" syntax clang 'bench|examples'
  stage "$preset: tests" ctest --preset "$preset" -j "$(parallel_jobs)" \
    --output-log "build/$preset/ctest.log"
done
