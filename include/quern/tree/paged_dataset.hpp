// SPDX-License-Identifier: Apache-2.0

/// \file
/// Training data that is larger than memory: rows come in blocks, their codes go to pages on disk.

#ifndef QUERN_TREE_PAGED_DATASET_HPP
#define QUERN_TREE_PAGED_DATASET_HPP

#include "quern/core/buffer.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/core/parallel.hpp"
#include "quern/tree/binned_matrix.hpp"
#include "quern/tree/binning.hpp"
#include "quern/tree/dataset.hpp"
#include "quern/tree/detail/feature_blocks.hpp"
#include "quern/tree/detail/find_cuts.hpp"
#include "quern/tree/page_file.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace tree {

/// Yields block \p number (from 0, in order) of a data set: features of some rows, and whatever
/// goes with these rows (labels, weights, base margins, groups). False when there is none any more.
/// Asked for all blocks several times; they must be the same each time. What the block's features
/// view must live until the next call.
using RowBlocks = std::function<bool(std::int64_t number, Dataset& block)>;

struct PageOptions {
  int max_bin = 255;                               ///< bins of a feature, 2..255
  std::int64_t page_rows = std::int64_t{1} << 18;  ///< rows of a page; changes no result
  std::string directory = {};  ///< of the temporary file; empty: TMPDIR, else /tmp
  int threads = 0;             ///< 0: the default
};

namespace detail {

/// What all features of a PagedDataset's shape seem to be.
template <class T>
inline constexpr T no_value = std::numeric_limits<T>::quiet_NaN();

/// Dense blocks of all features, without codes.
inline void plan_paged_blocks(BinnedMatrix& m) {
  const std::vector<ColumnProfile> profiles(static_cast<std::size_t>(m.features()));
  std::vector<DenseColumn> columns;
  for (std::int32_t f = 0; f < m.features(); ++f) columns.push_back({{f}, 1});
  plan_dense_blocks(m.cuts, profiles, std::move(columns), m.rows, m.blocks);
  index_blocks(m, profiles);
}

/// Pages in a file: block after block, each (rows, stride).
class StoredPages final : public RowPages {
 public:
  StoredPages(const BinnedMatrix& shape, std::int64_t page_rows, const std::string& directory)
      : rows_(shape.rows), page_rows_(page_rows), file_(directory) {
    for (const FeatureBlock& block : shape.blocks) strides_.push_back(block.stride);
    blocks_.resize(strides_.size());
  }

  [[nodiscard]] std::int64_t page_rows() const override { return page_rows_; }

  PageCodes load(std::int64_t page) override {
    const BlockRange rows = block_range(rows_, page_rows_, page);
    if (page != loaded_) {
      loaded_ = -1;
      make_room(rows.size());
      file_.read(static_cast<std::size_t>(page), std::as_writable_bytes(codes_.span()));
      loaded_ = page;
    }
    return {rows.begin, rows.end, blocks_.data()};
  }

  /// Memory for the codes of a page of \p rows rows, zeros; write() takes it.
  std::uint8_t* room(std::int64_t rows, std::size_t block) {
    if (block == 0) {
      make_room(rows);
      std::fill(codes_.begin(), codes_.end(), std::uint8_t{0});
      loaded_ = -1;
    }
    return const_cast<std::uint8_t*>(blocks_[block]);
  }
  void write() { file_.append(std::as_bytes(codes_.span())); }

  [[nodiscard]] PageFile& file() noexcept { return file_; }

 private:
  void make_room(std::int64_t rows) {
    std::int64_t bytes = 0;
    for (const std::int64_t stride : strides_) bytes += rows * stride;
    codes_.reset(static_cast<std::size_t>(bytes));
    const std::uint8_t* at = codes_.data();
    for (std::size_t b = 0; b < strides_.size(); ++b) {
      blocks_[b] = at;
      at += rows * strides_[b];
    }
  }

  std::int64_t rows_, page_rows_;
  std::vector<std::int64_t> strides_;
  PageFile file_;
  core::Buffer<std::uint8_t> codes_;
  std::vector<const std::uint8_t*> blocks_;
  std::int64_t loaded_ = -1;
};

}  // namespace detail

/// Rows in pages: what belongs to them in memory (labels, weights, ...), their codes on disk. For
/// one training at a time.
struct PagedDataset {
  Dataset data;  ///< features: the shape alone, every value is missing
  Cuts cuts;
  std::shared_ptr<RowPages> pages;

