// SPDX-License-Identifier: Apache-2.0

/// \file
/// What optimisers train: tensors, as a view of the values and one of the gradient.

#ifndef QUERN_OPTIM_PARAMETER_HPP
#define QUERN_OPTIM_PARAMETER_HPP

#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_view.hpp"

#include <algorithm>
#include <cstddef>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace optim {

/// One tensor: contiguous values, which the optimiser changes, and the gradient, which it reads at
/// every step. Both belong to the caller and stay where they are.
template <class T>
struct Parameter {
  std::string name = {};  ///< for saved states and messages; empty: "group.number"
  std::span<T> values = {};
  std::span<const T> gradient = {};
  std::vector<Index> shape = {};  ///< row-major; empty: one dimension
};

namespace detail {

template <class T>
std::string parameter_name(const Parameter<T>& p, std::size_t group, std::size_t number) {
  if (!p.name.empty()) return p.name;
  return std::to_string(group) + "." + std::to_string(number);
}

/// Values, gradient and shape agree.
template <class T>
void check_parameter(std::string_view function, const Parameter<T>& p, const std::string& name) {
  const std::string what = "parameter '" + name + "'";
  if (p.gradient.size() != p.values.size()) {
    throw ShapeError(error_text(function, what,
                                "a gradient of " + std::to_string(p.values.size()) + " values",
                                p.gradient.size()));
  }
  if (p.shape.empty()) return;
  Index size = 1;
  for (const Index extent : p.shape) {
    if (extent < 0) throw ShapeError(error_text(function, what, "extents >= 0", extent));
    size = quern::detail::checked_product(size, extent);
  }
  if (size != static_cast<Index>(p.values.size())) {
    throw ShapeError(error_text(function, what,
                                "a shape of " + std::to_string(p.values.size()) + " values", size));
  }
}

/// `place`; ShapeError unless it is below `count`.
inline std::size_t checked_place(std::string_view function, std::string_view argument,
                                 std::size_t place, std::size_t count) {
  if (place < count) return place;
  throw ShapeError(error_text(function, argument, "below " + std::to_string(count), place));
}

/// A tensor's memory, for finding overlaps.
struct NamedMemory {
  const std::byte* begin;
  const std::byte* end;
  std::string name;
};

/// ValueError when two of them share memory: a step would move the shared values twice.
inline void check_apart(std::string_view function, std::vector<NamedMemory> all) {
  std::sort(all.begin(), all.end(), [](const NamedMemory& a, const NamedMemory& b) {
    return std::less<const std::byte*>()(a.begin, b.begin);
  });
  for (std::size_t i = 1; i < all.size(); ++i) {
    if (!std::less<const std::byte*>()(all[i].begin, all[i - 1].end)) continue;
    throw ValueError(error_text(function, "parameters", "tensors that share no memory",
                                "'" + all[i - 1].name + "' and '" + all[i].name + "' overlapping"));
  }
}

/// ValueError when two have one name.
inline void check_names(std::string_view function, std::vector<std::string> names) {
  std::sort(names.begin(), names.end());
  const auto twice = std::adjacent_find(names.begin(), names.end());
  if (twice == names.end()) return;
  throw ValueError(error_text(function, "parameters", "different names", "'" + *twice + "' twice"));
}

}  // namespace detail
}  // namespace optim
QUERN_NAMESPACE_END

#endif  // QUERN_OPTIM_PARAMETER_HPP
