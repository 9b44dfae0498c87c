// SPDX-License-Identifier: Apache-2.0

/// \file
/// How a codebook is used: counts, perplexity, share of codes in use.

#ifndef QUERN_VQ_USAGE_HPP
#define QUERN_VQ_USAGE_HPP

#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/vq/nearest.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace vq {

/// Counts of codes, added up over as many batches as one likes.
class CodeUsage {
 public:
  /// ValueError unless there is at least one code.
  explicit CodeUsage(Index codes) {
    if (codes < 1) throw ValueError(error_text("quern::vq::CodeUsage", "codes", ">= 1", codes));
    counts_.assign(static_cast<std::size_t>(codes), 0);
  }
  /// ValueError for a code outside the codebook; then nothing is counted.
  void add(std::span<const std::int64_t> codes) {
    detail::expect_codes("quern::vq::CodeUsage::add", codes, static_cast<Index>(counts_.size()));
    for (const std::int64_t code : codes) ++counts_[static_cast<std::size_t>(code)];
    total_ += static_cast<std::int64_t>(codes.size());
  }
  void clear() {
    std::fill(counts_.begin(), counts_.end(), std::int64_t{0});
    total_ = 0;
  }

  [[nodiscard]] const std::vector<std::int64_t>& counts() const noexcept { return counts_; }
  [[nodiscard]] std::int64_t total() const noexcept { return total_; }
  /// Codes given at least once.
  [[nodiscard]] Index used() const noexcept {
    return static_cast<Index>(counts_.size()) -
           static_cast<Index>(std::count(counts_.begin(), counts_.end(), std::int64_t{0}));
  }
  /// exp(-sum p ln(p + 1e-10)) with p = counts / total, as sonnet has it: how many codes used
  /// equally often would carry as much information. 1 for nothing counted.
  [[nodiscard]] double perplexity() const { return std::exp(nats()); }
  /// The same information in bits a code.
  [[nodiscard]] double bits() const { return nats() / std::log(2.0); }

 private:
  [[nodiscard]] double nats() const {
    double sum = 0;
    if (total_ == 0) return sum;
    for (const std::int64_t count : counts_) {
      const double p = static_cast<double>(count) / static_cast<double>(total_);
      sum -= p * std::log(p + 1e-10);
    }
    return sum;
  }

  std::vector<std::int64_t> counts_;
  std::int64_t total_ = 0;
};

}  // namespace vq
QUERN_NAMESPACE_END

#endif  // QUERN_VQ_USAGE_HPP
