// SPDX-License-Identifier: Apache-2.0

/// \file
/// Small neural networks of rows: hidden layers of rectified units, trained by AdamW on
/// standardised features. One of many learners to bag, boost, vote with and stack; networks of
/// images and sequences are built of nn/ itself.

#ifndef QUERN_ENSEMBLE_LEARNERS_NEURAL_NETWORK_HPP
#define QUERN_ENSEMBLE_LEARNERS_NEURAL_NETWORK_HPP

#include "quern/core/archive.hpp"
#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/ensemble/learner.hpp"
#include "quern/kernels/kernels.hpp"
#include "quern/nn/activation.hpp"
#include "quern/nn/linear.hpp"
#include "quern/nn/loss.hpp"
#include "quern/nn/sequential.hpp"
#include "quern/nn/trainer.hpp"
#include "quern/optim/adam.hpp"
#include "quern/optim/optimizer.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace ensemble {

struct NeuralNetworkOptions {
  std::vector<std::int32_t> hidden = {32};  ///< widths of the hidden layers; empty: a linear model
  std::int32_t epochs = 100;
  std::int32_t batch = 32;
  double learning_rate = 3e-3;  ///< at first; falls to zero along a cosine
  double weight_decay = 1e-4;
};

namespace detail {

/// What both networks share: standardised features, layers, training, files.
template <class Number = float>
class BasicSmallNetwork {
 public:
  BasicSmallNetwork() = default;

  static void check(std::string_view name, const NeuralNetworkOptions& o) {
    constexpr double most = (std::numeric_limits<double>::max)();
    for (const std::int32_t width : o.hidden) expect_in_range(name, "hidden", width, 1, 1 << 20);
    expect_in_range(name, "epochs", o.epochs, 0, 1 << 30);
    expect_in_range(name, "batch", o.batch, 1, 1 << 30);
    expect_in_range(name, "learning_rate", o.learning_rate, 1e-300, most);
    expect_in_range(name, "weight_decay", o.weight_decay, 0.0, most);
  }

  [[nodiscard]] bool fitted() const noexcept { return !widths_.empty(); }
  [[nodiscard]] Index outputs() const { return widths_.empty() ? 0 : widths_.back(); }
  [[nodiscard]] Index features() const { return widths_.empty() ? 0 : widths_.front(); }

  /// Learns; row_loss(row, out, gradient) is one row's loss for weight 1.
  template <class RowLoss>
  void fit(Features x, Index outputs, std::span<const float> weights, std::uint64_t seed,
           const NeuralNetworkOptions& o, const RowLoss& row_loss) {
    standardise(x, weights);
    widths_.assign(1, x.cols());
    widths_.insert(widths_.end(), o.hidden.begin(), o.hidden.end());
    widths_.push_back(outputs);
    nn::Sequential<Number> net = layers();
    net.initialize(seed);
    double total = 0;
    for (Index i = 0; i < x.rows(); ++i) total += weight_of(weights, static_cast<std::size_t>(i));
    const double scale = static_cast<double>(x.rows()) / total;
    const nn::Tensor<Number> in = scaled(x);
    nn::TrainerOptions options;
    options.epochs = o.epochs;
    options.batch = o.batch;
    options.seed = seed;
    const double steps = static_cast<double>(o.epochs) *
                         std::ceil(static_cast<double>(x.rows()) / static_cast<double>(o.batch));
    options.schedule = [steps](std::int64_t step) {
      return 0.5 + 0.5 * std::cos(3.14159265358979323846 * static_cast<double>(step) / steps);
    };
    nn::Trainer<Number> trainer(net, options);
    optim::Optimizer<optim::AdamW, Number> adam;
    trainer.add_groups(adam, optim::AdamW{.lr = o.learning_rate, .weight_decay = o.weight_decay});
    const nn::TrainReport report = trainer.fit(
        adam, in.view(),
        [&](const nn::Shard& shard, nn::TensorView<const float> out, nn::TensorView<float> dout) {
          double loss = 0;
          for (Index k = 0; k < shard.size(); ++k) {
            const auto row = static_cast<std::size_t>(shard.samples[static_cast<std::size_t>(k)]);
            const double factor =
                scale * weight_of(weights, row) / static_cast<double>(shard.batch_size);
            loss += factor * row_loss(row, out.slice(k, 1), dout.slice(k, 1));
            for (float& g : dout.slice(k, 1)) g = static_cast<float>(factor) * g;
          }
          return loss;
        });
    if (report.status == nn::TrainStatus::not_finite) {
      throw ValueError(error_text("quern::ensemble::NeuralNetwork::fit", "learning_rate",
                                  "a rate that the training survives", o.learning_rate));
    }
    keep(net);
  }

