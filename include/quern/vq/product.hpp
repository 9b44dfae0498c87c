// SPDX-License-Identifier: Apache-2.0

/// \file
/// Several small codebooks instead of a large one: product quantisation (H. Jégou, M. Douze,
/// C. Schmid, "Product quantization for nearest neighbor search", 2011), where each takes some
/// columns; residual quantisation, where each takes what those before left over (N. Zeghidour et
/// al., "SoundStream", 2021); grouped residual quantisation, which is both.

#ifndef QUERN_VQ_PRODUCT_HPP
#define QUERN_VQ_PRODUCT_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/vq/kmeans.hpp"
#include "quern/vq/nearest.hpp"

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace vq {

/// G groups of consecutive columns, each quantised by Q codebooks of K codes, one after the other
/// on what is left. Q = 1 is product quantisation, G = 1 residual quantisation, G = Q = 1 the plain
/// one. Codes of a row are in order of group, then stage: N x (G Q).
template <class T>
class GroupedResidualQuantizer {
 public:
  /// \p codebooks is G x Q x K x (d / G), copied. ShapeError where one extent is 0.
  explicit GroupedResidualQuantizer(NdView<const T, 4> codebooks,
                                    const NearestOptions& options = {})
      : codebooks_(codebooks) {
    for (int r = 0; r < 4; ++r) {
      if (codebooks.extent(r) < 1) {
        throw ShapeError(error_text("quern::vq::GroupedResidualQuantizer", "codebooks",
                                    "extents of at least 1", shape_text(codebooks.extents())));
      }
    }
    for (Index g = 0; g < groups(); ++g) {
      for (Index q = 0; q < stages(); ++q) searches_.emplace_back(codebook(g, q), options);
    }
  }

  [[nodiscard]] Index groups() const { return codebooks_.extent(0); }
  [[nodiscard]] Index stages() const { return codebooks_.extent(1); }
  [[nodiscard]] Index codes() const { return codebooks_.extent(2); }
  [[nodiscard]] Index cols() const { return groups() * codebooks_.extent(3); }
  [[nodiscard]] MatrixView<const T> codebook(Index group, Index stage) const {
    return codebooks_.view().subview(group).subview(stage);
  }

  /// Codes of the rows of \p x (N x d, any strides). \p quantized (N x d), where not null, gets the
  /// sum of the codes. Returns, for each stage, the mean of the squared residual after it.
  std::vector<double> encode(MatrixView<const T> x, MatrixView<std::int64_t> codes,
                             MatrixView<T> quantized = {}) const {
    constexpr const char* function = "quern::vq::GroupedResidualQuantizer::encode";
    expect_shape(function, "x", x, {x.rows(), cols()});
    expect_shape(function, "codes", codes, {x.rows(), groups() * stages()});
    if (!quantized.is_null()) expect_shape(function, "quantized", quantized, x.extents());
    std::vector<double> left(static_cast<std::size_t>(stages()), 0.0);
    const Index width = codebooks_.extent(3);
    std::vector<std::int64_t> found(static_cast<std::size_t>(x.rows()));
    NdArray<T, 2> chosen({x.rows(), width}, core::Fill::none);
    for (Index g = 0; g < groups(); ++g) {
      NdArray<T, 2> rest(x.slice(1, g * width, width));
      for (Index q = 0; q < stages(); ++q) {
        searches_[static_cast<std::size_t>(g * stages() + q)].find(rest.view(), found);
        lookup_codes<T>(codebook(g, q), found, chosen.view());
        double squares = 0;
        for (Index i = 0; i < rest.size(); ++i) {
          rest.data()[i] -= chosen.data()[i];
          squares += static_cast<double>(rest.data()[i]) * static_cast<double>(rest.data()[i]);
        }
        left[static_cast<std::size_t>(q)] += squares;
        for (Index i = 0; i < x.rows(); ++i) {
          codes(i, g * stages() + q) = found[static_cast<std::size_t>(i)];
        }
      }
    }
    for (double& sum : left) sum = x.size() > 0 ? sum / static_cast<double>(x.size()) : 0;
    if (!quantized.is_null()) decode(codes, quantized);
    return left;
  }

  /// The sum of the codes of each row, stages added in order. A negative code adds nothing (its
  /// stage was dropped); ValueError for one that is too large.
  void decode(MatrixView<const std::int64_t> codes, MatrixView<T> out) const {
    constexpr const char* function = "quern::vq::GroupedResidualQuantizer::decode";
    expect_shape(function, "codes", codes, {codes.rows(), groups() * stages()});
    expect_shape(function, "out", out, {codes.rows(), cols()});
    const Index width = codebooks_.extent(3);
    for (Index i = 0; i < codes.rows(); ++i) {
      for (Index j = 0; j < cols(); ++j) out(i, j) = T(0);
      for (Index c = 0; c < codes.cols(); ++c) {
        const std::int64_t code = codes(i, c);
        if (code < 0) continue;
        if (code >= this->codes()) {
          throw ValueError(
              error_text(function, "codes", "codes below " + std::to_string(this->codes()), code));
        }
        const Index g = c / stages();
        const T* const from = codebooks_.data() + (c * this->codes() + code) * width;
        for (Index j = 0; j < width; ++j) out(i, g * width + j) += from[j];
      }
    }
  }

 private:
  NdArray<T, 4> codebooks_;
  std::vector<CodeSearch<T>> searches_;
};

/// Codebooks for GroupedResidualQuantizer from data: k-means++ and Lloyd's rounds, group by group,
/// stage by stage on the residuals. ValueError where a stage has fewer than K different rows.
template <class T>
[[nodiscard]] NdArray<T, 4> train_codebooks(detail::InputMatrix<T> x, Index groups, Index stages,
                                            Index codes, std::uint64_t seed = 0,
                                            const LloydOptions& options = {}) {
  constexpr const char* function = "quern::vq::train_codebooks";
  expect_in_range(function, "groups", groups, Index{1}, (std::max)(x.cols(), Index{1}));
  expect_in_range(function, "stages", stages, Index{1}, Index{1} << 20);
  if (x.cols() % groups != 0) {
    throw ShapeError(error_text(function, "groups",
                                "a divisor of " + std::to_string(x.cols()) + " columns", groups));
  }
  const Index width = x.cols() / groups;
  NdArray<T, 4> all({groups, stages, codes, width});
  std::vector<std::int64_t> found(static_cast<std::size_t>(x.rows()));
  NdArray<T, 2> chosen({x.rows(), width}, core::Fill::none);
  for (Index g = 0; g < groups; ++g) {
    NdArray<T, 2> rest(x.slice(1, g * width, width));
    for (Index q = 0; q < stages; ++q) {
      const MatrixView<T> book = all.view().subview(g).subview(q);
      kmeans_plus_plus<T>(rest.view(), book, seed + static_cast<std::uint64_t>(g * stages + q),
                          options.nearest.threads);
      lloyd<T>(rest.view(), book, options);
      nearest_codes<T>(rest.view(), book, found, {}, options.nearest);
      lookup_codes<T>(book, found, chosen.view(), options.nearest.threads);
      for (Index i = 0; i < rest.size(); ++i) rest.data()[i] -= chosen.data()[i];
    }
  }
  return all;
}

}  // namespace vq
QUERN_NAMESPACE_END

#endif  // QUERN_VQ_PRODUCT_HPP
