// SPDX-License-Identifier: Apache-2.0

/// \file
/// Histograms of nodes: which cells a feature owns, building them over rows, and siblings by
/// subtraction.

#ifndef QUERN_TREE_HISTOGRAM_HPP
#define QUERN_TREE_HISTOGRAM_HPP

#include "quern/core/buffer.hpp"
#include "quern/core/config.hpp"
#include "quern/core/parallel.hpp"
#include "quern/kernels/kernels.hpp"
#include "quern/tree/binned_matrix.hpp"
#include "quern/tree/gradient.hpp"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace tree {

/// One node's histogram: one or two words a cell (see QuantisedGradients). A node of few rows is
/// packed even where its parent is not.
struct NodeHistogram {
  core::Buffer<std::int64_t> cells;
  int words = 0;

  /// Sum of cells [begin, end).
  [[nodiscard]] GradientSum<std::int64_t> sum(std::int64_t begin, std::int64_t end) const {
    GradientSum<std::int64_t> total;
    for (std::int64_t c = begin; c < end; ++c) {
      const std::int64_t* at = cells.data() + c * words;
      total.g += words == 1 ? *at >> 32 : at[0];
      total.h += words == 1 ? *at & 0xffffffff : at[1];
    }
    return total;
  }
};

/// Builds and subtracts the histograms of one binned matrix.
template <class = void>
class BasicHistogramBuilder {
 public:
  /// A node whose histogram is wanted.
  struct Request {
    kernels::RowList rows;
    NodeHistogram* histogram;
  };
  /// A sibling to be derived: sibling = parent - child.
  struct Subtraction {
    NodeHistogram* parent;  ///< given up
    const NodeHistogram* child;
    NodeHistogram* sibling;
    std::int64_t sibling_rows;
  };

  BasicHistogramBuilder(const BinnedMatrix& data, int threads) : data_(&data), threads_(threads) {
    std::int64_t widest = 0;
    for (const FeatureBlock& block : data.blocks) {
      block_cells_.push_back(cells_);
      // A sparse block has one cell more, for the total of its rows.
      const std::int64_t cells = block.cells() + (block.layout == BlockLayout::sparse ? 1 : 0);
      widest = (std::max)(widest, cells);
      cells_ += cells;
    }
    block_cells_.push_back(cells_);
    scratch_words_ = 2 * widest;
    scratch_.resize(static_cast<std::size_t>(worker_count(threads)));
  }

  /// Cells of a node's histogram.
  [[nodiscard]] std::int64_t cells() const noexcept { return cells_; }

  /// First cell of feature \p f, that of its missing rows; -1 for a constant feature.
  [[nodiscard]] std::int64_t first_cell(std::int32_t f) const {
    const auto i = static_cast<std::size_t>(f);
    if (data_->block_of[i] < 0) return -1;
    const auto b = static_cast<std::size_t>(data_->block_of[i]);
    return block_cells_[b] +
           data_->blocks[b].cell_offsets[static_cast<std::size_t>(data_->place_in_block[i])];
  }

  void build(const QuantisedGradients& gradients, std::span<const Request> requests) {
    if (data_->pages != nullptr) return build_from_pages(gradients, requests);
    std::vector<Task> tasks = plan(gradients, requests);
    std::unique_ptr<std::mutex[]> locks(new std::mutex[requests.size()]);
    parallel_for(
        static_cast<std::int64_t>(tasks.size()),
        [&](std::int64_t t) {
          const Task& task = tasks[static_cast<std::size_t>(t)];
          run(gradients, requests[task.request], task, nullptr, locks[task.request]);
        },
        threads_);
    complete_defaults(requests);
  }

  void subtract(const QuantisedGradients& gradients, std::span<const Subtraction> subtractions) {
    parallel_for(
        static_cast<std::int64_t>(subtractions.size()),
        [&](std::int64_t i) {
          const Subtraction& s = subtractions[static_cast<std::size_t>(i)];
          NodeHistogram& parent = *s.parent;
          const int words = words_for(gradients, s.sibling_rows);
          NodeHistogram out;
          if (parent.words != words) out = allocate(words, core::Fill::none);
          NodeHistogram& to = parent.words == words ? parent : out;
          QUERN_DISPATCH(subtract_histogram<std::int64_t>(parent.cells.data(), parent.words,
                                                          s.child->cells.data(), s.child->words,
                                                          cells_, to.cells.data(), words));
          NodeHistogram result = std::move(to);
          recycle(std::move(parent));
          *s.sibling = std::move(result);
        },
        threads_);
  }