  /// The matrix that trees grow on.
  [[nodiscard]] BinnedMatrix matrix() const {
    BinnedMatrix m;
    m.rows = data.rows();
    m.cuts = cuts;
    detail::plan_paged_blocks(m);
    m.pages = pages;
    return m;
  }
};

namespace detail {

template <class = void>
class BasicPageBuilder {
 public:
  BasicPageBuilder(const RowBlocks& source, const PageOptions& options)
      : source_(source), options_(options) {}

  [[nodiscard]] PagedDataset build() {
    if (options_.max_bin < 2 || options_.max_bin > 255)
      throw ValueError(error_text(function, "max_bin", "2..255", options_.max_bin));
    if (options_.page_rows < 1)
      throw ValueError(error_text(function, "page_rows", ">= 1", options_.page_rows));
    survey();
    if (doubles_)
      finish<double>();
    else
      finish<float>();
    return std::move(out_);
  }

 private:
  static constexpr const char* function = "quern::tree::page_rows";
  /// Features whose sketches are filled in the same passes: some 50 MB of counters.
  static constexpr std::int64_t sketched_features = 128;
  /// Values of sparse blocks that are spread out at once.
  static constexpr std::int64_t spread_values = std::int64_t{1} << 22;

  // --- what goes with the rows ------------------------------------------------------------------

  void survey() {
    Dataset block;
    for (std::int64_t number = 0; next(number, block); ++number) {
      if (number == 0) {
        cols_ = block.cols();
        doubles_ = has_doubles(block);
        out_.data.feature_names = block.feature_names;
        out_.data.feature_kinds = block.feature_kinds;
      }
      if (block.cols() != cols_)
        throw ShapeError(error_text(function, "features of block " + std::to_string(number),
                                    std::to_string(cols_) + " columns, as the first has",
                                    block.cols()));
      if (has_doubles(block) != doubles_)
        throw ValueError(
            error_text(function, "features of block " + std::to_string(number),
                       doubles_ ? "double, as the first has" : "float, as the first has",
                       doubles_ ? "float" : "double"));
      append(block.labels, out_.data.labels);
      append(block.weights, out_.data.weights);
      append(block.base_margin, out_.data.base_margin);
      append(block.label_lower_bound, out_.data.label_lower_bound);
      append(block.label_upper_bound, out_.data.label_upper_bound);
      append_groups(block);
      rows_ += block.rows();
    }
    if (rows_ > (std::numeric_limits<std::int32_t>::max)())
      throw ValueError(error_text(function, "rows", "fewer than 2^31", rows_));
    for (const FeatureKind kind : out_.data.feature_kinds)
      if (kind != FeatureKind::numeric)
        throw ValueError(error_text(function, "feature_kinds", "numeric features", "categorical"));
    if (doubles_)
      out_.data.features = MatrixView<const double>(&no_value<double>, {rows_, cols_}, {0, 0});
    else
      out_.data.features = MatrixView<const float>(&no_value<float>, {rows_, cols_}, {0, 0});
    out_.data.check(function);
  }

  bool next(std::int64_t number, Dataset& block) {
    block = Dataset();
    if (!source_(number, block)) return false;
    block.check(function);
    return true;
  }

  static bool has_doubles(const Dataset& block) {
    return std::holds_alternative<MatrixView<const double>>(block.features) ||
           std::holds_alternative<CsrView<double>>(block.features);
  }
  static void append(const std::vector<float>& from, std::vector<float>& to) {
    to.insert(to.end(), from.begin(), from.end());
  }
  /// Groups do not reach from one block into the next.
  void append_groups(const Dataset& block) {
    if (block.group_offsets.empty()) return;
    if (out_.data.group_offsets.empty()) out_.data.group_offsets.push_back(0);
    for (std::size_t i = 1; i < block.group_offsets.size(); ++i)
      out_.data.group_offsets.push_back(rows_ + block.group_offsets[i]);
  }

  // --- passes over the features -----------------------------------------------------------------

