// SPDX-License-Identifier: Apache-2.0
//
// Fashion-MNIST read pixel by pixel, 784 steps a picture, by any of quern's sequence mixers. Prints
// one table of accuracy and time, and writes a page that needs nothing else.

#include "classifier.hpp"
#include "quern/core/error.hpp"
#include "quern/core/file.hpp"
#include "quern/core/parallel.hpp"

#include <CLI/CLI.hpp>

#include <cstdio>
#include <exception>
#include <span>

namespace {

using namespace classifier;

int run(int argc, char** argv) {
  CLI::App app("Fashion-MNIST pixel by pixel: accuracy and time of sequence mixers.");
  std::string data = "/usr/share/datasets/fashion-mnist", html = "sequence_classifier.html";
  std::vector<std::string> mixers = {"s4d"};
  ModelOptions model;
  TrainOptions options;
  Index rows = 0, test_rows = 0;
  std::string names = "all";
  for (const std::string& name : mixer_names()) names += ", " + name;
  app.add_option("--mixer", mixers, "one or more of: " + names)->capture_default_str();
  app.add_option("--data", data, "folder with Fashion-MNIST's four files")->capture_default_str();
  app.add_option("--html", html, "page to write")->capture_default_str();
  app.add_option("--epochs", options.epochs, "passes over the pictures")
      ->capture_default_str()
      ->check(CLI::Range(1, 1000));
  app.add_option("--batch", options.batch, "pictures a step")
      ->capture_default_str()
      ->check(CLI::Range(1, 100000));
  app.add_option("--dim", model.dim, "channels")->capture_default_str()->check(CLI::Range(4, 4096));
  app.add_option("--layers", model.layers, "blocks")
      ->capture_default_str()
      ->check(CLI::Range(1, 100));
  app.add_option("--heads", model.heads, "of the mixers that have some")
      ->capture_default_str()
      ->check(CLI::Range(1, 1024));
  app.add_option("--lr", options.lr, "highest learning rate")->capture_default_str();
  app.add_option("--rows", rows, "training pictures to take, 0 for all")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--test-rows", test_rows, "test pictures to take, 0 for all")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--seed", model.seed, "of weights and order")->capture_default_str();
  app.add_option("--threads", options.threads, "0: all")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  quern::set_default_threads(options.threads);
  if (mixers.size() == 1 && mixers[0] == "all") mixers = mixer_names();
  for (const std::string& name : mixers) {  // a wrong name is told before hours of training
    model.mixer = name;
    static_cast<void>(make_network(model));
  }

  const Pictures pictures = load_pictures(data, "train", rows);
  const Pictures test = load_pictures(data, "t10k", test_rows);
  std::vector<Outcome> outcomes;
  for (const std::string& name : mixers) {
    model.mixer = name;
    outcomes.push_back(train(model, options, pictures, test));
  }
  std::printf("\n%-8s %9s %14s %12s %19s\n", "mixer", "weights", "test accuracy", "training, s",
              "test, ms a picture");
  for (const Outcome& o : outcomes) {
    std::printf("%-8s %9lld %14.4f %12.0f %19.2f\n", o.mixer.c_str(),
                static_cast<long long>(o.weights), o.accuracy.empty() ? 0.0 : o.accuracy.back(),
                o.train_seconds,
                1e3 * o.test_seconds / static_cast<double>((std::max)(Index{1}, test.size())));
  }
  const std::string text = page(outcomes, model, options);
  quern::write_file_atomically(html, std::as_bytes(std::span(text.data(), text.size())));
  std::printf("open %s\n", html.c_str());
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "sequence_classifier: %s\n", e.what());
    return 1;
  }
}
