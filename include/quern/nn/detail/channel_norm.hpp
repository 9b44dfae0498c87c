// SPDX-License-Identifier: Apache-2.0

/// \file
/// What batch norm and group norm share: statistics of channels, and the passes that apply them,
/// over images with channels first or last.
///
/// An image batch is cut into parts (an image, or up to 1024 pixels of (rows, channels)); each
/// part's mean and squared deviations of each channel are found while it is in cache, and parts are
/// merged in order in double (Chan, Golub, LeVeque 1979). So training reads its input twice: for
/// the statistics and to apply them.

#ifndef QUERN_NN_DETAIL_CHANNEL_NORM_HPP
#define QUERN_NN_DETAIL_CHANNEL_NORM_HPP

#include "quern/core/config.hpp"
#include "quern/core/parallel.hpp"
#include "quern/kernels/kernels.hpp"
#include "quern/nn/tensor.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace nn {
namespace detail {

/// How (N, C, …) or (N, …, C) is cut into parts.
struct ChannelParts {
  Index parts = 0;
  Index pixels = 0;  ///< of a part; the last may be shorter where `total` says so
  Index total = 0;   ///< pixels of all parts together
  Index channels = 0;
  bool channels_last = false;

  [[nodiscard]] Index count(Index part) const { return (std::min)(pixels, total - part * pixels); }
  /// First element of a channel of a part.
  [[nodiscard]] Index at(Index part, Index channel) const {
    return channels_last ? part * pixels * channels + channel
                         : (part * channels + channel) * pixels;
  }
};

/// `whole_images`: a part is an image (group norm needs that).
template <class T>
ChannelParts channel_parts(const TensorView<T>& x, bool channels_last, bool whole_images) {
  ChannelParts p;
  const bool last = channels_last || x.rank() == 2;
  const Index images = x.extent(0);
  p.channels = x.extent(last ? -1 : 1);
  p.channels_last = last;
  p.total = p.channels == 0 ? 0 : x.size() / p.channels;
  p.pixels = images == 0 ? 0 : p.total / images;
  if (last && !whole_images) p.pixels = 1024;
  p.parts = p.total == 0 ? 0 : block_count(p.total, p.pixels);
  return p;
}

/// A mean and a sum of squared deviations over a number of values.
struct Moments {
  double count = 0, mean = 0, deviation = 0;

