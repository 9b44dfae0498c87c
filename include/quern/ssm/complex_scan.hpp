// SPDX-License-Identifier: Apache-2.0

/// \file
/// The selective scan with complex poles: forward and exact gradients.
///
///   h_t = e^(dt_t a) h_(t-1) + dt_t u_t b,   y_t = (2 Re(h_t . c) + skip u_t) silu(z_t),
///
/// with dt as in selective_scan.hpp; half of a conjugate spectrum is kept, hence the 2. b and c are
/// fixed, one for each channel and state (as S4's), or change with time and are shared by all
/// channels. For one step call it with a length of 1.
///
/// A. Gu, T. Dao, "Mamba", 2023; selective_scan_ref of its reference implementation with a complex
/// A. Complex gradients are dL/d(real part) + i dL/d(imaginary part), as PyTorch's.

#ifndef QUERN_SSM_COMPLEX_SCAN_HPP
#define QUERN_SSM_COMPLEX_SCAN_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/core/parallel.hpp"
#include "quern/kernels/complex_scan_types.hpp"
#include "quern/kernels/kernels.hpp"
#include "quern/ssm/detail/arrays.hpp"
#include "quern/ssm/selective_scan_types.hpp"
#include "quern/ssm/sequence.hpp"

#include <algorithm>
#include <atomic>
#include <complex>
#include <string>
#include <type_traits>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace ssm {

/// What it reads. Either fixed_b and fixed_c are given, or b and c.
template <class T>
struct ComplexScanInputs {
  using Complex = std::complex<T>;
  NdView<const T, 3> u;                      ///< (batch, length, channels)
  NdView<const T, 3> delta;                  ///< as u
  MatrixView<const Complex> a;               ///< (channels, states), real parts not above 0
  MatrixView<const Complex> fixed_b{};       ///< as a
  MatrixView<const Complex> fixed_c{};       ///< as a
  NdView<const Complex, 3> b{};              ///< (batch, length, states)
  NdView<const Complex, 3> c{};              ///< as b
  NdView<const T, 1> skip{};                 ///< optional, (channels)
  NdView<const T, 1> delta_bias{};           ///< optional, (channels)
  NdView<const T, 3> z{};                    ///< optional gate, as u
  NdView<const Complex, 3> initial_state{};  ///< optional, (sequences, channels, states)
};

/// Gradients by the inputs of the same names; null views are left out. Those of a, fixed_b,
/// fixed_c, skip and delta_bias are added to, the others overwritten.
template <class T>
struct ComplexScanGradients {
  using Complex = std::complex<T>;
  NdView<T, 3> u{}, delta{};
  MatrixView<Complex> a{}, fixed_b{}, fixed_c{};
  NdView<Complex, 3> b{}, c{};
  NdView<T, 1> skip{}, delta_bias{};
  NdView<T, 3> z{};
  NdView<Complex, 3> initial_state{};
};

namespace detail {

/// Real and imaginary parts of (outer, rows, channels), apart.
template <class T>
struct SplitComplex {
  NdArray<T, 3> re, im;

  SplitComplex() = default;
  explicit SplitComplex(const Shape<3>& extents) : re(extents), im(extents) {}
  explicit SplitComplex(const NdView<const std::complex<T>, 3>& from)
      : re(from.extents(), core::Fill::none), im(from.extents(), core::Fill::none) {
    for (Index i = 0; i < from.extent(0); ++i) {
      for (Index j = 0; j < from.extent(1); ++j) {
        for (Index k = 0; k < from.extent(2); ++k) {
          re(i, j, k) = from(i, j, k).real();
          im(i, j, k) = from(i, j, k).imag();
        }
      }
    }
  }
  [[nodiscard]] kernels::ComplexRows<T> rows(Index outer, Index row, Index channel) {
    return {{&re(outer, row, channel), re.extent(2)}, {&im(outer, row, channel), im.extent(2)}};
  }
  [[nodiscard]] kernels::ComplexRows<const T> rows(Index outer, Index row, Index channel) const {
    return {{&re(outer, row, channel), re.extent(2)}, {&im(outer, row, channel), im.extent(2)}};
  }
  /// to (+)= these, over the first dimension's sum where `to` has only one.
  void give(const NdView<std::complex<T>, 3>& to, bool add) const {
    if (to.is_null()) return;
    for (Index i = 0; i < re.extent(0); ++i) {
      for (Index j = 0; j < re.extent(1); ++j) {
        for (Index k = 0; k < re.extent(2); ++k) {
          const std::complex<T> x(re(i, j, k), im(i, j, k));
          std::complex<T>& at = to(i, j, k);
          at = add ? at + x : x;
        }
      }
    }
  }
};

/// (channels, states) as (1, states, channels).
template <class C>
NdView<C, 3> as_states(const MatrixView<C>& m) {
  if (m.is_null()) return {};
  return {m.data(), {1, m.cols(), m.rows()}, {0, m.col_stride(), m.row_stride()}};
}
template <class C>
NdView<C, 3> as_states(const NdView<C, 3>& s) {
  return s.is_null() ? s : s.permuted({0, 2, 1});
}

template <class T>
class ComplexScanJob {
 public:
  using Complex = std::complex<T>;

