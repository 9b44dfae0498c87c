// SPDX-License-Identifier: Apache-2.0

#include "consumer.hpp"

#include <cmath>
#include <cstdio>

Findings find_out_in_b();

static void print(const char* name, const Findings& f) {
  std::printf("%s: product %.9g, prediction %.9g at %s\n", name, f.product, f.prediction,
              f.level.c_str());
}

// The units may run different levels, so equal is meant within rounding.
static bool close(double x, double y) { return std::abs(x - y) <= 1e-4 * std::abs(x); }

int main() {
  const Findings a = find_out();
  const Findings b = find_out_in_b();
  print("a", a);
  print("b", b);
  const bool right = close(a.product, 70.0 * 50 * 300 * 0.125) && a.prediction > 0;
  const bool same = close(a.product, b.product) && close(a.prediction, b.prediction);
  return right && same ? 0 : 1;
}
