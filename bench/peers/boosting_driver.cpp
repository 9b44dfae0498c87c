// SPDX-License-Identifier: Apache-2.0
//
// quern's side of the boosting area (areas/boosting.py says what each case measures).

#include "peers/protocol.hpp"

#include "quern/boosting/booster.hpp"
#include "quern/boosting/explain.hpp"
#include "quern/boosting/options_text.hpp"
#include "quern/tree/binning.hpp"
#include "quern/version.hpp"

#include <memory>
#include <optional>
#include <span>

namespace {

using quern::boosting::Booster;
using quern::boosting::FitOptions;
using quern::boosting::Options;
using quern::tree::Dataset;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

class BoostingDriver : public peers::Driver {
 public:
  [[nodiscard]] std::string describe() const override {
    return "quern " QUERN_VERSION " (" +
           std::string(quern::simd::name(quern::simd::active_level())) + ")";
  }

  peers::Reply prepare(const peers::Command& command) override {
    if (command.name() == "train") training();
    if (command.name() == "model") {
      booster_.emplace(options(command, command.integer("trees", 100)));
      booster_->fit(training());
    }
    return {};
  }

  peers::Reply run(const peers::Command& command) override {
    const std::string& name = command.name();
    if (name == "train") return {{"seconds", round_seconds(command)}};
    if (name == "quality") return quality(command);
    if (name == "memory") return memory(command);
    if (name == "shap") return {{"seconds", shap(command)}};
    if (name == "row") return {{"seconds", rows(command)}};
    if (name == "bin") {
      const Dataset& data = training();
      return {{"seconds", peers::seconds_per_call(command.inner(), [&] {
                 const auto binned = quern::tree::bin(data, 255);
                 if (binned.rows != data.rows()) throw std::runtime_error("rows were lost");
               })}};
    }
    if (name == "fit") {
      return {{"seconds", peers::seconds_per_call(command.inner(), [&] {
                 Booster(options(command, command.integer("rounds", 20))).fit(training());
               })}};
    }
    if (name == "predict") {
      const Dataset held_out = dataset("v");
      quern::NdArray<float, 2> margins;
      const double seconds = peers::seconds_per_call(
          command.inner(), [&] { margins = model().predict_margin(held_out); });
      keep(margins);
      return {{"seconds", seconds}};
    }
    throw std::runtime_error("no case " + name);
  }

  [[nodiscard]] const peers::Array& output() const override { return out_; }

  void forget() override {
    peers::Driver::forget();
    training_.reset();
    booster_.reset();
  }

 private:
  /// The options that every library of the area gets.
  static Options options(const peers::Command& command, std::int64_t rounds) {
    Options result;
    const std::int64_t classes = command.integer("classes", 1);
    result.objective = classes > 1 ? "multi:softprob" : "binary:logistic";
    result.num_class = classes > 1 ? static_cast<std::int32_t>(classes) : 0;
    result.num_round = static_cast<std::int32_t>(rounds);
    result.learning_rate = 0.1;
    if (classes > 1)
      quern::boosting::set_option(result, "softmax_hessian", command.text("hessian", "doubled"));
    result.max_depth = static_cast<std::int32_t>(command.integer("depth", 6));
    result.max_leaves = static_cast<std::int32_t>(command.integer("leaves", 0));
    if (result.max_leaves > 0) {
      result.max_depth = 0;
      result.grow_policy = quern::tree::GrowPolicy::lossguide;
    } else if (command.integer("symmetric", 0) != 0) {
      result.grow_policy = quern::tree::GrowPolicy::symmetric;
    }
    return result;
  }

  /// The arrays with this ending: dense "x" or the three of CSR, and labels.
  [[nodiscard]] Dataset dataset(const std::string& ending) const {
    Dataset data;
    if (arrays.count("x" + ending) != 0) {
      const peers::Array& x = array("x" + ending);
      data.features = quern::MatrixView<const float>(x.data<float>(), {x.extent(0), x.extent(1)});
    } else {
      data.features = quern::tree::CsrView<float>{all<std::int64_t>("offsets" + ending),
                                                  all<std::int32_t>("columns" + ending),
                                                  all<float>("values" + ending), 1000};
    }
    const auto labels = all<float>("y" + ending);
    data.labels.assign(labels.begin(), labels.end());
    return data;
  }

