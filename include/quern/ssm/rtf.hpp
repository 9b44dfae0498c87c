// SPDX-License-Identifier: Apache-2.0

/// \file
/// Rational transfer functions (Parnichkun et al., arXiv:2405.06147): for each channel K^(w) = h0 +
/// b(w) / a(w), as a convolution and as the recurrence that it is; both right for any length and
/// for poles next to the unit circle.
///
/// The authors' kernel wraps the tap after the last onto the first, and takes an odd length for an
/// even one; their recurrence solves with the transpose. Here tap 0 is h0 whatever wraps, odd
/// lengths are transformed as they are, and the readout is solved for from its own side.

#ifndef QUERN_SSM_RTF_HPP
#define QUERN_SSM_RTF_HPP

#include "quern/core/buffer.hpp"
#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/core/parallel.hpp"
#include "quern/ssm/convolution.hpp"
#include "quern/ssm/detail/dplr.hpp"
#include "quern/ssm/detail/rtf_recurrence.hpp"
#include "quern/ssm/discretize.hpp"
#include "quern/ssm/rtf_types.hpp"
#include "quern/ssm/sequence.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <type_traits>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace ssm {
namespace detail {

/// b(w) and a(w) of up to 8 channels at nodes, and what follows from them.
class RtfTile {
 public:
  static constexpr std::size_t lanes = kernels::fft_lanes<double>;

  template <class T>
  RtfTile(const CircleNodes& nodes, const RtfParameters<T>& p, const RtfStable& stable,
          const RtfOptions& options, Index first, Index last)
      : nodes_(nodes), first_(first), last_(last), shift_(options.delayed ? 1 : 0) {
    const std::size_t size = nodes.fft().tile_size();
    above_ = core::Buffer<double>(size, core::Fill::zero);
    below_ = core::Buffer<double>(size, core::Fill::zero);
    for (std::size_t lane = 0; lane < lanes; ++lane) below_[lane] = 1;
    for (Index k = first; k < last; ++k) {
      for (Index i = 0; i < p.a.extent(1); ++i) {
        below_[place(i + 1, k)] += radius(i + 1) * stable.a(k, i);
        above_[place(i + shift_, k)] += radius(i + shift_) * static_cast<double>(p.b(k, i));
      }
    }
    nodes.fft().forward(above_.data());
    nodes.fft().forward(below_.data());
  }

  /// Calls store(t, k, value) for the taps.
  template <class Store>
  void taps(Index length, Store&& store) {
    core::Buffer<double> z(nodes_.fft().tile_size(), core::Fill::zero);
    each([&](std::size_t at) {
      const Cx ratio = get(above_, at) * inverse(get(below_, at));
      z[at] = ratio.re, z[at + lanes] = ratio.im;
    });
    nodes_.fft().inverse(z.data());
    for (Index t = 0; t < length; ++t) {
      for (Index k = first_; k < last_; ++k) store(t, k, nodes_.tap_scale(t) * z[place(t, k)]);
    }
  }

  /// Gradients of b and a for those of the taps, load(t, k).
  template <class Load, class Add>
  void taps_vjp(Index length, Index order, Load&& load, Add&& add) {
    core::Buffer<double> z(nodes_.fft().tile_size(), core::Fill::zero);
    for (Index t = 0; t < length; ++t) {
      for (Index k = first_; k < last_; ++k) z[place(t, k)] = nodes_.tap_scale(t) * load(t, k);
    }
    nodes_.fft().forward(z.data());
    each([&](std::size_t at) {
      const Cx inv = inverse(get(below_, at)), ratio = get(above_, at) * inv;
      const Cx up = conj(inv) * get(z, at), down = Cx{} - conj(ratio) * up;
      above_[at] = up.re, above_[at + lanes] = up.im;
      below_[at] = down.re, below_[at + lanes] = down.im;
    });
    nodes_.fft().inverse(above_.data());
    nodes_.fft().inverse(below_.data());
    for (Index k = first_; k < last_; ++k) {
      for (Index i = 0; i < order; ++i) {
        add(k, i, radius(i + shift_) * above_[place(i + shift_, k)],
            radius(i + 1) * below_[place(i + 1, k)]);
      }
    }
  }

