// SPDX-License-Identifier: Apache-2.0

/// \file
/// FLASH: the gated attention unit in linear time, forward and backward. Within groups of tokens
/// attention is quadratic, between groups linear: "mixed chunk attention" of W. Hua et al.,
/// "Transformer quality in linear time" (arXiv:2202.10447), with the conventions of FLASH-pytorch.
/// (Nothing to do with FlashAttention.)

#ifndef QUERN_ATTENTION_FLASH_HPP
#define QUERN_ATTENTION_FLASH_HPP

#include "quern/attention/detail/gated_front.hpp"
#include "quern/attention/detail/gated_packed.hpp"
#include "quern/attention/detail/gated_tiles.hpp"
#include "quern/attention/gated_unit.hpp"
#include "quern/attention/relative_bias.hpp"
#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/kernels/gemm.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace attention {
namespace detail {

/// Quadratic and linear queries and keys of all tokens, values, and what becomes of them: (tokens,
/// columns) with adjacent columns.
template <class Element>
struct FlashArrays {
  MatrixView<Element> quad_q, lin_q, quad_k, lin_k, v;

  [[nodiscard]] FlashArrays slice(Index first, Index count) const {
    return {quad_q.slice(0, first, count), lin_q.slice(0, first, count),
            quad_k.slice(0, first, count), lin_k.slice(0, first, count), v.slice(0, first, count)};
  }
};

/// Rows of `heads` as FLASH orders them.
template <class Element>
FlashArrays<Element> flash_arrays(const NdView<Element, 3>& heads, const MatrixView<Element>& v) {
  return {heads.subview(0), heads.subview(1), heads.subview(2), heads.subview(3), v};
}

/// Mixed chunk attention, what is the same for all rows of a batch.
template <class T>
class FlashCore {
 public:
  FlashCore(const char* function, const GatedShape& s, const NdView<const T, 1>& table,
            const GatedUnitOptions<T>& options)
      : function_(function), s_(s), options_(options), group_(options.group) {
    expect_in_range<Index>(function, "group", options.group, 1, Index{1} << 30);
    if (options.activation == GateActivation::softmax_plus) {
      throw ValueError(
          error_text(function, "activation", "squared_relu or laplace", "softmax_plus"));
    }
    if (options.window >= 0) {
      throw ValueError(
          error_text(function, "window", "none: groups are FLASH's windows", options.window));
    }
    const Index divisor = options.causal ? group_ : (std::max)(s.length, Index{1});
    linear_scale_ = static_cast<T>(1.0 / static_cast<double>(divisor));
    if (table.is_null()) return;
    bias_factor_ = std::sqrt(static_cast<double>(s.qk));
    bias_ =
        bias_by_distance<T>(table, group_, options.causal, static_cast<T>(bias_factor_), function);
  }

  void forward(const FlashArrays<const T>& all, MatrixView<T> out) const {
    parallel_for(
        s_.batch,
        [&](Index b) {
          const FlashArrays<const T> x = all.slice(b * s_.length, s_.length);
          const MatrixView<T> to = out.slice(0, b * s_.length, s_.length);
          GatedTiles<T> tiles(inputs(x));
          NdArray<T, 2> sums({s_.qk, s_.expanded});
          if (!options_.causal) product(sums, x.lin_k, x.v, T{0});
          for (Index i = 0; i < s_.length; i += group_) {
            const Index rows = (std::min)(group_, s_.length - i);
            tiles.forward(i, rows, i, rows, to.slice(0, i, rows), T{0});
            // Before the first group a causal sum is empty.
            if (!options_.causal || i > 0) {
              kernels::gemm<T>(x.lin_q.slice(0, i, rows), sums.view(), to.slice(0, i, rows), add());
            }
            if (options_.causal && i + rows < s_.length) {
              product(sums, x.lin_k.slice(0, i, rows), x.v.slice(0, i, rows), T{1});
            }
          }
        },
        options_.threads);
  }

