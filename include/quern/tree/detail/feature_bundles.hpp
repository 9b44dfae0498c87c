// SPDX-License-Identifier: Apache-2.0

/// \file
/// Features of which no row has two away from their default codes, such as the columns of a one-hot
/// encoding: they can share a byte column (Ke et al., LightGBM, 2017, section 4). A bundle here has
/// no conflicts at all, so nothing is approximated.

#ifndef QUERN_TREE_DETAIL_FEATURE_BUNDLES_HPP
#define QUERN_TREE_DETAIL_FEATURE_BUNDLES_HPP

#include "quern/core/config.hpp"
#include "quern/core/parallel.hpp"
#include "quern/tree/binned_matrix.hpp"

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <numeric>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace tree::detail {

/// How the codes of one column are distributed.
struct ColumnProfile {
  bool constant = false;
  std::uint8_t default_code = missing_code;  ///< the most frequent one, or the only one
  double density = 1;                        ///< share of rows with another code (estimated)
};

/// Features of each bundle, ascending.
using Bundles = std::vector<std::vector<std::int32_t>>;

struct BundleLimits {
  static constexpr double density = 0.5;             ///< of a feature that may be bundled
  static constexpr std::int32_t cells = 256;         ///< of a bundle: its codes are bytes
  static constexpr std::int64_t run = 512;           ///< rows of the sample lie in runs of these
  static constexpr std::int64_t runs = 64;           ///< number of runs
  static constexpr std::size_t entries = 1u << 23;   ///< the sample stops there
  static constexpr std::size_t bundles_tried = 256;  ///< for one feature
  static constexpr std::int64_t task_rows = 4096;    ///< of a task of the exact check
};

/// The rows, among a sample's, in which each feature is away from its default.
struct BundleSample {
  std::int64_t rows = 0;
  std::vector<std::vector<std::int32_t>> rows_of;  ///< (features)
};

/// \p source calls fn(row, feature, code) for the wanted features' codes that are not the default:
/// source(rows, wanted, fn).
template <class Source>
BundleSample sample_for_bundles(std::int64_t rows, const std::vector<std::uint8_t>& wanted,
                                const Source& source) {
  BundleSample sample;
  sample.rows_of.resize(wanted.size());
  const std::int64_t step = (std::max)(BundleLimits::run, rows / BundleLimits::runs);
  std::size_t entries = 0;
  for (std::int64_t begin = 0; begin < rows && entries < BundleLimits::entries; begin += step) {
    const BlockRange run{begin, (std::min)(begin + BundleLimits::run, rows)};
    const std::int64_t shift = sample.rows - begin;
    source(run, wanted, [&](std::int64_t row, std::int32_t f, std::uint8_t) {
      sample.rows_of[static_cast<std::size_t>(f)].push_back(static_cast<std::int32_t>(row + shift));
      ++entries;
    });
    sample.rows += run.size();
  }
  return sample;
}

/// A bundle in the making: the sample's rows that are taken.
struct OpenBundle {
  std::vector<std::int32_t> features;
  std::int32_t cells = 0;
  std::vector<std::uint64_t> taken;

  [[nodiscard]] bool fits(const std::vector<std::int32_t>& rows, std::int32_t more_cells) const {
    if (cells + more_cells > BundleLimits::cells) return false;
    return std::none_of(rows.begin(), rows.end(), [&](std::int32_t r) {
      return (taken[static_cast<std::size_t>(r) / 64] >> (r % 64) & 1) != 0;
    });
  }
  void add(std::int32_t f, const std::vector<std::int32_t>& rows, std::int32_t more_cells) {
    features.push_back(f);
    cells += more_cells;
    for (const std::int32_t r : rows)
      taken[static_cast<std::size_t>(r) / 64] |= std::uint64_t{1} << (r % 64);
  }
};

/// Greedily, the most frequent feature first, into the first bundle with which it has no conflict
/// in the sample.
inline Bundles bundle_sample(const Cuts& cuts, const BundleSample& sample,
                             const std::vector<std::uint8_t>& wanted) {
  std::vector<std::int32_t> order;
  for (std::int32_t f = 0; f < cuts.features(); ++f)
    if (wanted[static_cast<std::size_t>(f)] != 0) order.push_back(f);
  const auto rows_of = [&](std::int32_t f) -> const std::vector<std::int32_t>& {
    return sample.rows_of[static_cast<std::size_t>(f)];
  };
  std::stable_sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) {
    return rows_of(a).size() > rows_of(b).size();
  });
  std::vector<OpenBundle> open;
  for (const std::int32_t f : order) {
    const std::int32_t cells = cuts.bins(f) + 1;
    const auto end = open.begin() + static_cast<std::ptrdiff_t>(
                                        (std::min)(open.size(), BundleLimits::bundles_tried));
    const auto found = std::find_if(open.begin(), end,
                                    [&](const OpenBundle& b) { return b.fits(rows_of(f), cells); });
    if (found != end) {
      found->add(f, rows_of(f), cells);
    } else if (open.size() < BundleLimits::bundles_tried) {
      OpenBundle bundle;
      bundle.taken.assign(static_cast<std::size_t>(sample.rows / 64 + 1), 0);
      bundle.add(f, rows_of(f), cells);
      open.push_back(std::move(bundle));
    }
  }
  Bundles bundles;
  for (OpenBundle& bundle : open) {
    std::sort(bundle.features.begin(), bundle.features.end());
    bundles.push_back(std::move(bundle.features));
  }
  return bundles;
}

