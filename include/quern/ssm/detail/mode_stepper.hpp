// SPDX-License-Identifier: Apache-2.0

/// \file
/// What S4D's and S4's recurrences work out once: the rows that kernels/mode_step-inl.hpp steps
/// complex modes by, for many channels, in double; states are stored as T.

#ifndef QUERN_SSM_DETAIL_MODE_STEPPER_HPP
#define QUERN_SSM_DETAIL_MODE_STEPPER_HPP

#include "quern/core/config.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/kernels/kernels.hpp"
#include "quern/kernels/mode_step_types.hpp"
#include "quern/ssm/detail/complex_number.hpp"

#include <algorithm>
#include <complex>
#include <cstddef>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace ssm {
namespace detail {

/// Rows of every channel, as ModeStepTask names them: less, in, out, then from and to of each rank.
class ModeStepper {
 public:
  static constexpr Index less = 0, in = 1, out = 2;

  ModeStepper(Index channels, Index modes, Index rank)
      : channels_(channels),
        modes_(modes),
        rank_(rank),
        size_((3 + 2 * rank) * 2 * modes),
        rows_(static_cast<std::size_t>(channels * size_)),
        gain_(static_cast<std::size_t>(channels * rank)),
        through_(static_cast<std::size_t>(channels)) {}

  [[nodiscard]] Index channels() const { return channels_; }
  [[nodiscard]] Index modes() const { return modes_; }
  [[nodiscard]] Index from(Index k) const { return 3 + k; }
  [[nodiscard]] Index to(Index k) const { return 3 + rank_ + k; }

  void set(Index channel, Index row, Index mode, Cx value) {
    double* const at = rows_.data() + channel * size_ + row * 2 * modes_ + mode;
    at[0] = value.re;
    at[modes_] = value.im;
  }
  void set_gain(Index channel, Index k, double value) {
    gain_[static_cast<std::size_t>(channel * rank_ + k)] = value;
  }
  void set_through(Index channel, double value) {
    through_[static_cast<std::size_t>(channel)] = value;
  }

  /// x (2, modes) moves on by `steps` inputs; y may be u.
  void run(Index channel, Index steps, double* x, const double* u, double* y) const {
    const double* const row = rows_.data() + channel * size_;
    kernels::ModeStepTask<double> task;
    task.steps = steps;
    task.modes = modes_;
    task.rank = rank_;
    task.less = row + less * 2 * modes_;
    task.in = row + in * 2 * modes_;
    task.out = row + out * 2 * modes_;
    task.from = row + from(0) * 2 * modes_;
    task.to = row + to(0) * 2 * modes_;
    task.gain = gain_.data() + channel * rank_;
    task.through = through_[static_cast<std::size_t>(channel)];
    task.x = x;
    task.u = u;
    task.y = y;
    QUERN_DISPATCH(mode_steps<double>(task));
  }

  /// All steps of one channel and sequence: u and y (length), the state at `from`, `to` (either may
  /// be null).
  template <class T>
  void sequence(Index channel, const NdView<const T, 1>& u, const std::complex<T>* from,
                std::complex<T>* to, const NdView<T, 1>& y, double* work) const {
    constexpr Index block = 256;
    double* const x = work;
    double* const values = work + 2 * modes_;
    for (Index n = 0; n < modes_; ++n) {
      x[n] = from == nullptr ? 0 : static_cast<double>(from[n].real());
      x[modes_ + n] = from == nullptr ? 0 : static_cast<double>(from[n].imag());
    }
    for (Index begin = 0; begin < u.extent(0); begin += block) {
      const Index count = (std::min)(block, u.extent(0) - begin);
      for (Index t = 0; t < count; ++t) values[t] = static_cast<double>(u(begin + t));
      run(channel, count, x, values, values);
      for (Index t = 0; t < count; ++t) y(begin + t) = static_cast<T>(values[t]);
    }
    for (Index n = 0; n < modes_ && to != nullptr; ++n) {
      to[n] = {static_cast<T>(x[n]), static_cast<T>(x[modes_ + n])};
    }
  }
  /// Elements of `work` that sequence() needs.
  [[nodiscard]] std::size_t work_size() const { return static_cast<std::size_t>(2 * modes_ + 256); }

  /// One position of all rows of a batch: u and y (batch, channels), `state` (batch, channels
  /// modes) moves on.
  template <class T>
  void step(const NdView<const T, 2>& u, const NdView<std::complex<T>, 2>& state,
            const NdView<T, 2>& y) const {
    std::vector<double> work(work_size());
    std::vector<std::complex<T>> apart(static_cast<std::size_t>(modes_));
    const bool adjacent = state.stride(1) == 1;
    for (Index b = 0; b < u.extent(0); ++b) {
      for (Index k = 0; k < channels_; ++k) {
        std::complex<T>* at = adjacent ? &state(b, k * modes_) : apart.data();
        for (Index n = 0; n < modes_ && !adjacent; ++n) at[n] = state(b, k * modes_ + n);
        sequence<T>(k, u.row(b).slice(0, k, 1), at, at, y.row(b).slice(0, k, 1), work.data());
        for (Index n = 0; n < modes_ && !adjacent; ++n) state(b, k * modes_ + n) = at[n];
      }
    }
  }

 private:
  Index channels_, modes_, rank_, size_;
  std::vector<double> rows_, gain_, through_;
};

}  // namespace detail
}  // namespace ssm
QUERN_NAMESPACE_END

#endif  // QUERN_SSM_DETAIL_MODE_STEPPER_HPP