  /// Calls fn(part, first row) for all rows, as dense matrices.
  template <class T, class F>
  void pass(F&& fn) {
    std::int64_t row = 0;
    Dataset block;
    for (std::int64_t number = 0; next(number, block); ++number) {
      if (row + block.rows() > rows_ || block.cols() != cols_ ||
          has_doubles(block) != std::is_same_v<T, double>)
        throw ValueError(error_text(function, "block " + std::to_string(number),
                                    "the same one on every pass", "another"));
      if (const auto* dense = std::get_if<MatrixView<const T>>(&block.features))
        fn(*dense, row);
      else
        spread(std::get<CsrView<T>>(block.features), row, fn);
      row += block.rows();
    }
    if (row != rows_)
      throw ValueError(
          error_text(function, "blocks", std::to_string(rows_) + " rows on every pass", row));
  }

  /// A sparse block as dense parts of limited size.
  template <class T, class F>
  void spread(const CsrView<T>& sparse, std::int64_t row, F& fn) const {
    const std::int64_t height =
        (std::max)(std::int64_t{1}, spread_values / (std::max)(std::int64_t{1}, cols_));
    core::Buffer<T> values(static_cast<std::size_t>(height * cols_));
    for (std::int64_t b = 0; b < block_count(sparse.rows(), height); ++b) {
      const BlockRange part = block_range(sparse.rows(), height, b);
      std::fill(values.begin(), values.end(), std::numeric_limits<T>::quiet_NaN());
      for (std::int64_t r = part.begin; r < part.end; ++r) {
        const auto at = static_cast<std::size_t>(r);
        for (std::int64_t i = sparse.row_offsets[at]; i < sparse.row_offsets[at + 1]; ++i) {
          const auto k = static_cast<std::size_t>(i);
          values[static_cast<std::size_t>((r - part.begin) * cols_ + sparse.columns[k])] =
              sparse.values[k];
        }
      }
      fn(MatrixView<const T>(values.data(), {part.size(), cols_}), row + part.begin);
    }
  }

  // --- cuts -------------------------------------------------------------------------------------

  template <class T>
  void find_cuts() {
    const IntegerWeights weights(out_.data.weights, rows_);
    std::vector<FeatureCuts<T>> found(static_cast<std::size_t>(cols_));
    for (std::int64_t first = 0; first < cols_; first += sketched_features) {
      const std::int64_t count = (std::min)(sketched_features, cols_ - first);
      sketch<T>(first, count, out_.data.weights.empty() ? nullptr : &weights, found.data() + first);
    }
    out_.cuts = join_cuts(found);
  }

  template <class T>
  void sketch(std::int64_t first, std::int64_t count, const IntegerWeights* weights,
              FeatureCuts<T>* out) {
    using Key = KeyOf<T>;
    const auto size = static_cast<std::size_t>(count);
    std::vector<QuantileSketch<Key, std::uint64_t>> sketches(size);
    std::vector<KeySummary<Key>> summaries(size);
    std::vector<std::uint8_t> active(size, 1);
    for (auto& s : sketches) s.reset(options_.max_bin, rows_);
    for (bool again = true; again;) {
      pass<T>([&](const MatrixView<const T>& x, std::int64_t row) {
        add_to_sketches(x, row, first, weights, sketches, summaries, active);
      });
      again = false;
      for (std::size_t j = 0; j < size; ++j) {
        active[j] = active[j] != 0 && sketches[j].advance();
        again = again || active[j] != 0;
      }
    }
    for (std::size_t j = 0; j < size; ++j) finish_cuts<T>(sketches[j], summaries[j], out[j]);
  }

  template <class T>
  void add_to_sketches(const MatrixView<const T>& x, std::int64_t row, std::int64_t first,
                       const IntegerWeights* weights,
                       std::vector<QuantileSketch<KeyOf<T>, std::uint64_t>>& sketches,
                       std::vector<KeySummary<KeyOf<T>>>& summaries,
                       const std::vector<std::uint8_t>& active) const {
    const auto count = static_cast<std::int64_t>(sketches.size());
    parallel_for(
        block_count(count, tile_features<T>),
        [&](std::int64_t group) {
          const BlockRange features = block_range(count, tile_features<T>, group);
          core::Buffer<KeyOf<T>> keys(static_cast<std::size_t>(features.size() * tile_stride));
          std::vector<std::uint64_t> scaled(
              weights == nullptr ? 0 : static_cast<std::size_t>(tile_rows));
          for (std::int64_t t = 0; t < block_count(x.rows(), tile_rows); ++t) {
            const BlockRange rows = block_range(x.rows(), tile_rows, t);
            load_keys(x, rows, first + features.begin, features.size(), keys.data(),
                      summaries.data() + features.begin);
            for (std::int64_t i = 0; weights != nullptr && i < rows.size(); ++i)
              scaled[static_cast<std::size_t>(i)] = (*weights)[row + rows.begin + i];
            for (std::int64_t j = features.begin; j < features.end; ++j) {
              const auto at = static_cast<std::size_t>(j);
              const KeyOf<T>* const mine = keys.data() + (j - features.begin) * tile_stride;
              if (summaries[at].infinite) throw_infinite_in<T>(function, mine, rows, first + j);
              if (active[at] != 0)
                sketches[at].add(mine, weights == nullptr ? nullptr : scaled.data(), rows.size(),
                                 summaries[at].bits);
            }
          }
        },
        options_.threads);
  }

