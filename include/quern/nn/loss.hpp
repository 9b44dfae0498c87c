// SPDX-License-Identifier: Apache-2.0

/// \file
/// Losses: mean squared and absolute error, Huber, cross-entropy of classes, binary cross-entropy
/// with logits, Kullback-Leibler divergence. Each gives its value and, in the same pass, its
/// gradient with respect to the prediction (overwritten; a null view leaves it out).
///
/// The mean divides by the number of terms. Where a batch is cut into shards, every shard divides
/// by the whole batch's number instead: LossOptions::divisor.

#ifndef QUERN_NN_LOSS_HPP
#define QUERN_NN_LOSS_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/parallel.hpp"
#include "quern/kernels/functors.hpp"
#include "quern/kernels/kernels.hpp"
#include "quern/kernels/loss_types.hpp"
#include "quern/nn/tensor.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace nn {

/// Options of all losses.
struct LossOptions {
  bool mean = true;    ///< false: the sum
  double divisor = 0;  ///< of the mean; 0: as many as there are terms
  double weight = 1;   ///< factor of value and gradient
  int threads = 0;
};

namespace detail {

template <class T>
using InputView = std::type_identity_t<TensorView<const T>>;

/// What each term is multiplied by.
[[nodiscard]] inline double loss_scale(const LossOptions& o, double terms) {
  if (!(o.divisor >= 0 && is_finite_bits(o.divisor))) {
    throw ValueError(error_text("quern::nn", "divisor of LossOptions", "0 or more", o.divisor));
  }
  if (!o.mean) return o.weight;
  const double divisor = o.divisor > 0 ? o.divisor : terms;
  return divisor > 0 ? o.weight / divisor : 0;
}

template <class T, class F>
double run_pair_loss(const char* function, const F& f, TensorView<const T> prediction,
                     TensorView<const T> target, TensorView<T> gradient, const LossOptions& o,
                     double terms) {
  expect_extents(function, "target", target, prediction.extents());
  if (!gradient.null()) expect_extents(function, "gradient", gradient, prediction.extents());
  const double scale = loss_scale(o, terms);
  constexpr Index block = 32768;
  const double sum = parallel_reduce(
      block_count(prediction.size(), block), 0.0,
      [&](Index b) {
        const BlockRange range = block_range(prediction.size(), block, b);
        T* const g = gradient.null() ? nullptr : gradient.data() + range.begin;
        return QUERN_DISPATCH(
            pair_loss(f, prediction.data() + range.begin, target.data() + range.begin,
                      static_cast<std::size_t>(range.size()), static_cast<T>(scale), g));
      },
      [](double a, double b) { return a + b; }, o.threads);
  return scale * sum;
}

}  // namespace detail

/// Mean of (prediction - target)^2, over all elements. ShapeError where shapes differ (as in all
/// losses of pairs).
template <class T>
double mse_loss(detail::InputView<T> prediction, detail::InputView<T> target,
                TensorView<T> gradient, const LossOptions& options = {}) {
  return detail::run_pair_loss<T>("quern::nn::mse_loss", kernels::SquaredLoss{}, prediction, target,
                                  gradient, options, static_cast<double>(prediction.size()));
}
/// Mean of |prediction - target|; slope 0 at 0.
template <class T>
double l1_loss(detail::InputView<T> prediction, detail::InputView<T> target, TensorView<T> gradient,
               const LossOptions& options = {}) {
  return detail::run_pair_loss<T>("quern::nn::l1_loss", kernels::AbsoluteLoss{}, prediction, target,
                                  gradient, options, static_cast<double>(prediction.size()));
}
/// Half the square of d = prediction - target where |d| <= delta, delta (|d| - delta / 2) beyond
/// (Huber, Ann. Math. Stat. 35, 1964). ValueError unless delta > 0.
template <class T>
double huber_loss(detail::InputView<T> prediction, detail::InputView<T> target,
                  TensorView<T> gradient, double delta = 1, const LossOptions& options = {}) {
  constexpr const char* function = "quern::nn::huber_loss";
  if (!(delta > 0)) throw ValueError(error_text(function, "delta", "above 0", delta));
  return detail::run_pair_loss<T>(function, kernels::HuberLoss<T>{static_cast<T>(delta)},
                                  prediction, target, gradient, options,
                                  static_cast<double>(prediction.size()));
}
/// Binary cross-entropy of logits and targets from 0 to 1; `positive` weighs the targets' part.
template <class T>
double bce_with_logits_loss(detail::InputView<T> logits, detail::InputView<T> target,
                            TensorView<T> gradient, double positive = 1,
                            const LossOptions& options = {}) {
  return detail::run_pair_loss<T>("quern::nn::bce_with_logits_loss",
                                  kernels::LogisticLoss<T>{static_cast<T>(positive)}, logits,
                                  target, gradient, options, static_cast<double>(logits.size()));
}
/// Kullback-Leibler divergence of exp(log_prediction) from target: sum of target (log target -
/// log_prediction), over the first dimension's extent for the mean (PyTorch's batchmean, the
/// mathematical one). `log_target`: the target is given as logarithms.
template <class T>
double kl_div_loss(detail::InputView<T> log_prediction, detail::InputView<T> target,
                   TensorView<T> gradient, bool log_target = false,
                   const LossOptions& options = {}) {
  constexpr const char* function = "quern::nn::kl_div_loss";
  const double rows =
      log_prediction.rank() == 0 ? 1 : static_cast<double>(log_prediction.extent(0));
  if (log_target) {
    return detail::run_pair_loss<T>(function, kernels::LogDivergenceLoss{}, log_prediction, target,
                                    gradient, options, rows);
  }
  return detail::run_pair_loss<T>(function, kernels::DivergenceLoss{}, log_prediction, target,
                                  gradient, options, rows);
}