  /// Takes a histogram's memory back for the next node.
  void recycle(NodeHistogram histogram) {
    if (histogram.cells.size() == 0) return;
    const std::lock_guard<std::mutex> hold(pool_lock_);
    pool_[static_cast<std::size_t>(histogram.words - 1)].push_back(std::move(histogram.cells));
  }

 private:
  /// Rows [begin, end) of a request's list, in one block of features.
  struct Task {
    std::size_t request;
    std::size_t block;
    std::int64_t begin, end;
    bool whole;  ///< all rows of the node: no other task writes these cells
  };

  [[nodiscard]] static int words_for(const QuantisedGradients& gradients, std::int64_t rows) {
    return gradients.words() == 1 && rows <= packed_rows ? 1 : 2;
  }

  NodeHistogram allocate(int words, core::Fill fill) {
    NodeHistogram histogram;
    histogram.words = words;
    const auto size = static_cast<std::size_t>(cells_ * words);
    {
      const std::lock_guard<std::mutex> hold(pool_lock_);
      auto& pool = pool_[static_cast<std::size_t>(words - 1)];
      if (!pool.empty()) {
        histogram.cells = std::move(pool.back());
        pool.pop_back();
      }
    }
    if (histogram.cells.size() != size) {
      histogram.cells = core::Buffer<std::int64_t>(size, fill);
    } else if (fill == core::Fill::zero) {
      std::fill_n(histogram.cells.data(), size, std::int64_t{0});
    }
    return histogram;
  }

  std::vector<Task> plan(const QuantisedGradients& gradients, std::span<const Request> requests) {
    std::vector<Task> tasks;
    for (std::size_t r = 0; r < requests.size(); ++r) {
      const std::int64_t rows = requests[r].rows.size;
      const bool whole = rows <= packed_rows;
      *requests[r].histogram =
          allocate(words_for(gradients, rows), whole ? core::Fill::none : core::Fill::zero);
      for (std::size_t b = 0; b < data_->blocks.size(); ++b) {
        for (std::int64_t begin = 0; begin == 0 || begin < rows; begin += packed_rows)
          tasks.push_back({r, b, begin, (std::min)(rows, begin + packed_rows), whole});
      }
    }
    return tasks;
  }

  /// build() where the codes come in pages, each loaded once.
  void build_from_pages(const QuantisedGradients& gradients, std::span<const Request> requests) {
    std::unique_ptr<std::mutex[]> locks(new std::mutex[requests.size()]);
    for (const Request& request : requests)
      *request.histogram = allocate(words_for(gradients, request.rows.size), core::Fill::zero);
    RowPages& pages = *data_->pages;
    const std::int64_t page_rows = pages.page_rows();
    for (std::int64_t p = 0; p < block_count(data_->rows, page_rows); ++p) {
      const std::vector<Task> tasks = plan_page(requests, block_range(data_->rows, page_rows, p));
      if (tasks.empty()) continue;
      const PageCodes page = pages.load(p);
      parallel_for(
          static_cast<std::int64_t>(tasks.size()),
          [&](std::int64_t t) {
            const Task& task = tasks[static_cast<std::size_t>(t)];
            run(gradients, requests[task.request], task, &page, locks[task.request]);
          },
          threads_);
    }
  }

  /// Tasks for the rows of a page.
  [[nodiscard]] std::vector<Task> plan_page(std::span<const Request> requests,
                                            BlockRange numbers) const {
    std::vector<Task> tasks;
    for (std::size_t r = 0; r < requests.size(); ++r) {
      const kernels::RowList& rows = requests[r].rows;
      const auto place = [&](std::int64_t number) {
        if (rows.index == nullptr)
          return (std::clamp)(number - rows.first, std::int64_t{0}, rows.size);
        return std::lower_bound(rows.index, rows.index + rows.size, number) - rows.index;
      };
      const std::int64_t from = place(numbers.begin), to = place(numbers.end);
      for (std::size_t b = 0; b < data_->blocks.size(); ++b) {
        for (std::int64_t begin = from; begin < to; begin += packed_rows)
          tasks.push_back(
              {r, b, begin, (std::min)(to, begin + packed_rows), rows.size <= packed_rows});
      }
    }
    return tasks;
  }