  ComplexScanJob(const char* function, const ComplexScanInputs<T>& in,
                 const SelectiveScanOptions& options)
      : function_(function),
        in_(in),
        options_(options),
        fixed_(!in.fixed_b.is_null() || !in.fixed_c.is_null()),
        channels_(in.u.extent(2)),
        states_(in.a.extent(1)),
        sequences_(function, options.offsets, in.u.extent(0), in.u.extent(1)),
        u_(in.u),
        delta_(in.delta),
        z_(in.z),
        skip_(in.skip),
        bias_(in.delta_bias) {
    check_shapes();
    a_ = SplitComplex<T>(as_states(in.a));
    check_poles();
    for (T& x : a_.im) x = static_cast<T>(x * 0.69314718055994530942);
    b_ = SplitComplex<T>(fixed_ ? as_states(in.fixed_b) : in.b);
    c_ = SplitComplex<T>(fixed_ ? as_states(in.fixed_c) : in.c);
    for (Index s = 0; s < sequences_.size(); ++s) {
      first_tile_.push_back(tiles_);
      tiles_ += block_count(sequences_[s].length, kernels::selective_scan_tile);
    }
  }
  ComplexScanJob(const ComplexScanJob&) = delete;
  ComplexScanJob& operator=(const ComplexScanJob&) = delete;

  [[nodiscard]] Shape<3> state_shape() const { return {sequences_.size(), channels_, states_}; }
  [[nodiscard]] SplitComplex<T> states_of(const NdView<const Complex, 3>& given) const {
    if (given.is_null()) return SplitComplex<T>({sequences_.size(), states_, channels_});
    return SplitComplex<T>(as_states(given));
  }
  [[nodiscard]] SplitComplex<T> first_states() const { return states_of(in_.initial_state); }
  [[nodiscard]] SplitComplex<T> room_for_kept() const {
    return SplitComplex<T>({tiles_, states_, channels_});
  }

  void run(const NdView<T, 3>& out, SplitComplex<T>& state, SplitComplex<T>& kept) const {
    const simd::Level level = simd::active_level();
    const Index blocks = block_count(channels_, each);
    std::atomic<int> found{0};
    parallel_for(
        sequences_.size() * blocks,
        [&](Index work) {
          const Index s = work / blocks, channel = work % blocks * each;
          kernels::ComplexScanTask<T> task = forward_task(s, channel);
          task.h = state.rows(s, 0, channel);
          task.scan.y = rows_of(out, sequences_[s], channel);
          if (!kept.re.empty()) task.kept = kept_rows(kept, s, channel);
          found |= QUERN_DISPATCH_AT(level, complex_scan<T>(task));
        },
        options_.threads);
    if (found != 0) explain(found);
  }
  void run_back(const NdView<const T, 3>& dout, const NdView<const Complex, 3>& dfinal,
                const ComplexScanGradients<T>& g) const;

 private:
  static constexpr Index each = 64;

