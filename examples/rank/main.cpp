// SPDX-License-Identifier: Apache-2.0

/// \file
/// rank: learns to put the documents of each query in order (LambdaRank), from LIBSVM files whose
/// queries are in `qid:` or in a file of group sizes beside them (FILE.query).

#include "quern/boosting/booster.hpp"
#include "quern/core/error.hpp"
#include "quern/io/groups.hpp"
#include "quern/io/libsvm.hpp"
#include "quern/io/model_formats.hpp"

#include <CLI/CLI.hpp>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>

namespace {

using quern::boosting::Booster;
using quern::boosting::Options;

/// A LIBSVM file and its queries.
struct Ranking {
  quern::io::SparseTable<float> table;
  quern::tree::Dataset data;
};

/// \p like: the training table, whose columns the file is read into.
void read(const std::string& path, const quern::io::SparseTable<float>* like, Ranking& to) {
  quern::io::LibsvmOptions options;
  if (like != nullptr) {
    options.cols = like->cols;
    options.index_base =
        like->index_base == 0 ? quern::io::IndexBase::zero : quern::io::IndexBase::one;
  }
  to.table = quern::io::read_libsvm(path, options);
  for (const char* ending : {".query", ".group"}) {
    if (!to.table.group_offsets.empty() || !std::filesystem::exists(path + ending)) continue;
    to.table.group_offsets = quern::io::read_groups(path + ending);
  }
  if (to.table.group_offsets.empty())
    throw quern::ValueError(path + ": no qid: in it and no " + path + ".query beside it");
  to.data = quern::io::dataset(to.table);
}

/// A line a round: every metric of every set.
class Reporter final : public quern::boosting::Callback {
 public:
  bool after_round(const quern::boosting::RoundView& view) override {
    if (view.done == 1) {
      std::printf("round");
      for (const auto& curve : view.history.curves)
        std::printf(" %13s", (curve.set + " " + curve.metric).c_str());
      std::printf("\n");
    }
    std::printf("%5lld", static_cast<long long>(view.done));
    for (const auto& curve : view.history.curves) std::printf(" %13.5f", curve.values.back());
    std::printf("\n");
    return true;
  }
};

void write_scores(const Booster& booster, const quern::tree::Dataset& data,
                  const std::string& path) {
  const auto scores = booster.predict_margin(data);
  std::ofstream out(path);
  for (std::int64_t i = 0; i < scores.extent(0); ++i) out << scores(i, 0) << '\n';
  if (!out) throw quern::IoError("cannot write '" + path + "'");
}

int run(int argc, char** argv) {
  Options options{.objective = "rank:ndcg",
                  .num_round = 100,
                  .learning_rate = 0.1,
                  .max_depth = 6,
                  .eval_metric = {"ndcg@1", "ndcg@3", "ndcg@5", "ndcg@10"}};
  std::string train_path, test_path, model_path, scores_path;
  CLI::App app("rank: LambdaRank on LIBSVM files with queries (qid: in the file, or FILE.query)");
  app.add_option("train", train_path, "training rows")->required()->check(CLI::ExistingFile);
  app.add_option("--test", test_path, "rows to report on")->check(CLI::ExistingFile);
  app.add_option("--model", model_path, "saves the model: .json, .ubj, .txt or quern's format");
  app.add_option("--scores", scores_path, "writes the test rows' scores (without --test: train's)");
  app.add_option("--objective", options.objective, "rank:ndcg, rank:map or rank:pairwise")
      ->capture_default_str();
  app.add_option("--rounds", options.num_round, "trees")->capture_default_str();
  app.add_option_function<double>(
         "--eta", [&](double x) { options.learning_rate = x; }, "learning rate")
      ->default_str("0.1");
  app.add_option("--max_depth", options.max_depth, "longest path")->capture_default_str();
  app.add_option("--max_leaves", options.max_leaves, "0: no limit")->capture_default_str();
  app.add_option("--min_child_weight", options.min_child_weight, "least hessian sum of a child")
      ->capture_default_str();
  app.add_option("--pairs", options.lambdarank_num_pair_per_sample,
                 "first ranks that are paired with all below them; 0: 32");
  app.add_option("--threads", options.nthread, "0: all");
  app.add_option("--early_stop", options.early_stopping_rounds,
                 "stop after so many rounds without a better NDCG@10 of the test rows; 0: never");
  CLI11_PARSE(app, argc, argv);

  Ranking train, test;
  read(train_path, nullptr, train);
  quern::boosting::FitOptions fit{.eval_train = true, .callbacks = {std::make_shared<Reporter>()}};
  if (!test_path.empty()) {
    read(test_path, &train.table, test);
    fit.eval_sets = {{"test", &test.data}};
  }
  std::printf("%lld rows of %lld queries, %lld columns\n",
              static_cast<long long>(train.table.rows()),
              static_cast<long long>(train.table.group_offsets.size()) - 1,
              static_cast<long long>(train.table.cols));
  Booster booster(options);
  booster.fit(train.data, fit);
  const std::int64_t best = booster.model().best_round;
  if (best >= 0) std::printf("best round: %lld\n", static_cast<long long>(best) + 1);
  if (!model_path.empty()) quern::io::save_model_as(booster.model(), model_path);
  if (!scores_path.empty())
    write_scores(booster, test_path.empty() ? train.data : test.data, scores_path);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "rank: %s\n", error.what());
    return 1;
  }
}