  template <class T>
  [[nodiscard]] std::span<const T> all(const std::string& name) const {
    const peers::Array& a = array(name);
    return std::span<const T>(a.data<T>(), static_cast<std::size_t>(a.size()));
  }
  const Dataset& training() {
    if (!training_) training_ = dataset("");
    return *training_;
  }
  [[nodiscard]] const Booster& model() const {
    if (!booster_) throw std::runtime_error("no model was prepared");
    return *booster_;
  }

  /// Seconds of a round, from the end of the first to the end of the last: the progress callback
  /// comes after each.
  double round_seconds(const peers::Command& command) {
    const std::int64_t rounds = command.integer("rounds", 10);
    Clock::time_point first;
    double seconds = 0;
    FitOptions fit;
    fit.progress = [&](const quern::Progress& progress) {
      if (progress.done == 1) first = Clock::now();
      seconds = seconds_since(first);
      return true;
    };
    Booster(options(command, rounds + 1)).fit(training(), fit);
    return seconds / static_cast<double>(rounds);
  }

  peers::Reply quality(const peers::Command& command) {
    Booster booster(options(command, command.integer("rounds", 40)));
    booster.fit(training());
    keep(booster.predict_margin(dataset("v")));
    return {};
  }

  /// The peak over what is held before anything is made from the rows.
  peers::Reply memory(const peers::Command& command) {
    const double before = peers::memory(true)["rss_mb"];
    Booster booster(options(command, command.integer("rounds", 10)));
    booster.fit(training());
    return {{"value", peers::memory(false)["peak_mb"] - before}};
  }

  /// Seconds of a pass over the first 1000 rows, one a call.
  double rows(const peers::Command& command) {
    const peers::Array& x = array("xv");
    const std::int64_t count = (std::min)(std::int64_t{1000}, x.extent(0));
    const auto cols = static_cast<std::size_t>(x.extent(1));
    const Booster& booster = model();
    out_ = peers::Array("<f4", {count});
    return peers::seconds_per_call(command.inner(), [&] {
      const float* row = x.data<float>();
      for (std::int64_t i = 0; i < count; ++i, row += cols) {
        booster.predict_one(std::span<const float>(row, cols),
                            std::span<float>(out_.data<float>() + i, 1));
      }
    });
  }

  /// Shapley values of the first rows; their sums are kept, to be judged as margins.
  double shap(const peers::Command& command) {
    const peers::Array& x = array("xv");
    const std::int64_t rows = (std::min)(std::int64_t{1000}, x.extent(0));
    const quern::boosting::Explainer explainer(model().model());
    quern::NdArray<double, 3> values({rows, 1, x.extent(1) + 1});
    const double seconds = peers::seconds_per_call(command.inner(), [&] {
      explainer.shap_values(quern::MatrixView<const float>(x.data<float>(), {rows, x.extent(1)}),
                            values.view());
    });
    out_ = peers::Array("<f4", {rows});
    for (std::int64_t r = 0; r < rows; ++r) {
      double sum = 0;
      for (std::int64_t f = 0; f <= x.extent(1); ++f) sum += values(r, 0, f);
      out_.data<float>()[r] = static_cast<float>(sum);
    }
    return seconds;
  }

  void keep(const quern::NdArray<float, 2>& margins) {
    out_ = peers::Array("<f4", {margins.extent(0), margins.extent(1)});
    std::memcpy(out_.raw(), margins.data(), out_.bytes());
  }

  std::optional<Dataset> training_;
  std::optional<Booster> booster_;
  peers::Array out_;
};

}  // namespace

int main() {
  BoostingDriver driver;
  return peers::serve(driver);
}
