// SPDX-License-Identifier: Apache-2.0

/// \file
/// One sequence for the benchmarks of the selective scan and of its way back.

#ifndef QUERN_BENCH_KERNELS_SELECTIVE_SCAN_SEQUENCE_HPP
#define QUERN_BENCH_KERNELS_SELECTIVE_SCAN_SEQUENCE_HPP

#include "quern/kernels/selective_scan_types.hpp"

#include <cstddef>
#include <vector>

namespace bench {

using quern::kernels::SelectiveScanTask;

template <class T>
struct Scan {
  std::ptrdiff_t steps, channels, states;
  std::vector<T> u, delta, b, c, a, h, y, kept, grad, dh, da;

  static std::vector<T> filled(std::ptrdiff_t n, T scale, T shift) {
    std::vector<T> x(static_cast<std::size_t>(n));
    for (std::size_t i = 0; i < x.size(); ++i) {
      x[i] = static_cast<T>(static_cast<double>(i * 7919 % 1024) / 512 - 1) * scale + shift;
    }
    return x;
  }
  Scan(std::ptrdiff_t l, std::ptrdiff_t d, std::ptrdiff_t n)
      : steps(l),
        channels(d),
        states(n),
        u(filled(l * d, 1, 0)),
        delta(filled(l * d, 1, -3)),
        b(filled(l * n, 1, 0)),
        c(b),
        a(filled(n * d, 0.5, -1)),
        h(filled(n * d, 1, 0)),
        y(u),
        kept((static_cast<std::size_t>(l) / 32 + 1) * h.size()),
        grad(u),
        dh(h),
        da(h) {}
  [[nodiscard]] SelectiveScanTask<T> task(std::ptrdiff_t first, std::ptrdiff_t count) {
    SelectiveScanTask<T> t;
    t.steps = steps;
    t.channels = count;
    t.states = states;
    t.u = {u.data() + first, channels};
    t.delta = {delta.data() + first, channels};
    t.b = {b.data(), states};
    t.c = {c.data(), states};
    t.a = {a.data() + first, channels};
    t.skip = u.data() + first;
    t.softplus = true;
    t.h = {h.data() + first, channels};
    t.y = {y.data() + first, channels};
    return t;
  }
  [[nodiscard]] double work() const { return static_cast<double>(steps * channels); }
};

}  // namespace bench

#endif  // QUERN_BENCH_KERNELS_SELECTIVE_SCAN_SEQUENCE_HPP