/// Takes out, over all rows, whatever meets a feature before it in its bundle, or is missing
/// somewhere though another code is its default: so the rest has no conflict.
template <class Source>
void drop_conflicts(std::int64_t rows, const std::vector<ColumnProfile>& profiles,
                    const Source& source, int threads, Bundles& bundles) {
  std::vector<std::int32_t> bundle_of(profiles.size(), -1);
  std::vector<std::uint8_t> wanted(profiles.size(), 0);
  for (std::size_t b = 0; b < bundles.size(); ++b) {
    if (bundles[b].size() < 2) continue;
    for (const std::int32_t f : bundles[b]) {
      bundle_of[static_cast<std::size_t>(f)] = static_cast<std::int32_t>(b);
      wanted[static_cast<std::size_t>(f)] = 1;
    }
  }
  constexpr std::int64_t words = BundleLimits::task_rows / 64;
  std::unique_ptr<std::atomic<bool>[]> bad(new std::atomic<bool>[profiles.size()] {});
  std::vector<std::vector<std::uint64_t>> taken(static_cast<std::size_t>(worker_count(threads)));
  parallel_for(
      block_count(rows, BundleLimits::task_rows),
      [&](std::int64_t task) {
        std::vector<std::uint64_t>& mine = taken[static_cast<std::size_t>(this_worker())];
        mine.assign(bundles.size() * static_cast<std::size_t>(words), 0);
        const BlockRange range = block_range(rows, BundleLimits::task_rows, task);
        source(range, wanted, [&](std::int64_t row, std::int32_t f, std::uint8_t code) {
          const auto i = static_cast<std::size_t>(f);
          const std::int64_t r = row - range.begin;
          std::uint64_t& word = mine[static_cast<std::size_t>(bundle_of[i] * words + r / 64)];
          const std::uint64_t bit = std::uint64_t{1} << (r % 64);
          const bool odd = code == missing_code && profiles[i].default_code != missing_code;
          if ((word & bit) != 0 || odd) bad[i].store(true, std::memory_order_relaxed);
          word |= bit;
        });
      },
      threads);
  for (std::vector<std::int32_t>& bundle : bundles) {
    std::erase_if(bundle, [&](std::int32_t f) {
      return bad[static_cast<std::size_t>(f)].load(std::memory_order_relaxed);
    });
  }
}

/// Bundles of two features or more. The same for any number of threads.
template <class Source>
Bundles find_bundles(const Cuts& cuts, const std::vector<ColumnProfile>& profiles,
                     std::int64_t rows, const Source& source, int threads) {
  std::vector<std::uint8_t> wanted(profiles.size(), 0);
  for (std::size_t f = 0; f < profiles.size(); ++f) {
    const std::int32_t cells = cuts.bins(static_cast<std::int32_t>(f)) + 1;
    wanted[f] = !profiles[f].constant && profiles[f].density <= BundleLimits::density &&
                2 * cells <= BundleLimits::cells;
  }
  if (std::accumulate(wanted.begin(), wanted.end(), 0) < 2) return {};
  Bundles bundles = bundle_sample(cuts, sample_for_bundles(rows, wanted, source), wanted);
  drop_conflicts(rows, profiles, source, threads, bundles);
  std::erase_if(bundles, [](const auto& bundle) { return bundle.size() < 2; });
  return bundles;
}

}  // namespace tree::detail
QUERN_NAMESPACE_END

#endif  // QUERN_TREE_DETAIL_FEATURE_BUNDLES_HPP
