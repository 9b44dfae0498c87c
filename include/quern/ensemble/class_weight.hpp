// SPDX-License-Identifier: Apache-2.0

/// \file
/// Weights of classes, which multiply those of the rows.

#ifndef QUERN_ENSEMBLE_CLASS_WEIGHT_HPP
#define QUERN_ENSEMBLE_CLASS_WEIGHT_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/ensemble/learner.hpp"

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace ensemble {

/// See the file comment.
class ClassWeight {
 public:
  enum class Kind : std::uint8_t { none, balanced, balanced_subsample, given };

  [[nodiscard]] static ClassWeight none() { return {}; }
  /// rows / (classes that occur * rows of the class).
  [[nodiscard]] static ClassWeight balanced() { return ClassWeight(Kind::balanced); }
  /// The same, for every tree of a forest by the rows that were drawn for it.
  [[nodiscard]] static ClassWeight balanced_subsample() {
    return ClassWeight(Kind::balanced_subsample);
  }
  /// (classes) weights >= 0.
  [[nodiscard]] static ClassWeight given(std::vector<double> weights) {
    ClassWeight weight(Kind::given);
    weight.given_ = std::move(weights);
    return weight;
  }

  [[nodiscard]] Kind kind() const noexcept { return kind_; }

  /// The weight of every class where class k has rows[k] rows; ShapeError or ValueError where given
  /// weights do not fit.
  [[nodiscard]] std::vector<double> of(const std::string& function,
                                       const std::vector<double>& rows) const {
    std::vector<double> weights(rows.size(), 1.0);
    if (kind_ == Kind::none) return weights;
    if (kind_ == Kind::given) {
      if (given_.size() != rows.size())
        throw ShapeError(error_text(function, "class_weight",
                                    std::to_string(rows.size()) + " weights", given_.size()));
      for (const double w : given_) {
        if (!is_finite_bits(w) || w < 0)
          throw ValueError(error_text(function, "class_weight", "finite numbers >= 0", w));
      }
      return given_;
    }
    double all = 0, classes = 0;
    for (const double n : rows) {
      all += n;
      classes += n > 0 ? 1 : 0;
    }
    for (std::size_t k = 0; k < rows.size(); ++k)
      weights[k] = rows[k] > 0 ? all / (classes * rows[k]) : 0.0;
    return weights;
  }

 private:
  ClassWeight() = default;
  explicit ClassWeight(Kind kind) : kind_(kind) {}

  Kind kind_ = Kind::none;
  std::vector<double> given_;
};

}  // namespace ensemble
QUERN_NAMESPACE_END

#endif  // QUERN_ENSEMBLE_CLASS_WEIGHT_HPP
