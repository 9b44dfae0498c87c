// SPDX-License-Identifier: Apache-2.0

/// \file
/// Diagonal plus low rank state spaces, A = diag(Lambda) - sum_k P_k P_k^*, under the bilinear
/// method: the convolution's kernel by its generating function (Cauchy sums and Woodbury's
/// identity), and the gradients of that.
///
/// K^(w) = sum_t K_t w^t is evaluated on a circle inside the unit circle, where w^M is 1e-8 (1e-15
/// for double, with four times the points): taps beyond M fold back onto the first ones by that
/// factor. So no power of the transition is needed, poles may lie as near to the unit circle as
/// they like, and any length runs on a power of two. All of it is in double.

#ifndef QUERN_SSM_DETAIL_DPLR_HPP
#define QUERN_SSM_DETAIL_DPLR_HPP

#include "quern/core/buffer.hpp"
#include "quern/core/config.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/core/parallel.hpp"
#include "quern/kernels/cauchy_types.hpp"
#include "quern/kernels/fft.hpp"
#include "quern/kernels/kernels.hpp"
#include "quern/ssm/detail/complex_number.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <complex>
#include <cstddef>
#include <numbers>
#include <type_traits>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace ssm {
namespace detail {

/// The points where a generating function is evaluated, and the transform back to taps.
class CircleNodes {
 public:
  /// For `length` taps in precision `aliasing`; `exact` > 0: that many points on the unit circle.
  /// `half`: values at conjugate points are conjugates, so only one of each pair is worked out.
  CircleNodes(Index length, double aliasing, Index oversampling, Index exact, bool half)
      : fft_(exact > 0 ? static_cast<std::size_t>(exact)
                       : static_cast<std::size_t>(oversampling) *
                             std::bit_ceil(static_cast<std::size_t>((std::max)(length, Index{1})))),
        half_(half) {
    const double points = static_cast<double>(fft_.length());
    log_radius_ = exact > 0 ? 0 : std::log(aliasing) / points;
  }

  [[nodiscard]] const kernels::Fft<double>& fft() const { return fft_; }
  [[nodiscard]] std::size_t points() const { return fft_.length(); }
  /// Nodes that are worked out: frequencies 0 … count() - 1.
  [[nodiscard]] std::size_t count() const { return half_ ? points() / 2 + 1 : points(); }
  [[nodiscard]] std::complex<double> w(std::size_t frequency) const {
    const double turn =
        -2 * std::numbers::pi * static_cast<double>(frequency) / static_cast<double>(points());
    return std::polar(std::exp(log_radius_), turn);
  }
  /// What the transform of tap t is multiplied with: 1 / (points radius^t).
  [[nodiscard]] double tap_scale(Index t) const {
    return std::exp(-log_radius_ * static_cast<double>(t)) / static_cast<double>(points());
  }
  /// How often a node's value counts in Re of the sum over all points.
  [[nodiscard]] double weight(std::size_t frequency) const {
    return !half_ || frequency == 0 || 2 * frequency == points() ? 1 : 2;
  }
  /// The node of a frequency, and whether its value there is the conjugate.
  [[nodiscard]] std::size_t node_of(std::size_t frequency, bool& conjugate) const {
    conjugate = half_ && frequency >= count();
    return conjugate ? points() - frequency : frequency;
  }

 private:
  kernels::Fft<double> fft_;
  bool half_;
  double log_radius_ = 0;
};

/// Sums k_ij over rows (C, P_1^*, …) and columns (B, P_1, …) to the generating function, by
/// Woodbury's identity: k_00 - h k_0P (I + h k_PP)^-1 k_P0. Rank 0, 1 or 2.
struct Woodbury {
  Index rank = 0;
  Cx x[2], y[2];  ///< k_0P times the inverse, the inverse times k_P0
  Cx value;

  Woodbury(Index r, Cx h, const Cx* k) : rank(r), value(k[0]) {
    if (rank == 1) {
      const Cx inv = inverse(Cx{1, 0} + h * k[3]);
      x[0] = k[1] * inv;
      y[0] = inv * k[2];
    } else if (rank == 2) {
      const Cx a = Cx{1, 0} + h * k[4], b = h * k[5], c = h * k[7], d = Cx{1, 0} + h * k[8];
      const Cx det = inverse(a * d - b * c);
      x[0] = (k[1] * d - k[2] * c) * det;
      x[1] = (k[2] * a - k[1] * b) * det;
      y[0] = (d * k[3] - b * k[6]) * det;
      y[1] = (a * k[6] - c * k[3]) * det;
    }
    for (Index j = 0; j < rank; ++j) value = value - h * k[1 + j] * y[j];
  }
  /// Gradients of all k_ij for that of the value.
  void vjp(Cx h, Cx g, Cx* dk) const {
    const Index width = rank + 1;
    dk[0] = g;
    for (Index i = 0; i < rank; ++i) {
      dk[1 + i] = Cx{} - conj(h * y[i]) * g;
      dk[(1 + i) * width] = Cx{} - conj(h * x[i]) * g;
      for (Index j = 0; j < rank; ++j) {
        dk[(1 + i) * width + 1 + j] = conj(h * h * x[i] * y[j]) * g;
      }
    }
  }
};

/// The modes of up to cauchy_lanes<double> channels, all of the spectrum, laid out for the kernels.
/// Entry (i, n) of rows and columns: see Woodbury.
class DplrTile {
 public:
  using Complex = std::complex<double>;
  static constexpr std::size_t lanes = kernels::cauchy_lanes<double>;

