// SPDX-License-Identifier: Apache-2.0
//
// quern's side of the ensemble area (areas/ensemble.py says what each case measures).

#include "peers/protocol.hpp"

#include "quern/ensemble/adaboost.hpp"
#include "quern/ensemble/decision_tree.hpp"
#include "quern/ensemble/extra_trees.hpp"
#include "quern/ensemble/random_forest.hpp"
#include "quern/version.hpp"

#include <algorithm>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>
#include <variant>
#include <vector>

namespace {

using quern::ensemble::AdaBoostClassifier;
using quern::ensemble::DecisionTreeClassifier;
using quern::ensemble::ExtraTreesClassifier;
using quern::ensemble::Features;
using quern::ensemble::RandomForestClassifier;

class EnsembleDriver : public peers::Driver {
 public:
  [[nodiscard]] std::string describe() const override { return "quern " QUERN_VERSION; }

  peers::Reply prepare(const peers::Command& command) override {
    if (command.name() == "model" && words(command) != fitted_) fit(command);
    return {};
  }

  peers::Reply run(const peers::Command& command) override {
    const std::string& name = command.name();
    if (name == "fit") {
      const double seconds = peers::seconds_per_call(command.inner(), [&] { fit(command); });
      predict();
      return {{"seconds", seconds}};
    }
    if (name == "predict")
      return {{"seconds", peers::seconds_per_call(command.inner(), [&] { predict(); })}};
    if (name == "memory") {
      const double before = peers::memory(true).at("rss_mb");
      fit(command);
      return {{"value", peers::memory(false).at("peak_mb") - before}};
    }
    throw std::runtime_error("no case " + name);
  }

  [[nodiscard]] const peers::Array& output() const override { return answer_; }

  void forget() override {
    peers::Driver::forget();
    fitted_.clear();
  }

 private:
  [[nodiscard]] Features features(const std::string& name) const {
    const peers::Array& x = array(name);
    return {x.data<float>(), {x.shape()[0], x.shape()[1]}};
  }

  /// What tells models of one data set apart.
  static std::string words(const peers::Command& command) {
    return command.text("kind") + " " + std::to_string(command.integer("trees", 100));
  }

  void fit(const peers::Command& command) {
    fitted_ = words(command);
    const peers::Array& y = array("y");
    std::vector<std::int32_t> labels;
    for (std::int64_t r = 0; r < y.shape()[0]; ++r)
      labels.push_back(static_cast<std::int32_t>(y.data<float>()[r]));
    const auto classes = *std::max_element(labels.begin(), labels.end()) + 1;
    const auto trees = static_cast<std::int32_t>(command.integer("trees", 100));
    if (command.text("kind") == "adaboost") {
      model_ = AdaBoostClassifier(
          DecisionTreeClassifier({.max_depth = 3, .n_jobs = peers::threads()}), {.rounds = trees});
    } else if (command.text("kind") == "extra") {
      model_ = ExtraTreesClassifier({.n_estimators = trees, .n_jobs = peers::threads()});
    } else {
      model_ = RandomForestClassifier({.n_estimators = trees, .n_jobs = peers::threads()});
    }
    std::visit([&](auto& model) { model.fit(features("x"), labels, classes, {}, 1); }, model_);
  }

  void predict() {
    std::visit(
        [&](const auto& model) {
          const Features x = features("xv");
          const std::int64_t classes = model.classes();
          if (answer_.shape() != std::vector<std::int64_t>{x.rows(), classes})
            answer_ = peers::Array("<f4", {x.rows(), classes});
          model.predict_proba(x,
                              quern::MatrixView<float>(answer_.data<float>(), {x.rows(), classes}));
        },
        model_);
  }

  std::variant<RandomForestClassifier, ExtraTreesClassifier, AdaBoostClassifier> model_;
  std::string fitted_;  ///< words() of the model
  peers::Array answer_;
};

}  // namespace

int main() {
  EnsembleDriver driver;
  return peers::serve(driver);
}
