# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
#
# Sourced by the run.sh scripts: says which Debian packages are missing, installs those, and times
# stages. POSIX sh.

say() { printf '\033[1m== %s\033[0m\n' "$*" >&2; }
die() {
  printf '%s\n' "$*" >&2
  exit 1
}

# What each purpose needs beyond the base.
# shellcheck disable=SC2034
packages_base="g++ cmake ninja-build libeigen3-dev libhwy-dev zlib1g-dev nlohmann-json3-dev"
packages_tests="libgtest-dev librapidcheck-dev"
packages_examples="libcli11-dev libstb-dev"
packages_bench="libbenchmark-dev"
packages_clang="clang-14 clang libclang-rt-14-dev libfuzzer-14-dev"
packages_format="clang-format-14"
packages_peers="python3 python3-venv"

# missing_packages PACKAGE...: those that are not installed.
missing_packages() {
  for package_ in "$@"; do
    case $(dpkg-query -W -f '${Status}' "$package_" 2>/dev/null) in
      *" installed") ;;
      *) printf '%s ' "$package_" ;;
    esac
  done
}

# need_packages WHAT PACKAGE...: installs what is missing, and only says so elsewhere than Debian.
need_packages() {
  what_=$1
  shift
  if ! command -v dpkg-query >/dev/null 2>&1; then
    say "$what_ needs what Debian calls: $*"
    return 0
  fi
  # shellcheck disable=SC2046,SC2086
  set -- $(missing_packages "$@")
  [ $# -eq 0 ] && return 0
  say "$what_ lacks: $* - installing"
  as_root_=""
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null 2>&1 || die "no sudo here; as root: apt-get install $*"
    as_root_="sudo"
  fi
  install_="$as_root_ env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 -qq -y"
  install_="$install_ --no-install-recommends install"
  # The package lists are fetched only if the install does not work without.
  # shellcheck disable=SC2086
  if ! $install_ "$@" >/dev/null 2>&1; then
    $as_root_ apt-get -qq update || die "apt-get update failed"
    $install_ "$@" >/dev/null || die "apt-get could not install: $*"
  fi
}

# parallel_jobs: how many compilers may run side by side; never more than the memory carries (2 GB each).
parallel_jobs() {
  cores_=$(nproc 2>/dev/null || echo 2)
  gigabytes_=$(awk '/^MemAvailable/ {print int($2 / 2097152)}' /proc/meminfo 2>/dev/null)
  if [ -n "$gigabytes_" ] && [ "$gigabytes_" -lt "$cores_" ]; then cores_=$gigabytes_; fi
  [ "$cores_" -ge 1 ] || cores_=1
  echo "$cores_"
}

# stage NAME COMMAND...: runs a command and says what it took; its status is the command's.
stage() {
  name_=$1
  shift
  start_=$(date +%s)
  if "$@"; then status_=0; else status_=$?; fi
  line_="$name_: $(($(date +%s) - start_)) s"
  [ "$status_" -eq 0 ] || line_="$line_, FAILED ($status_)"
  say "$line_"
  return "$status_"
}

# configure PRESET, in the repository's root; shows what CMake said only if it failed.
configure() {
  cmake --preset "$1" >"build/configure-$1.log" 2>&1 || {
    cat "build/configure-$1.log" >&2
    return 1
  }
}

# build PRESET; tells all errors, not only the first.
build() { cmake --build --preset "$1" -j "$(parallel_jobs)" -- -k 0; }

# syntax PRESET FOLDERS: compiles the sources under FOLDERS (an extended regular expression) without
# making code, which costs a third.
syntax() {
  sed -n 's/^  "command": "\(.*\)",$/\1 -fsyntax-only/p' "build/$1/compile_commands.json" |
    grep -E -- " -c [^ ]*/($2)/" | tr '\n' '\0' | xargs -0 -n 1 -P "$(parallel_jobs)" sh -c
}