  /// (rows, outputs).
  [[nodiscard]] nn::Tensor<Number> scores(std::string_view function, Features x) const {
    if (!fitted()) throw ValueError(error_text(function, "learner", "a fitted one", "one without"));
    if (x.cols() != features()) {
      throw ShapeError(
          error_text(function, "x", std::to_string(features()) + " features", x.cols()));
    }
    check_finite_features(function, x);
    nn::Sequential<Number> net = layers();
    auto at = weights_.begin();
    for (const auto& p : nn::parameters_of(net)) {
      std::copy_n(at, p.values.size(), p.values.begin());
      at += p.values.size();
    }
    const nn::Tensor<Number> in = scaled(x);
    return nn::apply(net, in.view());
  }

  void save(ArchiveWriter& out) const {
    out.array("widths", widths_);
    out.array("means", means_);
    out.array("scales", scales_);
    out.array("weights", weights_);
  }
  void load(const ArchiveReader& in) {
    BasicSmallNetwork loaded;
    loaded.widths_ = in.array<std::int64_t>("widths");
    loaded.means_ = in.array<double>("means");
    loaded.scales_ = in.array<double>("scales");
    loaded.weights_ = in.array<float>("weights");
    std::size_t count = 0;
    for (std::size_t k = 0; k < loaded.widths_.size(); ++k) {
      const std::int64_t width = loaded.widths_[k];
      if (width < 1 || width > (1 << 24)) {
        in.fail_section("widths", "widths from 1 to 2^24", std::to_string(width));
      }
      if (k > 0) {
        count +=
            static_cast<std::size_t>(width) * (static_cast<std::size_t>(loaded.widths_[k - 1]) + 1);
      }
    }
    const std::size_t inputs =
        loaded.widths_.empty() ? 0 : static_cast<std::size_t>(loaded.widths_[0]);
    if (loaded.widths_.size() == 1 || count != loaded.weights_.size()) {
      in.fail_section("weights", std::to_string(count) + " values",
                      std::to_string(loaded.weights_.size()));
    }
    if (loaded.means_.size() != inputs || loaded.scales_.size() != inputs) {
      in.fail_section("means", "one for each feature", std::to_string(loaded.means_.size()));
    }
    *this = std::move(loaded);
  }

 private:
  [[nodiscard]] nn::Sequential<Number> layers() const {
    nn::Sequential<Number> net;
    for (std::size_t k = 1; k < widths_.size(); ++k) {
      if (k > 1) net.template emplace<nn::ReLU<Number>>();
      net.template emplace<nn::Linear<Number>>(widths_[k - 1], widths_[k]);
    }
    return net;
  }
  void keep(nn::Sequential<Number>& net) {
    weights_.clear();
    for (const auto& p : nn::parameters_of(net)) {
      weights_.insert(weights_.end(), p.values.begin(), p.values.end());
    }
  }
  void standardise(Features x, std::span<const float> weights) {
    const auto cols = static_cast<std::size_t>(x.cols());
    means_.assign(cols, 0);
    scales_.assign(cols, 1);
    double total = 0;
    for (Index i = 0; i < x.rows(); ++i) total += weight_of(weights, static_cast<std::size_t>(i));
    for (std::size_t f = 0; f < cols; ++f) {
      double square = 0;
      const auto column = static_cast<Index>(f);
      for (Index i = 0; i < x.rows(); ++i) {
        means_[f] += weight_of(weights, static_cast<std::size_t>(i)) / total *
                     static_cast<double>(x(i, column));
      }
      for (Index i = 0; i < x.rows(); ++i) {
        const double apart = static_cast<double>(x(i, column)) - means_[f];
        square += weight_of(weights, static_cast<std::size_t>(i)) / total * apart * apart;
      }
      if (square > 1e-20 * means_[f] * means_[f]) scales_[f] = 1 / std::sqrt(square);
    }
  }
  [[nodiscard]] nn::Tensor<Number> scaled(Features x) const {
    nn::Tensor<Number> out({x.rows(), x.cols()});
    for (Index i = 0; i < x.rows(); ++i) {
      for (Index f = 0; f < x.cols(); ++f) {
        const auto at = static_cast<std::size_t>(f);
        out[i * x.cols() + f] =
            static_cast<float>((static_cast<double>(x(i, f)) - means_[at]) * scales_[at]);
      }
    }
    return out;
  }

  std::vector<std::int64_t> widths_;
  std::vector<double> means_, scales_;
  std::vector<float> weights_;
};
/// (A template, so that a program compiles it only where it uses it.)
using SmallNetwork = BasicSmallNetwork<>;

}  // namespace detail

/// Classes by a network whose softmax minimises the cross-entropy. Features have to be finite. The
/// same rows, weights, options and seed give the same bits for any number of threads.
template <class = void>
class BasicNeuralNetworkClassifier {
 public:
  /// ValueError for options outside of their ranges.
  explicit BasicNeuralNetworkClassifier(NeuralNetworkOptions options = {})
      : options_(std::move(options)) {
    detail::SmallNetwork::check(name, options_);
  }