  /// \p page: null where the codes are in memory. A whole node's cells are added to in place; from
  /// pages they are zero before the first.
  void run(const QuantisedGradients& gradients, const Request& request, const Task& task,
           const PageCodes* page, std::mutex& lock) {
    const std::int64_t first = block_cells_[task.block];
    const std::int64_t cells = block_cells_[task.block + 1] - first;
    const int words = gradients.words();
    std::int64_t* out = request.histogram->cells.data() + first * request.histogram->words;
    std::int64_t* into = task.whole ? out : scratch();
    if (!task.whole || page == nullptr) std::fill_n(into, cells * words, std::int64_t{0});
    kernels::RowList rows = request.rows;
    if (rows.index != nullptr) rows.index += task.begin;
    rows.first += task.begin;
    rows.size = task.end - task.begin;
    add_rows(gradients, task.block, page, rows, into);
    if (task.whole) return;
    const std::lock_guard<std::mutex> hold(lock);
    if (words == 1)
      QUERN_DISPATCH(widen_histogram<1>(into, cells, out));
    else
      QUERN_DISPATCH(widen_histogram<2>(into, cells, out));
  }

  void add_rows(const QuantisedGradients& gradients, std::size_t b, const PageCodes* page,
                const kernels::RowList& rows, std::int64_t* into) const {
    const FeatureBlock& block = data_->blocks[b];
    if (block.layout == BlockLayout::dense) {
      const std::uint8_t* const first = page == nullptr
                                            ? block.codes.data()
                                            : before(page->blocks[b], page->begin * block.stride);
      const kernels::DenseCodes codes{first, block.first_cells(), block.stride, block.columns()};
      if (gradients.words() == 1)
        QUERN_DISPATCH(histogram_dense<1>(codes, rows, gradients.data(), into));
      else
        QUERN_DISPATCH(histogram_dense<2>(codes, rows, gradients.data(), into));
    } else {
      const kernels::SparseCodes codes{block.entries.data(), block.row_offsets.data()};
      if (gradients.words() == 1)
        QUERN_DISPATCH(histogram_sparse<1>(codes, rows, gradients.data(), block.cells(), into));
      else
        QUERN_DISPATCH(histogram_sparse<2>(codes, rows, gradients.data(), block.cells(), into));
    }
  }

  /// Where row 0 would be. An integer, as no such object is there for pointers to reach.
  static const std::uint8_t* before(const std::uint8_t* codes, std::int64_t bytes) {
    return reinterpret_cast<const std::uint8_t*>(reinterpret_cast<std::uintptr_t>(codes) -
                                                 static_cast<std::uintptr_t>(bytes));
  }

  std::int64_t* scratch() {
    auto& mine = scratch_[static_cast<std::size_t>(this_worker())];
    if (mine.size() == 0)
      mine = core::Buffer<std::int64_t>(static_cast<std::size_t>(scratch_words_));
    return mine.data();
  }

  /// Fills the cells of default codes that sparse rows and bundles do not store, the rest of the
  /// total, and those of features in products.
  void complete_defaults(std::span<const Request> requests) {
    const auto incomplete = [](const FeatureBlock& block) { return !block.default_codes.empty(); };
    if (std::none_of(data_->blocks.begin(), data_->blocks.end(), incomplete)) return;
    parallel_for(
        static_cast<std::int64_t>(requests.size()),
        [&](std::int64_t r) {
          NodeHistogram& histogram = *requests[static_cast<std::size_t>(r)].histogram;
          for (std::size_t b = 0; b < data_->blocks.size(); ++b) {
            const FeatureBlock& block = data_->blocks[b];
            std::int64_t* cells = histogram.cells.data() + block_cells_[b] * histogram.words;
            if (block.layout == BlockLayout::sparse)
              complete_sparse(block, cells, histogram.words);
            else if (!block.column_of.empty())
              complete_shared(block, cells, histogram.words);
          }
        },
        threads_);
  }