 private:
  [[nodiscard]] std::size_t place(Index t, Index channel) const {
    // A transform shorter than the order is evaluated on all of the polynomial.
    return static_cast<std::size_t>(t) % nodes_.points() * 2 * lanes +
           static_cast<std::size_t>(channel - first_);
  }
  [[nodiscard]] double radius(Index power) const {
    return std::pow(std::abs(nodes_.w(0)), static_cast<double>(power));
  }
  static Cx get(const core::Buffer<double>& z, std::size_t at) { return {z[at], z[at + lanes]}; }
  template <class Body>
  void each(Body&& body) const {
    for (std::size_t p = 0; p < nodes_.points(); ++p) {
      for (std::size_t lane = 0; lane < lanes; ++lane) body(p * 2 * lanes + lane);
    }
  }

  const CircleNodes& nodes_;
  Index first_, last_, shift_;
  core::Buffer<double> above_, below_;
};

template <class T>
CircleNodes rtf_nodes(Index length, Index order, const RtfOptions& options) {
  constexpr bool single = std::is_same_v<T, float>;
  return CircleNodes((std::max)(length, order + 2), single ? 1e-8 : 1e-15, single ? 2 : 4,
                     options.truncated, false);
}

/// Calls body(tile, first channel, last channel).
template <class T, class Body>
void for_rtf_tiles(const RtfParameters<T>& p, const RtfStable& stable, Index length,
                   const RtfOptions& options, Body&& body) {
  constexpr Index lanes = static_cast<Index>(RtfTile::lanes);
  const Index channels = p.a.extent(0);
  const CircleNodes nodes = rtf_nodes<T>(length, p.a.extent(1), options);
  parallel_for((channels + lanes - 1) / lanes,
               [&](Index k) {
                 const Index first = k * lanes, last = (std::min)(channels, first + lanes);
                 RtfTile tile(nodes, p, stable, options, first, last);
                 body(tile, first, last);
               },
               options.threads);
}

template <class T>
void rtf_kernel_rows(const RtfParameters<T>& p, const RtfStable& stable, const NdView<T, 2>& kernel,
                     const RtfOptions& options) {
  const Index length = kernel.extent(0);
  for_rtf_tiles(p, stable, length, options, [&](RtfTile& tile, Index first, Index last) {
    tile.taps(length,
              [&](Index t, Index k, double value) { kernel(t, k) = static_cast<T>(value); });
    for (Index k = first; k < last && length > 0; ++k) {
      // With a delay, all that is at tap 0 has wrapped around.
      if (options.delayed) kernel(0, k) = T{0};
      if (!p.h0.is_null()) kernel(0, k) += p.h0(k);
    }
  });
}

template <class T>
void rtf_kernel_rows_vjp(const RtfParameters<T>& p, const RtfStable& stable,
                         const NdView<const T, 2>& dkernel, const RtfGradients<T>& g,
                         const RtfOptions& options) {
  const Index length = dkernel.extent(0), order = p.a.extent(1);
  for_rtf_tiles(p, stable, length, options, [&](RtfTile& tile, Index first, Index last) {
    tile.taps_vjp(
        length, order,
        [&](Index t, Index k) {
          return options.delayed && t == 0 ? 0 : static_cast<double>(dkernel(t, k));
        },
        [&](Index k, Index i, double db, double da) {
          if (!g.b.is_null()) g.b(k, i) += static_cast<T>(db);
          if (!g.a.is_null()) g.a(k, i) += static_cast<T>(da * stable.scale(k, i));
        });
    for (Index k = first; k < last && length > 0 && !g.h0.is_null(); ++k) {
      g.h0(k) += dkernel(0, k);
    }
  });
}

}  // namespace detail

