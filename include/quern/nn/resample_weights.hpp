// SPDX-License-Identifier: Apache-2.0

/// \file
/// Weights of resampling one axis: what each position of the result takes from the source.
///
/// Conventions are PyTorch's, OpenCV's and Pillow's, which agree where they offer the same thing.
/// With step = in / out (or 1 / scale where a scale is given; (in - 1) / (out - 1) with aligned
/// corners) the place of result i is x = step (i + 1/2) - 1/2, or step i with aligned corners.

#ifndef QUERN_NN_RESAMPLE_WEIGHTS_HPP
#define QUERN_NN_RESAMPLE_WEIGHTS_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_view.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numbers>
#include <string>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace nn {

/// How values between samples come about.
enum class Interpolation {
  nearest,        ///< source floor(i step), as PyTorch's nearest (where i step is whole others
                  ///< round it otherwise: OpenCV)
  nearest_exact,  ///< source floor((i + 1/2) step): the pixel whose centre is nearest, as PyTorch's
                  ///< (Pillow's and OpenCV's too, but where two are equally near)
  linear,         ///< in two dimensions bilinear, in three trilinear
  cubic,          ///< Keys' cubic convolution over 4 samples (R. Keys, 1981)
  area,           ///< mean of sources floor(i in/out) … ceil((i+1) in/out) - 1 (adaptive average)
  overlap,        ///< mean weighted by overlap (OpenCV's area when shrinking)
  box,            ///< with antialias only: Pillow's box
  lanczos         ///< with antialias only: Lanczos' kernel over 6 samples
};

/// What is asked of one axis.
struct AxisResampling {
  Interpolation mode = Interpolation::nearest;
  bool align_corners = false;  ///< linear and cubic: the outermost samples' centres coincide
  bool antialias = false;      ///< linear, cubic, box, lanczos: widen the filter when shrinking
  double scale = 0;            ///< result / source as given; 0: from the sizes
  double cubic = 0;            ///< Keys' a; 0: -0.75, or -0.5 with antialias
};

/// Result o = sum over t of weights[o * taps + t] * source[first[o] + t]; windows lie inside.
struct AxisWeights {
  Index in = 0, out = 0, taps = 0;
  std::vector<Index> first;
  std::vector<double> weights;

  [[nodiscard]] double& weight(Index o, Index t) {
    return weights[static_cast<std::size_t>(o * taps + t)];
  }
  [[nodiscard]] double weight(Index o, Index t) const {
    return weights[static_cast<std::size_t>(o * taps + t)];
  }
  [[nodiscard]] bool identity() const {
    if (in != out || taps != 1) return false;
    for (Index o = 0; o < out; ++o) {
      if (first[static_cast<std::size_t>(o)] != o || weight(o, 0) != 1) return false;
    }
    return true;
  }
};

namespace detail {

inline double keys_cubic(double x, double a) {
  x = std::fabs(x);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
  return 0;
}
inline double lanczos3(double x) {
  const auto sinc = [](double y) {
    if (y == 0) return 1.0;
    y *= std::numbers::pi;
    return std::sin(y) / y;
  };
  return x > -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0;
}

/// Collects weights of single samples into windows.
class WindowBuilder {
 public:
  WindowBuilder(Index in, Index out, Index taps) {
    w_.in = in;
    w_.out = out;
    w_.taps = (std::min)(taps, in);
    w_.first.resize(static_cast<std::size_t>(out));
    w_.weights.assign(static_cast<std::size_t>(out * w_.taps), 0.0);
  }
  /// Window of result o from about `first` on, moved inside.
  void begin(Index o, Index first) {
    o_ = o;
    w_.first[static_cast<std::size_t>(o)] = (std::clamp)(first, Index{0}, w_.in - w_.taps);
  }
  /// Sample at `place`, which is moved inside first; places of one window that coincide add up.
  void add(Index place, double weight) {
    place = (std::clamp)(place, Index{0}, w_.in - 1);
    w_.weight(o_, place - w_.first[static_cast<std::size_t>(o_)]) += weight;
  }
  [[nodiscard]] AxisWeights take() { return std::move(w_); }