  DplrTile(Index modes, Index rank)
      : modes_(modes), rank_(rank), width_(rank + 1), each_(width_ * width_) {
    const auto size = [&](Index n) { return static_cast<std::size_t>(n) * 2 * lanes; };
    for (auto* b : {&lambda_, &dlambda_}) {
      *b = core::Buffer<double>(size(modes), core::Fill::zero);
    }
    for (auto* b : {&products_, &dproducts_}) {
      *b = core::Buffer<double>(size(modes * each_), core::Fill::zero);
    }
    dt_ = core::Buffer<double>(lanes);
    ddt_ = core::Buffer<double>(lanes, core::Fill::zero);
    // Lanes without a channel: any numbers that give no infinity.
    for (std::size_t k = 0; k < lanes; ++k) dt_[k] = 1;
    for (Index n = 0; n < modes; ++n) {
      for (std::size_t k = 0; k < lanes; ++k) set(lambda_, n, k, Complex(-1));
    }
  }

  /// Mode n of a lane: its pole, rows and columns (rank + 1 each).
  void set_mode(Index n, std::size_t lane, Complex lambda, const Complex* row,
                const Complex* column) {
    set(lambda_, n, lane, lambda);
    for (Index i = 0; i < width_; ++i) {
      for (Index j = 0; j < width_; ++j) {
        set(products_, n * each_ + i * width_ + j, lane, row[i] * column[j]);
      }
    }
  }
  void set_step(std::size_t lane, double dt) { dt_[lane] = dt; }

  /// Values of the generating function at nodes, as taps (length of `taps`, lanes): Re of the
  /// transform.
  template <class Store>
  void taps(const CircleNodes& nodes, Index length, Store&& store) {
    core::Buffer<double> z(nodes.fft().tile_size(), core::Fill::zero),
        values(nodes.count() * 2 * lanes);
    for_chunks(nodes, [&](std::size_t begin, std::size_t count) {
      sums(count);
      for (std::size_t l = 0; l < count; ++l) {
        for (std::size_t lane = 0; lane < lanes; ++lane) {
          const Cx value = woodbury(l, lane).value;
          values[(begin + l) * 2 * lanes + lane] = value.re;
          values[((begin + l) * 2 + 1) * lanes + lane] = value.im;
        }
      }
    });
    for (std::size_t p = 0; p < nodes.points(); ++p) {
      bool conjugate = false;
      const std::size_t l = nodes.node_of(nodes.fft().frequencies()[p], conjugate);
      for (std::size_t lane = 0; lane < lanes; ++lane) {
        const double im = values[(l * 2 + 1) * lanes + lane];
        z[p * 2 * lanes + lane] = values[l * 2 * lanes + lane];
        z[(p * 2 + 1) * lanes + lane] = conjugate ? -im : im;
      }
    }
    nodes.fft().inverse(z.data());
    for (Index t = 0; t < length; ++t) {
      store(t, nodes.tap_scale(t), z.data() + static_cast<std::size_t>(t) * 2 * lanes);
    }
  }

  /// Gradients of all products, poles and steps for those of the taps: load(t, scale, to) writes
  /// the scaled gradients of tap t to the first `lanes` numbers.
  template <class Load>
  void taps_vjp(const CircleNodes& nodes, Index length, Load&& load) {
    core::Buffer<double> z(nodes.fft().tile_size(), core::Fill::zero), g(nodes.count() * 2 * lanes);
    for (Index t = 0; t < length; ++t) {
      load(t, nodes.tap_scale(t), z.data() + static_cast<std::size_t>(t) * 2 * lanes);
    }
    nodes.fft().forward(z.data());
    for (std::size_t p = 0; p < nodes.points(); ++p) {
      const std::size_t l = nodes.fft().frequencies()[p];
      if (l >= nodes.count()) continue;
      for (std::size_t i = 0; i < 2 * lanes; ++i) {
        g[l * 2 * lanes + i] = nodes.weight(l) * z[p * 2 * lanes + i];
      }
    }
    for_chunks(nodes, [&](std::size_t begin, std::size_t count) {
      sums(count);
      for (std::size_t l = 0; l < count; ++l) {
        for (std::size_t lane = 0; lane < lanes; ++lane) {
          const std::size_t at = (begin + l) * 2 * lanes + lane;
          Cx dk[9];
          woodbury(l, lane).vjp(half(l), {g[at], g[at + lanes]}, dk);
          for (Index k = 0; k < each_; ++k) {
            const std::size_t place =
                (l * static_cast<std::size_t>(each_) + static_cast<std::size_t>(k)) * 2 * lanes +
                lane;
            dsums_[place] = dk[k].re, dsums_[place + lanes] = dk[k].im;
          }
        }
      }
      kernels::CauchyTask<double> task = this->task(count);
      QUERN_DISPATCH(cauchy_sums_vjp<double>(task));
    });
  }