/// The kernel of the convolution, (length, channels), h0 included. ShapeError where shapes do not
/// fit or the length passes options.truncated; ValueError for unstable denominators (unless
/// clipped) and for what is not finite.
template <class T>
void rtf_kernel(const std::type_identity_t<RtfParameters<T>>& parameters, NdView<T, 2> kernel,
                const RtfOptions& options = {}) {
  constexpr const char* function = "quern::ssm::rtf_kernel";
  detail::check_rtf(function, parameters, options, kernel.extent(0), false);
  expect_size(function, "kernel", kernel.extent(1), parameters.a.extent(0), "channels");
  const detail::RtfStable stable(function, parameters, options.clip_poles);
  detail::rtf_kernel_rows(parameters, stable, kernel, options);
}

/// The readout c (channels, order) of the recurrence whose kernel, cut after `length` taps, is that
/// of a truncated b: c (I - A^length) = b, A the companion matrix of a. With it as b, and truncated
/// = 0, sequences of any length and states are possible.
template <class T>
void rtf_readout(const std::type_identity_t<RtfParameters<T>>& parameters, Index length,
                 NdView<T, 2> c) {
  constexpr const char* function = "quern::ssm::rtf_readout";
  expect_shape(function, "b", parameters.b, parameters.a.extents());
  expect_shape(function, "c", c, parameters.a.extents());
  if (length < 1) throw ValueError(error_text(function, "length", "at least 1", length));
  const Index order = c.extent(1);
  for (Index k = 0; k < c.extent(0); ++k) {
    detail::Matrix square = detail::Matrix::Zero(order, order);
    detail::Matrix power = detail::Matrix::Identity(order, order);
    detail::Matrix b(order, 1);
    for (Index i = 0; i < order; ++i) {
      square(0, i) = -static_cast<double>(parameters.a(k, i));
      if (i > 0) square(i, i - 1) = 1;
      b(i, 0) = static_cast<double>(parameters.b(k, i));
    }
    for (Index n = length; n > 0; n /= 2) {
      if (n % 2 == 1) power = (power * square).eval();
      if (n > 1) square = (square * square).eval();
    }
    const detail::Matrix left = (detail::Matrix::Identity(order, order) - power).transpose();
    const detail::Matrix solved = left.partialPivLu().solve(b);
    for (Index i = 0; i < order; ++i) c(k, i) = static_cast<T>(solved(i, 0));
  }
}

/// y = RTF(u); u and y are (batch, length, channels). Without states it is a convolution; with
/// `initial` (null: 0) or `last` (null: left out), (sequences, channels order), the latest value
/// first, it runs as the recurrence. Errors as rtf_kernel, and ValueError with the place for u that
/// is not finite.
template <class T>
void rtf(std::type_identity_t<NdView<const T, 3>> u,
         const std::type_identity_t<RtfParameters<T>>& parameters,
         std::type_identity_t<NdView<const T, 2>> initial, NdView<T, 3> y,
         std::type_identity_t<NdView<T, 2>> last = {}, const RtfOptions& options = {}) {
  constexpr const char* function = "quern::ssm::rtf";
  const detail::Sequences sequences(function, options.offsets, u.extent(0), u.extent(1));
  const bool states = !initial.is_null() || !last.is_null();
  detail::check_rtf(function, parameters, options, sequences.longest(), states);
  const Index channels = parameters.a.extent(0), width = channels * parameters.a.extent(1);
  expect_size(function, "u", u.extent(2), channels, "channels");
  expect_shape(function, "y", y, u.extents());
  expect_apart(function, "y", y, "u", u);
  const detail::RtfStable stable(function, parameters, options.clip_poles);
  if (states) {
    detail::expect_state(function, "initial", initial, sequences.size(), width);
    detail::expect_state(function, "last", last, sequences.size(), width);
    if (options.check_finite) {
      detail::expect_finite_values(function, "u", u);
      detail::expect_finite_values(function, "initial", initial);
    }
    detail::rtf_recurrence<T>(parameters, stable, {u, initial, y, last, sequences}, options);
    return;
  }
  NdArray<T, 2> kernel({(std::max)(Index{1}, sequences.longest()), channels}, core::Fill::none);
  detail::rtf_kernel_rows<T>(parameters, stable, kernel.view(), options);
  causal_convolution<T>(u, kernel.view(), y, {},
                        {options.offsets, options.threads, options.check_finite, function});
}

