// SPDX-License-Identifier: Apache-2.0

/// \file
/// Keys and values of the positions so far, for softmax attention position by position or piece by
/// piece: KeyValueCache.

#ifndef QUERN_ATTENTION_KEY_VALUE_CACHE_HPP
#define QUERN_ATTENTION_KEY_VALUE_CACHE_HPP

#include "quern/attention/detail/rows.hpp"
#include "quern/attention/detail/state_bytes.hpp"
#include "quern/attention/softmax.hpp"
#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/nd_view.hpp"

#include <algorithm>
#include <cstddef>
#include <limits>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace attention {

/// Keys (batch, kv_heads, kept, dim) and values (batch, kv_heads, kept, value_dim) of the positions
/// so far, without the first `dropped()` of them. A plain value: copies are independent.
template <class T>
class KeyValueCache {
 public:
  /// Empty. `value_dim` is dim where it is negative. ValueError for negative sizes.
  KeyValueCache(Index batch, Index kv_heads, Index dim, Index value_dim = -1)
      : batch_(batch), heads_(kv_heads), dim_(dim), value_dim_(value_dim < 0 ? dim : value_dim) {
    const Index least = (std::min)({batch, kv_heads, dim});
    if (least < 0) {
      throw ValueError(error_text("quern::attention::KeyValueCache", "sizes", "0 or more", least));
    }
    keys_.resize({batch, kv_heads, 0, dim_});
    values_.resize({batch, kv_heads, 0, value_dim_});
  }

  [[nodiscard]] Index batch() const noexcept { return batch_; }
  /// Positions so far, how many of the first have been dropped, and how many are held.
  [[nodiscard]] Index position() const noexcept { return position_; }
  [[nodiscard]] Index dropped() const noexcept { return dropped_; }
  [[nodiscard]] Index kept() const noexcept { return position_ - dropped_; }
  [[nodiscard]] NdView<T, 4> keys() { return keys_.view().slice(2, 0, kept()); }
  [[nodiscard]] NdView<T, 4> values() { return values_.view().slice(2, 0, kept()); }
  [[nodiscard]] NdView<const T, 4> keys() const { return keys_.view().slice(2, 0, kept()); }
  [[nodiscard]] NdView<const T, 4> values() const { return values_.view().slice(2, 0, kept()); }

  /// Takes the next positions: k (batch, kv_heads, n, dim), v (batch, kv_heads, n, value_dim), any
  /// strides. ShapeError where they do not fit.
  void append(std::type_identity_t<NdView<const T, 4>> k,
              std::type_identity_t<NdView<const T, 4>> v) {
    constexpr const char* function = "quern::attention::KeyValueCache::append";
    const Index count = k.extent(2);
    expect_shape(function, "k", k, {batch_, heads_, count, dim_});
    expect_shape(function, "v", v, {batch_, heads_, count, value_dim_});
    reserve(kept() + count);
    position_ += count;
    detail::copy_elements<T, 4>(k, keys().slice(2, kept() - count, count));
    detail::copy_elements<T, 4>(v, values().slice(2, kept() - count, count));
  }
  /// Causal attention of the last positions that were appended, as many as queries: q (batch,
  /// heads, n, dim), out (batch, heads, n, value_dim); kv_heads divides heads. Of the options it
  /// reads scale, visible.left and threads. ShapeError where extents do not fit, ValueError for
  /// more queries than are held.
  void attend(std::type_identity_t<NdView<const T, 4>> q, NdView<T, 4> out,
              const SoftmaxOptions& options = {}) const {
    if (q.extent(2) > kept()) {
      throw ValueError(error_text("quern::attention::KeyValueCache::attend", "q",
                                  "at most as many positions as are held", q.extent(2)));
    }
    SoftmaxOptions of_call = options;
    of_call.visible.causal = true;
    of_call.visible.offset = kept() - q.extent(2);
    softmax_attention<T>(q, keys(), values(), out, {}, of_call);
  }