  void check_shapes() const {
    const Index batch = in_.u.extent(0), length = in_.u.extent(1);
    expect_shape(function_, "delta", in_.delta, in_.u.extents());
    expect_shape(function_, "a", in_.a, {channels_, states_});
    if (fixed_) {
      expect_shape(function_, "fixed_b", in_.fixed_b, in_.a.extents());
      expect_shape(function_, "fixed_c", in_.fixed_c, in_.a.extents());
    } else {
      expect_shape(function_, "b", in_.b, {batch, length, states_});
      expect_shape(function_, "c", in_.c, {batch, length, states_});
    }
    if (options_.groups != 1) {
      throw ValueError(error_text(function_, "options.groups", "1", options_.groups));
    }
    expect_optional(function_, "skip", in_.skip, {channels_});
    expect_optional(function_, "delta_bias", in_.delta_bias, {channels_});
    expect_optional(function_, "z", in_.z, in_.u.extents());
    expect_optional(function_, "initial_state", in_.initial_state, state_shape());
  }
  void check_poles() {
    for (Index n = 0; n < states_; ++n) {
      for (Index i = 0; i < channels_; ++i) {
        T& size = a_.re(Index{0}, n, i);
        const bool finite = is_finite_bits(size) && is_finite_bits(a_.im(Index{0}, n, i));
        if (finite && size <= T{0}) continue;
        if (finite && options_.clip_poles) {
          size = T{0};
          continue;
        }
        throw ValueError(error_text(function_, "a", "finite poles with real parts not above 0",
                                    quern::detail::text_of(size) + " at (" + std::to_string(i) +
                                        ", " + std::to_string(n) + ")"));
      }
    }
  }
  void explain(int found) const {
    expect_finite_values(function_, "u", in_.u);
    expect_finite_values(function_, "delta", in_.delta);
    expect_finite_values(function_, "b", fixed_ ? as_states(in_.fixed_b) : in_.b);
    expect_finite_values(function_, "c", fixed_ ? as_states(in_.fixed_c) : in_.c);
    expect_finite_values(function_, "skip", in_.skip);
    expect_finite_values(function_, "delta_bias", in_.delta_bias);
    expect_finite_values(function_, "z", in_.z);
    expect_finite_values(function_, "initial_state", in_.initial_state);
    const bool step = (found & kernels::scan_bad_step) != 0;
    throw ValueError(error_text(function_, step ? "delta" : "inputs",
                                step ? "steps above 0 (or softplus)" : "results in range",
                                step ? "another" : "an overflow"));
  }
  template <class U>
  static kernels::ScanRows<U> rows_of(const NdView<U, 3>& v, const Sequence& q, Index channel) {
    if (v.is_null()) return {};
    return {v.data() + q.batch * v.stride(0) + q.begin * v.stride(1) + channel, v.stride(1)};
  }
  kernels::ComplexRows<T> kept_rows(SplitComplex<T>& kept, Index s, Index channel) const {
    return kept.rows(first_tile_[static_cast<std::size_t>(s)], 0, channel);
  }
  [[nodiscard]] kernels::ComplexScanTask<T> forward_task(Index s, Index channel) const {
    const Sequence q = sequences_[s];
    kernels::ComplexScanTask<T> task;
    task.scan.steps = q.length;
    task.scan.channels = (std::min)(each, channels_ - channel);
    task.scan.states = states_;
    task.scan.u = rows_of(u_.view(), q, channel);
    task.scan.delta = rows_of(delta_.view(), q, channel);
    task.scan.z = rows_of(z_.view(), q, channel);
    task.scan.fixed = fixed_;
    task.scan.skip = at_or_null(skip_.view().data(), channel);
    task.scan.bias = at_or_null(bias_.view().data(), channel);
    task.scan.softplus = options_.softplus;
    task.a = a_.rows(0, 0, channel);
    task.b = fixed_ ? b_.rows(0, 0, channel) : b_.rows(q.batch, q.begin, 0);
    task.c = fixed_ ? c_.rows(0, 0, channel) : c_.rows(q.batch, q.begin, 0);
    return task;
  }

  const char* function_;
  ComplexScanInputs<T> in_;
  SelectiveScanOptions options_;
  bool fixed_;
  Index channels_, states_;
  Sequences sequences_;
  UnitStride<const T, 3> u_, delta_, z_;
  UnitStride<const T, 1> skip_, bias_;
  SplitComplex<T> a_, b_, c_;
  std::vector<Index> first_tile_;
  Index tiles_ = 0;
};

/// Sequences one after the other within a block of channels, whose sums are its own; those of b and
/// c that change with time are summed over blocks in order.
template <class T>
void ComplexScanJob<T>::run_back(const NdView<const T, 3>& dout,
                                 const NdView<const Complex, 3>& dfinal,
                                 const ComplexScanGradients<T>& g) const {
  const simd::Level level = simd::active_level();
  SplitComplex<T> state = first_states(), kept = room_for_kept();
  run({}, state, kept);
  SplitComplex<T> dstate = states_of(dfinal), da({1, states_, channels_});
  const Index blocks = block_count(channels_, each);
  const UnitStride<const T, 3> dy(dout);
  const UnitOutput<T, 3> du(g.u), ddelta(g.delta), dz(g.z);
  NdArray<T, 2> vectors({2, channels_});
  std::vector<SplitComplex<T>> db, dc;
  for (Index k = 0; k < (fixed_ ? 1 : blocks); ++k) {
    db.emplace_back(b_.re.extents());
    dc.emplace_back(c_.re.extents());
  }
  parallel_for(
      blocks,
      [&](Index k) {
        const Index channel = k * each;
        for (Index s = 0; s < sequences_.size(); ++s) {
          const Sequence q = sequences_[s];
          kernels::ComplexScanVjpTask<T> task;
          task.scan = forward_task(s, channel);
          task.scan.kept = kept_rows(kept, s, channel);
          task.back.scan = task.scan.scan;
          task.back.dy = rows_of(dy.view(), q, channel);
          task.back.du = rows_of(du.view(), q, channel);
          task.back.ddelta = rows_of(ddelta.view(), q, channel);
          if (!in_.z.is_null()) task.back.dz = rows_of(dz.view(), q, channel);
          task.back.dskip = &vectors(Index{0}, channel);
          task.back.dbias = &vectors(Index{1}, channel);
          task.dh = dstate.rows(s, 0, channel);
          task.da = da.rows(0, 0, channel);
          const auto part = [&](std::vector<SplitComplex<T>>& parts) {
            return fixed_ ? parts[0].rows(0, 0, channel)
                          : parts[static_cast<std::size_t>(k)].rows(q.batch, q.begin, 0);
          };
          task.db = part(db);
          task.dc = part(dc);
          QUERN_DISPATCH_AT(level, complex_scan_vjp<T>(task));
        }
      },
      options_.threads);
  du.finish();
  ddelta.finish();
  dz.finish();
  da.give(as_states(g.a), true);
  for (std::size_t k = 0; k < db.size(); ++k) {
    db[k].give(fixed_ ? as_states(g.fixed_b) : g.b, fixed_ || k > 0);
    dc[k].give(fixed_ ? as_states(g.fixed_c) : g.c, fixed_ || k > 0);
  }
  if (!g.skip.is_null()) accumulate(vectors.view().row(0), g.skip);
  if (!g.delta_bias.is_null()) accumulate(vectors.view().row(1), g.delta_bias);
  dstate.give(as_states(g.initial_state), false);
}

}  // namespace detail

