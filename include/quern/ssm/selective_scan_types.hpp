// SPDX-License-Identifier: Apache-2.0

/// \file
/// Arguments, options, gradients and saved states of ssm::selective_scan.

#ifndef QUERN_SSM_SELECTIVE_SCAN_TYPES_HPP
#define QUERN_SSM_SELECTIVE_SCAN_TYPES_HPP

#include "quern/core/config.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/nd_view.hpp"

#include <cstdint>
#include <span>

QUERN_NAMESPACE_BEGIN
namespace ssm {

/// Options of a selective scan.
struct SelectiveScanOptions {
  bool softplus = true;     ///< dt = softplus(delta + delta_bias); false: delta + delta_bias itself
  Index groups = 1;         ///< of channels that share b and c
  bool clip_poles = false;  ///< poles above 0 become 0 instead of an error
  /// Offsets of packed sequences, 0 … length, not decreasing; empty: each batch entry is one.
  std::span<const std::int64_t> offsets = {};
  int threads = 0;  ///< 0: the default, see parallel_for
};

/// What a selective scan reads. Null views of optional inputs leave them out.
template <class T>
struct SelectiveScanInputs {
  NdView<const T, 3> u;                ///< (batch, length, channels)
  NdView<const T, 3> delta;            ///< as u
  MatrixView<const T> a;               ///< (channels, states): poles, not above 0
  NdView<const T, 3> b;                ///< (batch, length, groups * states)
  NdView<const T, 3> c;                ///< as b
  NdView<const T, 1> skip{};           ///< optional, (channels): D
  NdView<const T, 1> delta_bias{};     ///< optional, (channels)
  NdView<const T, 3> z{};              ///< optional gate, as u
  NdView<const T, 3> initial_state{};  ///< optional, (sequences, channels, states); else zeros
};

/// Gradients by the inputs of the same names.
template <class T>
struct SelectiveScanGradients {
  NdView<T, 3> u{};
  NdView<T, 3> delta{};
  MatrixView<T> a{};  ///< added to
  NdView<T, 3> b{};
  NdView<T, 3> c{};
  NdView<T, 1> skip{};        ///< added to
  NdView<T, 1> delta_bias{};  ///< added to
  NdView<T, 3> z{};
  NdView<T, 3> initial_state{};
};

/// States at every 32nd step, for the way back.
template <class T>
struct SelectiveScanSaved {
  NdArray<T, 3> states;  ///< (tiles, states, channels)
};

/// What one step reads.
template <class T>
struct SelectiveScanStepInputs {
  MatrixView<const T> u;            ///< (batch, channels)
  MatrixView<const T> delta;        ///< as u
  MatrixView<const T> a;            ///< (channels, states)
  MatrixView<const T> b;            ///< (batch, groups * states)
  MatrixView<const T> c;            ///< as b
  NdView<const T, 1> skip{};        ///< optional, (channels)
  NdView<const T, 1> delta_bias{};  ///< optional, (channels)
  MatrixView<const T> z{};          ///< optional, as u
};

}  // namespace ssm
QUERN_NAMESPACE_END

#endif  // QUERN_SSM_SELECTIVE_SCAN_TYPES_HPP
