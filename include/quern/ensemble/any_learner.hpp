// SPDX-License-Identifier: Apache-2.0

/// \file
/// A learner of any type, by value: what ensembles of unlike learners are made of.

#ifndef QUERN_ENSEMBLE_ANY_LEARNER_HPP
#define QUERN_ENSEMBLE_ANY_LEARNER_HPP

#include "quern/core/archive.hpp"
#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/core/random.hpp"
#include "quern/ensemble/learner.hpp"
#include "quern/ensemble/saving.hpp"

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace ensemble {

/// Learning of classes: a row's scores are its classes' probabilities.
struct Classification {
  static constexpr bool classes = true;
  using Targets = Classes;
  template <class L>
  static constexpr bool accepts = Classifier<L>;

  static void check(std::string_view function, Targets y) { detail::check_classes(function, y); }
  static Index outputs(Targets y) { return y.count; }
  static Targets picked(Targets y, std::span<const std::int32_t> rows,
                        std::vector<std::int32_t>& memory) {
    memory.clear();
    for (const std::int32_t r : rows) memory.push_back(y.codes[static_cast<std::size_t>(r)]);
    return {memory, y.count};
  }
  using Memory = std::vector<std::int32_t>;

  template <class L>
  static void fit(L& learner, Features x, Targets y, std::span<const float> weights,
                  std::uint64_t seed) {
    learner.fit(x, y.codes, y.count, weights, seed);
  }
  template <class L>
  static void scores(const L& learner, Features x, MatrixView<float> out) {
    predict_scores(learner, x, out);
  }
};

/// Learning of numbers: a row's one score is its value.
struct Regression {
  static constexpr bool classes = false;
  using Targets = std::span<const float>;
  template <class L>
  static constexpr bool accepts = Regressor<L>;

  static void check(std::string_view function, Targets y) { detail::check_targets(function, y); }
  static Index outputs(Targets) { return 1; }
  static Targets picked(Targets y, std::span<const std::int32_t> rows, std::vector<float>& memory) {
    memory.clear();
    for (const std::int32_t r : rows) memory.push_back(y[static_cast<std::size_t>(r)]);
    return memory;
  }
  using Memory = std::vector<float>;

  template <class L>
  static void fit(L& learner, Features x, Targets y, std::span<const float> weights,
                  std::uint64_t seed) {
    learner.fit(x, y, weights, seed);
  }
  template <class L>
  static void scores(const L& learner, Features x, MatrixView<float> out) {
    if (out.row_stride() == 1)
      return learner.predict(x, std::span<float>(out.data(), static_cast<std::size_t>(x.rows())));
    const std::vector<float> values = predict_values(learner, x);
    for (Index i = 0; i < x.rows(); ++i) out(i, 0) = values[static_cast<std::size_t>(i)];
  }
};

/// The functions of a learner, made of a type's own `fit_to(x, targets, weights, seed)` and
/// `scores(x, out)`: what lets one text serve classes and numbers.
template <class Self, class Task>
class LearnerOf;

template <class Self>
class LearnerOf<Self, Classification> {
 public:
  /// Learns classes (rows), codes 0..classes-1. See Classifier.
  void fit(Features x, std::span<const std::int32_t> y, std::int32_t classes,
           std::span<const float> weights = {}, std::uint64_t seed = 0) {
    static_cast<Self*>(this)->fit_to(x, Classes{y, classes}, weights, seed);
  }
  /// Probabilities (rows, classes).
  void predict_proba(Features x, MatrixView<float> out) const {
    static_cast<const Self*>(this)->scores(x, out);
  }
};
template <class Self>
class LearnerOf<Self, Regression> {
 public:
  /// Learns numbers (rows). See Regressor.
  void fit(Features x, std::span<const float> y, std::span<const float> weights = {},
           std::uint64_t seed = 0) {
    static_cast<Self*>(this)->fit_to(x, y, weights, seed);
  }
  /// Values (rows).
  void predict(Features x, std::span<float> out) const {
    expect_size("quern::ensemble::predict", "out", static_cast<Index>(out.size()), x.rows(),
                "(the rows)");
    static_cast<const Self*>(this)->scores(x, MatrixView<float>(out.data(), {x.rows(), 1}));
  }
};

/// Holds a learner of any type; copies copy it. Itself a learner.
template <class Task>
class AnyLearner : public LearnerOf<AnyLearner<Task>, Task> {
 public:
  AnyLearner() = default;
  template <class L>
  requires(!std::same_as<L, AnyLearner> && Task::template accepts<L>)
      AnyLearner(L learner)  // NOLINT: implicit
      : held_(std::make_unique<Held<L>>(std::move(learner))) {}
  AnyLearner(const AnyLearner& other) : held_(other.held_ ? other.held_->copy() : nullptr) {}
  AnyLearner(AnyLearner&&) noexcept = default;
  AnyLearner& operator=(AnyLearner other) noexcept {
    held_.swap(other.held_);
    return *this;
  }
  ~AnyLearner() = default;

  [[nodiscard]] bool empty() const noexcept { return held_ == nullptr; }
  void fit_to(Features x, typename Task::Targets y, std::span<const float> weights,
              std::uint64_t seed) {
    held().fit(x, y, weights, seed);
  }
  void scores(Features x, MatrixView<float> out) const { held().scores(x, out); }

  /// The learner, null when it is of another type.
  template <class L>
  [[nodiscard]] const L* get() const noexcept {
    const auto* found = dynamic_cast<const Held<L>*>(held_.get());
    return found == nullptr ? nullptr : &found->learner;
  }

  [[nodiscard]] std::string_view kind() const { return held().kind(); }
  /// ValueError for a learner that cannot be saved.
  void save(ArchiveWriter& out) const { held().save(out); }
  void load(const ArchiveReader& in) { held().load(in); }

 private:
  struct Base {
    virtual ~Base() = default;
    [[nodiscard]] virtual std::unique_ptr<Base> copy() const = 0;
    virtual void fit(Features x, typename Task::Targets y, std::span<const float> weights,
                     std::uint64_t seed) = 0;
    virtual void scores(Features x, MatrixView<float> out) const = 0;
    [[nodiscard]] virtual std::string_view kind() const = 0;
    virtual void save(ArchiveWriter& out) const = 0;
    virtual void load(const ArchiveReader& in) = 0;
  };

  template <class L>
  struct Held final : Base {
    L learner;

    explicit Held(L l) : learner(std::move(l)) {}
    [[nodiscard]] std::unique_ptr<Base> copy() const override {
      return std::make_unique<Held>(learner);
    }
    void fit(Features x, typename Task::Targets y, std::span<const float> weights,
             std::uint64_t seed) override {
      Task::fit(learner, x, y, weights, seed);
    }
    void scores(Features x, MatrixView<float> out) const override { Task::scores(learner, x, out); }
    [[nodiscard]] std::string_view kind() const override {
      if constexpr (Saveable<L>) return learner.kind();
      refuse();
    }
    void save(ArchiveWriter& out) const override {
      if constexpr (Saveable<L>) return learner.save(out);
      refuse();
    }
    void load(const ArchiveReader& in) override {
      if constexpr (Saveable<L>) return learner.load(in);
      refuse();
    }
    [[noreturn]] static void refuse() {
      throw ValueError(error_text("quern::ensemble::AnyLearner", "learner",
                                  "a type with kind, save and load", "one without"));
    }
  };

  [[nodiscard]] const Base& held() const {
    if (held_ == nullptr)
      throw ValueError(error_text("quern::ensemble::AnyLearner", "learner", "a learner", "none"));
    return *held_;
  }
  [[nodiscard]] Base& held() { return const_cast<Base&>(std::as_const(*this).held()); }

  std::unique_ptr<Base> held_;
};

using AnyClassifier = AnyLearner<Classification>;
using AnyRegressor = AnyLearner<Regression>;

namespace detail {

/// The seed of a member: the first one's is the ensemble's own.
inline std::uint64_t member_seed(std::uint64_t seed, std::uint64_t member) {
  return member == 0 ? seed : Philox(seed, "ensemble member", member).next_u64();
}

/// Some rows and columns (none given: all) in memory of their own.
inline NdArray<float, 2> picked(Features x, std::span<const std::int32_t> rows,
                                std::span<const std::int32_t> columns = {}) {
  const bool all = columns.empty();
  const Index cols = all ? x.cols() : static_cast<Index>(columns.size());
  NdArray<float, 2> out({static_cast<Index>(rows.size()), cols}, core::Fill::none);
  float* to = out.data();
  for (const std::int32_t r : rows)
    for (Index f = 0; f < cols; ++f)
      *to++ = x(r, all ? f : Index{columns[static_cast<std::size_t>(f)]});
  return out;
}
inline std::vector<float> picked(std::span<const float> weights,
                                 std::span<const std::int32_t> rows) {
  std::vector<float> out;
  if (weights.empty()) return out;
  for (const std::int32_t r : rows) out.push_back(weights[static_cast<std::size_t>(r)]);
  return out;
}

/// Fits a learner to some of the rows.
template <class Task>
void fit_rows(AnyLearner<Task>& learner, Features x, typename Task::Targets y,
              std::span<const float> weights, std::span<const std::int32_t> rows,
              std::uint64_t seed) {
  typename Task::Memory memory;
  const NdArray<float, 2> some = picked(x, rows);
  const std::vector<float> their = picked(weights, rows);
  learner.fit_to(some.view(), Task::picked(y, rows, memory), their, seed);
}

/// Learners within an archive, under their numbers.
template <class Task>
void save_members(ArchiveWriter& out, std::span<const AnyLearner<Task>> members) {
  for (std::size_t i = 0; i < members.size(); ++i)
    save_member(out, "member " + std::to_string(i), members[i]);
}
/// ParseError for a file of fewer or more of them.
template <class Task>
void load_members(const ArchiveReader& in, std::span<AnyLearner<Task>> members) {
  const std::string more = "member " + std::to_string(members.size());
  if (in.has(more))
    in.fail_section(more, std::to_string(members.size()) + " members", "a file of more");
  for (std::size_t i = 0; i < members.size(); ++i)
    load_member(in, "member " + std::to_string(i), members[i]);
}

}  // namespace detail

}  // namespace ensemble
QUERN_NAMESPACE_END

#endif  // QUERN_ENSEMBLE_ANY_LEARNER_HPP
