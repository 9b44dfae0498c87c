// SPDX-License-Identifier: Apache-2.0

#include "consumer.hpp"

#include <cmath>
#include <cstdio>

Findings find_out_in_b();

int main() {
  const Findings a = find_out();
  const Findings b = find_out_in_b();
  std::printf("a: %.17g at %s\nb: %.17g at %s\n", a.number, a.level.c_str(), b.number,
              b.level.c_str());
  // The units may run different levels, so equal is meant within rounding.
  const bool same = std::abs(a.number - b.number) <= 1e-5 * std::abs(a.number);
  return same && a.number != 0 && a.eigen == 74 && b.eigen == 74 ? 0 : 1;
}
