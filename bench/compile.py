# SPDX-License-Identifier: Apache-2.0
"""What including each public header costs: median seconds of a compiler run at -O2.

Usually called by `sh bench/run.sh compile`. Every header is the only include of a translation unit;
the empty unit is the base. The umbrella is also measured with 300 dummy kernels, unused and used,
because later parts of the library will bring that many. Rounds go over all cases, so a slow moment
of the machine hits one sample of many cases and not all samples of one.
"""

import argparse
import os
import pathlib
import shlex
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
INCLUDE = ROOT / "include"

DUMMY_KERNEL = """
template <class T>
T dummy_{i}(const T* HWY_RESTRICT x, std::size_t n) {{
  const hwy::HWY_NAMESPACE::ScalableTag<T> d;
  const std::size_t lanes = hwy::HWY_NAMESPACE::Lanes(d);
  auto sum = hwy::HWY_NAMESPACE::Set(d, T({i}));
  std::size_t i = 0;
  for (; i + lanes <= n; i += lanes) {{
    const auto value = hwy::HWY_NAMESPACE::LoadU(d, x + i);
    sum = hwy::HWY_NAMESPACE::MulAdd(value, value, sum);
  }}
  T rest = hwy::HWY_NAMESPACE::GetLane(hwy::HWY_NAMESPACE::SumOfLanes(d, sum));
  for (; i < n; ++i) rest += x[i];
  return rest;
}}
"""

DUMMY_HEADER = """
#if defined(QUERN_BENCH_DUMMY_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_BENCH_DUMMY_INL
#undef QUERN_BENCH_DUMMY_INL
#else
#define QUERN_BENCH_DUMMY_INL
#endif
#include "hwy/highway.h"
HWY_BEFORE_NAMESPACE();
QUERN_NAMESPACE_BEGIN
namespace kernels {
namespace HWY_NAMESPACE {
%s
}  // namespace HWY_NAMESPACE
}  // namespace kernels
QUERN_NAMESPACE_END
HWY_AFTER_NAMESPACE();
#endif
"""


def public_headers():
    """Every header that may be included alone, the umbrella last."""
    names = [str(path.relative_to(INCLUDE)) for path in INCLUDE.rglob("*.hpp")]
    names = [name for name in names if "-inl" not in name and "/detail/" not in name]
    return sorted(names, key=lambda name: (name == "quern/quern.hpp", name))


def with_dummies(folder, count):
    """An include folder whose list of kernels has `count` more than quern's."""
    overlay = folder / "overlay"
    kernels = overlay / "quern" / "kernels"
    kernels.mkdir(parents=True)
    original = (INCLUDE / "quern" / "kernels" / "all-inl.hpp").read_text(encoding="utf-8")
    (kernels / "all-inl.hpp").write_text(
        original + '\n#include "quern_dummy-inl.hpp"\n', encoding="utf-8")
    text = "".join(DUMMY_KERNEL.format(i=i) for i in range(count))
    (overlay / "quern_dummy-inl.hpp").write_text(DUMMY_HEADER % text, encoding="utf-8")
    return overlay


def cases(folder, headers, dummies):
    """Name, source text and extra include folders of every measurement."""
    found = [("(empty)", "", []), ("(Eigen/Core)", "#include <Eigen/Core>\n", [])]
    found += [(name, f'#include "{name}"\n', []) for name in headers]
    if dummies and (INCLUDE / "quern" / "kernels" / "all-inl.hpp").exists():
        overlay = [with_dummies(folder, dummies)]
        include = '#include "quern/quern.hpp"\n'
        found.append((f"quern.hpp + {dummies} kernels, unused", include, overlay))
        calls = "".join(
            f"  sum += QUERN_DISPATCH(dummy_{i}<float>(x, n));\n" for i in range(dummies))
        used = include + "float all(const float* x, std::size_t n) {\n  float sum = 0;\n" \
            + calls + "  return sum;\n}\n"
        found.append((f"quern.hpp + {dummies} kernels, used", used, overlay))
    return found


def seconds(command):
    start = time.perf_counter()
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip().splitlines()[0] if done.stderr else "failed")
    return time.perf_counter() - start


def measure(options, folder):
    """Name to the list of its seconds; a case that does not compile is left out, aloud."""
    headers = [name for name in public_headers() if options.header in name]
    commands = {}
    for i, (name, text, includes) in enumerate(cases(folder, headers, options.dummies)):
        source = folder / f"unit_{i}.cpp"
        source.write_text(text, encoding="utf-8")
        commands[name] = [options.cxx, "-std=c++20", "-O2"] \
            + [f"-I{path}" for path in [*includes, INCLUDE]] + shlex.split(options.flags) \
            + ["-c", str(source), "-o", os.devnull]
    found, failed = {name: [] for name in commands}, set()
    for _ in range(options.repeats):
        for name, command in commands.items():
            if name in failed:
                continue
            try:
                found[name].append(seconds(command))
            except RuntimeError as error:
                print(f"{name}: left out: {error}", file=sys.stderr)
                failed.add(name)
    return {name: times for name, times in found.items() if name not in failed}, failed


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cxx", default=os.environ.get("CXX", "g++"), help="compiler (g++)")
    parser.add_argument("--flags", default="-isystem /usr/include/eigen3", help="further flags")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each (3)")
    parser.add_argument("--header", default="", help="only headers whose path holds this text")
    parser.add_argument("--dummies", type=int, default=300, help="dummy kernels (300; 0: none)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found, failed = measure(options, pathlib.Path(folder))
    base = statistics.median(found["(empty)"])
    print(f"{'header':<44} {'seconds':>8} {'over empty':>10}")
    for name, times in found.items():
        median = statistics.median(times)
        print(f"{name:<44} {median:8.2f} {median - base:10.2f}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