  /// Gradients of all arrays, overwritten; dtable is added to.
  void backward(const FlashArrays<const T>& all, MatrixView<const T> dout, const FlashArrays<T>& d,
                NdView<T, 1> dtable) const {
    const bool wants_bias = !bias_.empty() && !dtable.is_null();
    NdArray<double, 2> dbias({s_.batch, wants_bias ? 2 * group_ - 1 : 0});
    for (const MatrixView<T>* g : {&d.quad_q, &d.lin_q, &d.quad_k, &d.lin_k, &d.v}) {
      for (Index i = 0; i < g->rows(); ++i) std::fill_n(g->row_data(i), g->cols(), T{0});
    }
    parallel_for(
        s_.batch,
        [&](Index b) {
          const Index first = b * s_.length;
          const FlashArrays<const T> x = all.slice(first, s_.length);
          const FlashArrays<T> g = d.slice(first, s_.length);
          const MatrixView<const T> slope = dout.slice(0, first, s_.length);
          backward_linear(x, slope, g);
          GatedTiles<T> tiles(inputs(x));
          const TileGradients<T> to{g.quad_q, g.quad_k, g.v,
                                    wants_bias ? &dbias(b, group_ - 1) : nullptr};
          for (Index i = 0; i < s_.length; i += group_) {
            const Index rows = (std::min)(group_, s_.length - i);
            tiles.backward(i, rows, i, rows, slope.slice(0, i, rows), to);
          }
        },
        options_.threads);
    if (!wants_bias) return;
    for (Index b = 0; b < s_.batch; ++b) {
      add_bias_gradient<T>({&dbias(b, 0), static_cast<std::size_t>(2 * group_ - 1)}, group_,
                           options_.causal, bias_factor_, dtable, function_);
    }
  }

 private:
  [[nodiscard]] kernels::GemmOptions<T> add() const {
    return {.beta = T{1}, .threads = options_.threads};
  }
  [[nodiscard]] TileInputs<T> inputs(const FlashArrays<const T>& x) const {
    TileInputs<T> in{x.quad_q, x.quad_k, x.v};
    in.scale = static_cast<T>(1.0 / static_cast<double>(group_));
    in.bias = bias_.empty() ? nullptr : bias_.data() + (group_ - 1);
    if (options_.causal) in.right = 0;
    in.activation = options_.activation;
    in.threads = options_.threads;
    return in;
  }
  /// sums = beta sums + scale k^T v.
  void product(NdArray<T, 2>& sums, MatrixView<const T> k, MatrixView<const T> v, T beta) const {
    kernels::gemm<T>(k.transposed(), v, sums.view(),
                     {.alpha = linear_scale_, .beta = beta, .threads = options_.threads});
  }

  /// The linear part: dlin_q from the sums of keys and values before (of all, where not causal),
  /// dlin_k and dv from those of queries and gradients after.
  void backward_linear(const FlashArrays<const T>& x, MatrixView<const T> dout,
                       const FlashArrays<T>& g) const {
    NdArray<T, 2> sums({s_.qk, s_.expanded});
    if (!options_.causal) {
      product(sums, x.lin_k, x.v, T{0});
      kernels::gemm<T>(dout, sums.view().transposed(), g.lin_q, {.threads = options_.threads});
      product(sums, x.lin_q, dout, T{0});
      kernels::gemm<T>(x.v, sums.view().transposed(), g.lin_k, {.threads = options_.threads});
      kernels::gemm<T>(x.lin_k, sums.view(), g.v, add());
      return;
    }
    const Index groups = block_count(s_.length, group_);
    for (Index c = 0; c + 1 < groups; ++c) {
      product(sums, x.lin_k.slice(0, c * group_, group_), x.v.slice(0, c * group_, group_), T{1});
      const BlockRange next = block_range(s_.length, group_, c + 1);
      kernels::gemm<T>(dout.slice(0, next.begin, next.size()), sums.view().transposed(),
                       g.lin_q.slice(0, next.begin, next.size()), {.threads = options_.threads});
    }
    std::fill(sums.begin(), sums.end(), T{0});
    for (Index c = groups - 1; c > 0; --c) {
      const BlockRange here = block_range(s_.length, group_, c);
      product(sums, x.lin_q.slice(0, here.begin, here.size()),
              dout.slice(0, here.begin, here.size()), T{1});
      const Index before = (c - 1) * group_;
      kernels::gemm<T>(x.v.slice(0, before, group_), sums.view().transposed(),
                       g.lin_k.slice(0, before, group_), {.threads = options_.threads});
      kernels::gemm<T>(x.lin_k.slice(0, before, group_), sums.view(), g.v.slice(0, before, group_),
                       add());
    }
  }

  const char* function_;
  GatedShape s_;
  const GatedUnitOptions<T>& options_;
  Index group_;
  T linear_scale_ = T{1};
  double bias_factor_ = 0;
  std::vector<T> bias_;
};

}  // namespace detail