  /// Forgets the first `count` of what is held; ValueError for more than that.
  void drop(Index count) {
    if (count < 0 || count > kept()) {
      throw ValueError(error_text("quern::attention::KeyValueCache::drop", "count",
                                  "0.." + std::to_string(kept()), count));
    }
    move_rows(keys_, keys_, count);
    move_rows(values_, values_, count);
    dropped_ += count;
  }
  /// Forgets what later queries that see `window` positions before their own do not see; not at
  /// every call, since moving what stays costs as much as attention does. So memory is constant.
  void evict(Index window) {
    if (window >= 0 && kept() > 2 * (window + 1) + 64) drop(kept() - window);
  }
  /// Back to before the first position.
  void reset() { position_ = dropped_ = 0; }

  /// Appends the state as bytes.
  void save(std::vector<std::byte>& out) const {
    detail::StateWriter to(out);
    for (const Index n : {batch_, heads_, dim_, value_dim_, position_, dropped_}) to.number(n);
    for (Index row = 0; row < batch_ * heads_; ++row) {
      for (const NdArray<T, 4>* a : {&keys_, &values_}) {
        to.array(a->data() + row * a->extent(2) * a->extent(3),
                 static_cast<std::size_t>(kept() * a->extent(3)));
      }
    }
  }
  /// ParseError unless the bytes are those of a cache of the same sizes.
  void load(std::span<const std::byte> bytes) {
    detail::StateReader from("quern::attention::KeyValueCache::load", bytes);
    from.expect("batch", batch_);
    from.expect("heads", heads_);
    from.expect("dim", dim_);
    from.expect("value_dim", value_dim_);
    KeyValueCache read(batch_, heads_, dim_, value_dim_);
    // A position that is held takes bytes, so their number bounds what is asked for.
    constexpr Index most = (std::numeric_limits<Index>::max)();
    const Index position = from.number_in("position", 0, most);
    const Index each = batch_ * heads_ * (dim_ + value_dim_) * static_cast<Index>(sizeof(T));
    const Index least = position - static_cast<Index>(bytes.size()) / (std::max)(each, Index{1});
    const Index dropped = from.number_in("dropped", (std::max)(Index{0}, least), position);
    read.reserve(position - dropped);
    read.position_ = position, read.dropped_ = dropped;
    for (Index row = 0; row < batch_ * heads_; ++row) {
      for (NdArray<T, 4>* a : {&read.keys_, &read.values_}) {
        from.array(a->data() + row * a->extent(2) * a->extent(3),
                   static_cast<std::size_t>(read.kept() * a->extent(3)));
      }
    }
    from.finish();
    *this = std::move(read);
  }

 private:
  void reserve(Index need) {
    if (need <= keys_.extent(2)) return;
    const Index room = (std::max)(Index{64}, 2 * need);
    NdArray<T, 4> k({batch_, heads_, room, dim_}), v({batch_, heads_, room, value_dim_});
    move_rows(keys_, k, 0);
    move_rows(values_, v, 0);
    keys_ = std::move(k), values_ = std::move(v);
  }
  void move_rows(const NdArray<T, 4>& from, NdArray<T, 4>& to, Index skip) const {
    const Index width = from.extent(3);
    for (Index row = 0; row < batch_ * heads_ && kept() > skip; ++row) {
      const T* const source = from.data() + (row * from.extent(2) + skip) * width;
      std::copy(source, source + (kept() - skip) * width,
                to.data() + row * to.extent(2) * to.extent(3));
    }
  }

  Index batch_, heads_, dim_, value_dim_;
  Index position_ = 0;
  Index dropped_ = 0;
  NdArray<T, 4> keys_, values_;
};

}  // namespace attention
QUERN_NAMESPACE_END

#endif  // QUERN_ATTENTION_KEY_VALUE_CACHE_HPP
