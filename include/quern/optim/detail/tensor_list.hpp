// SPDX-License-Identifier: Apache-2.0

/// \file
/// The tensors of a group as a flat list of chunks, so that one kernel call goes through thousands
/// of them. Chunks and blocks follow from the sizes alone.

#ifndef QUERN_OPTIM_DETAIL_TENSOR_LIST_HPP
#define QUERN_OPTIM_DETAIL_TENSOR_LIST_HPP

#include "quern/core/buffer.hpp"
#include "quern/core/config.hpp"
#include "quern/core/parallel.hpp"
#include "quern/kernels/kernels.hpp"
#include "quern/kernels/optim_types.hpp"
#include "quern/optim/parameter.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace optim {
namespace detail {

/// Elements of a chunk, and of a block that goes to one thread, at most.
inline constexpr std::size_t chunk_elements = std::size_t{1} << 14;
inline constexpr std::size_t block_elements = std::size_t{1} << 16;

[[nodiscard]] constexpr std::size_t padded(std::size_t n) {
  return (n + kernels::optim_state_padding - 1) / kernels::optim_state_padding *
         kernels::optim_state_padding;
}

/// Chunks [begin, end) of one block.
struct ChunkRange {
  std::size_t begin = 0;
  std::size_t end = 0;
};

template <class T>
class TensorList {
 public:
  using Chunk = kernels::OptimChunk<T>;

  TensorList() = default;
  explicit TensorList(std::vector<Parameter<T>> parameters) : parameters_(std::move(parameters)) {
    starts_.reserve(parameters_.size());
    for (std::size_t k = 0; k < parameters_.size(); ++k) add(k);
    cut_blocks();
  }

  [[nodiscard]] const std::vector<Parameter<T>>& parameters() const { return parameters_; }
  [[nodiscard]] std::size_t size() const { return parameters_.size(); }
  /// Where a tensor's states start, and how long a state array is.
  [[nodiscard]] std::size_t start(std::size_t tensor) const { return starts_[tensor]; }
  [[nodiscard]] std::size_t state_elements() const { return total_; }
  [[nodiscard]] std::vector<Chunk>& chunks() { return chunks_; }
  [[nodiscard]] const std::vector<Chunk>& chunks() const { return chunks_; }

  /// Another gradient of the same size.
  void set_gradient(std::size_t tensor, std::span<const T> gradient) {
    parameters_[tensor].gradient = gradient;
  }
  /// Makes the chunks read the parameters' gradients, or their sums in `sums`.
  void bind(const T* sums) {
    for (Chunk& chunk : chunks_) {
      const auto owner = static_cast<std::size_t>(chunk.owner);
      const std::size_t within = chunk.state - starts_[owner];
      chunk.gradient =
          sums != nullptr ? sums + chunk.state : parameters_[owner].gradient.data() + within;
    }
  }

  /// fn(block number, first chunk, chunks) for every block, on several threads.
  template <class F>
  void for_blocks(int threads, F&& fn) const {
    const ParallelOptions options{.threads = threads, .schedule = Schedule::static_blocks};
    parallel_for(
        static_cast<std::int64_t>(blocks_.size()),
        [&](std::int64_t b) {
          const ChunkRange range = blocks_[static_cast<std::size_t>(b)];
          fn(static_cast<std::size_t>(b), range.begin, range.end - range.begin);
        },
        options);
  }
  [[nodiscard]] std::size_t block_count() const { return blocks_.size(); }

 private:
  void add(std::size_t tensor) {
    const Parameter<T>& p = parameters_[tensor];
    starts_.push_back(total_);
    for (std::size_t at = 0; at < p.values.size(); at += chunk_elements) {
      Chunk chunk;
      chunk.values = p.values.data() + at;
      chunk.gradient = p.gradient.data() + at;
      chunk.count = (std::min)(chunk_elements, p.values.size() - at);
      chunk.state = total_ + at;
      chunk.owner = static_cast<std::int32_t>(tensor);
      chunks_.push_back(chunk);
    }
    total_ += padded(p.values.size());
  }
  void cut_blocks() {
    std::size_t begin = 0, elements = 0;
    for (std::size_t k = 0; k < chunks_.size(); ++k) {
      elements += chunks_[k].count + 16;  // a chunk's own cost
      if (elements < block_elements) continue;
      blocks_.push_back({begin, k + 1});
      begin = k + 1;
      elements = 0;
    }
    if (begin < chunks_.size()) blocks_.push_back({begin, chunks_.size()});
  }

  std::vector<Parameter<T>> parameters_;
  std::vector<std::size_t> starts_;
  std::vector<Chunk> chunks_;
  std::vector<ChunkRange> blocks_;
  std::size_t total_ = 0;
};

/// One rule over chunks, without states beside `states` (which may be null pointers).
template <class Rule, class T, class M>
void run_rule(const TensorList<T>& list, const Rule& rule, kernels::OptimWork<T, M> work,
              int threads) {
  const auto& chunks = list.chunks();
  list.for_blocks(threads, [&](std::size_t, std::size_t first, std::size_t count) {
    kernels::OptimWork<T, M> part = work;
    part.chunks = chunks.data() + first;
    part.count = count;
    QUERN_DISPATCH(optim_step(rule, part));
  });
}

}  // namespace detail
}  // namespace optim
QUERN_NAMESPACE_END

#endif  // QUERN_OPTIM_DETAIL_TENSOR_LIST_HPP
