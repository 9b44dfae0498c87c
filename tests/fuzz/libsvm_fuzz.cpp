// SPDX-License-Identifier: Apache-2.0

/// \file
/// The LIBSVM reader on anything; what it accepts must be a sound CSR.

#include "quern/io/libsvm.hpp"
#include "target.hpp"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

namespace quern::test::libsvm_fuzz {

namespace {

void expect(bool holds) {
  if (!holds) std::abort();
}

void check(const quern::io::SparseTable<float>& table) {
  const std::size_t rows = table.labels.size();
  expect(table.row_offsets.size() == rows + 1 && table.row_offsets[0] == 0);
  expect(table.columns.size() == table.values.size());
  expect(table.row_offsets.back() == static_cast<std::int64_t>(table.values.size()));
  expect(table.weights.empty() || table.weights.size() == rows);
  for (std::size_t r = 0; r < rows; ++r) {
    expect(table.row_offsets[r] <= table.row_offsets[r + 1]);
    for (std::int64_t i = table.row_offsets[r]; i < table.row_offsets[r + 1]; ++i) {
      const std::size_t at = static_cast<std::size_t>(i);
      expect(table.columns[at] >= 0 && table.columns[at] < table.cols);
      expect(i == table.row_offsets[r] || table.columns[at - 1] < table.columns[at]);
    }
  }
}

}  // namespace

QUERN_FUZZ_TARGET(libsvm) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  for (const auto base :
       {quern::io::IndexBase::automatic, quern::io::IndexBase::zero, quern::io::IndexBase::one}) {
    quern::io::LibsvmOptions options;
    options.index_base = base;
    options.limits.max_bytes = 1 << 20;
    try {
      check(quern::io::parse_libsvm<float>(text, options));
    } catch (const quern::Error&) {
    }
  }
  return 0;
}

}  // namespace quern::test::libsvm_fuzz
