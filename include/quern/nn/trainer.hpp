// SPDX-License-Identifier: Apache-2.0

/// \file
/// nn::Trainer: the training loop. Shuffled batches, any optimiser of optim/, schedules, an
/// exponential average of the weights, validation with early stopping, progress that may cancel,
/// snapshots that survive a NaN, and a state from which training goes on to the same bits
/// (io/checkpoint.hpp writes it).
///
///     nn::Trainer<float> trainer(net, {.epochs = 10, .batch = 128});
///     optim::Optimizer<optim::AdamW, float> adamw;
///     trainer.add_groups(adamw, optim::AdamW{.lr = 1e-3});
///     trainer.fit(adamw, images, [&](const nn::Shard& shard, auto out, auto dout) {
///       return nn::cross_entropy_loss<float>(out, labels_of(shard.samples), dout,
///                                            {.loss = {.divisor = double(shard.batch_size)}});
///     });

#ifndef QUERN_NN_TRAINER_HPP
#define QUERN_NN_TRAINER_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/progress.hpp"
#include "quern/nn/data_parallel.hpp"
#include "quern/nn/layer.hpp"
#include "quern/nn/loader.hpp"
#include "quern/optim/averaging.hpp"
#include "quern/optim/optimizer_base.hpp"
#include "quern/optim/schedule.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace nn {

/// Options of a Trainer.
struct TrainerOptions {
  Index epochs = 10;
  Index batch = 128;
  int shards = 8;          ///< parts of a batch whose gradients are added; part of the result
  std::uint64_t seed = 0;  ///< of order and of random layers
  bool shuffle = true;
  bool drop_last = false;
  double average = 0;      ///< decay of the weights' exponential average; 0: none
  Index patience = 0;      ///< epochs without a better validation value before it stops; 0: never
  double min_delta = 0;    ///< what counts as better
  bool keep_best = false;  ///< at the end, the weights of the best validation value
  int threads = 0;
  std::function<double(std::int64_t)> schedule = {};  ///< of the rate, by step: a multiplier
  ProgressCallback progress = {};                     ///< after every step; false cancels
};

/// Why training ended.
enum class TrainStatus {
  finished,    ///< all epochs
  early,       ///< no better validation value for `patience` epochs
  cancelled,   ///< by the progress callback
  not_finite,  ///< a loss or weight was NaN or infinite: everything is as the last good epoch left
               ///< it
};

/// What fit() did.
struct TrainReport {
  TrainStatus status = TrainStatus::finished;
  std::int64_t steps = 0;  ///< in all, those before resuming included
  double loss = 0;         ///< mean of the last epoch's batches
  double best = (std::numeric_limits<double>::infinity)();  ///< lowest validation value
};

/// Where training is. Saved and set, it goes on to the same bits.
struct TrainerState {
  Index epoch = 0;
  Index batch = 0;  ///< next of the epoch
  std::int64_t step = 0;
  double loss_sum = 0;  ///< of the epoch's batches so far
  double best = (std::numeric_limits<double>::infinity)();
  Index waited = 0;  ///< epochs since the best
};

/// See the file comment. The network belongs to the caller and has to outlive this.
template <class T>
class Trainer {
 public:
  /// A shard's loss: what `out` costs, divided by the batch's size, and its gradient into `dout`.
  using Loss = std::function<double(const Shard&, TensorView<const T> out, TensorView<T> dout)>;
  /// A shard's whole step, for networks that need more than a loss: see DataParallel::run.
  using ShardStep = std::function<double(const Shard&, Cache<T>&, GradientsView<T>)>;
  /// After an epoch, the value to be lowered (an error, a loss).
  using Validate = std::function<double()>;

