// SPDX-License-Identifier: Apache-2.0

/// \file
/// Adafactor and Muon: methods that see a matrix as one.

#ifndef QUERN_OPTIM_MATRIX_METHODS_HPP
#define QUERN_OPTIM_MATRIX_METHODS_HPP

#include "quern/core/config.hpp"
#include "quern/optim/method.hpp"

#include <array>
#include <cmath>
#include <cstdint>
#include <string_view>

QUERN_NAMESPACE_BEGIN
namespace optim {

/// Shazeer and Stern 2018 as PyTorch has it: the second moment of a matrix is kept as one value a
/// row and one a column (of a vector: in full), and the step is relative to the parameter's size.
/// One or two dimensions.
struct Adafactor {
  double lr = 1e-2;           ///< at most this much of the parameter's size a step
  double beta2_decay = -0.8;  ///< beta2 of step t is 1 - t^this
  double eps = 1e-3;          ///< smallest size of a parameter
  double clip_threshold = 1;  ///< largest root mean square of a step before lr
  double weight_decay = 0;    ///< decoupled
  Decay decay = Decay::learning_rate;
  bool maximize = false;
  static constexpr double l2 = 0;  ///< the method has none

  static constexpr const char* name = "adafactor";
  static constexpr Pass pass = Pass::factored;
  static constexpr std::array<std::string_view, 2> states = {"row_var", "col_var"};
  [[nodiscard]] int state_count() const { return 2; }
  [[nodiscard]] double initial(int /*state*/) const { return 0; }
  void check() const {
    const detail::OptionCheck options("Adafactor");
    options.common(*this);
    if (!(beta2_decay < 0)) options.fail("beta2_decay", "below 0", beta2_decay);
    options.positive("eps", eps);
    options.positive("clip_threshold", clip_threshold);
  }
};

/// Jordan et al. 2024: momentum whose matrix is made orthogonal by five steps of a quintic
/// Newton-Schulz iteration. Matrices only; PyTorch's form, in full precision.
struct Muon {
  /// What the rate of an (rows, columns) matrix is multiplied by.
  enum class Adjust {
    original,  ///< sqrt(max(1, rows / columns))
    match_rms  ///< 0.2 sqrt(max(rows, columns)): steps of AdamW's size (Liu et al. 2025)
  };
  double lr = 1e-3;
  double momentum = 0.95;
  bool nesterov = true;
  int steps = 5;
  double weight_decay = 0.1;  ///< decoupled
  Adjust adjust = Adjust::original;
  Decay decay = Decay::learning_rate;
  bool maximize = false;
  static constexpr double l2 = 0;  ///< the method has none

  static constexpr const char* name = "muon";
  static constexpr Pass pass = Pass::orthogonal;
  static constexpr std::array<std::string_view, 1> states = {"momentum_buffer"};
  [[nodiscard]] int state_count() const { return 1; }
  [[nodiscard]] double initial(int /*state*/) const { return 0; }
  void check() const {
    const detail::OptionCheck options("Muon");
    options.common(*this);
    options.fraction("momentum", momentum);
    if (steps < 1 || steps > 100) options.fail("steps", "1..100", steps);
  }
  [[nodiscard]] double adjusted(double rate, double rows, double cols) const {
    if (adjust == Adjust::match_rms) return 0.2 * rate * std::sqrt(rows > cols ? rows : cols);
    return rate * std::sqrt(rows > cols ? rows / cols : 1);
  }
};

}  // namespace optim
QUERN_NAMESPACE_END

#endif  // QUERN_OPTIM_MATRIX_METHODS_HPP
