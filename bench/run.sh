#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# sh bench/run.sh [ROOM [OPTION ...]]         Google Benchmark programs: all rooms, or one (kernels)
# sh bench/run.sh compile [OPTION ...]        what including each public header costs
# sh bench/run.sh peers AREA [--threads N] [--json FILE] [OPTION ...]
#                                             quern beside the libraries people know
# sh bench/run.sh roundtrip                   models through each format to the peers and back
# Builds what it needs with the preset "release" and installs the Debian packages it lacks.
# Set QUERN_CXX=clang++ to build with another compiler (in a build folder of its own).

set -eu
start_dir=$(pwd)
cd "$(dirname "$0")/.."
. scripts/packages.sh
mkdir -p build

build_dir=build/release
if [ -n "${QUERN_CXX:-}" ]; then build_dir=build/release-$(basename "$QUERN_CXX"); fi

configure_release() {
  set --
  if [ -n "${QUERN_CXX:-}" ]; then set -- "-DCMAKE_CXX_COMPILER=$QUERN_CXX"; fi
  cmake --preset release -B "$build_dir" -DQUERN_BUILD_EXAMPLES=OFF "$@" >build/configure.log 2>&1 ||
    {
      cat build/configure.log >&2
      return 1
    }
}

build_release() { # [TARGET]
  stage "release: configure" configure_release
  if [ $# -eq 0 ]; then
    stage "release: build" cmake --build "$build_dir" -j "$(parallel_jobs)"
  else
    stage "release: build" cmake --build "$build_dir" -j "$(parallel_jobs)" --target "$1"
  fi
}

# The environment that the peers live in; made once, and again when the list of them changes.
peers_python() {
  venv=build/peers-venv
  if ! cmp -s bench/peers/requirements.txt "$venv/made-from.txt"; then
    python3 -m venv "$venv"
    "$venv/bin/python" -m pip install -q --disable-pip-version-check \
      -r bench/peers/requirements.txt
    cp bench/peers/requirements.txt "$venv/made-from.txt"
  fi
}

# Sets $python: the peers' environment, or QUERN_PEERS_PYTHON.
find_peers_python() {
  if [ -n "${QUERN_PEERS_PYTHON:-}" ]; then
    python=$QUERN_PEERS_PYTHON
  else
    stage "peers: environment" peers_python
    python=build/peers-venv/bin/python
  fi
}

case ${1:-} in
  -h | --help)
    sed -n '4,10s/^# //p' "$0"
    ;;
  compile)
    shift
    # shellcheck disable=SC2086
    need_packages "bench compile" $packages_base python3
    stage "bench: compile" python3 bench/compile.py "$@"
    ;;
  peers)
    shift
    [ $# -gt 0 ] || die "which area? one of: $(cd bench/peers/areas && ls ./*.py | tr '\n' ' ')"
    # shellcheck disable=SC2086
    need_packages "bench peers" $packages_base $packages_bench $packages_peers
    find_peers_python
    area=$1
    build_release "peers_${area}_area"
    shift
    # A file named on the command line is meant where the command was typed.
    previous=""
    for argument in "$@"; do
      if [ "$previous" = --json ]; then
        case $argument in /*) ;; *) argument=$start_dir/$argument ;; esac
      fi
      previous=$argument
      set -- "$@" "$argument"
      shift
    done
    stage "bench: peers $area" "$python" bench/peers/run.py "$area" --build "$build_dir" "$@"
    ;;
  roundtrip)
    # shellcheck disable=SC2086
    need_packages "bench roundtrip" $packages_base $packages_bench $packages_peers
    find_peers_python
    build_release peers_formats
    stage "bench: roundtrip" "$python" bench/peers/roundtrip.py --build "$build_dir"
    ;;
  *)
    # shellcheck disable=SC2086
    need_packages "bench" $packages_base $packages_bench
    if [ $# -gt 0 ]; then
      room=$1
      shift
      build_release "quern_${room}_bench"
      stage "bench: $room" "$build_dir/bench/quern_${room}_bench" "$@"
    else
      build_release
      for program in "$build_dir"/bench/quern_*_bench; do
        [ -x "$program" ] || continue
        stage "bench: $(basename "$program")" "$program"
      done
    fi
    ;;
esac