  explicit Trainer(Layer<T>& network, TrainerOptions options = {})
      : options_(std::move(options)), parallel_(network, options_.shards, options_.batch) {
    constexpr const char* function = "quern::nn::Trainer";
    const auto at_least = [&](const char* name, double value, double least) {
      if (value >= least) return;
      throw ValueError(
          error_text(function, name, "at least " + std::to_string(static_cast<int>(least)), value));
    };
    at_least("epochs", static_cast<double>(options_.epochs), 0);
    at_least("batch", static_cast<double>(options_.batch), 1);
    at_least("patience", static_cast<double>(options_.patience), 0);
    if (!(options_.average >= 0 && options_.average < 1)) {
      throw ValueError(error_text(function, "average", "0 <= decay < 1", options_.average));
    }
    if (options_.average > 0) {
      average_.emplace(
          optimizer_parameters(parallel_.parameters(), parallel_.gradients()),
          optim::AverageOptions{.decay = options_.average, .threads = options_.threads});
    }
  }

  [[nodiscard]] Layer<T>& network() const noexcept { return parallel_.network(); }
  [[nodiscard]] const ParameterList<T>& parameters() const noexcept {
    return parallel_.parameters();
  }
  [[nodiscard]] const Gradients<T>& gradients() const noexcept { return parallel_.gradients(); }
  [[nodiscard]] const TrainerOptions& options() const noexcept { return options_; }
  /// All parameters for an optimiser, see nn::add_groups.
  template <class Optimizer, class Method>
  void add_groups(Optimizer& optimizer, const Method& method) const {
    nn::add_groups(optimizer, method, parallel_.parameters(), parallel_.gradients());
  }

  /// The average of the weights; null where there is none.
  [[nodiscard]] optim::WeightAverage<T>* average() noexcept {
    return average_ ? &*average_ : nullptr;
  }
  [[nodiscard]] const TrainerState& state() const noexcept { return state_; }
  void set_state(const TrainerState& state) { state_ = state; }

  /// Called whenever an epoch has ended and the weights are finite: the place to save a checkpoint.
  std::function<void()> on_epoch = {};
  Validate validate = {};

  /// Trains from where state() is. `inputs` holds samples along its first dimension. Where a loss
  /// or a weight is not finite it stops, and weights, buffers, their average, the optimiser's state
  /// and state() are what they were when the last good epoch ended (before the first: as given).
  TrainReport fit(optim::OptimizerBase<T>& optimizer,
                  std::type_identity_t<TensorView<const T>> inputs, const Loss& loss) {
    struct Memory {
      Tensor<T> in, out, dout;
    };
    std::vector<Memory> memory(static_cast<std::size_t>(options_.shards));
    const Layer<T>& net = network();
    return fit_steps(optimizer, inputs.rank() == 0 ? 0 : inputs.extent(0),
                     [&](const Shard& shard, Cache<T>& cache, GradientsView<T> gradients) {
                       Memory& m = memory[shard.number];
                       gather_samples<T>(inputs, shard.samples, m.in);
                       const Extents shape = net.output_shape(m.in.shape());
                       m.out.resize(shape);
                       m.dout.resize(shape);
                       net.forward(m.in.view(), m.out.view(), cache, Mode::training);
                       const double value = loss(shard, m.out.view(), m.dout.view());
                       net.backward(m.dout.view(), {}, cache, gradients);
                       return value;
                     });
  }

  /// The same with the shards' whole steps given.
  TrainReport fit_steps(optim::OptimizerBase<T>& optimizer, Index samples, const ShardStep& step) {
    Shuffler order(samples, options_.batch, options_.seed, options_.shuffle, options_.drop_last);
    TrainReport report;
    report.best = state_.best;
    keep_good(optimizer);
    while (state_.epoch < options_.epochs) {
      const TrainStatus status = run_epoch(optimizer, order, step);
      report.loss = state_.loss_sum / static_cast<double>((std::max)(state_.batch, Index{1}));
      if (status != TrainStatus::finished || !end_epoch()) {
        report.status = status != TrainStatus::finished ? status : TrainStatus::not_finite;
        if (report.status == TrainStatus::not_finite) back_to_good(optimizer);
        break;
      }
      keep_good(optimizer);
      if (on_epoch) on_epoch();
      if (options_.patience > 0 && state_.waited >= options_.patience) {
        report.status = TrainStatus::early;
        break;
      }
    }
    if (options_.keep_best && !best_weights_.empty()) recall(best_weights_);
    report.steps = state_.step;
    report.best = state_.best;
    return report;
  }