 private:
  AxisWeights w_;
  Index o_ = 0;
};

/// In single precision, as PyTorch finds its neighbours for every type: at places that are whole
/// numbers but for rounding, the choice is the same.
inline AxisWeights nearest_weights(Index in, Index out, const AxisResampling& r) {
  WindowBuilder builder(in, out, 1);
  const float step = r.scale > 0 ? static_cast<float>(1.0 / r.scale)
                                 : static_cast<float>(in) / static_cast<float>(out);
  for (Index o = 0; o < out; ++o) {
    Index place = o;
    if (r.mode == Interpolation::nearest_exact) {
      place = static_cast<Index>(std::floor((static_cast<float>(o) + 0.5F) * step));
    } else if (out == 2 * in) {
      place = o / 2;
    } else if (out != in) {
      place = static_cast<Index>(std::floor(static_cast<float>(o) * step));
    }
    builder.begin(o, place);
    builder.add(place, 1);
  }
  return builder.take();
}

/// Step from one result to the next in the source.
inline double axis_step(Index in, Index out, const AxisResampling& r) {
  if (r.align_corners) {
    return out > 1 ? static_cast<double>(in - 1) / static_cast<double>(out - 1) : 0;
  }
  return r.scale > 0 ? 1 / r.scale : static_cast<double>(in) / static_cast<double>(out);
}

inline AxisWeights smooth_weights(Index in, Index out, const AxisResampling& r) {
  const bool cubic = r.mode == Interpolation::cubic;
  WindowBuilder builder(in, out, cubic ? 4 : 2);
  const double step = axis_step(in, out, r), a = r.cubic != 0 ? r.cubic : -0.75;
  for (Index o = 0; o < out; ++o) {
    const double at = static_cast<double>(o);
    double x = r.align_corners ? step * at : step * (at + 0.5) - 0.5;
    if (!cubic && x < 0) x = 0;
    const Index whole = static_cast<Index>(std::floor(x));
    const double part = x - static_cast<double>(whole);
    if (cubic) {
      builder.begin(o, whole - 1);
      for (Index t = -1; t <= 2; ++t) {
        builder.add(whole + t, keys_cubic(part - static_cast<double>(t), a));
      }
    } else {
      builder.begin(o, whole);
      builder.add(whole, 1 - part);
      builder.add(whole + 1, part);
    }
  }
  return builder.take();
}

inline AxisWeights mean_weights(Index in, Index out) {
  WindowBuilder builder(in, out, in / out + 2);
  for (Index o = 0; o < out; ++o) {
    const Index begin = o * in / out, end = ((o + 1) * in + out - 1) / out;
    builder.begin(o, begin);
    for (Index i = begin; i < end; ++i) builder.add(i, 1 / static_cast<double>(end - begin));
  }
  return builder.take();
}

inline AxisWeights overlap_weights(Index in, Index out) {
  WindowBuilder builder(in, out, in / out + 2);
  const double step = static_cast<double>(in) / static_cast<double>(out);
  for (Index o = 0; o < out; ++o) {
    // In whole numbers, so that touching pixels do not leave a sliver behind.
    const Index begin = o * in / out, end = ((o + 1) * in + out - 1) / out;
    builder.begin(o, begin);
    for (Index i = begin; i < end; ++i) {
      const Index low = (std::max)(i * out, o * in), high = (std::min)((i + 1) * out, (o + 1) * in);
      builder.add(i, static_cast<double>(high - low) / static_cast<double>(out) / step);
    }
  }
  return builder.take();
}

inline double filter_radius(Interpolation mode) {
  if (mode == Interpolation::linear) return 1;
  if (mode == Interpolation::cubic) return 2;
  return mode == Interpolation::lanczos ? 3 : 0.5;
}
inline double filter_value(Interpolation mode, double x, double a) {
  if (mode == Interpolation::linear) return (std::max)(0.0, 1 - std::fabs(x));
  if (mode == Interpolation::cubic) return keys_cubic(x, a);
  if (mode == Interpolation::lanczos) return lanczos3(x);
  return x > -0.5 && x <= 0.5 ? 1 : 0;
}

inline AxisWeights antialiased_weights(Index in, Index out, const AxisResampling& r) {
  const double step = axis_step(in, out, r), wide = (std::max)(step, 1.0);
  const double radius = wide * filter_radius(r.mode), a = r.cubic != 0 ? r.cubic : -0.5;
  WindowBuilder builder(in, out, static_cast<Index>(std::ceil(radius)) * 2 + 1);
  std::vector<double> taps;
  for (Index o = 0; o < out; ++o) {
    const double centre = step * (static_cast<double>(o) + 0.5);
    const Index begin = (std::max)(static_cast<Index>(centre - radius + 0.5), Index{0});
    const Index end = (std::min)(static_cast<Index>(centre + radius + 0.5), in);
    builder.begin(o, begin);
    taps.clear();
    double sum = 0;
    for (Index i = begin; i < end; ++i) {
      taps.push_back(filter_value(r.mode, (static_cast<double>(i) - centre + 0.5) / wide, a));
      sum += taps.back();
    }
    for (Index i = begin; i < end; ++i) {
      const double value = taps[static_cast<std::size_t>(i - begin)];
      builder.add(i, sum != 0 ? value / sum : value);
    }
  }
  return builder.take();
}

}  // namespace detail

