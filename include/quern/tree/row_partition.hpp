// SPDX-License-Identifier: Apache-2.0

/// \file
/// Which rows lie in which node while a tree grows.

#ifndef QUERN_TREE_ROW_PARTITION_HPP
#define QUERN_TREE_ROW_PARTITION_HPP

#include "quern/core/buffer.hpp"
#include "quern/core/config.hpp"
#include "quern/core/parallel.hpp"
#include "quern/kernels/kernels.hpp"
#include "quern/tree/binned_matrix.hpp"
#include "quern/tree/binning.hpp"
#include "quern/tree/gradient.hpp"
#include "quern/tree/split.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace tree {

/// Rows [begin, end) of the partition: those of one node, in ascending order.
struct RowRange {
  std::int64_t begin = 0;
  std::int64_t end = 0;

  [[nodiscard]] std::int64_t size() const noexcept { return end - begin; }
};

/// The rows of a data set, grouped by node. A node is split by moving its rows in place, order
/// kept.
template <class = void>
class BasicRowPartition {
 public:
  /// A node to split; the number of rows that go left comes back in `lefts`.
  struct Request {
    RowRange range;
    Split split;
    std::int64_t lefts = 0;
  };

  BasicRowPartition(const BinnedMatrix& data, int threads)
      : data_(&data), all_rows_(data.rows), threads_(threads) {}

  /// Of rows that are not binned: only group() puts them into nodes.
  explicit BasicRowPartition(int threads) : data_(nullptr), threads_(threads) {}

  /// Groups rows: those of node k = nodes[row], in order, become ranges[k]; k < 0: of no node.
  void group(std::span<const std::int32_t> nodes, std::vector<RowRange>& ranges) {
    for (RowRange& range : ranges) range = {};
    for (const std::int32_t k : nodes)
      if (k >= 0) ++ranges[static_cast<std::size_t>(k)].end;
    all_rows_ = static_cast<std::int64_t>(nodes.size());
    size_ = 0;
    for (RowRange& range : ranges) {
      const std::int64_t count = range.end;
      range = {size_, size_};
      size_ += count;
    }
    if (rows_.size() < static_cast<std::size_t>(size_))
      rows_ = core::Buffer<std::int32_t>(static_cast<std::size_t>(size_));
    for (std::size_t row = 0; row < nodes.size(); ++row) {
      if (nodes[row] < 0) continue;
      rows_[static_cast<std::size_t>(ranges[static_cast<std::size_t>(nodes[row])].end++)] =
          static_cast<std::int32_t>(row);
    }
    identity_ = false;
  }

  /// Starts again with one node of all rows, or of \p sample (ascending row numbers) if not empty.
  void reset(std::span<const std::int32_t> sample) {
    size_ = sample.empty() ? all_rows_ : static_cast<std::int64_t>(sample.size());
    const auto size = static_cast<std::size_t>(size_);
    if (rows_.size() < size) {
      rows_ = core::Buffer<std::int32_t>(size);
      moved_ = core::Buffer<std::int32_t>(size);
    }
    identity_ = sample.empty();
    if (!identity_) std::copy(sample.begin(), sample.end(), rows_.data());
  }

  [[nodiscard]] RowRange all() const noexcept { return {0, size_}; }

  /// The rows of \p range for the kernels. All rows, before the first split, are no list at all.
  [[nodiscard]] kernels::RowList list(RowRange range) const noexcept {
    return {identity_ ? nullptr : rows_.data() + range.begin, range.begin, range.size()};
  }

