// SPDX-License-Identifier: Apache-2.0
//
// Optimisers at work: paths on test surfaces, a race on logistic regression and on a small network,
// AdamW against Adam with L2, and Adam taken apart. Writes a page that needs nothing else.

#include "quern/core/error.hpp"
#include "quern/core/file.hpp"
#include "quern/core/parallel.hpp"
#include "quern/optim/optimizer.hpp"
#include "race.hpp"

#include <CLI/CLI.hpp>

#include <cstdio>
#include <exception>
#include <span>

namespace {

namespace optim = quern::optim;
using namespace optimizers;

template <class Method>
Maker<float> of(const Method& method) {
  return [method](std::vector<optim::Parameter<float>> p) {
    return std::make_unique<optim::Optimizer<Method, float>>(std::move(p), method);
  };
}

struct Entrant {
  const char* name;
  Maker<float> make;
};

std::vector<Training> train(const char* title, const Data& data, const NetworkOptions& options,
                            const std::vector<Entrant>& entrants) {
  std::printf("%s\n", title);
  std::vector<Training> out;
  for (const Entrant& e : entrants) {
    out.push_back(train_network(data, e.name, e.make, options));
    const Training& t = out.back();
    std::printf("  %-28s loss %.4f  test %.2f %%  |w| %.1f\n", e.name, t.loss.y.back(),
                100 * t.test.back(), t.weight_norm);
    std::fflush(stdout);
  }
  return out;
}

int run(int argc, char** argv) {
  CLI::App app("Optimisers on test surfaces, logistic regression and a small network.");
  std::string data = "/usr/share/datasets/fashion-mnist", html = "optimizers.html";
  NetworkOptions network;
  int steps = 150, threads = 0;
  quern::Index rows = 0;
  bool surfaces_only = false;
  app.add_option("--data", data, "folder with Fashion-MNIST's four files")->capture_default_str();
  app.add_option("--html", html, "page to write")->capture_default_str();
  app.add_option("--epochs", network.epochs, "passes over the pictures")
      ->capture_default_str()
      ->check(CLI::Range(1, 1000));
  app.add_option("--rows", rows, "pictures to take, 0 for all")->check(CLI::NonNegativeNumber);
  app.add_option("--hidden", network.hidden, "units of the network")
      ->capture_default_str()
      ->check(CLI::Range(1, 100000));
  app.add_option("--steps", steps, "steps on the surfaces")
      ->capture_default_str()
      ->check(CLI::Range(1, 100000));
  app.add_option("--seed", network.seed, "of weights and order")->capture_default_str();
  app.add_option("--threads", threads, "0: all")->capture_default_str();
  app.add_flag("--surfaces-only", surfaces_only, "no pictures needed");
  CLI11_PARSE(app, argc, argv);
  quern::set_default_threads(threads);

  Findings found;
  found.surfaces = walk_surfaces(steps);
  if (!surfaces_only) {
    const Data pictures = load_fashion_mnist(data, rows);
    if (pictures.train.rows.extent(0) < network.batch) {
      throw quern::ValueError("optimizers: --rows: expected at least 128");
    }
    found.logistic = race_logistic(pictures, 2 * network.epochs);
    std::printf("Logistic regression\n");
    for (const Curve& c : found.logistic)
      std::printf("  %-28s loss %.4f\n", c.name.c_str(), c.y.back());
    found.race = train("Network", pictures, network,
                       {{"SGD", of(optim::Sgd{.lr = 0.1})},
                        {"Nesterov", of(optim::Sgd{.lr = 0.02, .momentum = 0.9, .nesterov = true})},
                        {"Adagrad", of(optim::Adagrad{.lr = 0.02})},
                        {"RMSProp", of(optim::RmsProp{.lr = 1e-3})},
                        {"AdamW", of(optim::AdamW{.lr = 1e-3})},
                        {"RAdam", of(optim::RAdam{.lr = 1e-3})},
                        {"Lion", of(optim::Lion{.lr = 1e-4, .weight_decay = 0.1})},
                        {"LAMB", of(optim::Lamb{.lr = 2e-3})}});
    const double lambda = 0.05;
    found.decay =
        train("Decay", pictures, network,
              {{"SGD, L2", of(optim::Sgd{.lr = 0.1, .l2 = lambda / 10})},
               {"SGD, weight decay", of(optim::Sgd{.lr = 0.1, .weight_decay = lambda / 10})},
               {"Adam, L2", of(optim::Adam{.lr = 1e-3, .l2 = lambda})},
               {"AdamW", of(optim::AdamW{.lr = 1e-3, .weight_decay = lambda})}});
    found.apart =
        train("Adam taken apart", pictures, network,
              {{"momentum only", of(optim::Sgd{.lr = 0.1, .momentum = 0.9, .dampening = 0.9})},
               {"adaptive rate only", of(optim::Adam{.lr = 1e-3, .beta1 = 0})},
               {"both: Adam", of(optim::Adam{.lr = 1e-3})}});
  }
  const std::string text = optimizers::html(found);
  quern::write_file_atomically(html, std::as_bytes(std::span(text.data(), text.size())));
  std::printf("open %s\n", html.c_str());
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "optimizers: %s\n", e.what());
    return 1;
  }
}