/// Options of cross_entropy_loss.
struct CrossEntropyOptions {
  double smoothing = 0;                  ///< share of the target spread over all classes
  std::int64_t ignore = -100;            ///< rows of this target count nowhere
  std::span<const double> weights = {};  ///< one a class; empty: ones
  bool channels_first = false;           ///< logits (N, C, …) for targets (N, …); else (…, C)
  LossOptions loss = {};
};

namespace detail {

/// One row's loss; `row` (logits) becomes factor times its gradient.
template <class T>
double cross_entropy_row(T* row, std::size_t classes, std::size_t target,
                         const CrossEntropyOptions& o, double factor) {
  const auto stride = static_cast<std::ptrdiff_t>(classes);
  QUERN_DISPATCH(log_softmax_rows(1, classes, row, stride, row, stride));
  const auto weight = [&](std::size_t c) { return o.weights.empty() ? 1.0 : o.weights[c]; };
  const double spread = o.smoothing / static_cast<double>(classes);
  double all = 0, mass = 1;
  if (spread > 0) {
    mass = 0;
    for (std::size_t c = 0; c < classes; ++c) {
      all -= weight(c) * static_cast<double>(row[c]);
      mass += weight(c);
    }
  }
  const double hit = (1 - o.smoothing) * weight(target);
  const double loss = spread * all - hit * static_cast<double>(row[target]);
  // d/dz = (hit + spread sum of weights) softmax - hit onehot - spread weights
  const double total = spread > 0 ? hit + spread * mass : hit;
  QUERN_DISPATCH(transform(kernels::Exp{}, row, classes, row));
  QUERN_DISPATCH(scale(static_cast<T>(factor * total), row, classes, row));
  if (spread > 0) {
    for (std::size_t c = 0; c < classes; ++c) row[c] -= static_cast<T>(factor * spread * weight(c));
  }
  row[target] -= static_cast<T>(factor * hit);
  return loss;
}

/// Weights of the rows that count together: the mean's divisor. ValueError for a class that is not
/// there.
inline double cross_entropy_terms(std::span<const std::int64_t> targets, Index classes,
                                  const CrossEntropyOptions& o) {
  constexpr const char* function = "quern::nn::cross_entropy_loss";
  if (!o.weights.empty()) {
    expect_size(function, "weights", static_cast<Index>(o.weights.size()), classes,
                "values, one a class");
  }
  expect_in_range(function, "smoothing", o.smoothing, 0.0, 1.0);
  double total = 0;
  for (const std::int64_t t : targets) {
    if (t == o.ignore) continue;
    if (t < 0 || t >= classes) {
      throw ValueError(error_text(
          function, "targets", "0 to " + std::to_string(classes - 1) + " or the ignored one", t));
    }
    total += o.weights.empty() ? 1 : o.weights[static_cast<std::size_t>(t)];
  }
  return total;
}

}  // namespace detail

/// Cross-entropy of the softmax of logits with classes: for each row -log softmax[target], with
/// label smoothing as PyTorch's (Szegedy et al., arXiv:1512.00567). Targets are one a row of logits
/// (…, C), in order, or one a position of (N, C, …). The mean divides by the sum of the counted
/// targets' weights. ShapeError, ValueError for what does not fit.
template <class T>
double cross_entropy_loss(detail::InputView<T> logits, std::span<const std::int64_t> targets,
                          TensorView<T> gradient, const CrossEntropyOptions& options = {}) {
  constexpr const char* function = "quern::nn::cross_entropy_loss";
  const bool first = options.channels_first && logits.rank() > 2;
  if (logits.rank() == 0) {
    throw ShapeError(error_text(function, "logits", "a dimension of classes", "a scalar"));
  }
  const Index classes = logits.extent(first ? 1 : -1);
  const Index inner = first ? logits.count(2, logits.rank()) : 1;
  const Index rows = classes == 0 ? 0 : logits.size() / classes;
  expect_size(function, "targets", static_cast<Index>(targets.size()), rows,
              "classes, one a row of logits");
  if (!gradient.null()) expect_extents(function, "gradient", gradient, logits.extents());
  const double terms = detail::cross_entropy_terms(targets, classes, options);
  const double scale = detail::loss_scale(options.loss, terms);
  const auto width = static_cast<std::size_t>(classes);
  const Index block = (std::max)(Index{1}, 16384 / (std::max)(classes, Index{1}));
  const double sum = parallel_reduce(
      block_count(rows, block), 0.0,
      [&](Index b) {
        std::vector<T> row(width);
        const BlockRange range = block_range(rows, block, b);
        double part = 0;
        for (Index i = range.begin; i < range.end; ++i) {
          // Class c of row i is at base + c inner.
          const Index base = i / inner * inner * classes + i % inner;
          const std::int64_t target = targets[static_cast<std::size_t>(i)];
          if (target == options.ignore) {
            std::fill(row.begin(), row.end(), T{});
          } else {
            for (std::size_t c = 0; c < width; ++c) {
              row[c] = logits[base + static_cast<Index>(c) * inner];
            }
            part += detail::cross_entropy_row(row.data(), width, static_cast<std::size_t>(target),
                                              options, scale);
          }
          if (gradient.null()) continue;
          for (std::size_t c = 0; c < width; ++c) {
            gradient[base + static_cast<Index>(c) * inner] = row[c];
          }
        }
        return part;
      },
      [](double a, double b) { return a + b; }, options.loss.threads);
  return scale * sum;
}

}  // namespace nn
QUERN_NAMESPACE_END

#endif  // QUERN_NN_LOSS_HPP
