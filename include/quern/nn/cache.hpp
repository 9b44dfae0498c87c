// SPDX-License-Identifier: Apache-2.0

/// \file
/// nn::Cache: what a layer's forward leaves for its backward, and memory that is used again at the
/// next step. One cache a layer and a thread of work: weights are shared, caches are not.

#ifndef QUERN_NN_CACHE_HPP
#define QUERN_NN_CACHE_HPP

#include "quern/core/config.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/core/random.hpp"
#include "quern/nn/tensor.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace nn {

/// What forward is for.
enum class Mode {
  inference,  ///< nothing is kept for backward; dropout is off, running statistics are used
  training
};

/// What of the outside world a layer may depend on. Random layers draw from
/// random(global row), so that a row's numbers depend on seed, step, place in the network and the
/// row's number in the batch, and neither on shards nor on threads.
struct Context {
  std::uint64_t seed = 0;
  std::uint64_t step = 0;
  Index first_row = 0;     ///< of this shard, within the batch
  int threads = 0;         ///< for parallel_for
  std::uint64_t path = 0;  ///< place in the network: set by containers

  /// The stream of a row of this shard.
  [[nodiscard]] Philox random(Index row) const {
    const auto global = static_cast<std::uint64_t>(first_row + row);
    return Philox(seed, path ^ 0x6E6E2E726F77ULL, quern::detail::mix_bits(step) + global);
  }
  /// That of child `k` of the layer that this one belongs to.
  [[nodiscard]] Context child(std::size_t k) const {
    Context c = *this;
    c.path = quern::detail::mix_bits(path * 0x9E3779B97F4A7C15ULL + k + 1);
    return c;
  }
};

/// See the file comment. Arrays and children come into being when first asked for and keep their
/// memory.
template <class T>
class Cache {
 public:
  Context context;
  Mode mode = Mode::inference;
  TensorView<const T> input;  ///< of the last forward; belongs to the caller

  /// Whether backward will follow.
  [[nodiscard]] bool keep() const noexcept { return mode == Mode::training; }

  /// Array number k, as the last resize left it. References stay valid.
  [[nodiscard]] Tensor<T>& tensor(std::size_t k) { return *grow(tensors_, k); }
  /// The same, resized: elements not initialised.
  Tensor<T>& tensor(std::size_t k, std::span<const Index> extents) {
    Tensor<T>& t = tensor(k);
    t.resize(extents);
    return t;
  }
  Tensor<T>& tensor(std::size_t k, std::initializer_list<Index> extents) {
    return tensor(k, std::span<const Index>(extents.begin(), extents.size()));
  }
  /// Whole numbers (positions, codes), number k.
  [[nodiscard]] std::vector<std::int64_t>& integers(std::size_t k) { return *grow(integers_, k); }
  /// Cache of child layer k, with the context that belongs to it.
  [[nodiscard]] Cache& child(std::size_t k) {
    Cache& c = *grow(children_, k);
    c.context = context.child(k);
    return c;
  }
  /// The same as it was left: for backward and update.
  [[nodiscard]] Cache& child_as_is(std::size_t k) { return *grow(children_, k); }

  /// A struct of the layer's own. It is made at the first call; a call with another type makes it
  /// anew.
  template <class S>
  [[nodiscard]] S& saved() {
    if (extra_ == nullptr || extra_->type != type_tag<S>()) extra_ = std::make_unique<Holder<S>>();
    return static_cast<Holder<S>&>(*extra_).value;
  }

 private:
  struct Extra {
    explicit Extra(const void* tag) : type(tag) {}
    Extra(const Extra&) = delete;
    Extra& operator=(const Extra&) = delete;
    virtual ~Extra() = default;
    const void* type;
  };
  template <class S>
  struct Holder final : Extra {
    Holder() : Extra(type_tag<S>()) {}
    S value{};
  };
  template <class S>
  static const void* type_tag() {
    static const char tag = 0;
    return &tag;
  }
  template <class V>
  static std::unique_ptr<V>& grow(std::vector<std::unique_ptr<V>>& list, std::size_t k) {
    if (list.size() <= k) list.resize(k + 1);
    if (list[k] == nullptr) list[k] = std::make_unique<V>();
    return list[k];
  }

  std::vector<std::unique_ptr<Tensor<T>>> tensors_;
  std::vector<std::unique_ptr<std::vector<std::int64_t>>> integers_;
  std::vector<std::unique_ptr<Cache>> children_;
  std::unique_ptr<Extra> extra_;
};

}  // namespace nn
QUERN_NAMESPACE_END

#endif  // QUERN_NN_CACHE_HPP