/// The unit with mixed chunk attention. x and out (batch, length, dim), any strides; gamma and beta
/// have four rows; the relative bias is that of places within a group. The linear part is divided
/// by the group's size where causal, by the length where not. `saved` may be null. ShapeError
/// where extents do not fit, ValueError for options that contradict each other.
template <class T>
void flash(std::type_identity_t<NdView<const T, 3>> x,
           const std::type_identity_t<GatedUnitWeights<T>>& w, NdView<T, 3> out,
           const std::type_identity_t<GatedUnitOptions<T>>& options = {},
           std::type_identity_t<GatedUnitSaved<T>>* saved = nullptr) {
  constexpr const char* function = "quern::attention::flash";
  if (!options.cumulative.empty()) {
    return detail::gated_packed<T>(
        function, x, out, options, saved,
        [&](const auto& in, const auto& to, const auto& each, GatedUnitSaved<T>* part) {
          flash<T>(in, w, to, each, part);
        });
  }
  const detail::GatedShape s = detail::gated_shape<T>(function, x, w, 4, options);
  expect_shape(function, "out", out, x.extents());
  expect_apart(function, "out", out, "x", x);
  const detail::FlashCore<T> core(function, s, w.bias_table, options);
  if (s.rows() == 0 || s.dim == 0) return;
  const detail::InputRows<T, 3, true> x_rows(x);
  const detail::OutputRows<T, 3, true> out_rows(out);
  GatedUnitSaved<T> own;
  GatedUnitSaved<T>& a = saved != nullptr ? *saved : own;
  detail::gated_front<T>(x_rows.view().data(), s, w, options, a);
  a.attended.resize({s.rows(), s.expanded}, core::Fill::none);
  core.forward(detail::flash_arrays<const T>(a.heads.view(), detail::gated_values(a)),
               a.attended.view());
  detail::gated_back<T>(x_rows.view().data(), s, w, options, a, out_rows.view().data());
  out_rows.finish();
}

/// Gradients of flash: dx is overwritten (a null view leaves it out), those of the weights are
/// added to (null views are left out).
template <class T>
void flash_vjp(std::type_identity_t<NdView<const T, 3>> x,
               const std::type_identity_t<GatedUnitWeights<T>>& w,
               const std::type_identity_t<GatedUnitSaved<T>>& saved,
               std::type_identity_t<NdView<const T, 3>> dout, NdView<T, 3> dx,
               const std::type_identity_t<GatedUnitGradients<T>>& g,
               const std::type_identity_t<GatedUnitOptions<T>>& options = {}) {
  constexpr const char* function = "quern::attention::flash_vjp";
  if (!options.cumulative.empty()) {
    return detail::gated_packed_vjp<T>(
        function, x, saved, dout, dx, options,
        [&](const auto& in, const auto& part, const auto& slope, const auto& to, const auto& each) {
          flash_vjp<T>(in, w, part, slope, to, g, each);
        });
  }
  const detail::GatedShape s = detail::gated_shape<T>(function, x, w, 4, options);
  detail::check_gated_arrays<T>(function, g, s, options.norm, false);
  expect_shape(function, "dout", dout, x.extents());
  if (!dx.is_null()) expect_shape(function, "dx", dx, x.extents());
  if (s.rows() == 0 || s.dim == 0) return;
  expect_shape(function, "saved", saved.attended.view(), {s.rows(), s.expanded});
  const detail::FlashCore<T> core(function, s, w.bias_table, options);
  const detail::InputRows<T, 3, true> dout_rows(dout);
  NdArray<T, 3> own;
  if (dx.is_null()) own.resize(x.extents(), core::Fill::none);
  const detail::OutputRows<T, 3, true> dx_rows(dx.is_null() ? own.view() : dx);
  NdArray<T, 2> dattended({s.rows(), s.expanded}, core::Fill::none);
  NdArray<T, 2> dhidden({s.rows(), 2 * s.expanded}, core::Fill::none);
  NdArray<T, 3> dheads(saved.heads.extents(), core::Fill::none);
  detail::gated_back_vjp<T>(dout_rows.view().data(), s, w, options, saved, g, dattended, dhidden);
  core.backward(detail::flash_arrays<const T>(saved.heads.view(), detail::gated_values(saved)),
                dattended.view(),
                detail::flash_arrays<T>(dheads.view(), dhidden.view().slice(1, 0, s.expanded)),
                g.bias_table);
  detail::hide_tokens(s, options, dhidden, dheads);
  detail::gated_front_vjp<T>(s, w, options, saved, g, dheads, dhidden, dout_rows.view().data(),
                             dx_rows.view().data());
  dx_rows.finish();
}

}  // namespace attention
QUERN_NAMESPACE_END

#endif  // QUERN_ATTENTION_FLASH_HPP