  // --- codes ------------------------------------------------------------------------------------

  template <class T>
  void finish() {
    find_cuts<T>();
    const BinnedMatrix shape = out_.matrix();
    auto pages = std::make_shared<StoredPages>(shape, options_.page_rows, options_.directory);
    std::vector<std::uint8_t*> to(shape.blocks.size());
    std::int64_t filled = 0, page = 0;
    const auto begin_page = [&] {
      const std::int64_t rows = block_range(rows_, options_.page_rows, page).size();
      for (std::size_t b = 0; b < to.size(); ++b) to[b] = pages->room(rows, b);
    };
    if (rows_ > 0) begin_page();
    pass<T>([&](const MatrixView<const T>& x, std::int64_t) {
      const BinnedMatrix part =
          bin(make_dataset(x), out_.cuts, {.threads = options_.threads, .fill_blocks = false});
      for (std::int64_t row = 0; row < part.rows;) {
        const std::int64_t size = block_range(rows_, options_.page_rows, page).size();
        const std::int64_t count = (std::min)(part.rows - row, size - filled);
        copy_codes(part, row, count, shape, filled, to);
        row += count;
        filled += count;
        if (filled < size) continue;
        pages->write();
        ++page;
        filled = 0;
        if (page * options_.page_rows < rows_) begin_page();
      }
    });
    out_.pages = std::move(pages);
  }

  /// Codes of rows [row, row + count) of \p part to the rows from \p at of a page.
  void copy_codes(const BinnedMatrix& part, std::int64_t row, std::int64_t count,
                  const BinnedMatrix& shape, std::int64_t at,
                  const std::vector<std::uint8_t*>& to) const {
    parallel_for(
        block_count(count, block_rows),
        [&](std::int64_t task) {
          const BlockRange rows = block_range(count, block_rows, task);
          for (std::size_t b = 0; b < shape.blocks.size(); ++b) {
            const FeatureBlock& block = shape.blocks[b];
            for (std::size_t j = 0; j < block.features.size(); ++j) {
              const std::uint8_t* const from = part.column(block.features[j]) + row;
              std::uint8_t* out = to[b] + (at + rows.begin) * block.stride + j;
              for (std::int64_t r = rows.begin; r < rows.end; ++r, out += block.stride)
                *out = from[r];
            }
          }
        },
        options_.threads);
  }

  const RowBlocks& source_;
  PageOptions options_;
  PagedDataset out_;
  std::int64_t rows_ = 0, cols_ = 0;
  bool doubles_ = false;
};
/// (A template, so that a program compiles it only where it uses it.)
using PageBuilder = BasicPageBuilder<>;

}  // namespace detail

/// Bins rows that come in blocks and keeps their codes in pages of a temporary file, from which
/// training gives the bits that it gives in memory. The blocks are asked for once to learn of the
/// rows, a few times (two to five for float) to find exact quantiles, and once to write codes.
/// Memory: a block, a page, some 50 MB of counters, and what goes with the rows. Numeric features
/// only; sparse blocks take a byte a value on disk, stored or not. Throws what Dataset::check and
/// make_cuts() throw, ValueError where blocks differ between passes, IoError when the disk is full.
template <class = void>
[[nodiscard]] inline PagedDataset page_rows(const RowBlocks& blocks,
                                            const PageOptions& options = {}) {
  return detail::PageBuilder(blocks, options).build();
}

}  // namespace tree
QUERN_NAMESPACE_END

#endif  // QUERN_TREE_PAGED_DATASET_HPP
