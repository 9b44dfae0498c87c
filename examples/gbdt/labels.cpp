// SPDX-License-Identifier: Apache-2.0

#include "labels.hpp"

#include "quern/core/checks.hpp"
#include "quern/core/error.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <set>

namespace gbdt {
namespace {

using quern::error_text;
using quern::ValueError;

/// More distinct whole numbers than this are taken for quantities, not classes.
constexpr std::size_t most_guessed_classes = 64;

std::string number_text(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%g", value);
  return text;
}

void expect_finite(const std::vector<float>& labels) {
  for (std::size_t i = 0; i < labels.size(); ++i) {
    if (!quern::is_finite_bits(labels[i]))
      throw ValueError(
          error_text("labels", "label of row " + std::to_string(i), "a finite number", labels[i]));
  }
}

/// Distinct values, ascending; stops when there are more than \p most.
std::vector<double> distinct(const std::vector<float>& labels, std::size_t most) {
  std::set<double> values;
  for (const float y : labels) {
    values.insert(static_cast<double>(y));
    if (values.size() > most) break;
  }
  return {values.begin(), values.end()};
}

bool are_classes(const std::vector<double>& values) {
  if (values.size() > most_guessed_classes) return false;
  const bool whole =
      std::all_of(values.begin(), values.end(), [](double v) { return v == std::floor(v); });
  if (!whole) return false;
  // 0 … k-1 without a gap, or any two numbers (-1 and 1, 1 and 2).
  return values.size() <= 2 ||
         (values.front() == 0 && values.back() == static_cast<double>(values.size() - 1));
}

std::string objective_of(const Data& data) {
  if (!data.meaning.label_texts.empty())
    return data.meaning.label_texts.size() == 2 ? "binary:logistic" : "multi:softprob";
  const std::vector<double> values = distinct(data.set.labels, most_guessed_classes + 1);
  if (!are_classes(values)) return "reg:squarederror";
  return values.size() <= 2 ? "binary:logistic" : "multi:softprob";
}

/// Classes of numeric labels and their numbers.
void note_values(Data& data, bool binary) {
  constexpr std::size_t most = 65535;
  std::vector<double> values = distinct(data.set.labels, most);
  if (values.size() > most)
    throw ValueError(error_text("labels", "classes", "at most 65535", "more"));
  // One class only of 0 and 1 is still that class.
  if (binary && values.size() == 1 && (values[0] == 0 || values[0] == 1)) values = {0, 1};
  data.meaning.label_values = values;
  for (const double v : values) data.meaning.classes.push_back(number_text(v));
}

}  // namespace

std::string settle_labels(Data& data, const std::string& given_objective,
                          const std::vector<std::string>& class_names) {
  if (!data.has_labels())
    throw ValueError("no labels: name a label column (--label) or a label file (--labels)");
  expect_finite(data.set.labels);
  const std::string objective = given_objective.empty() ? objective_of(data) : given_objective;
  const bool binary = objective == "binary:logistic";
  if (!binary && !objective.starts_with("multi:")) {
    if (!data.meaning.label_texts.empty())
      throw ValueError(error_text("labels", "label", "numbers for " + objective,
                                  "'" + data.meaning.label_texts.front() + "'"));
    return objective;
  }
  data.meaning.classes = data.meaning.label_texts;
  if (data.meaning.classes.empty()) note_values(data, binary);
  const std::size_t count = data.meaning.classes.size();
  if (binary && count != 2)
    throw ValueError(error_text("labels", "classes", "2 for binary:logistic", count));
  if (!binary && count < 2)
    throw ValueError(error_text("labels", "classes", "2 or more for " + objective, count));
  if (!class_names.empty() && class_names.size() != count)
    throw ValueError(error_text("--class-names", "names", std::to_string(count) + " (the classes)",
                                class_names.size()));
  if (!class_names.empty()) data.meaning.classes = class_names;
  encode_labels(data.set.labels, data.meaning, "labels");
  return objective;
}

void encode_labels(std::vector<float>& labels, const Meaning& meaning, const std::string& where) {
  const std::vector<double>& values = meaning.label_values;
  if (values.empty()) return;  // the reader coded them, or they are numbers
  for (std::size_t i = 0; i < labels.size(); ++i) {
    const auto y = static_cast<double>(labels[i]);
    const auto found = std::lower_bound(values.begin(), values.end(), y);
    if (found == values.end() || *found != y)
      throw ValueError(error_text(where, "label of row " + std::to_string(i),
                                  "a class that the model knows", labels[i]));
    labels[i] = static_cast<float>(found - values.begin());
  }
}

}  // namespace gbdt
