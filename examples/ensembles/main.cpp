// SPDX-License-Identifier: Apache-2.0

/// \file
/// ensembles: a tree and eight ensembles side by side, and three pictures of why ensembles help.

#include "data.hpp"
#include "methods.hpp"
#include "report.hpp"
#include "why.hpp"

#include "quern/core/file.hpp"
#include "quern/core/parallel.hpp"

#include <CLI/CLI.hpp>

#include <cstdint>
#include <cstdio>
#include <exception>
#include <span>
#include <string>

namespace {

struct Settings {
  std::string fashion, adult, report = "ensembles.html";
  std::int64_t rows = 10000;
  std::uint64_t seed = 1;
  int threads = 0;
};

void compare(const ensembles::DataSet& data, const Settings& settings, ensembles::Report& report) {
  std::printf("%s: %lld rows to learn from, %lld to be judged by, %lld features\n",
              data.name.c_str(), static_cast<long long>(data.train.x.extent(0)),
              static_cast<long long>(data.test.x.extent(0)),
              static_cast<long long>(data.train.x.extent(1)));
  std::printf("  %-18s %9s %9s %11s %9s\n", "method", "accuracy", "fit s", "us a row", "MB");
  auto results = ensembles::compare(data, settings.seed, [](const ensembles::Result& r) {
    std::printf("  %-18s %9.4f %9.2f %11.1f %9.2f\n", r.method.c_str(), r.accuracy, r.fit,
                r.predict, r.size / 1e6);
    std::fflush(stdout);
  });
  report.tables.emplace_back(data.name, std::move(results));
}

int run(const Settings& settings) {
  quern::set_default_threads(settings.threads);
  ensembles::Report report;
  if (!settings.fashion.empty())
    compare(ensembles::read_fashion_mnist(settings.fashion, settings.rows), settings, report);
  if (!settings.adult.empty())
    compare(ensembles::read_adult(settings.adult, settings.rows), settings, report);
  report.statistical = ensembles::statistical(settings.seed);
  report.computational = ensembles::computational(settings.seed);
  report.representational = ensembles::representational(settings.seed);
  const std::string page = ensembles::html(report);
  quern::write_file_atomically(settings.report,
                               std::as_bytes(std::span<const char>(page.data(), page.size())));
  std::printf("wrote %s\n", settings.report.c_str());
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  Settings settings;
  CLI::App app(
      "A tree and eight ensembles side by side, and three pictures of why ensembles help.");
  app.add_option("--fashion-mnist", settings.fashion, "folder of Fashion-MNIST's four IDX files");
  app.add_option("--adult", settings.adult, "UCI's adult.data");
  app.add_option("--rows", settings.rows, "rows to learn from")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option("--report", settings.report, "HTML page to write")->capture_default_str();
  app.add_option("--seed", settings.seed, "of all that is random")->capture_default_str();
  app.add_option("--threads", settings.threads, "0: all cores; never changes a result")
      ->check(CLI::Range(0, 1024));
  CLI11_PARSE(app, argc, argv);
  try {
    return run(settings);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "ensembles: %s\n", error.what());
    return 1;
  }
}
