// SPDX-License-Identifier: Apache-2.0

/// \file
/// What the command line says, as plain structs.

#ifndef QUERN_EXAMPLES_GBDT_SETTINGS_HPP
#define QUERN_EXAMPLES_GBDT_SETTINGS_HPP

#include "quern/boosting/options.hpp"

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace gbdt {

/// A command line that cannot mean anything: exit code 2.
class UsageError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Where data come from.
struct DataSettings {
  std::string path;
  std::string labels_path;  ///< IDX and NPY keep labels in a file of their own
  std::string label;        ///< column, by index or name; empty: guessed
  std::string weight;       ///< column of row weights; empty: none
  std::vector<std::string> ignore;
  std::string format = "auto";
};

struct TrainSettings {
  DataSettings data;
  DataSettings test;   ///< path empty: none
  double holdout = 0;  ///< share of the training rows kept for testing
  quern::boosting::Options options;
  std::vector<std::string> set;  ///< further options, as name=value
  std::vector<std::string> class_names;
  std::string title;
  std::string model_path;
  std::string report_path;
  int log_every = 10;  ///< rounds between lines where there is no progress bar
  bool objective_given = false;
  bool keep_when_cancelled = false;
  bool quiet = false;
};

struct CrossValidationSettings {
  TrainSettings train;
  int folds = 5;
  bool stratified = false;
};

struct PredictSettings {
  DataSettings data;
  std::string model_path;
  std::string out_path = "-";
  std::string what = "probability";  ///< probability, class, margin or leaf
  int threads = 0;
};

struct EvalSettings {
  DataSettings data;
  std::string model_path;
  int threads = 0;
};

struct ExplainSettings {
  std::string model_path;
  DataSettings data;  ///< path empty: none; rows to explain or to shuffle
  std::string sort_by = "gain";
  int top = 20;
  std::string dump;               ///< text or dot; empty: no trees
  int trees = 1;                  ///< how many to dump
  std::string shap_path;          ///< CSV of Shapley values; empty: none
  std::string interactions_path;  ///< CSV of interactions; empty: none
  std::string permutation;        ///< metric; empty: no shuffling
  int repeats = 5;
  std::uint64_t seed = 0;
  int threads = 0;
};

/// The commands; each returns the exit code.
int train(TrainSettings settings);
int compare(TrainSettings settings);
int cross_validate(CrossValidationSettings settings);
int predict(const PredictSettings& settings);
int evaluate(const EvalSettings& settings);
int explain(const ExplainSettings& settings);

}  // namespace gbdt

#endif  // QUERN_EXAMPLES_GBDT_SETTINGS_HPP
