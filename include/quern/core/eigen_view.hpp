// SPDX-License-Identifier: Apache-2.0

/// \file
/// Views of Eigen's matrices, arrays, maps and blocks: quern::view and quern::vector_view.

#ifndef QUERN_CORE_EIGEN_VIEW_HPP
#define QUERN_CORE_EIGEN_VIEW_HPP

#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_view.hpp"

#include <Eigen/Core>

#include <type_traits>
#include <utility>

#if EIGEN_MAX_ALIGN_BYTES != QUERN_ABI_ALIGN
#error \
    "quern: Eigen aligns otherwise than quern/core/config.hpp foresaw: include <Eigen/Core> first"
#endif

QUERN_NAMESPACE_BEGIN

namespace detail {

template <class Derived>
inline constexpr bool has_direct_access = (int(Derived::Flags) & int(Eigen::DirectAccessBit)) != 0;
template <class Derived>
inline constexpr bool is_writable = (int(Derived::Flags) & int(Eigen::LvalueBit)) != 0;
/// Element type of a view on a non-const expression: const where the expression cannot be written.
template <class Derived>
using EigenElement = std::conditional_t<is_writable<Derived>, typename Derived::Scalar,
                                        const typename Derived::Scalar>;
/// True for expressions that own their coefficients: Matrix, Array.
template <class Derived>
inline constexpr bool is_plain = std::is_base_of_v<Eigen::PlainObjectBase<Derived>, Derived>;

template <class Element, class Derived>
MatrixView<Element> eigen_view(Derived& x) {
  static_assert(has_direct_access<std::remove_const_t<Derived>>,
                "quern::view needs an expression with its values in memory (a matrix, array, map "
                "or block); call .eval() on a computed expression first");
  if constexpr (has_direct_access<std::remove_const_t<Derived>>) {
    return MatrixView<Element>(x.data(), {x.rows(), x.cols()}, {x.rowStride(), x.colStride()});
  } else {
    return {};
  }
}

}  // namespace detail

/// View of an Eigen matrix, array, vector, map or block, in either storage order, without a copy.
/// Writable when the expression is. An expression without direct access does not compile.
template <class Derived>
[[nodiscard]] MatrixView<const typename Derived::Scalar> view(const Eigen::DenseBase<Derived>& x) {
  return detail::eigen_view<const typename Derived::Scalar>(x.derived());
}
template <class Derived>
[[nodiscard]] MatrixView<detail::EigenElement<Derived>> view(Eigen::DenseBase<Derived>& x) {
  return detail::eigen_view<detail::EigenElement<Derived>>(x.derived());
}
/// Temporary blocks and maps stay writable; a temporary that owns its values is read only, and
/// its view lives no longer than the full expression.
template <class Derived>
[[nodiscard]] auto view(Eigen::DenseBase<Derived>&& x) {
  using Element = std::conditional_t<detail::is_plain<Derived>, const typename Derived::Scalar,
                                     detail::EigenElement<Derived>>;
  return detail::eigen_view<Element>(x.derived());
}

/// Rank-1 view of an Eigen row or column vector. ShapeError when it is neither.
template <class Expression>
[[nodiscard]] auto vector_view(Expression&& x) {
  const auto m = view(std::forward<Expression>(x));
  if (m.rows() != 1 && m.cols() != 1) {
    throw ShapeError(
        error_text("quern::vector_view", "x", "one row or one column", shape_text(m.extents())));
  }
  return m.cols() == 1 ? m.transposed().row(0) : m.row(0);
}

QUERN_NAMESPACE_END

#endif  // QUERN_CORE_EIGEN_VIEW_HPP
