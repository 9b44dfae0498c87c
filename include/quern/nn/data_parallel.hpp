// SPDX-License-Identifier: Apache-2.0

/// \file
/// nn::DataParallel: one batch's gradient from a fixed number of shards, whatever the number of
/// threads: the shards' gradients are added in order, so the bits are the same. Also groups of an
/// optimiser from a network's parameters.

#ifndef QUERN_NN_DATA_PARALLEL_HPP
#define QUERN_NN_DATA_PARALLEL_HPP

#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/parallel.hpp"
#include "quern/kernels/kernels.hpp"
#include "quern/nn/layer.hpp"
#include "quern/optim/parameter.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace nn {

/// Part of a batch.
struct Shard {
  std::size_t number = 0;
  std::span<const Index> samples = {};  ///< numbers of its samples within the data
  Index batch_size = 0;                 ///< samples of the whole batch: what means divide by
  std::uint64_t step = 0;

  [[nodiscard]] Index size() const noexcept { return static_cast<Index>(samples.size()); }
};

/// Parameters and gradients as an optimiser takes them.
template <class T>
[[nodiscard]] optim::Parameter<T> optimizer_parameter(const Parameter<T>& p,
                                                      std::span<const T> gradient) {
  return {p.name, p.values.span(), gradient, p.values.shape()};
}
template <class T>
[[nodiscard]] std::vector<optim::Parameter<T>> optimizer_parameters(const ParameterList<T>& list,
                                                                    const Gradients<T>& gradients) {
  std::vector<optim::Parameter<T>> out;
  for (std::size_t k = 0; k < list.size(); ++k) {
    out.push_back(optimizer_parameter<T>(list[k], gradients[k]));
  }
  return out;
}

/// Adds all parameters to an optimiser: one group for each kind of decay and rate, with `method`'s
/// options, no weight decay where Parameter::decay is false, and lr times Parameter::lr_scale.
template <class Optimizer, class Method, class T>
void add_groups(Optimizer& optimizer, const Method& method, const ParameterList<T>& list,
                const Gradients<T>& gradients) {
  std::map<std::pair<bool, double>, std::vector<optim::Parameter<T>>> groups;
  for (std::size_t k = 0; k < list.size(); ++k) {
    groups[{!list[k].decay, list[k].lr_scale}].push_back(
        optimizer_parameter<T>(list[k], gradients[k]));
  }
  for (auto& [kind, parameters] : groups) {
    Method options = method;
    options.lr *= kind.second;
    if (kind.first) options.weight_decay = 0;
    optimizer.add_group(std::move(parameters), options);
  }
}

/// Shards of a network's training. Caches and gradients are kept from step to step.
template <class T>
class DataParallel {
 public:
  /// `batch`: the usual batch's size; a smaller one (the last of an epoch) is cut into fewer shards
  /// of about the usual size, not into slivers. 0: every batch into all. ValueError for less than
  /// one shard.
  explicit DataParallel(Layer<T>& network, int shards = 8, Index batch = 0)
      : network_(&network),
        batch_(batch),
        parameters_(parameters_of(network)),
        total_(parameters_) {
    if (shards < 1) {
      throw ValueError(error_text("quern::nn::DataParallel", "shards", "at least 1", shards));
    }
    for (int s = 0; s < shards; ++s) parts_.push_back(std::make_unique<Part>(parameters_));
  }

  [[nodiscard]] Layer<T>& network() const noexcept { return *network_; }
  [[nodiscard]] const ParameterList<T>& parameters() const noexcept { return parameters_; }
  /// Of the last batch: what the optimiser reads.
  [[nodiscard]] const Gradients<T>& gradients() const noexcept { return total_; }
  [[nodiscard]] Gradients<T>& gradients() noexcept { return total_; }

  /// For each shard fn(shard, cache, gradients), which runs the network forward and backward with
  /// them (gradients are zero before) and returns the shard's part of the batch's loss. Shards run
  /// on several threads at once. Returns the sum, with gradients() the sum of the shards', and the
  /// network's update() done. Samples go to shards in equal runs.
  template <class F>
  double run(std::span<const Index> samples, std::uint64_t seed, std::uint64_t step, int threads,
             F&& fn) {
    const std::size_t count = samples.size(), shards = shards_of(count);
    for (std::size_t s = 0; s < parts_.size(); ++s) parts_[s]->used = s < shards;
    parallel_for(
        static_cast<std::int64_t>(shards),
        [&](std::int64_t block) {
          const auto s = static_cast<std::size_t>(block);
          Part& part = *parts_[s];
          const std::size_t begin = count * s / shards, end = count * (s + 1) / shards;
          part.gradients.zero();
          part.cache.context = {.seed = seed,
                                .step = step,
                                .first_row = static_cast<Index>(begin),
                                .threads = threads};
          const Shard shard{s, samples.subspan(begin, end - begin), static_cast<Index>(count),
                            step};
          part.loss = fn(shard, part.cache, GradientsView<T>(part.gradients));
        },
        threads);
    add_up(threads);
    std::vector<Cache<T>*> caches;
    double loss = 0;
    for (const auto& part : parts_) {
      if (!part->used) continue;
      loss += part->loss;
      caches.push_back(&part->cache);
    }
    network_->update(caches);
    return loss;
  }

 private:
  struct Part {
    explicit Part(const ParameterList<T>& parameters) : gradients(parameters) {}
    Cache<T> cache;
    Gradients<T> gradients;
    double loss = 0;
    bool used = false;
  };

  [[nodiscard]] std::size_t shards_of(std::size_t count) const {
    const std::size_t all = parts_.size();
    const std::size_t each = (static_cast<std::size_t>(batch_) + all - 1) / all;
    return (std::min)({all, count, each == 0 ? all : (count + each - 1) / each});
  }
  void add_up(int threads) {
    constexpr Index block = 8192;
    const std::span<T> to = total_.memory();
    const auto size = static_cast<Index>(to.size());
    parallel_for(
        block_count(size, block),
        [&](Index b) {
          const BlockRange range = block_range(size, block, b);
          T* const out = to.data() + range.begin;
          const auto n = static_cast<std::size_t>(range.size());
          bool first = true;
          for (const auto& part : parts_) {
            if (!part->used) continue;
            const T* const from = part->gradients.memory().data() + range.begin;
            if (first) {
              std::copy_n(from, n, out);
            } else {
              QUERN_DISPATCH(axpy(T{1}, from, n, out));
            }
            first = false;
          }
          if (first) std::fill_n(out, n, T{});
        },
        threads);
  }

  Layer<T>* network_;
  Index batch_;
  ParameterList<T> parameters_;
  Gradients<T> total_;
  std::vector<std::unique_ptr<Part>> parts_;
};

}  // namespace nn
QUERN_NAMESPACE_END

#endif  // QUERN_NN_DATA_PARALLEL_HPP
