// SPDX-License-Identifier: Apache-2.0

/// \file
/// What the tests of retention, RWKV-6 and Mamba-2's duality share: comparisons of arrays, errors
/// by their words.

#ifndef QUERN_TESTS_SSM_RECURRENCES_HPP
#define QUERN_TESTS_SSM_RECURRENCES_HPP

#include "quern/core/error.hpp"
#include "quern/core/nd_array.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <string>

namespace quern::test {

/// Equal to `tolerance` times the largest; 0: the same bits.
template <class T, int Rank>
void expect_same(const NdArray<T, Rank>& got, const NdArray<T, Rank>& want, double tolerance,
                 const char* what) {
  double largest = 0;
  for (const T x : want) largest = (std::max)(largest, std::fabs(static_cast<double>(x)));
  for (Index i = 0; i < got.size(); ++i) {
    ASSERT_NEAR(static_cast<double>(got.data()[i]), static_cast<double>(want.data()[i]),
                tolerance * largest)
        << what << " at " << i;
  }
}

/// Expects a quern::Error whose message holds `part`.
template <class F>
void expect_words(const std::string& part, const F& f) {
  try {
    f();
    ADD_FAILURE() << "no error with " << part;
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find(part), std::string::npos) << e.what();
  }
}

}  // namespace quern::test

#endif  // QUERN_TESTS_SSM_RECURRENCES_HPP