  /// Gradient of a mode's pole, and of its rows and columns given what they are.
  [[nodiscard]] Complex dlambda(Index n, std::size_t lane) const { return get(dlambda_, n, lane); }
  void mode_gradients(Index n, std::size_t lane, const Complex* row, const Complex* column,
                      Complex* drow, Complex* dcolumn) const {
    for (Index i = 0; i < width_; ++i) drow[i] = dcolumn[i] = 0;
    for (Index i = 0; i < width_; ++i) {
      for (Index j = 0; j < width_; ++j) {
        const Complex g = get(dproducts_, n * each_ + i * width_ + j, lane);
        drow[i] += std::conj(column[j]) * g;
        dcolumn[j] += std::conj(row[i]) * g;
      }
    }
  }
  [[nodiscard]] double ddt(std::size_t lane) const { return ddt_[lane]; }

 private:
  static constexpr std::size_t chunk = 128;

  static void set(core::Buffer<double>& to, Index n, std::size_t lane, Complex z) {
    to[static_cast<std::size_t>(n) * 2 * lanes + lane] = z.real();
    to[(static_cast<std::size_t>(n) * 2 + 1) * lanes + lane] = z.imag();
  }
  static Complex get(const core::Buffer<double>& from, Index n, std::size_t lane) {
    return {from[static_cast<std::size_t>(n) * 2 * lanes + lane],
            from[(static_cast<std::size_t>(n) * 2 + 1) * lanes + lane]};
  }
  [[nodiscard]] Cx half(std::size_t l) const { return {node_[4 * l + 2], node_[4 * l + 3]}; }
  [[nodiscard]] Woodbury woodbury(std::size_t l, std::size_t lane) const {
    Cx k[9];
    for (Index i = 0; i < each_; ++i) {
      const std::size_t at =
          (l * static_cast<std::size_t>(each_) + static_cast<std::size_t>(i)) * 2 * lanes + lane;
      k[i] = {sums_[at], sums_[at + lanes]};
    }
    return {rank_, half(l), k};
  }
  [[nodiscard]] kernels::CauchyTask<double> task(std::size_t nodes) {
    kernels::CauchyTask<double> t;
    t.modes = static_cast<std::size_t>(modes_);
    t.nodes = nodes;
    t.products_each = static_cast<std::size_t>(each_);
    t.lambda = lambda_.data(), t.dt = dt_.data(), t.products = products_.data();
    t.node = node_.data();
    t.sums = sums_.data(), t.dsums = dsums_.data();
    t.dproducts = dproducts_.data(), t.dlambda = dlambda_.data(), t.ddt = ddt_.data();
    return t;
  }
  void sums(std::size_t nodes) {
    const kernels::CauchyTask<double> task = this->task(nodes);
    QUERN_DISPATCH(cauchy_sums<double>(task));
  }
  /// Calls body(first node, count) with node_ filled, a chunk at a time.
  template <class Body>
  void for_chunks(const CircleNodes& nodes, Body&& body) {
    node_.resize(4 * chunk);
    for (auto* b : {&sums_, &dsums_}) {
      b->reset(chunk * static_cast<std::size_t>(each_) * 2 * lanes);
    }
    for (std::size_t begin = 0; begin < nodes.count(); begin += chunk) {
      const std::size_t count = (std::min)(chunk, nodes.count() - begin);
      for (std::size_t l = 0; l < count; ++l) {
        const Complex w = nodes.w(begin + l);
        node_[4 * l] = 1 - w.real(), node_[4 * l + 1] = -w.imag();
        node_[4 * l + 2] = (1 + w.real()) / 2, node_[4 * l + 3] = w.imag() / 2;
      }
      body(begin, count);
    }
  }

  Index modes_, rank_, width_, each_;
  core::Buffer<double> lambda_, products_, dt_, dlambda_, dproducts_, ddt_, sums_, dsums_;
  std::vector<double> node_;
};

}  // namespace detail
}  // namespace ssm
QUERN_NAMESPACE_END

#endif  // QUERN_SSM_DETAIL_DPLR_HPP
