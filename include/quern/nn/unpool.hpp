// SPDX-License-Identifier: Apache-2.0

/// \file
/// Max-unpooling: values back to where max-pooling took them from, zeros elsewhere (M. Zeiler,
/// R. Fergus, 2014; the decoder of SegNet).

#ifndef QUERN_NN_UNPOOL_HPP
#define QUERN_NN_UNPOOL_HPP

#include "quern/core/buffer.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/parallel.hpp"
#include "quern/kernels/kernels.hpp"
#include "quern/nn/detail/resample_tables.hpp"
#include "quern/nn/layout.hpp"
#include "quern/nn/tensor.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <type_traits>

QUERN_NAMESPACE_BEGIN
namespace nn {
namespace detail {

struct UnpoolSizes {
  Index planes;    ///< that are unpooled by themselves
  Index in, out;   ///< pixels of one
  Index channels;  ///< numbers side by side in a pixel, each with an index of its own
};

inline UnpoolSizes unpool_sizes(const char* function, std::span<const Index> in,
                                std::span<const Index> out, std::size_t indices, Layout layout) {
  const bool last = layout == Layout::channels_last;
  const std::size_t c = last ? 3 : 1;
  if (in.size() != 4 || out.size() != 4 || in[0] != out[0] || in[c] != out[c]) {
    throw ShapeError(error_text(
        function, "out", "4 dimensions, batch and channels of " + shape_text(in), shape_text(out)));
  }
  const Index size = in[0] * in[1] * in[2] * in[3];
  if (static_cast<Index>(indices) != size) {
    throw ShapeError(error_text(function, "indices", std::to_string(size), indices));
  }
  const std::size_t h = last ? 1 : 2;
  return {last ? in[0] : in[0] * in[1], in[h] * in[h + 1], out[h] * out[h + 1], last ? in[c] : 1};
}

[[noreturn]] inline void bad_unpool_index(const char* function, std::int64_t index, Index size) {
  throw ValueError(
      error_text(function, "indices", "places of 0.." + std::to_string(size - 1), index));
}

/// ValueError unless all places of a plane lie inside it.
inline void expect_unpool_places(const char* function, const UnpoolSizes& s,
                                 const std::int64_t* places) {
  const auto size = static_cast<std::uint64_t>(s.out);  // a negative place is larger
  std::uint64_t largest = 0;
  const Index count = s.in * s.channels;
  for (Index i = 0; i < count; ++i) {
    largest = (std::max)(largest, static_cast<std::uint64_t>(places[i]));
  }
  if (largest < size || count == 0) return;
  bad_unpool_index(function, static_cast<std::int64_t>(largest), s.out);
}

/// target[place of element i] = values[i], for one plane of places that lie inside it.
template <class T>
void unpool_plane(const UnpoolSizes& s, const std::int64_t* places, const T* values, T* target) {
  if (s.channels == 1) {
    for (Index i = 0; i < s.in; ++i) target[places[i]] = values[i];
    return;
  }
  for (Index pixel = 0; pixel < s.in; ++pixel, places += s.channels, values += s.channels) {
    for (Index c = 0; c < s.channels; ++c) target[places[c] * s.channels + c] = values[c];
  }
}
/// The other way: to[i] = source[place of element i].
template <class T>
void pool_plane(const UnpoolSizes& s, const std::int64_t* places, const T* source, T* to) {
  if (s.channels == 1) {
    for (Index i = 0; i < s.in; ++i) to[i] = source[places[i]];
    return;
  }
  for (Index pixel = 0; pixel < s.in; ++pixel, places += s.channels, to += s.channels) {
    for (Index c = 0; c < s.channels; ++c) to[c] = source[places[c] * s.channels + c];
  }
}

}  // namespace detail

/// out = zeros but for out[indices[i]] = in[i], plane by plane. \p indices are flat places in each
/// channel's H x W plane of the result, one for each element of \p in and in its layout, as
/// max-pooling gives them; where two are equal the later element stays. ShapeError where shapes do
/// not fit, ValueError for an index outside the plane.
template <class T>
void max_unpool2d(std::type_identity_t<TensorView<const T>> in,
                  std::span<const std::int64_t> indices, TensorView<T> out,
                  Layout layout = Layout::channels_first, int threads = 0) {
  constexpr const char* function = "quern::nn::max_unpool2d";
  const auto s =
      detail::unpool_sizes(function, in.extents(), out.extents(), indices.size(), layout);
  expect_separate(function, "out", out, in);
  const Index from = s.in * s.channels, to = s.out * s.channels;
  const bool streams = out.size() * static_cast<Index>(sizeof(T)) >= detail::resample_stream_bytes;
  // A plane that stays in the cache is written there first, and then around it.
  const bool by_scratch = streams && to * static_cast<Index>(sizeof(T)) <= (Index{1} << 20);
  core::Buffer<T> memory;
  if (by_scratch) memory = core::Buffer<T>(static_cast<std::size_t>(to * worker_count(threads)));
  parallel_for(
      s.planes,
      [&](std::int64_t plane) {
        const std::int64_t* const places = indices.data() + plane * from;
        T* const target = out.data() + plane * to;
        T* const written = by_scratch ? memory.data() + this_worker() * to : target;
        detail::expect_unpool_places(function, s, places);
        std::fill_n(written, to, T(0));
        detail::unpool_plane<T>(s, places, in.data() + plane * from, written);
        if (by_scratch) {
          QUERN_DISPATCH(stream_copy<T>(written, static_cast<std::size_t>(to), target));
        }
      },
      threads);
}

/// din[i] = dout[indices[i]]: the gradient of max_unpool2d's input (where no two indices are
/// equal).
template <class T>
void max_unpool2d_vjp(std::type_identity_t<TensorView<const T>> dout,
                      std::span<const std::int64_t> indices, TensorView<T> din,
                      Layout layout = Layout::channels_first, int threads = 0) {
  constexpr const char* function = "quern::nn::max_unpool2d_vjp";
  const auto s =
      detail::unpool_sizes(function, din.extents(), dout.extents(), indices.size(), layout);
  expect_separate(function, "din", din, dout);
  const Index each = s.in * s.channels;
  parallel_for(
      s.planes,
      [&](std::int64_t plane) {
        const std::int64_t* const places = indices.data() + plane * each;
        detail::expect_unpool_places(function, s, places);
        detail::pool_plane<T>(s, places, dout.data() + plane * s.out * s.channels,
                              din.data() + plane * each);
      },
      threads);
}

}  // namespace nn
QUERN_NAMESPACE_END

#endif  // QUERN_NN_UNPOOL_HPP
