// SPDX-License-Identifier: Apache-2.0

/// \file
/// Stacking and blending: a final learner that learns from what others predict of rows that they
/// have not learnt from.
///
/// D. H. Wolpert, "Stacked generalization", Neural Networks 5 (1992); L. Breiman, "Stacked
/// regressions", Machine Learning 24 (1996).

#ifndef QUERN_ENSEMBLE_STACKING_HPP
#define QUERN_ENSEMBLE_STACKING_HPP

#include "quern/core/archive.hpp"
#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/folds.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/parallel.hpp"
#include "quern/ensemble/any_learner.hpp"
#include "quern/ensemble/learner.hpp"

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace ensemble {

namespace detail {

/// First learners and the final one, and what the final one sees: of each first learner its score,
/// of classes k of them (of two classes one: the other says the same), then perhaps the features.
template <class Task>
class Layers {
 public:
  std::vector<AnyLearner<Task>> first;
  AnyLearner<Task> last;
  bool pass_through = false;
  Index outputs = 0;

  [[nodiscard]] Index width(Index features) const {
    return static_cast<Index>(first.size()) * kept() + (pass_through ? features : 0);
  }

  /// Writes what learner \p m says of rows into its columns of \p out, at the rows' places.
  void tell(const AnyLearner<Task>& learner, std::size_t m, Features x,
            std::span<const std::int32_t> places, NdArray<float, 2>& out) const {
    NdArray<float, 2> scores({x.rows(), outputs});
    learner.scores(x, scores.view());
    for (Index i = 0; i < x.rows(); ++i)
      for (Index c = 0; c < kept(); ++c)
        out(places[static_cast<std::size_t>(i)], static_cast<Index>(m) * kept() + c) =
            scores(i, c + outputs - kept());
  }

  /// Copies the features behind what the learners say.
  void pass(Features x, NdArray<float, 2>& out) const {
    const Index from = width(0);
    for (Index i = 0; pass_through && i < x.rows(); ++i)
      for (Index f = 0; f < x.cols(); ++f) out(i, from + f) = x(i, f);
  }

  void scores(std::string_view name, Features x, MatrixView<float> out) const {
    if (outputs == 0)
      throw ValueError(error_text(name, "learner", "one that was fitted", "one that was not"));
    NdArray<float, 2> said({x.rows(), width(x.cols())});
    std::vector<std::int32_t> places(static_cast<std::size_t>(x.rows()));
    std::iota(places.begin(), places.end(), 0);
    for (std::size_t m = 0; m < first.size(); ++m) tell(first[m], m, x, places, said);
    pass(x, said);
    last.scores(said.view(), out);
  }

  void save(ArchiveWriter& out) const {
    out.scalar("outputs", outputs);
    out.scalar("pass_through", static_cast<std::uint8_t>(pass_through ? 1 : 0));
    save_members<Task>(out, first);
    save_member(out, "final", last);
  }
  void load(const ArchiveReader& in) {
    Layers loaded = *this;
    loaded.outputs = in.scalar<std::int64_t>("outputs");
    if (loaded.outputs < 0)
      in.fail_section("outputs", "at least 0", std::to_string(loaded.outputs));
    loaded.pass_through = in.scalar<std::uint8_t>("pass_through") != 0;
    load_members<Task>(in, loaded.first);
    load_member(in, "final", loaded.last);
    *this = std::move(loaded);
  }

 private:
  [[nodiscard]] Index kept() const { return outputs == 2 ? 1 : outputs; }
};

/// Folds of rows, spread over the classes where there are classes.
inline std::vector<Fold> folds_of(Classes y, std::int64_t folds, bool stratified,
                                  std::uint64_t seed) {
  return stratified ? make_stratified_folds(y.codes, folds, seed)
                    : make_folds(static_cast<std::int64_t>(y.size()), folds, seed);
}
inline std::vector<Fold> folds_of(std::span<const float> y, std::int64_t folds, bool,
                                  std::uint64_t seed) {
  return make_folds(static_cast<std::int64_t>(y.size()), folds, seed);
}

template <class Task>
void check_layers(std::string_view name, const Layers<Task>& layers, Features x,
                  typename Task::Targets y, std::span<const float> weights) {
  check_rows(name, x, y.size(), weights);
  Task::check(name, y);
  if (layers.first.empty()) throw ValueError(error_text(name, "learners", "at least one", 0));
}

}  // namespace detail

struct StackingOptions {
  std::int64_t folds = 5;              ///< 2..rows
  bool stratified = true;              ///< spread each class's rows evenly over the folds
  std::vector<Fold> given_folds = {};  ///< instead: the rows of each fold, every row in one of them
  bool pass_through = false;           ///< the final learner sees the features too
  int threads = 0;                     ///< 0: the default number; never changes a result
};

/// The final learner learns from what copies of the learners, fitted to the other folds, say of a
/// fold's rows; then the learners are fitted to all rows.
template <class Task>
class Stacking : public LearnerOf<Stacking<Task>, Task> {
 public:
  explicit Stacking(std::vector<AnyLearner<Task>> learners = {}, AnyLearner<Task> final = {},
                    StackingOptions options = {})
      : options_(std::move(options)) {
    layers_.first = std::move(learners);
    layers_.last = std::move(final);
    layers_.pass_through = options_.pass_through;
  }

  void fit_to(Features x, typename Task::Targets y, std::span<const float> weights,
              std::uint64_t seed) {
    detail::check_layers<Task>(name, layers_, x, y, weights);
    const std::vector<Fold> folds =
        options_.given_folds.empty()
            ? detail::folds_of(y, options_.folds, options_.stratified, seed)
            : options_.given_folds;
    check_folds(folds, x.rows());
    detail::Layers<Task> layers = layers_;
    layers.outputs = Task::outputs(y);
    NdArray<float, 2> said({x.rows(), layers.width(x.cols())});
    const std::size_t learners = layers.first.size();
    // One task more for each learner: its fit to all rows.
    parallel_for(
        static_cast<std::int64_t>(learners * (folds.size() + 1)),
        [&](std::int64_t i) {
          const std::size_t m = static_cast<std::size_t>(i) % learners;
          const std::size_t k = static_cast<std::size_t>(i) / learners;
          const std::uint64_t own = detail::member_seed(seed, m);
          if (k == folds.size()) return layers.first[m].fit_to(x, y, weights, own);
          AnyLearner<Task> learner = layers_.first[m];
          detail::fit_rows(learner, x, y, weights, other_rows(folds[k], x.rows()), own);
          layers.tell(learner, m, detail::picked(x, folds[k]).view(), folds[k], said);
        },
        options_.threads);
    layers.pass(x, said);
    layers.last.fit_to(said.view(), y, weights, detail::member_seed(seed, learners));
    layers_ = std::move(layers);
  }

  void scores(Features x, MatrixView<float> out) const { layers_.scores(name, x, out); }

  [[nodiscard]] std::span<const AnyLearner<Task>> learners() const noexcept {
    return layers_.first;
  }
  [[nodiscard]] const AnyLearner<Task>& final_learner() const noexcept { return layers_.last; }

  [[nodiscard]] static constexpr std::string_view kind() {
    return Task::classes ? "ensemble.stacking_classifier" : "ensemble.stacking_regressor";
  }
  void save(ArchiveWriter& out) const { layers_.save(out); }
  /// Into a stack of the same kinds of learners.
  void load(const ArchiveReader& in) { layers_.load(in); }

 private:
  static constexpr std::string_view name = "quern::ensemble::Stacking";

  static void check_folds(const std::vector<Fold>& folds, Index rows) {
    std::vector<char> in(static_cast<std::size_t>(rows));
    Index found = 0;
    for (const Fold& fold : folds) {
      if (fold.empty()) throw ShapeError(error_text(name, "folds", "at least one row in each", 0));
      for (const std::int32_t row : fold) {
        expect_in_range(name, "row of a fold", Index{row}, 0, rows - 1);
        char& seen = in[static_cast<std::size_t>(row)];
        if (seen != 0) throw ValueError(error_text(name, "folds", "each row once", row));
        seen = 1;
        ++found;
      }
    }
    expect_size(name, "folds", found, rows, "rows");
    if (folds.size() < 2) throw ValueError(error_text(name, "folds", "at least 2", folds.size()));
  }

  StackingOptions options_;
  detail::Layers<Task> layers_;
};

struct BlendingOptions {
  double hold_out = 0.2;  ///< share of the rows that the final learner learns from, at most 0.5;
                          ///< rounded to 1 / a whole number
  bool stratified = true;
  bool pass_through = false;
  int threads = 0;  ///< 0: the default number; never changes a result
};

/// The learners are fitted to some rows, once, and the final one to what they say of the others.
template <class Task>
class Blending : public LearnerOf<Blending<Task>, Task> {
 public:
  explicit Blending(std::vector<AnyLearner<Task>> learners = {}, AnyLearner<Task> final = {},
                    BlendingOptions options = {})
      : options_(options) {
    if (!(options.hold_out > 0 && options.hold_out <= 0.5))
      throw ValueError(
          error_text(name, "hold_out", "a share above 0, at most 0.5", options.hold_out));
    layers_.first = std::move(learners);
    layers_.last = std::move(final);
    layers_.pass_through = options.pass_through;
  }

  void fit_to(Features x, typename Task::Targets y, std::span<const float> weights,
              std::uint64_t seed) {
    detail::check_layers<Task>(name, layers_, x, y, weights);
    const Fold held = hold_out(y, seed);
    const std::vector<std::int32_t> rest = other_rows(held, x.rows());
    detail::Layers<Task> layers = layers_;
    layers.outputs = Task::outputs(y);
    const NdArray<float, 2> rows = detail::picked(x, held);
    NdArray<float, 2> said({rows.extent(0), layers.width(x.cols())});
    std::vector<std::int32_t> places(held.size());
    std::iota(places.begin(), places.end(), 0);
    parallel_for(
        static_cast<std::int64_t>(layers.first.size()),
        [&](std::int64_t i) {
          const auto m = static_cast<std::size_t>(i);
          detail::fit_rows(layers.first[m], x, y, weights, rest, detail::member_seed(seed, m));
          layers.tell(layers.first[m], m, rows.view(), places, said);
        },
        options_.threads);
    layers.pass(rows.view(), said);
    typename Task::Memory memory;
    layers.last.fit_to(said.view(), Task::picked(y, held, memory), detail::picked(weights, held),
                       detail::member_seed(seed, layers.first.size()));
    layers_ = std::move(layers);
  }

  void scores(Features x, MatrixView<float> out) const { layers_.scores(name, x, out); }

  [[nodiscard]] static constexpr std::string_view kind() {
    return Task::classes ? "ensemble.blending_classifier" : "ensemble.blending_regressor";
  }
  void save(ArchiveWriter& out) const { layers_.save(out); }
  /// Into a blend of the same kinds of learners.
  void load(const ArchiveReader& in) { layers_.load(in); }

 private:
  static constexpr std::string_view name = "quern::ensemble::Blending";

  /// The first of folds of that size: a fifth, a fourth, a third, …
  [[nodiscard]] Fold hold_out(typename Task::Targets y, std::uint64_t seed) const {
    const double parts = std::round(1 / options_.hold_out);
    if (parts > static_cast<double>(y.size()))
      throw ValueError(error_text(name, "hold_out",
                                  "a share that is at least one row of " + std::to_string(y.size()),
                                  options_.hold_out));
    const auto folds = static_cast<std::int64_t>(parts);
    return detail::folds_of(y, folds, options_.stratified, seed).front();
  }

  BlendingOptions options_;
  detail::Layers<Task> layers_;
};

using StackingClassifier = Stacking<Classification>;
using StackingRegressor = Stacking<Regression>;
using BlendingClassifier = Blending<Classification>;
using BlendingRegressor = Blending<Regression>;

}  // namespace ensemble
QUERN_NAMESPACE_END

#endif  // QUERN_ENSEMBLE_STACKING_HPP
