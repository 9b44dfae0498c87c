// SPDX-License-Identifier: Apache-2.0

/// \file
/// Attention without softmax over tiles of queries by keys: weights f(scale q k^T + bias), forward
/// and backward. GAU goes through all tiles, FLASH through those of its groups.

#ifndef QUERN_ATTENTION_DETAIL_GATED_TILES_HPP
#define QUERN_ATTENTION_DETAIL_GATED_TILES_HPP

#include "quern/attention/attention_options.hpp"
#include "quern/attention/detail/gated_front.hpp"
#include "quern/attention/gated_unit.hpp"
#include "quern/core/config.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/kernels/gated_unit_types.hpp"
#include "quern/kernels/gemm.hpp"
#include "quern/kernels/kernels.hpp"

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace attention {
namespace detail {

/// x = f(scale x + bias along diagonals) for rows, bias[0] being that of x(0, 0) (null: none).
template <class T, class F>
void activate_tile(const F& f, MatrixView<T> x, T scale, const T* bias, int threads) {
  for_rows(x.rows(), threads, [&](Index first, Index count) {
    QUERN_DISPATCH(biased_activation_rows<F, T>(
        f, static_cast<std::size_t>(count), static_cast<std::size_t>(x.cols()), scale,
        bias != nullptr ? bias - first : nullptr, x.row_data(first), x.row_stride()));
  });
}
template <class T, class F>
void activate_tile_gradient(const F& f, MatrixView<T> x, MatrixView<T> slope, T scale,
                            const T* bias, int threads) {
  for_rows(x.rows(), threads, [&](Index first, Index count) {
    QUERN_DISPATCH(biased_activation_rows_gradient<F, T>(
        f, static_cast<std::size_t>(count), static_cast<std::size_t>(x.cols()), scale,
        bias != nullptr ? bias - first : nullptr, x.row_data(first), x.row_stride(),
        slope.row_data(first), slope.row_stride()));
  });
}

/// One row of a batch: tokens as rows, adjacent columns.
template <class T>
struct TileInputs {
  MatrixView<const T> q, k, v;
  T scale = T{1};
  const T* bias = nullptr;  ///< of distance 0, in the middle of an array of all distances
  Index offset = 0;         ///< position of query 0 among the keys
  /// Keys before and after its own position that a query sees.
  Index left = AttentionShape::unbounded, right = AttentionShape::unbounded;
  GateActivation activation = GateActivation::squared_relu;
  int threads = 0;
};
template <class T>
struct TileGradients {
  MatrixView<T> dq, dk, dv;  ///< added to
  double* dbias = nullptr;   ///< of distance 0; null: not wanted
};

/// Tiles of one row of a batch, with memory of their own.
template <class T>
class GatedTiles {
 public:
  explicit GatedTiles(const TileInputs<T>& in) : in_(in) {}

  /// out = beta out + weights of queries [i, i + rows) with keys [j, j + cols) times their values.
  void forward(Index i, Index rows, Index j, Index cols, MatrixView<T> out, T beta) {
    const MatrixView<T> x = logits(i, rows, j, cols);
    const T* const bias = in_.bias != nullptr ? in_.bias + (j - i - in_.offset) : nullptr;
    if (in_.activation == GateActivation::laplace) {
      activate_tile(kernels::LaplaceActivation{}, x, in_.scale, bias, in_.threads);
    } else {
      activate_tile(kernels::SquaredRelu{}, x, in_.scale, bias, in_.threads);
    }
    hide(x, i, j);
    kernels::gemm<T>(x, in_.v.slice(0, j, cols), out, {.beta = beta, .threads = in_.threads});
  }

  /// Gradients of such a tile, where dout is that of the outputs of [i, i + rows).
  void backward(Index i, Index rows, Index j, Index cols, MatrixView<const T> dout,
                const TileGradients<T>& g) {
    const MatrixView<T> x = logits(i, rows, j, cols);
    const MatrixView<const T> q = in_.q.slice(0, i, rows), k = in_.k.slice(0, j, cols);
    slopes_.resize({rows, cols}, core::Fill::none);
    const MatrixView<T> slope = slopes_.view();
    kernels::gemm<T>(dout, in_.v.slice(0, j, cols).transposed(), slope, {.threads = in_.threads});
    const T* const bias = in_.bias != nullptr ? in_.bias + (j - i - in_.offset) : nullptr;
    if (in_.activation == GateActivation::laplace) {
      activate_tile_gradient(kernels::LaplaceActivation{}, x, slope, in_.scale, bias, in_.threads);
    } else {
      activate_tile_gradient(kernels::SquaredRelu{}, x, slope, in_.scale, bias, in_.threads);
    }
    hide(x, i, j);
    hide(slope, i, j);
    const kernels::GemmOptions<T> add{.beta = T{1}, .threads = in_.threads};
    const kernels::GemmOptions<T> add_scaled{
        .alpha = in_.scale, .beta = T{1}, .threads = in_.threads};
    kernels::gemm<T>(x.transposed(), dout, g.dv.slice(0, j, cols), add);
    kernels::gemm<T>(slope, k, g.dq.slice(0, i, rows), add_scaled);
    kernels::gemm<T>(slope.transposed(), q, g.dk.slice(0, j, cols), add_scaled);
    if (g.dbias != nullptr) add_diagonals(slope, g.dbias + (j - i - in_.offset));
  }

 private:
  MatrixView<T> logits(Index i, Index rows, Index j, Index cols) {
    logits_.resize({rows, cols}, core::Fill::none);
    kernels::gemm<T>(in_.q.slice(0, i, rows), in_.k.slice(0, j, cols).transposed(), logits_.view(),
                     {.threads = in_.threads});
    return logits_.view();
  }
  /// Zeros where a query does not see a key.
  void hide(MatrixView<T> x, Index i, Index j) const {
    const Index cols = x.cols(), first = i + in_.offset - j;  // the first query's place in the tile
    if (first + in_.right >= cols - 1 && first + x.rows() - 1 - in_.left <= 0) return;
    for (Index r = 0; r < x.rows(); ++r) {
      const Index low = (std::clamp)(first + r - in_.left, Index{0}, cols);
      const Index high = (std::clamp)(first + r + in_.right + 1, low, cols);
      std::fill_n(x.row_data(r), low, T{0});
      std::fill_n(x.row_data(r) + high, cols - high, T{0});
    }
  }
  /// dbias[c - r] += x(r, c).
  void add_diagonals(MatrixView<const T> x, double* dbias) {
    const Index count = x.rows() + x.cols() - 1;
    diagonals_.assign(static_cast<std::size_t>(count), T{0});
    for (Index r = 0; r < x.rows(); ++r) {
      add_to_row(x.row_data(r), x.cols(), diagonals_.data() + (x.rows() - 1 - r));
    }
    double* const first = dbias - (x.rows() - 1);
    for (Index d = 0; d < count; ++d) {
      first[d] += static_cast<double>(diagonals_[static_cast<std::size_t>(d)]);
    }
  }

  TileInputs<T> in_;
  NdArray<T, 2> logits_, slopes_;
  std::vector<T> diagonals_;
};

/// The arrays of all tokens as (batch, length, columns).
template <class T>
NdView<T, 3> by_sequence(const MatrixView<T>& m, const GatedShape& s) {
  return {m.data(), {s.batch, s.length, m.cols()}, {s.length * m.row_stride(), m.row_stride(), 1}};
}

}  // namespace detail
}  // namespace attention
QUERN_NAMESPACE_END

#endif  // QUERN_ATTENTION_DETAIL_GATED_TILES_HPP