  /// Splits every request's range: the rows that go left come first.
  void split(std::span<Request> requests) {
    if (data_->pages != nullptr) return split_by_pages(requests);
    std::vector<Task> tasks;
    for (std::size_t r = 0; r < requests.size(); ++r) {
      for (std::int64_t b = requests[r].range.begin; b < requests[r].range.end; b += block_rows)
        tasks.push_back({r, {b, (std::min)(requests[r].range.end, b + block_rows)}, 0, 0});
    }
    const auto count = static_cast<std::int64_t>(tasks.size());
    const auto route_task = [&](std::int64_t t) {
      Task& task = tasks[static_cast<std::size_t>(t)];
      task.lefts = route(requests[task.request].split, task.range);
    };
    parallel_for(count, route_task, threads_);
    place(tasks, requests);
    parallel_for(
        count, [&](std::int64_t t) { gather(tasks[static_cast<std::size_t>(t)]); }, threads_);
    identity_ = false;
  }

  /// Undoes the split of a range whose rows on the left end at \p middle.
  void rejoin(RowRange range, std::int64_t middle) {
    std::int32_t* const rows = rows_.data();
    std::inplace_merge(rows + range.begin, rows + middle, rows + range.end);
  }

  /// Sums of \p gradients over each range, exact and the same for any number of threads.
  [[nodiscard]] std::vector<GradientSum<std::int64_t>> sums(
      std::span<const RowRange> ranges, std::span<const GradientPair> gradients,
      const QuantisedGradients& quantised) const {
    std::vector<std::vector<GradientSum<std::int64_t>>> parts(
        static_cast<std::size_t>(worker_count(threads_)));
    for_each_slice(ranges, [&](std::size_t range, const kernels::RowList& rows) {
      auto& mine = parts[static_cast<std::size_t>(this_worker())];
      if (mine.empty()) mine.resize(ranges.size());
      std::int64_t sum[2] = {0, 0};
      QUERN_DISPATCH(sum_gradients<float>(&gradients.data()->g, rows, quantised.sum_scale().g,
                                          quantised.sum_scale().h, sum));
      mine[range] += {sum[0], sum[1]};
    });
    std::vector<GradientSum<std::int64_t>> sums(ranges.size());
    for (const auto& part : parts)
      for (std::size_t r = 0; r < part.size(); ++r) sums[r] += part[r];
    return sums;
  }

  /// fn(range_index, row) for every row of every range, blocks of rows in parallel.
  template <class F>
  void for_each_row(std::span<const RowRange> ranges, F&& fn) const {
    for_each_slice(ranges, [&](std::size_t range, const kernels::RowList& rows) {
      for (std::int64_t k = 0; k < rows.size; ++k)
        fn(range, rows.index == nullptr ? rows.first + k : rows.index[k]);
    });
  }

  /// fn(range_index, rows) for parts of the ranges that cover them. What lies in the same block of
  /// row numbers is visited together, in one thread: the rows' data is then read from memory once,
  /// not once a range.
  template <class F>
  void for_each_slice(std::span<const RowRange> ranges, F&& fn) const {
    // Finding a range's rows within a block is a search, so blocks grow with the ranges.
    const std::int64_t block =
        (std::max)(block_rows, 64 * static_cast<std::int64_t>(ranges.size()));
    parallel_for(
        block_count(all_rows_, block),
        [&](std::int64_t b) {
          const BlockRange numbers = block_range(all_rows_, block, b);
          for (std::size_t r = 0; r < ranges.size(); ++r) {
            const RowRange part = rows_between(ranges[r], numbers);
            if (part.size() > 0) fn(r, list(part));
          }
        },
        threads_);
  }

 private:
  /// Rows of one task: long enough to pay for it, short enough that both cores have work.
  static constexpr std::int64_t block_rows = std::int64_t{1} << 14;

  struct Task {
    std::size_t request;
    RowRange range;
    std::int64_t lefts;
    std::int64_t left_to;  ///< where this task's left rows go; its right rows' place follows
    std::int64_t right_to = 0;
  };

