// SPDX-License-Identifier: Apache-2.0

/// \file
/// Data sets on Eigen's matrices, where they lie.

#ifndef QUERN_TREE_EIGEN_DATASET_HPP
#define QUERN_TREE_EIGEN_DATASET_HPP

#include "quern/core/config.hpp"
#include "quern/core/eigen_view.hpp"
#include "quern/tree/dataset.hpp"

#include <Eigen/Core>

#include <cstddef>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace tree {

/// A data set on any Eigen matrix, map or block of float or double, in either order, without a
/// copy. Labels may be a vector of numbers of any type, which are copied. A temporary matrix is
/// refused: the data set would outlive it.
template <class Derived>
[[nodiscard]] Dataset make_dataset(const Eigen::DenseBase<Derived>& features,
                                   std::vector<float> labels = {}) {
  return make_dataset(view(features), std::move(labels));
}
template <class Derived, class Labels>
[[nodiscard]] Dataset make_dataset(const Eigen::DenseBase<Derived>& features,
                                   const Eigen::DenseBase<Labels>& labels) {
  std::vector<float> copied(static_cast<std::size_t>(labels.size()));
  for (Index i = 0; i < labels.size(); ++i)
    copied[static_cast<std::size_t>(i)] = static_cast<float>(labels.derived().coeff(i));
  return make_dataset(view(features), std::move(copied));
}
template <class Derived>
Dataset make_dataset(Eigen::PlainObjectBase<Derived>&&, std::vector<float> labels = {}) = delete;
template <class Derived, class Labels>
Dataset make_dataset(Eigen::PlainObjectBase<Derived>&&, const Eigen::DenseBase<Labels>&) = delete;

}  // namespace tree
QUERN_NAMESPACE_END

#endif  // QUERN_TREE_EIGEN_DATASET_HPP