 private:
  TrainStatus run_epoch(optim::OptimizerBase<T>& optimizer, Shuffler& order,
                        const ShardStep& step) {
    const Index batches = order.batches();
    if (state_.batch == 0) state_.loss_sum = 0;
    while (state_.batch < batches) {
      if (options_.schedule) optimizer.set_lr_multiplier(options_.schedule(state_.step));
      const double loss =
          parallel_.run(order.batch(state_.epoch, state_.batch), options_.seed,
                        static_cast<std::uint64_t>(state_.step), options_.threads, step);
      if (!is_finite_bits(loss)) return TrainStatus::not_finite;
      optimizer.step();
      if (average_) average_->update();
      state_.loss_sum += loss;
      ++state_.batch;
      ++state_.step;
      const Metric metrics[] = {{"loss", state_.loss_sum / static_cast<double>(state_.batch)},
                                {"batch loss", loss},
                                {"epoch", static_cast<double>(state_.epoch)}};
      const bool go = !options_.progress ||
                      options_.progress({"training", state_.epoch * batches + state_.batch,
                                         options_.epochs * batches, metrics});
      if (!go) return TrainStatus::cancelled;
    }
    return TrainStatus::finished;
  }

  /// False when a weight is not finite.
  bool end_epoch() {
    if (!all_finite()) return false;
    ++state_.epoch;
    state_.batch = 0;
    state_.loss_sum = 0;
    if (!validate) return true;
    const double value = validate();
    if (value < state_.best - options_.min_delta) {
      state_.best = value;
      state_.waited = 0;
      if (options_.keep_best) remember(best_weights_);
    } else {
      ++state_.waited;
    }
    return true;
  }

  [[nodiscard]] bool all_finite() const {
    for (const Parameter<T>& p : parallel_.parameters()) {
      for (const T value : p.values) {
        if (!is_finite_bits(value)) return false;
      }
    }
    return true;
  }

  void keep_good(const optim::OptimizerBase<T>& optimizer) {
    remember(last_good_);
    good_optimizer_ = optimizer.state();
    good_state_ = state_;
  }
  void back_to_good(optim::OptimizerBase<T>& optimizer) {
    recall(last_good_);
    optimizer.load_state(good_optimizer_);
    state_ = good_state_;
  }

  /// Weights, buffers, average.
  [[nodiscard]] std::vector<std::span<T>> everything() {
    ParameterList<T> all = parallel_.parameters();
    parallel_.network().buffers(all, "");
    std::vector<std::span<T>> arrays;
    for (const Parameter<T>& p : all) arrays.push_back(p.values.span());
    for (std::size_t k = 0; average_ && k < parallel_.parameters().size(); ++k) {
      arrays.push_back(average_->average(k));
    }
    return arrays;
  }
  void remember(std::vector<T>& to) {
    to.clear();
    for (const std::span<T> x : everything()) to.insert(to.end(), x.begin(), x.end());
  }
  void recall(const std::vector<T>& from) {
    auto at = from.begin();
    for (const std::span<T> x : everything()) {
      std::copy_n(at, x.size(), x.begin());
      at += static_cast<std::ptrdiff_t>(x.size());
    }
  }

  TrainerOptions options_;
  DataParallel<T> parallel_;
  std::optional<optim::WeightAverage<T>> average_;
  TrainerState state_;
  std::vector<T> last_good_;
  optim::OptimizerState good_optimizer_;
  TrainerState good_state_;
  std::vector<T> best_weights_;
};

}  // namespace nn
QUERN_NAMESPACE_END

#endif  // QUERN_NN_TRAINER_HPP