/// Scales that a caller may give.
inline constexpr double least_scale = 1e-9, most_scale = 1e9;

/// Weights of an axis of \p in samples resampled to \p out. ValueError for sizes below 1, and for
/// options that do not go together (align_corners or antialias where there is none).
[[nodiscard]] inline AxisWeights axis_weights(Index in, Index out, const AxisResampling& r) {
  constexpr const char* function = "quern::nn::axis_weights";
  expect_in_range(function, "in", in, Index{1}, Index{1} << 40);
  expect_in_range(function, "out", out, Index{1}, Index{1} << 40);
  if (r.scale != 0) expect_in_range(function, "scale", r.scale, least_scale, most_scale);
  if (!is_finite_bits(r.cubic)) {
    throw ValueError(error_text(function, "cubic", "a finite number", r.cubic));
  }
  const bool smooth = r.mode == Interpolation::linear || r.mode == Interpolation::cubic;
  const bool filter_only = r.mode == Interpolation::box || r.mode == Interpolation::lanczos;
  if (r.align_corners && (!smooth || r.antialias)) {
    throw ValueError(
        error_text(function, "align_corners", "linear or cubic without antialias", "true"));
  }
  if (r.antialias != filter_only && !smooth) {
    throw ValueError(error_text(function, "antialias",
                                "false, or linear, cubic, box or lanczos (which need it)",
                                r.antialias ? "true" : "false"));
  }
  if (r.antialias) return detail::antialiased_weights(in, out, r);
  if (smooth) return detail::smooth_weights(in, out, r);
  if (r.mode == Interpolation::area) return detail::mean_weights(in, out);
  if (r.mode == Interpolation::overlap) return detail::overlap_weights(in, out);
  return detail::nearest_weights(in, out, r);
}

/// The transposed map: from results to what they came from. That is what backward applies.
[[nodiscard]] inline AxisWeights transposed(const AxisWeights& w) {
  AxisWeights turned;
  turned.in = w.out;
  turned.out = w.in;
  std::vector<Index> begin(static_cast<std::size_t>(w.in), w.out);
  std::vector<Index> end(static_cast<std::size_t>(w.in), 0);
  const auto each = [&](auto&& f) {
    for (Index o = 0; o < w.out; ++o) {
      for (Index t = 0; t < w.taps; ++t) {
        if (w.weight(o, t) != 0) f(o, w.first[static_cast<std::size_t>(o)] + t, w.weight(o, t));
      }
    }
  };
  each([&](Index o, Index i, double) {
    begin[static_cast<std::size_t>(i)] = (std::min)(begin[static_cast<std::size_t>(i)], o);
    end[static_cast<std::size_t>(i)] = (std::max)(end[static_cast<std::size_t>(i)], o + 1);
  });
  turned.taps = 1;
  for (std::size_t i = 0; i < begin.size(); ++i) {
    turned.taps = (std::max)(turned.taps, end[i] - begin[i]);
  }
  turned.first.resize(begin.size());
  Index least = 0;  // of sources that nothing takes: the window may be anywhere, but in order
  for (std::size_t i = 0; i < begin.size(); ++i) {
    if (begin[i] < end[i]) least = (std::max)(least, (std::min)(begin[i], w.out - turned.taps));
    turned.first[i] = least;
  }
  turned.weights.assign(static_cast<std::size_t>(turned.out * turned.taps), 0.0);
  each([&](Index o, Index i, double weight) {
    turned.weight(i, o - turned.first[static_cast<std::size_t>(i)]) += weight;
  });
  return turned;
}

}  // namespace nn
QUERN_NAMESPACE_END

#endif  // QUERN_NN_RESAMPLE_WEIGHTS_HPP
