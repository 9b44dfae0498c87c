// SPDX-License-Identifier: Apache-2.0

#include "methods.hpp"

#include "quern/boosting/learner.hpp"
#include "quern/ensemble/adaboost.hpp"
#include "quern/ensemble/bagging.hpp"
#include "quern/ensemble/decision_tree.hpp"
#include "quern/ensemble/extra_trees.hpp"
#include "quern/ensemble/learners/logistic_regression.hpp"
#include "quern/ensemble/learners/nearest_neighbours.hpp"
#include "quern/ensemble/random_forest.hpp"
#include "quern/ensemble/scores.hpp"
#include "quern/ensemble/stacking.hpp"
#include "quern/ensemble/voting.hpp"

#include <chrono>
#include <utility>

namespace ensembles {
namespace {

using namespace quern::ensemble;  // NOLINT: a program's own file

DecisionTreeClassifier tree(std::int32_t depth) {
  return DecisionTreeClassifier({.max_depth = depth});
}
RandomForestClassifier forest() { return RandomForestClassifier({.n_estimators = 100}); }
quern::boosting::BoostedClassifier boosted() {
  return quern::boosting::BoostedClassifier({.num_round = 60, .max_depth = 6});
}

/// Learners that err in different places.
std::vector<AnyClassifier> unlike() {
  return {LogisticRegression({.l2 = 10, .tolerance = 1e-3}),
          NeighboursClassifier({.neighbours = 7}), ExtraTreesClassifier({.n_estimators = 100}),
          boosted()};
}
constexpr const char* unlike_names =
    "logistic regression, 7 neighbours, extra trees, boosted trees";

struct Method {
  std::string name, made_of;
  AnyClassifier learner;
};

std::vector<Method> methods() {
  const LogisticRegression last({.l2 = 1, .tolerance = 1e-4});
  return {
      {"single tree", "grown until leaves are pure", tree(0)},
      {"bagging", "20 trees, all features", BaggingClassifier(tree(0), {.members = 20})},
      {"random forest", "100 trees", forest()},
      {"extra trees", "100 trees", ExtraTreesClassifier({.n_estimators = 100})},
      {"AdaBoost", "30 trees of depth 8", AdaBoostClassifier(tree(8), {.rounds = 30})},
      {"gradient boosting", "60 rounds of depth 6", boosted()},
      {"voting", unlike_names, VotingClassifier(unlike())},
      {"stacking", std::string(unlike_names) + "; 3 folds",
       StackingClassifier(unlike(), last, {.folds = 3})},
      {"blending", std::string(unlike_names) + "; a fifth held out",
       BlendingClassifier(unlike(), last)},
  };
}

template <class F>
double seconds(const F& f) {
  const auto start = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

std::vector<Result> compare(const DataSet& data, std::uint64_t seed,
                            const std::function<void(const Result&)>& tell) {
  std::vector<Result> results;
  for (Method& method : methods()) {
    Result result{method.name, method.made_of};
    result.fit = seconds(
        [&] { method.learner.fit(data.train.x.view(), data.train.y, data.classes, {}, seed); });
    quern::NdArray<float, 2> p({data.test.x.extent(0), quern::Index{data.classes}});
    result.predict = 1e6 *
                     seconds([&] { method.learner.predict_proba(data.test.x.view(), p.view()); }) /
                     static_cast<double>(p.extent(0));
    result.accuracy = accuracy(p.view(), data.test.y);
    quern::ArchiveWriter out(method.learner.kind());
    method.learner.save(out);
    result.size = static_cast<double>(out.bytes().size());
    tell(result);
    results.push_back(std::move(result));
  }
  return results;
}

}  // namespace ensembles