/// Gradients of rtf: du and dinitial are overwritten, those of parameters added to; null ones are
/// left out. (Where poles were clipped, by how much counts as given.)
template <class T>
void rtf_vjp(std::type_identity_t<NdView<const T, 3>> u,
             const std::type_identity_t<RtfParameters<T>>& parameters,
             std::type_identity_t<NdView<const T, 2>> initial, NdView<const T, 3> dy,
             std::type_identity_t<NdView<const T, 2>> dlast, std::type_identity_t<NdView<T, 3>> du,
             const std::type_identity_t<RtfGradients<T>>& gradients,
             std::type_identity_t<NdView<T, 2>> dinitial = {}, const RtfOptions& options = {}) {
  constexpr const char* function = "quern::ssm::rtf_vjp";
  const detail::Sequences sequences(function, options.offsets, u.extent(0), u.extent(1));
  const bool states = !initial.is_null() || !dlast.is_null() || !dinitial.is_null();
  detail::check_rtf(function, parameters, options, sequences.longest(), states);
  const Index channels = parameters.a.extent(0), width = channels * parameters.a.extent(1);
  expect_size(function, "u", u.extent(2), channels, "channels");
  expect_shape(function, "dy", dy, u.extents());
  if (!du.is_null()) expect_shape(function, "du", du, u.extents());
  const detail::RtfStable stable(function, parameters, options.clip_poles);
  if (states) {
    detail::expect_state(function, "initial", initial, sequences.size(), width);
    detail::expect_state(function, "dlast", dlast, sequences.size(), width);
    detail::expect_state(function, "dinitial", dinitial, sequences.size(), width);
    if (options.check_finite) detail::expect_finite_values(function, "initial", initial);
    detail::rtf_recurrence_vjp<T>(
        parameters, stable, {u, initial, dy, dlast, du, dinitial, sequences}, gradients, options);
    return;
  }
  NdArray<T, 2> kernel({(std::max)(Index{1}, sequences.longest()), channels}, core::Fill::none);
  NdArray<T, 2> dkernel(kernel.extents());
  detail::rtf_kernel_rows<T>(parameters, stable, kernel.view(), options);
  causal_convolution_vjp<T>(u, kernel.view(), dy, du, dkernel.view(), {}, {},
                            {options.offsets, options.threads, options.check_finite, function});
  detail::rtf_kernel_rows_vjp<T>(parameters, stable, dkernel.view(), gradients, options);
}

/// One position: y (batch, channels) from u (batch, channels); `state` (batch, channels order)
/// moves on.
template <class T>
void rtf_step(std::type_identity_t<NdView<const T, 2>> u,
              const std::type_identity_t<RtfParameters<T>>& parameters, NdView<T, 2> state,
              std::type_identity_t<NdView<T, 2>> y, const RtfOptions& options = {}) {
  const auto as_sequence = [](const auto& v) {
    using View = std::remove_cvref_t<decltype(v)>;
    return NdView<typename View::element_type, 3>(v.data(), {v.extent(0), 1, v.extent(1)},
                                                  {v.stride(0), v.extent(1), v.stride(1)});
  };
  rtf<T>(as_sequence(u), parameters, state, as_sequence(y), state, options);
}

}  // namespace ssm
QUERN_NAMESPACE_END

#endif  // QUERN_SSM_RTF_HPP
