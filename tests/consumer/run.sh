#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# run.sh CASE: builds a small program against quern in a way that users do, and runs it. Called by
# ctest, which sets QUERN_SOURCE, QUERN_BUILD, CMAKE, CXX and where the dependencies are.

set -eu
case_name=$1
work=$QUERN_BUILD/consumer/$case_name
rm -rf "$work"
mkdir -p "$work"
here=$QUERN_SOURCE/tests/consumer
cd "$work"

# Where finding quern is the question, not what it does (see plain/consumer.hpp).
light="-O0 -DCONSUMER_LIGHT"

cmake_build() { # SOURCE ARGUMENT...
  source_=$1
  shift
  "$CMAKE" -S "$source_" -B "$work/build" -G Ninja -DCMAKE_BUILD_TYPE=Release \
    -DCMAKE_CXX_COMPILER="$CXX" -DCMAKE_CXX_COMPILER_LAUNCHER="$QUERN_TEST_LAUNCHER" \
    -DCMAKE_CXX_FLAGS_RELEASE="$light" "$@"
  "$CMAKE" --build "$work/build"
  "$work/build/consumer"
}

install_quern() {
  "$CMAKE" --install "$QUERN_BUILD" --prefix "$work/prefix" >/dev/null
}

compile() { # OUTPUT SOURCE FLAG...
  output_=$1
  input_=$2
  shift 2
  # shellcheck disable=SC2086
  $QUERN_TEST_LAUNCHER "$CXX" -std=c++20 "$@" -I"$QUERN_SOURCE/include" $QUERN_TEST_FLAGS \
    -c "$here/plain/$input_" -o "$output_"
}

case $case_name in
  find_package)
    install_quern
    cmake_build "$here/find_package" -DCMAKE_PREFIX_PATH="$work/prefix"
    ;;
  add_subdirectory)
    # The options of a sub-project are off: no test, no example, nothing to install.
    cmake_build "$here/add_subdirectory" -DQUERN_SOURCE="$QUERN_SOURCE"
    (cd build && ctest -N) | grep -q 'Total Tests: 0'
    ! "$CMAKE" --build build --target help | grep -E 'quern_.*(tests|bench|example)'
    ;;
  fetched)
    # Nothing is found on the system; copies stand in for what would be downloaded.
    mkdir -p json
    ln -s "$QUERN_TEST_JSON" json/include
    cmake_build "$here/add_subdirectory" -DQUERN_SOURCE="$QUERN_SOURCE" \
      -DCMAKE_DISABLE_FIND_PACKAGE_Eigen3=ON -DCMAKE_DISABLE_FIND_PACKAGE_HighwayHeaders=ON \
      -DCMAKE_DISABLE_FIND_PACKAGE_nlohmann_json=ON -DFETCHCONTENT_FULLY_DISCONNECTED=ON \
      -DFETCHCONTENT_SOURCE_DIR_EIGEN="$QUERN_TEST_EIGEN" \
      -DFETCHCONTENT_SOURCE_DIR_HIGHWAY="$QUERN_TEST_HIGHWAY" \
      -DFETCHCONTENT_SOURCE_DIR_JSON="$work/json" -DCONSUMER_IO=ON
    ;;
  plain)
    # Two units, one command, nothing to link.
    # shellcheck disable=SC2086
    "$CXX" -std=c++20 -O2 -I"$QUERN_SOURCE/include" $QUERN_TEST_FLAGS "$here/plain/a.cpp" \
      "$here/plain/b.cpp" -o plain
    ./plain
    ;;
  predict)
    # Prediction needs Highway's headers and a loader's, but no Eigen, wherever that is installed.
    mkdir -p headers
    ln -s "$QUERN_TEST_HIGHWAY/hwy" headers/hwy
    json=
    if [ -n "$QUERN_TEST_JSON" ]; then
      ln -s "$QUERN_TEST_JSON/nlohmann" headers/nlohmann
      json=-DCONSUMER_JSON
    fi
    # shellcheck disable=SC2086
    set -- -std=c++20 -O0 $json -I"$QUERN_SOURCE/include" -isystem headers \
      "$here/plain/predict.cpp"
    if "$CXX" "$@" -M | grep -i '/eigen'; then exit 1; fi
    $QUERN_TEST_LAUNCHER "$CXX" "$@" -pthread -o predict
    ./predict
    ;;
  mixed_flags)
    # Units built with different flags link in either order and each gets what it was built for.
    for flags in -O0 "-O2 -DCONSUMER_LIGHT"; do
      # shellcheck disable=SC2086
      {
        compile a.o a.cpp $flags
        compile b.o b.cpp $flags -march=native
      }
      "$CXX" a.o b.o -o a_b
      "$CXX" b.o a.o -o b_a
      ./a_b
      ./b_a
    done
    ;;
  highway_first)
    # Highway has chosen its target already; the other unit chooses at run time.
    # shellcheck disable=SC2086
    {
      compile a.o a.cpp $light -DCONSUMER_HIGHWAY_FIRST
      compile b.o b.cpp $light
    }
    "$CXX" a.o b.o -o a_b
    "$CXX" b.o a.o -o b_a
    ./a_b
    ./b_a
    ;;
  flag_sets)
    # Flags that Highway is known to trip over, and those that change floating point. Run only what
    # this processor can.
    # shellcheck disable=SC2086
    compile b.o b.cpp $light
    for flags in -march=haswell -march=x86-64-v3 -DQUERN_STATIC_SIMD "-O2 -ffast-math"; do
      # shellcheck disable=SC2086
      compile a.o a.cpp $light $flags
      "$CXX" a.o b.o -o a_b
      case $flags in
        -march=*) grep -qw avx2 /proc/cpuinfo || continue ;;
      esac
      ./a_b
    done
    # The newest instructions must compile even where they cannot run.
    # shellcheck disable=SC2086
    for flags in -march=skylake-avx512 -march=icelake-server; do
      compile a.o a.cpp $light $flags
    done
    ;;
  pkg_config)
    install_quern
    flags=$(sed -n -e "s#\${includedir}#$work/prefix/include#" -e 's/^Cflags: //p' \
      "$work/prefix/share/pkgconfig/quern.pc")
    if command -v pkg-config >/dev/null 2>&1; then
      flags=$(PKG_CONFIG_PATH="$work/prefix/share/pkgconfig" pkg-config --cflags quern)
    fi
    # shellcheck disable=SC2086
    "$CXX" -std=c++20 $light $flags $QUERN_TEST_FLAGS "$here/plain/a.cpp" "$here/plain/b.cpp" -o plain
    ./plain
    ;;
  *)
    echo "no such case: $case_name" >&2
    exit 2
    ;;
esac
