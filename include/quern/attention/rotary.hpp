// SPDX-License-Identifier: Apache-2.0

/// \file
/// Rotary positions: pairs of channels of queries and keys are turned by angles that grow with the
/// position, so that their products depend on distances alone. J. Su et al., "RoFormer: enhanced
/// transformer with rotary position embedding" (arXiv:2104.09864).

#ifndef QUERN_ATTENTION_ROTARY_HPP
#define QUERN_ATTENTION_ROTARY_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/core/parallel.hpp"
#include "quern/kernels/kernels.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace attention {

/// Which channels of a head make a pair.
enum class RotaryLayout {
  adjacent,  ///< 2 i and 2 i + 1: RoFormer, GPT-J
  halves     ///< i and i + dims / 2: GPT-NeoX, Llama
};

struct RotaryOptions {
  Index dims = -1;      ///< the first so many channels, an even number; -1: all
  double base = 10000;  ///< pair i turns by base^(-2 i / dims) a position
  RotaryLayout layout = RotaryLayout::adjacent;
  Index offset = 0;  ///< position of step 0
  /// The steps' positions, (length), instead of those that follow each other from `offset`.
  std::span<const std::int64_t> positions = {};
  int threads = 0;  ///< 0: the default, see parallel_for
};

namespace detail {

/// Cosines and sines of one position after the other, as the kernels want them.
template <class T>
class RotaryTurns {
 public:
  RotaryTurns(Index dims, double base, RotaryLayout layout, bool back)
      : dims_(dims), adjacent_(layout == RotaryLayout::adjacent), back_(back) {
    const auto n = static_cast<std::size_t>(dims);
    angles_.resize(n / 2), cos_.resize(n / 2), sin_.resize(n / 2);
    cosines_.resize(n), sines_.resize(n);
    for (Index i = 0; i < dims; i += 2) {
      frequency_.push_back(std::pow(base, -static_cast<double>(i) / static_cast<double>(dims)));
    }
  }
  void go_to(Index position) {
    const std::size_t pairs = angles_.size();
    for (std::size_t i = 0; i < pairs; ++i) {
      angles_[i] = static_cast<double>(position) * frequency_[i];
    }
    QUERN_DISPATCH(sin_cos_of<double>(angles_.data(), pairs, sin_.data(), cos_.data()));
    for (std::size_t i = 0; i < pairs; ++i) {
      const T c = static_cast<T>(cos_[i]), s = static_cast<T>(back_ ? -sin_[i] : sin_[i]);
      if (adjacent_) {
        cosines_[2 * i] = cosines_[2 * i + 1] = c;
        sines_[2 * i] = -s, sines_[2 * i + 1] = s;
      } else {
        cosines_[i] = c, sines_[i] = s;
      }
    }
  }
  /// One row, which may be its own target.
  void turn(const T* x, T* y) const {
    const auto n = static_cast<std::size_t>(dims_);
    if (adjacent_) {
      QUERN_DISPATCH(turn_adjacent<T>(x, n, cosines_.data(), sines_.data(), y));
    } else {
      QUERN_DISPATCH(turn_halves<T>(x, n / 2, cosines_.data(), sines_.data(), y));
    }
  }

 private:
  Index dims_;
  bool adjacent_, back_;
  std::vector<double> frequency_, angles_, cos_, sin_;
  std::vector<T> cosines_, sines_;
};

/// Steps that one task of rotate_steps takes.
inline constexpr Index rotary_steps = 32;

/// Angles are computed once a step, for all rows of the batch and heads.
template <class T>
void rotate_steps(NdView<const T, 4> x, NdView<T, 4> out, Index dims, const RotaryOptions& options,
                  bool back) {
  const Index length = x.extent(2), dim = x.extent(3);
  const bool same = x.data() == out.data();
  parallel_for(
      block_count(length, rotary_steps),
      [&](Index block) {
        RotaryTurns<T> turns(dims, options.base, options.layout, back);
        std::vector<T> row(static_cast<std::size_t>(dim));
        const BlockRange range = block_range(length, rotary_steps, block);
        for (Index t = range.begin; t < range.end; ++t) {
          turns.go_to(options.positions.empty() ? options.offset + t
                                                : options.positions[static_cast<std::size_t>(t)]);
          for (Index b = 0; b < x.extent(0); ++b) {
            for (Index h = 0; h < x.extent(1); ++h) {
              const T* from = x.data() + b * x.stride(0) + h * x.stride(1) + t * x.stride(2);
              T* const to = out.data() + b * out.stride(0) + h * out.stride(1) + t * out.stride(2);
              const Index step = out.stride(3);
              if (x.stride(3) != 1 && dim > 1) {
                for (Index c = 0; c < dim; ++c) {
                  row[static_cast<std::size_t>(c)] = from[c * x.stride(3)];
                }
                from = row.data();
              }
              T* const target = step == 1 || dim == 1 ? to : row.data();
              turns.turn(from, target);
              if (target != to) {
                std::copy(from + dims, from + dim, row.data() + dims);
                for (Index c = 0; c < dim; ++c) to[c * step] = row[static_cast<std::size_t>(c)];
              } else if (!same) {
                std::copy(from + dims, from + dim, to + dims);
              }
            }
          }
        }
      },
      options.threads);
}

template <class T>
void rotary_call(const char* function, const NdView<const T, 4>& x, const NdView<T, 4>& out,
                 const RotaryOptions& options, bool back) {
  expect_shape(function, "out", out, x.extents());
  const Index dims = options.dims < 0 ? x.extent(3) : options.dims;
  if (options.dims < -1 || dims % 2 != 0 || dims > x.extent(3)) {
    throw ValueError(error_text(function, "options.dims",
                                "an even number up to " + std::to_string(x.extent(3)), dims));
  }
  if (!(options.base > 0)) {
    throw ValueError(error_text(function, "options.base", "more than 0", options.base));
  }
  if (!options.positions.empty()) {
    expect_size(function, "options.positions", static_cast<Index>(options.positions.size()),
                x.extent(2), "positions, one a step");
  }
  const bool same = x.data() == out.data() && x.strides() == out.strides();
  if (!same) expect_apart(function, "out", out, "x", x);
  if (x.empty()) return;
  rotate_steps<T>(x, out, dims, options, back);
}

}  // namespace detail

/// out = x with its first `dims` channels turned by position: (batch, heads, length, dim), any
/// strides; out may be x itself, and may not overlap it otherwise. Turning by a position of 0
/// leaves everything as it is, and turns add up. ShapeError and ValueError for what does not fit.
template <class T>
void rotary(std::type_identity_t<NdView<const T, 4>> x, NdView<T, 4> out,
            const RotaryOptions& options = {}) {
  detail::rotary_call<T>("quern::attention::rotary", x, out, options, false);
}

/// dx, overwritten, given dout: turned back. dx may be dout itself.
template <class T>
void rotary_vjp(std::type_identity_t<NdView<const T, 4>> dout, NdView<T, 4> dx,
                const RotaryOptions& options = {}) {
  detail::rotary_call<T>("quern::attention::rotary_vjp", dout, dx, options, true);
}

}  // namespace attention
QUERN_NAMESPACE_END

#endif  // QUERN_ATTENTION_ROTARY_HPP
