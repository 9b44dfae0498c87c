// SPDX-License-Identifier: Apache-2.0

/// \file
/// Parameters of losses, by XGBoost's names: part of the options and of a trained model.

#ifndef QUERN_BOOSTING_OBJECTIVE_PARAMS_HPP
#define QUERN_BOOSTING_OBJECTIVE_PARAMS_HPP

#include "quern/core/config.hpp"

#include <cstdint>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace boosting {

/// Second derivatives that softmax reports.
enum class SoftmaxHessian : std::uint8_t {
  doubled,   ///< 2 p (1 - p): XGBoost's, an upper bound that damps the steps
  exact,     ///< p (1 - p)
  friedman,  ///< K / (K - 1) p (1 - p) of K classes: LightGBM's, from J. Friedman (Annals of
             ///< Statistics 29 (2001), algorithm 6)
};

/// Which pairs of a group LambdaRank looks at.
enum class LambdarankPairs : std::uint8_t {
  topk,  ///< the present `num_pair` best against all that rank below them
  mean,  ///< for every row, `num_pair` drawn rows of other labels
};

/// How the logarithm of a survival time is distributed around its prediction.
enum class AftDistribution : std::uint8_t { normal, logistic, extreme };

/// Parameters of objectives and of the metrics that share them. Defaults are XGBoost's.
struct ObjectiveParams {
  SoftmaxHessian softmax_hessian = SoftmaxHessian::doubled;
  double scale_pos_weight = 1;  ///< factor of the derivatives of rows with label 1 (logistic)
  double huber_slope = 1;       ///< where pseudo-Huber turns from squares to lines, > 0
  std::vector<double> quantile_alpha = {};  ///< levels in (0, 1), one output each; empty: k outputs
                                            ///< stand at 1/(k+1) .. k/(k+1)
  double poisson_max_delta_step = 0.7;      ///< h of Poisson is exp(margin + this)
  double tweedie_variance_power = 1.5;      ///< in (1, 2): towards Poisson or gamma
  AftDistribution aft_loss_distribution = AftDistribution::normal;
  double aft_loss_distribution_scale = 1;  ///< of the logarithm of the time, > 0
  LambdarankPairs lambdarank_pair_method = LambdarankPairs::topk;
  std::int32_t lambdarank_num_pair_per_sample = 0;  ///< 0: 32 for topk, 1 for mean
  bool lambdarank_normalization = true;             ///< by log2(1 + sum) / sum of a group's lambdas
  bool lambdarank_score_normalization = true;       ///< divide a pair by 0.01 + |score difference|
  bool lambdarank_unbiased = false;                 ///< correct for the positions of rows in groups
  double lambdarank_bias_norm = 1;                  ///< positions' biases to the power 1/(1 + this)
  bool ndcg_exp_gain = true;                        ///< gain 2^label - 1, else the label
  std::uint64_t seed = 0;                           ///< of drawn pairs
};

}  // namespace boosting
QUERN_NAMESPACE_END

#endif  // QUERN_BOOSTING_OBJECTIVE_PARAMS_HPP