  /// split() where the codes come in pages: each is loaded once, if it has rows to split.
  void split_by_pages(std::span<Request> requests) {
    RowPages& pages = *data_->pages;
    const std::int64_t page_rows = pages.page_rows();
    std::vector<Task> tasks;
    std::vector<std::vector<std::size_t>> of_page(
        static_cast<std::size_t>(block_count(data_->rows, page_rows)));
    for (std::size_t r = 0; r < requests.size(); ++r) {
      for (std::size_t p = 0; p < of_page.size(); ++p) {
        const BlockRange numbers =
            block_range(data_->rows, page_rows, static_cast<std::int64_t>(p));
        const RowRange part = rows_between(requests[r].range, numbers);
        for (std::int64_t b = part.begin; b < part.end; b += block_rows) {
          of_page[p].push_back(tasks.size());
          tasks.push_back({r, {b, (std::min)(part.end, b + block_rows)}, 0, 0});
        }
      }
    }
    for (std::size_t p = 0; p < of_page.size(); ++p) {
      if (of_page[p].empty()) continue;
      const PageCodes page = pages.load(static_cast<std::int64_t>(p));
      parallel_for(
          static_cast<std::int64_t>(of_page[p].size()),
          [&](std::int64_t t) {
            Task& task = tasks[of_page[p][static_cast<std::size_t>(t)]];
            task.lefts = route_page(requests[task.request].split, page, task.range);
          },
          threads_);
    }
    place(tasks, requests);
    parallel_for(
        static_cast<std::int64_t>(tasks.size()),
        [&](std::int64_t t) { gather(tasks[static_cast<std::size_t>(t)]); }, threads_);
    identity_ = false;
  }

  std::int64_t route_page(const Split& split, const PageCodes& page, RowRange range) {
    const auto f = static_cast<std::size_t>(split.feature);
    const auto b = static_cast<std::size_t>(data_->block_of[f]);
    std::uint8_t goes_left[256];
    for (int c = 0; c < 256; ++c) goes_left[c] = split.goes_left(c) ? 1 : 0;
    return QUERN_DISPATCH(partition_strided_rows<std::int32_t>(
        page.blocks[b] + data_->place_in_block[f], data_->blocks[b].stride, page.begin, goes_left,
        list(range), moved_.data() + range.begin));
  }

  /// Routes rows into the same range of `moved_`: left ones from its front, right ones from its
  /// end.
  std::int64_t route(const Split& split, RowRange range) {
    const kernels::RowList rows = list(range);
    std::int32_t* out = moved_.data() + range.begin;
    const CodeColumn column = data_->code_column(split.feature);
    if (split.categorical && column.codes != nullptr)
      return route_categories(split, column, rows, out);
    if (column.shared) return route_shared(split, column, rows, out);
    // Codes 1 .. bin go left, and the missing code 0 with them or not.
    const std::uint8_t first = split.missing_left ? 0 : 1;
    const std::int32_t count = split.bin + (split.missing_left ? 1 : 0);
    if (column.codes != nullptr)
      return QUERN_DISPATCH(partition_rows<std::int32_t>(column.codes, first, count, rows, out));
    const auto f = static_cast<std::size_t>(split.feature);
    if (data_->block_of[f] >= 0 && !split.categorical) {
      const FeatureBlock& block = data_->blocks[static_cast<std::size_t>(data_->block_of[f])];
      if (block.layout == BlockLayout::sparse) return route_sparse(split, block, rows, out);
    }
    std::int32_t* left = out;
    std::int32_t* right = out + rows.size - 1;
    for (std::int64_t i = 0; i < rows.size; ++i) {
      const std::int64_t row = rows.index == nullptr ? rows.first + i : rows.index[i];
      const int c = code(*data_, row, split.feature);
      if (split.goes_left(c))
        *left++ = static_cast<std::int32_t>(row);
      else
        *right-- = static_cast<std::int32_t>(row);
    }
    return left - out;
  }

  /// By a table of the bytes that go left; those that are not the feature's are its default code.
  static std::int64_t route_categories(const Split& split, const CodeColumn& column,
                                       const kernels::RowList& rows, std::int32_t* out) {
    std::uint8_t goes_left[256];
    for (int b = 0; b < 256; ++b) {
      const bool mine = !column.shared || (b != 0 && b >= column.shift && b < column.end);
      goes_left[b] = split.goes_left(mine ? b - column.shift : column.default_code) ? 1 : 0;
    }
    return QUERN_DISPATCH(
        partition_rows_by_table<std::int32_t>(column.codes, goes_left, rows, out));
  }