  void merge(const Moments& other) {
    if (other.count == 0) return;
    const double all = count + other.count, apart = other.mean - mean;
    deviation += other.deviation + apart * apart * count * other.count / all;
    mean += apart * other.count / all;
    count = all;
  }
  [[nodiscard]] double variance() const { return count > 0 ? deviation / count : 0; }
};

/// Moments of each part and channel: result[part * channels + channel].
template <class T>
std::vector<Moments> part_moments(const T* x, const ChannelParts& p, int threads) {
  const auto channels = static_cast<std::size_t>(p.channels);
  std::vector<Moments> all(static_cast<std::size_t>(p.parts) * channels);
  parallel_for(
      p.parts,
      [&](Index part) {
        const auto n = static_cast<std::size_t>(p.count(part));
        const double count = static_cast<double>(n);
        Moments* const out = all.data() + static_cast<std::size_t>(part) * channels;
        if (!p.channels_last) {
          for (std::size_t c = 0; c < channels; ++c) {
            const T* const run = x + p.at(part, static_cast<Index>(c));
            const double mean = QUERN_DISPATCH(sum(run, n)) / count;
            const T rounded = static_cast<T>(mean);
            const double off = mean - static_cast<double>(rounded);
            const double square = QUERN_DISPATCH(squared_deviation(run, n, rounded));
            out[c] = {count, mean, (std::max)(0.0, square - count * off * off)};
          }
          return;
        }
        std::vector<T> means(channels), squares(channels);
        const T* const from = x + p.at(part, 0);
        QUERN_DISPATCH(column_sums(n, channels, from, p.channels, means.data()));
        for (T& m : means) m = static_cast<T>(static_cast<double>(m) / count);
        // The rounded mean's distance from the true one is found in a second sum.
        QUERN_DISPATCH(
            column_deviations(n, channels, from, p.channels, means.data(), squares.data()));
        for (std::size_t c = 0; c < channels; ++c) {
          out[c] = {count, static_cast<double>(means[c]), static_cast<double>(squares[c])};
        }
      },
      threads);
  return all;
}

/// Sums over a part and channel of dy, and of dy (x - mean).
struct GradientSums {
  double plain = 0, along = 0;
};

/// result[part * channels + channel]; means: one a channel, `stride` apart from part to part (0:
/// the same for all).
template <class T>
std::vector<GradientSums> part_gradient_sums(const T* x, const T* dy, const T* means, Index stride,
                                             const ChannelParts& p, int threads) {
  const auto channels = static_cast<std::size_t>(p.channels);
  std::vector<GradientSums> all(static_cast<std::size_t>(p.parts) * channels);
  parallel_for(
      p.parts,
      [&](Index part) {
        const auto n = static_cast<std::size_t>(p.count(part));
        const T* const mean = means + part * stride;
        GradientSums* const out = all.data() + static_cast<std::size_t>(part) * channels;
        if (!p.channels_last) {
          for (std::size_t c = 0; c < channels; ++c) {
            const Index at = p.at(part, static_cast<Index>(c));
            double sums[2];
            QUERN_DISPATCH(norm_gradient_sums(x + at, dy + at, static_cast<const T*>(nullptr), n,
                                              mean[c], sums));
            out[c] = {sums[0], sums[1]};
          }
          return;
        }
        std::vector<T> plain(channels), along(channels);
        const Index at = p.at(part, 0);
        QUERN_DISPATCH(column_gradient_sums(n, channels, x + at, dy + at, p.channels, mean,
                                            plain.data(), along.data()));
        for (std::size_t c = 0; c < channels; ++c) {
          out[c] = {static_cast<double>(plain[c]), static_cast<double>(along[c])};
        }
      },
      threads);
  return all;
}

/// y = (x - m) a + b with coefficients of each channel, `stride` apart from part to part.
template <class T>
void apply_norm(const T* x, const T* m, const T* a, const T* b, Index stride, T* y,
                const ChannelParts& p, int threads) {
  parallel_for(
      p.parts,
      [&](Index part) {
        const auto n = static_cast<std::size_t>(p.count(part));
        const Index of = part * stride;
        if (p.channels_last) {
          const Index at = p.at(part, 0);
          QUERN_DISPATCH(norm_columns(n, static_cast<std::size_t>(p.channels), x + at, p.channels,
                                      m + of, a + of, b + of, y + at));
          return;
        }
        for (Index c = 0; c < p.channels; ++c) {
          const Index at = p.at(part, c), k = of + c;
          QUERN_DISPATCH(norm_run(x + at, n, m[k], a[k], b[k], y + at));
        }
      },
      threads);
}

/// dx = dy a + (x - m) b + c.
template <class T>
void apply_norm_gradient(const T* x, const T* dy, const T* m, const T* a, const T* b, const T* c,
                         Index stride, T* dx, const ChannelParts& p, int threads) {
  parallel_for(
      p.parts,
      [&](Index part) {
        const auto n = static_cast<std::size_t>(p.count(part));
        const Index of = part * stride;
        if (p.channels_last) {
          const Index at = p.at(part, 0);
          QUERN_DISPATCH(norm_columns_gradient(n, static_cast<std::size_t>(p.channels), x + at,
                                               dy + at, p.channels, m + of, a + of, b + of, c + of,
                                               dx + at));
          return;
        }
        for (Index channel = 0; channel < p.channels; ++channel) {
          const Index at = p.at(part, channel), k = of + channel;
          QUERN_DISPATCH(norm_run_gradient(x + at, dy + at, n, m[k], a[k], b[k], c[k], dx + at));
        }
      },
      threads);
}

}  // namespace detail
}  // namespace nn
QUERN_NAMESPACE_END

#endif  // QUERN_NN_DETAIL_CHANNEL_NORM_HPP
