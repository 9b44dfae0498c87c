// SPDX-License-Identifier: Apache-2.0

/// \file
/// gbdt: gradient boosted trees on the command line. Exit codes: 0 good, 1 an error, 2 wrong usage,
/// 130 interrupted.

#include "settings.hpp"

#include "quern/boosting/options_text.hpp"
#include "quern/core/error.hpp"
#include "quern/core/parallel.hpp"
#include "quern/version.hpp"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <exception>
#include <map>
#include <new>
#include <string>
#include <utility>
#include <vector>

namespace gbdt {
namespace {

using quern::boosting::Options;

void add_data(CLI::App& app, DataSettings& data, bool required = true) {
  app.add_option("data", data.path, "CSV or TSV, LIBSVM, IDX or NPY file, gzip or not")
      ->required(required);
  app.add_option("--labels", data.labels_path,
                 "file of labels (IDX, NPY, or text with one a line); IDX images find theirs");
  app.add_option("--label", data.label, "label column: index from 0 (-1: the last) or name");
  app.add_option("--weight", data.weight, "column of row weights: index or name");
  app.add_option("--ignore", data.ignore, "columns to leave out, with commas between")
      ->delimiter(',')
      ->allow_extra_args(false);
  app.add_option("--format", data.format, "auto looks at the contents")
      ->check(CLI::IsMember({"auto", "csv", "libsvm", "idx", "npy"}))
      ->capture_default_str();
}

void add_tree_options(CLI::App& app, Options& o) {
  static const std::map<std::string, quern::tree::GrowPolicy> policies = {
      {"depthwise", quern::tree::GrowPolicy::depthwise},
      {"lossguide", quern::tree::GrowPolicy::lossguide},
      {"symmetric", quern::tree::GrowPolicy::symmetric}};
  CLI::App& g = *app.add_option_group("Trees");
  g.add_option("--max_depth", o.max_depth, "longest path, 0: no limit")->capture_default_str();
  g.add_option("--max_leaves", o.max_leaves, "0: no limit")->capture_default_str();
  g.add_option("--grow_policy", o.grow_policy, "depthwise, lossguide or symmetric")
      ->transform(CLI::CheckedTransformer(policies, CLI::ignore_case).description(""));
  g.add_option("--max_bin", o.max_bin, "bins of a feature, 2..255")->capture_default_str();
  g.add_option("--min_child_weight", o.min_child_weight, "least hessian sum of a child")
      ->capture_default_str();
  g.add_option("--gamma,--min_split_loss", o.gamma, "least gain of a split")->capture_default_str();
  g.add_option_function<double>(
       "--lambda,--reg_lambda", [&o](double x) { o.reg_lambda = x; }, "L2 of leaves")
      ->default_str("1; of gblinear 0");
  g.add_option("--alpha,--reg_alpha", o.reg_alpha, "L1 of leaves")->capture_default_str();
  g.add_option("--max_delta_step", o.max_delta_step, "bound of leaves, 0: none")
      ->capture_default_str();
  g.add_option("--booster", o.booster, "gbtree, dart or gblinear")->capture_default_str();
  g.add_option("--num_parallel_tree", o.num_parallel_tree, "trees a round and output")
      ->capture_default_str();
  g.add_option("--subsample", o.subsample, "share of rows a tree")->capture_default_str();
  g.add_option("--colsample_bytree", o.colsample_bytree, "share of features a tree")
      ->capture_default_str();
  g.add_option("--colsample_bylevel", o.colsample_bylevel, "… a level")->capture_default_str();
  g.add_option("--colsample_bynode", o.colsample_bynode, "… a node")->capture_default_str();
}

void add_learning_options(CLI::App& app, TrainSettings& s) {
  Options& o = s.options;
  CLI::App& g = *app.add_option_group("Learning");
  std::vector<std::string> objectives;  // a ranking needs groups, times bounds, custom code
  for (const std::string_view name : quern::boosting::objective_names) {
    if (!name.starts_with("rank:") && name != "survival:aft" && name != "custom")
      objectives.emplace_back(name);
  }
  g.add_option("--objective", o.objective, "loss; chosen by the labels if not given")
      ->check(CLI::IsMember(objectives))
      ->each([&s](const std::string&) { s.objective_given = true; });
  g.add_option("--quantile_alpha", o.quantile_alpha, "levels of reg:quantileerror, rising")
      ->delimiter(',')
      ->allow_extra_args(false);
  g.add_option("--huber_slope", o.huber_slope, "of reg:pseudohubererror")->capture_default_str();
  g.add_option("--tweedie_variance_power", o.tweedie_variance_power, "of reg:tweedie, 1 to 2")
      ->capture_default_str();
  g.add_option("--class_weight", o.class_weight, "factors of the weights of classes 0, 1, …")
      ->delimiter(',')
      ->allow_extra_args(false);
  g.add_option("--gradient_order", o.gradient_order,
               "2: Newton's steps; 1: least-squares trees with a line search a leaf")
      ->capture_default_str();
  g.add_option("-n,--rounds,--num_round", o.num_round, "rounds of boosting")->capture_default_str();
  g.add_option_function<double>(
       "--eta,--learning_rate", [&o](double x) { o.learning_rate = x; }, "learning rate")
      ->default_str("0.3; of gblinear 0.5");
  g.add_option("--num_class", o.num_class, "classes; 0: as many as the labels have")
      ->capture_default_str();
  g.add_option("--scale_pos_weight", o.scale_pos_weight, "weight of positive rows")
      ->capture_default_str();
  g.add_option("--base_score", o.base_score, "prediction to start from; else the best constant");
  g.add_option(
       "--eval_metric", o.eval_metric,
       "rmse, mae, logloss, error, auc, quantile, mlogloss, … (docs/boosting/objectives.md); "
       "early stopping goes by the last")
      ->delimiter(',')
      ->allow_extra_args(false);
  g.add_option("--early_stopping_rounds,--early-stopping-rounds", o.early_stopping_rounds,
               "stop after so many rounds without improvement on the test rows; 0: never")
      ->capture_default_str();
  g.add_option("--seed", o.seed, "of sampling and of --holdout")->capture_default_str();
  g.add_option("--nthread,--threads", o.nthread, "0: all cores; never changes a result")
      ->capture_default_str();
}

/// Options of all commands that train.
void add_training(CLI::App& app, TrainSettings& s) {
  add_learning_options(app, s);
  add_tree_options(app, s.options);
  app.add_option("--set", s.set,
                 "any other option by XGBoost's name, as booster=dart or rate_drop=0.1; may be "
                 "given again")
      ->allow_extra_args(false);
  app.add_option("--log-every", s.log_every, "rounds between lines where stderr is no terminal")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_flag("-q,--quiet", s.quiet, "no progress");
}

void add_test(CLI::App& app, TrainSettings& s) {
  auto* test = app.add_option("--test", s.test.path, "file of rows to judge by");
  app.add_option("--test-labels", s.test.labels_path, "its file of labels")->needs(test);
  app.add_option("--holdout", s.holdout, "share of the rows kept from training to judge by")
      ->check(CLI::Range(0.0, 1.0))
      ->excludes(test);
}

CLI::App* add_train(CLI::App& app, TrainSettings& s) {
  CLI::App* c = app.add_subcommand("train", "Learn from data, save and judge the model");
  add_data(*c, s.data);
  add_test(*c, s);
  c->add_option(
      "-m,--model,model", s.model_path,
      "where to save; .json and .ubj are XGBoost's formats, .txt LightGBM's, all else quern's own");
  c->add_option("--report", s.report_path, "where to write a self-contained HTML page");
  c->add_option("--title", s.title, "of the page");
  c->add_option("--class-names", s.class_names, "names of the classes 0, 1, …, with commas between")
      ->delimiter(',')
      ->allow_extra_args(false);
  c->add_flag("--keep-on-interrupt", s.keep_when_cancelled,
              "Ctrl-C ends training but keeps the finished rounds");
  add_training(*c, s);
  return c;
}

CLI::App* add_compare(CLI::App& app, TrainSettings& s) {
  CLI::App* c = app.add_subcommand(
      "compare", "Loss by round: first order, second order, second order with regularisation");
  add_data(*c, s.data);
  add_test(*c, s);
  add_training(*c, s);
  return c;
}

CLI::App* add_cv(CLI::App& app, CrossValidationSettings& s) {
  CLI::App* c = app.add_subcommand("cv", "Cross-validate: mean and deviation of metrics by round");
  add_data(*c, s.train.data);
  c->add_option("--folds", s.folds, "at least 2")->capture_default_str();
  c->add_flag("--stratified", s.stratified, "spread the rows of each class evenly over the folds");
  add_training(*c, s.train);
  return c;
}

/// Positional MODEL, or -m MODEL in its place.
void add_model(CLI::App& app, std::string& path) {
  app.add_option("-m,--model,model", path, "what train saved, or a model of another system's")
      ->required();
}

/// `-m MODEL` may stand anywhere: CLI11 would take the data for the model otherwise.
std::vector<std::string> model_first(int argc, char** argv) {
  std::vector<std::string> words(argv + 1, argv + argc);
  if (words.empty() || (words[0] != "predict" && words[0] != "eval" && words[0] != "explain"))
    return words;
  for (std::size_t i = 1; i + 1 < words.size(); ++i) {
    if (words[i] != "-m" && words[i] != "--model") continue;
    const std::string model = words[i + 1];
    words.erase(words.begin() + static_cast<std::ptrdiff_t>(i),
                words.begin() + static_cast<std::ptrdiff_t>(i) + 2);
    words.insert(words.begin() + 1, {"-m", model});
    break;
  }
  return words;
}

/// What --set says, over all else.
void apply_set(TrainSettings& s) {
  try {
    for (const std::string& text : s.set) {
      const auto [name, value] = quern::boosting::split_option(text);
      quern::boosting::set_option(s.options, name, value);
      if (quern::boosting::option_name(name) == "objective") s.objective_given = true;
    }
  } catch (const quern::ValueError& error) {
    throw UsageError(std::string("--set: ") + error.what());
  }
}

CLI::App* add_predict(CLI::App& app, PredictSettings& s) {
  CLI::App* c = app.add_subcommand("predict", "Predict rows of a file, as CSV");
  add_model(*c, s.model_path);
  add_data(*c, s.data);
  c->add_option("-o,--out", s.out_path, "CSV file to write; -: standard output")
      ->capture_default_str();
  c->add_option("--what", s.what, "what to write")
      ->check(CLI::IsMember({"probability", "class", "margin", "leaf"}))
      ->capture_default_str();
  c->add_option("--nthread,--threads", s.threads, "0: all cores")->check(CLI::NonNegativeNumber);
  return c;
}

CLI::App* add_eval(CLI::App& app, EvalSettings& s) {
  CLI::App* c = app.add_subcommand("eval", "Judge a model by labelled rows");
  add_model(*c, s.model_path);
  add_data(*c, s.data);
  c->add_option("--nthread,--threads", s.threads, "0: all cores")->check(CLI::NonNegativeNumber);
  return c;
}

CLI::App* add_explain(CLI::App& app, ExplainSettings& s) {
  CLI::App* c = app.add_subcommand("explain", "Show what a model learned: importances, trees");
  add_model(*c, s.model_path);
  c->add_option("--sort", s.sort_by, "order of the features")
      ->check(CLI::IsMember({"gain", "cover", "weight", "total_gain", "total_cover"}))
      ->capture_default_str();
  c->add_option("--top", s.top, "features to show")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  c->add_option("--dump", s.dump, "print trees, in XGBoost's notation or as Graphviz")
      ->check(CLI::IsMember({"text", "dot"}));
  c->add_option("--trees", s.trees, "how many trees to print")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  add_data(*c, s.data, false);
  c->add_option("--shap", s.shap_path,
                "CSV file of Shapley values of the data's rows (-: standard output)");
  c->add_option("--interactions", s.interactions_path,
                "CSV file of Shapley interactions of pairs of features");
  c->add_option("--permutation", s.permutation,
                "metric to judge the data's rows by while each feature is shuffled");
  c->add_option("--repeats", s.repeats, "shuffles of a feature")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  c->add_option("--seed", s.seed, "of the shuffles")->capture_default_str();
  c->add_option("--nthread,--threads", s.threads, "0: all cores")->check(CLI::NonNegativeNumber);
  return c;
}

/// The message on one line, without the name of the function inside the library.
std::string one_line(std::string text) {
  if (text.starts_with("quern::")) {
    const std::size_t end = text.find(": ");
    if (end != std::string::npos) text.erase(0, end + 2);
  }
  for (char& c : text) {
    if (c == '\n' || c == '\r') c = ' ';
  }
  return text;
}

int fail(const std::string& text, int code = 1) {
  std::fflush(stdout);
  std::fprintf(stderr, "gbdt: %s\n", one_line(text).c_str());
  return code;
}

int run(int argc, char** argv) {
  CLI::App app("Gradient boosted decision trees: train, predict, judge and explain.", "gbdt");
  app.set_version_flag("--version", std::string("gbdt of quern ") + QUERN_VERSION);
  app.require_subcommand(1);
  TrainSettings train_settings;
  PredictSettings predict_settings;
  EvalSettings eval_settings;
  ExplainSettings explain_settings;
  TrainSettings compare_settings;
  CrossValidationSettings cv_settings;
  const CLI::App* train_command = add_train(app, train_settings);
  const CLI::App* compare_command = add_compare(app, compare_settings);
  const CLI::App* cv_command = add_cv(app, cv_settings);
  const CLI::App* predict_command = add_predict(app, predict_settings);
  const CLI::App* eval_command = add_eval(app, eval_settings);
  add_explain(app, explain_settings);
  try {
    std::vector<std::string> words = model_first(argc, argv);
    std::reverse(words.begin(), words.end());  // CLI11 takes them from the back
    app.parse(std::move(words));
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help, --version
    return fail(std::string(error.what()) + " (gbdt --help says more)", 2);
  }
  for (TrainSettings* s : {&train_settings, &compare_settings, &cv_settings.train}) apply_set(*s);
  if (*train_command) return train(train_settings);
  if (*compare_command) return compare(compare_settings);
  if (*cv_command) return cross_validate(cv_settings);
  if (*predict_command) return predict(predict_settings);
  if (*eval_command) return evaluate(eval_settings);
  return explain(explain_settings);
}

}  // namespace
}  // namespace gbdt

int main(int argc, char** argv) {
  try {
    return gbdt::run(argc, argv);
  } catch (const quern::Cancelled&) {
    return gbdt::fail("interrupted; nothing was saved (--keep-on-interrupt keeps rounds)", 130);
  } catch (const gbdt::UsageError& error) {
    return gbdt::fail(error.what(), 2);
  } catch (const std::bad_alloc&) {
    return gbdt::fail("not enough memory");
  } catch (const std::exception& error) {
    return gbdt::fail(error.what());
  }
}