  /// By a bundle's byte column. Other features' bytes stand for the default code; where that goes
  /// left, the bytes that do not go left are the codes above the split.
  static std::int64_t route_shared(const Split& split, const CodeColumn& column,
                                   const kernels::RowList& rows, std::int32_t* out) {
    const bool default_left =
        column.default_code == missing_code ? split.missing_left : column.default_code <= split.bin;
    const std::int32_t above = column.shift + split.bin + 1;
    const std::int32_t first = default_left ? column.end : column.shift + 1;
    const std::int32_t count = default_left ? 256 - (column.end - above) : split.bin;
    return QUERN_DISPATCH(partition_rows<std::int32_t>(
        column.codes, static_cast<std::uint8_t>(first), count, rows, out));
  }

  std::int64_t route_sparse(const Split& split, const FeatureBlock& block,
                            const kernels::RowList& rows, std::int32_t* out) const {
    const auto j =
        static_cast<std::size_t>(data_->place_in_block[static_cast<std::size_t>(split.feature)]);
    const std::int32_t first = block.cell_offsets[j];
    const std::int32_t lowest = split.missing_left ? 0 : 1;
    const std::int32_t code = block.default_codes[j];
    const kernels::SparseTest test{first, block.cell_offsets[j + 1], first + lowest,
                                   first + split.bin + 1, code >= lowest && code <= split.bin};
    const kernels::SparseCodes codes{block.entries.data(), block.row_offsets.data()};
    return QUERN_DISPATCH(partition_sparse_rows<std::int32_t>(codes, test, rows, out));
  }

  /// The part of a range, whose rows ascend, with row numbers in \p numbers.
  [[nodiscard]] RowRange rows_between(RowRange range, BlockRange numbers) const {
    if (identity_)
      return {(std::max)(range.begin, numbers.begin), (std::min)(range.end, numbers.end)};
    const std::int32_t* const rows = rows_.data();
    const auto from = std::lower_bound(rows + range.begin, rows + range.end, numbers.begin);
    const auto to = std::lower_bound(from, rows + range.end, numbers.end);
    return {from - rows, to - rows};
  }

  static void place(std::vector<Task>& tasks, std::span<Request> requests) {
    for (Request& request : requests) request.lefts = 0;
    for (Task& task : tasks) {
      Request& request = requests[task.request];
      task.left_to = request.range.begin + request.lefts;
      request.lefts += task.lefts;
    }
    std::size_t current = requests.size();
    std::int64_t next_right = 0;
    for (Task& task : tasks) {
      if (task.request != current) {
        current = task.request;
        next_right = requests[current].range.begin + requests[current].lefts;
      }
      task.right_to = next_right;
      next_right += task.range.size() - task.lefts;
    }
  }

  void gather(const Task& task) {
    const std::int32_t* from = moved_.data() + task.range.begin;
    std::copy_n(from, task.lefts, rows_.data() + task.left_to);
    const std::int32_t* last = moved_.data() + task.range.end;
    QUERN_DISPATCH(copy_backwards<std::int32_t>(last, task.range.size() - task.lefts,
                                                rows_.data() + task.right_to));
  }

  const BinnedMatrix* data_;
  std::int64_t all_rows_ = 0;  ///< row numbers are below
  int threads_;
  std::int64_t size_ = 0;
  bool identity_ = true;
  core::Buffer<std::int32_t> rows_;
  core::Buffer<std::int32_t> moved_;
};
/// (A template, so that a program compiles it only where it uses it.)
using RowPartition = BasicRowPartition<>;

}  // namespace tree
QUERN_NAMESPACE_END

#endif  // QUERN_TREE_ROW_PARTITION_HPP