  void fit(Features x, std::span<const std::int32_t> y, std::int32_t classes,
           std::span<const float> weights = {}, std::uint64_t seed = 0) {
    detail::check_rows(name, x, y.size(), weights);
    detail::check_classes(name, {y, classes});
    detail::check_finite_features(name, x);
    network_.fit(x, classes, weights, seed, options_,
                 [&](std::size_t row, nn::TensorView<const float> out, nn::TensorView<float> g) {
                   const std::int64_t target[] = {y[row]};
                   return nn::cross_entropy_loss<float>(out, target, g);
                 });
    classes_ = classes;
  }
  void predict_proba(Features x, MatrixView<float> out) const {
    expect_shape(name, "out", out, {x.rows(), Index{classes_}});
    const nn::Tensor<float> scores = network_.scores(name, x);
    std::vector<float> row(static_cast<std::size_t>(classes_));
    for (Index i = 0; i < x.rows(); ++i) {
      QUERN_DISPATCH(softmax_rows(1, row.size(), scores.data() + i * classes_, classes_, row.data(),
                                  classes_));
      for (Index c = 0; c < out.cols(); ++c) out(i, c) = row[static_cast<std::size_t>(c)];
    }
  }

  [[nodiscard]] std::int32_t classes() const noexcept { return classes_; }

  static constexpr std::string_view kind() { return "ensemble.neural_network_classifier"; }
  void save(ArchiveWriter& out) const {
    out.scalar("classes", classes_);
    network_.save(out);
  }
  void load(const ArchiveReader& in) {
    detail::SmallNetwork loaded;
    loaded.load(in);
    const auto count = in.scalar<std::int32_t>("classes");
    if (loaded.fitted() && count != loaded.outputs()) {
      in.fail_section("classes", "as many as outputs", std::to_string(count));
    }
    network_ = std::move(loaded);
    classes_ = count;
  }

 private:
  static constexpr std::string_view name = "quern::ensemble::NeuralNetworkClassifier";

  NeuralNetworkOptions options_;
  std::int32_t classes_ = 0;
  detail::SmallNetwork network_;
};
/// (A template, so that a program compiles it only where it uses it.)
using NeuralNetworkClassifier = BasicNeuralNetworkClassifier<>;

/// Numbers by a network that minimises the squared error of standardised targets.
template <class = void>
class BasicNeuralNetworkRegressor {
 public:
  explicit BasicNeuralNetworkRegressor(NeuralNetworkOptions options = {})
      : options_(std::move(options)) {
    detail::SmallNetwork::check(name, options_);
  }

  void fit(Features x, std::span<const float> y, std::span<const float> weights = {},
           std::uint64_t seed = 0) {
    detail::check_rows(name, x, y.size(), weights);
    detail::check_targets(name, y);
    detail::check_finite_features(name, x);
    double total = 0, mean = 0, square = 0;
    for (std::size_t i = 0; i < y.size(); ++i) total += detail::weight_of(weights, i);
    for (std::size_t i = 0; i < y.size(); ++i) {
      mean += detail::weight_of(weights, i) / total * static_cast<double>(y[i]);
    }
    for (std::size_t i = 0; i < y.size(); ++i) {
      const double apart = static_cast<double>(y[i]) - mean;
      square += detail::weight_of(weights, i) / total * apart * apart;
    }
    const double scale = square > 1e-20 * mean * mean ? std::sqrt(square) : 1;
    network_.fit(x, 1, weights, seed, options_,
                 [&](std::size_t row, nn::TensorView<const float> out, nn::TensorView<float> g) {
                   const double apart =
                       static_cast<double>(out[0]) - (static_cast<double>(y[row]) - mean) / scale;
                   g[0] = static_cast<float>(2 * apart);
                   return apart * apart;
                 });
    mean_ = mean;
    scale_ = scale;
  }
  void predict(Features x, std::span<float> out) const {
    expect_size(name, "out", static_cast<Index>(out.size()), x.rows(), "(the rows)");
    const nn::Tensor<float> scores = network_.scores(name, x);
    for (std::size_t i = 0; i < out.size(); ++i) {
      out[i] =
          static_cast<float>(mean_ + scale_ * static_cast<double>(scores[static_cast<Index>(i)]));
    }
  }

  static constexpr std::string_view kind() { return "ensemble.neural_network_regressor"; }
  void save(ArchiveWriter& out) const {
    out.scalar("mean", mean_);
    out.scalar("scale", scale_);
    network_.save(out);
  }
  void load(const ArchiveReader& in) {
    detail::SmallNetwork loaded;
    loaded.load(in);
    if (loaded.fitted() && loaded.outputs() != 1) {
      in.fail_section("widths", "one output", std::to_string(loaded.outputs()));
    }
    mean_ = in.scalar<double>("mean");
    scale_ = in.scalar<double>("scale");
    network_ = std::move(loaded);
  }

 private:
  static constexpr std::string_view name = "quern::ensemble::NeuralNetworkRegressor";

  NeuralNetworkOptions options_;
  double mean_ = 0, scale_ = 1;
  detail::SmallNetwork network_;
};
/// (A template, so that a program compiles it only where it uses it.)
using NeuralNetworkRegressor = BasicNeuralNetworkRegressor<>;

}  // namespace ensemble
QUERN_NAMESPACE_END

#endif  // QUERN_ENSEMBLE_LEARNERS_NEURAL_NETWORK_HPP