/// out (batch, length, channels), overwritten; `final_state` (sequences, channels, states) takes
/// the states after each sequence's last step, null leaves it out. ShapeError for what does not
/// fit; ValueError for a pole whose real part is above 0 (unless clipped), without softplus for a
/// delta that is not above 0, and for what is not finite, with its place.
template <class T>
void complex_scan(const ComplexScanInputs<T>& in, std::type_identity_t<NdView<T, 3>> out,
                  std::type_identity_t<NdView<std::complex<T>, 3>> final_state = {},
                  const SelectiveScanOptions& options = {}) {
  constexpr const char* function = "quern::ssm::complex_scan";
  const detail::ComplexScanJob<T> job(function, in, options);
  expect_shape(function, "out", out, in.u.extents());
  detail::expect_optional(function, "final_state", final_state, job.state_shape());
  const detail::UnitOutput<T, 3> output(out);
  detail::SplitComplex<T> state = job.first_states(), nothing_kept;
  job.run(output.view(), state, nothing_kept);
  output.finish();
  state.give(detail::as_states(final_state), false);
}

/// Gradients of a scalar by everything, given those by out and by the final state (null: zeros).
template <class T>
void complex_scan_vjp(const ComplexScanInputs<T>& in, std::type_identity_t<NdView<const T, 3>> dout,
                      std::type_identity_t<NdView<const std::complex<T>, 3>> dfinal_state,
                      const ComplexScanGradients<T>& gradients,
                      const SelectiveScanOptions& options = {}) {
  constexpr const char* function = "quern::ssm::complex_scan_vjp";
  const detail::ComplexScanJob<T> job(function, in, options);
  expect_shape(function, "dout", dout, in.u.extents());
  detail::expect_optional(function, "dfinal_state", dfinal_state, job.state_shape());
  detail::expect_optional(function, "gradients.u", gradients.u, in.u.extents());
  detail::expect_optional(function, "gradients.delta", gradients.delta, in.u.extents());
  detail::expect_optional(function, "gradients.z", gradients.z, in.u.extents());
  detail::expect_optional(function, "gradients.a", gradients.a, in.a.extents());
  detail::expect_optional(function, "gradients.fixed_b", gradients.fixed_b, in.a.extents());
  detail::expect_optional(function, "gradients.fixed_c", gradients.fixed_c, in.a.extents());
  detail::expect_optional(function, "gradients.b", gradients.b, in.b.extents());
  detail::expect_optional(function, "gradients.c", gradients.c, in.c.extents());
  detail::expect_optional(function, "gradients.skip", gradients.skip, {in.u.extent(2)});
  detail::expect_optional(function, "gradients.delta_bias", gradients.delta_bias, {in.u.extent(2)});
  detail::expect_optional(function, "gradients.initial_state", gradients.initial_state,
                          job.state_shape());
  job.run_back(dout, dfinal_state, gradients);
}

}  // namespace ssm
QUERN_NAMESPACE_END

#endif  // QUERN_SSM_COMPLEX_SCAN_HPP