  /// The cell of feature \p j's default code, itself still zero, from the total of its rows.
  static void complete_feature(const FeatureBlock& block, std::size_t j, const std::int64_t* total,
                               std::int64_t* cells, int words) {
    const std::int64_t begin = block.cell_offsets[j], end = block.cells_end(j);
    std::int64_t* rest = cells + (begin + block.default_codes[j]) * words;
    std::int64_t sum[2] = {0, 0};
    for (std::int64_t c = begin; c < end; ++c)
      for (int w = 0; w < words; ++w) sum[w] += cells[c * words + w];
    for (int w = 0; w < words; ++w) rest[w] = total[w] - sum[w];
  }

  static void complete_sparse(const FeatureBlock& block, std::int64_t* cells, int words) {
    const std::int64_t* total = cells + std::int64_t{block.cells()} * words;
    for (std::size_t j = 0; j < block.features.size(); ++j)
      complete_feature(block, j, total, cells, words);
  }

  static void complete_shared(const FeatureBlock& block, std::int64_t* cells, int words) {
    for (std::size_t j = 0; j < block.features.size();) {
      std::size_t end = j + 1;
      while (end < block.features.size() && block.column_of[end] == block.column_of[j]) ++end;
      if (block.in_product(j))
        complete_product(block, j, end, cells, words);
      else if (end > j + 1)
        complete_bundle(block, j, end, cells, words);
      j = end;
    }
  }

  /// Features [j, end). A bundle's first cell counts the rows in which all have their defaults.
  static void complete_bundle(const FeatureBlock& block, std::size_t j, std::size_t end,
                              std::int64_t* cells, int words) {
    std::int64_t total[2] = {0, 0};
    for (std::int64_t c = block.cell_offsets[j]; c < block.cells_end(end - 1); ++c)
      for (int w = 0; w < words; ++w) total[w] += cells[c * words + w];
    for (int w = 0; w < words; ++w) cells[block.cell_offsets[j] * words + w] = 0;
    for (std::size_t k = j; k < end; ++k) complete_feature(block, k, total, cells, words);
  }

  /// Features [j, end): a cell of one is the sum of the product's cells whose byte has its code.
  static void complete_product(const FeatureBlock& block, std::size_t j, std::size_t end,
                               std::int64_t* cells, int words) {
    const std::int32_t first = block.column_cells[static_cast<std::size_t>(block.column_of[j])];
    const auto codes = [&](std::size_t k) { return block.cells_end(k) - block.cell_offsets[k]; };
    const std::int64_t all = std::int64_t{block.factors[end - 1]} * codes(end - 1);
    for (std::size_t k = j; k < end; ++k) {
      const std::int64_t* from = cells + std::int64_t{first} * words;
      const std::int64_t* const last = from + all * words;
      while (from != last) {
        std::int64_t* to = cells + std::int64_t{block.cell_offsets[k]} * words;
        for (std::int32_t c = 0; c < codes(k); ++c, to += words) {
          std::int64_t sum[2] = {0, 0};
          for (std::int32_t i = 0; i < block.factors[k]; ++i)
            for (int w = 0; w < words; ++w) sum[w] += *from++;
          for (int w = 0; w < words; ++w) to[w] += sum[w];
        }
      }
    }
  }

  const BinnedMatrix* data_;
  int threads_;
  std::int64_t cells_ = 0;
  std::vector<std::int64_t> block_cells_;  ///< (blocks + 1): first cell of each block
  std::int64_t scratch_words_ = 0;
  std::vector<core::Buffer<std::int64_t>> scratch_;  ///< by worker
  std::vector<core::Buffer<std::int64_t>> pool_[2];  ///< free histograms by words - 1
  std::mutex pool_lock_;
};
/// (A template, so that a program compiles it only where it uses it.)
using HistogramBuilder = BasicHistogramBuilder<>;

}  // namespace tree
QUERN_NAMESPACE_END

#endif  // QUERN_TREE_HISTOGRAM_HPP
