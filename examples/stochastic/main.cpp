// SPDX-License-Identifier: Apache-2.0

/// \file
/// stochastic: roots, means, minima and values of states from noisy observations, with pictures.

#include "studies.hpp"

#include <CLI/CLI.hpp>

#include <unistd.h>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>
#include <vector>

namespace {

volatile std::sig_atomic_t interrupted = 0;
void on_interrupt(int) { interrupted = 1; }

/// A line that is drawn over, on a terminal; false once Ctrl-C was pressed.
bool draw(const quern::Progress& p) {
  if (isatty(2) != 0 && p.total > 0) {
    std::fprintf(stderr, "\r%s %3d %%%s", std::string(p.what).c_str(),
                 static_cast<int>(100 * p.done / p.total), p.done == p.total ? "\r\033[K" : "");
  }
  return interrupted == 0;
}

struct Settings {
  studies::Common common;
  std::string html;
  std::vector<double> coefficients = {-5, 0, 0, 1};
  double start = 1;
  std::string file;
  double fading = 0.02;
  std::int64_t states = 5;
  double a = 1, alpha = 0.75, offset = 0, c = 0, gamma = 1.0 / 6;
};

std::vector<double> read_values(const std::string& file) {
  std::ifstream in(file);
  if (file != "-" && !in) throw std::runtime_error(file + ": cannot be read");
  std::istream& from = file == "-" ? std::cin : in;
  std::vector<double> values((std::istream_iterator<double>(from)), {});
  if (!from.eof()) throw std::runtime_error(file + ": holds something that is no number");
  return values;
}

std::vector<page::Section> study(const std::string& name, const Settings& s) {
  if (name == "root") return {studies::root(s.common, s.coefficients, s.start)};
  if (name == "means") {
    const std::vector<double> values = s.file.empty() ? std::vector<double>() : read_values(s.file);
    return {studies::means(s.common, values, s.fading)};
  }
  if (name == "simulator") return {studies::simulator(s.common)};
  if (name == "walk") return {studies::walk(s.common, s.states)};
  if (name == "check") return {studies::check(s.a, s.alpha, s.offset, s.c, s.gamma)};
  return {studies::root(s.common, {-5, 0, 0, 1}, 1), studies::root(s.common, {-1, 2, 0.5}, 0),
          studies::means(s.common, {}, s.fading), studies::simulator(s.common),
          studies::walk(s.common, s.states)};
}

void describe(CLI::App& app, Settings& s) {
  app.require_subcommand(1);
  app.fallthrough();
  app.add_option("--steps", s.common.steps, "observations")
      ->capture_default_str()
      ->check(CLI::Range(100, 100000000));
  app.add_option("--noise", s.common.noise, "deviation of the noise")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  app.add_option("--seed", s.common.seed, "of the noise")->capture_default_str();
  app.add_option("--level", s.common.level, "confidence of intervals")->capture_default_str();
  app.add_option("--html", s.html, "write a page with pictures");
  CLI::App* root = app.add_subcommand("root", "root of a polynomial seen through noise");
  root->add_option("--coefficients", s.coefficients, "of 1, w, w^2, ... (default: w^3 - 5)");
  root->add_option("--start", s.start, "first guess")->capture_default_str();
  CLI::App* means = app.add_subcommand("means", "running means of a stream of numbers");
  means->add_option("file", s.file, "numbers, - for standard input; none: a made-up stream");
  means->add_option("--fading", s.fading, "the constant step")->capture_default_str();
  app.add_subcommand("simulator", "SPSA and Kiefer-Wolfowitz on a noisy simulator");
  CLI::App* walk = app.add_subcommand("walk", "temporal differences on a random walk");
  walk->add_option("--states", s.states, "states")
      ->capture_default_str()
      ->check(CLI::Range(1, 10000));
  CLI::App* check = app.add_subcommand("check", "conditions that steps a/(k+A)^alpha meet");
  check->add_option("-a", s.a, "a")->capture_default_str();
  check->add_option("--alpha", s.alpha, "exponent")->capture_default_str();
  check->add_option("--offset", s.offset, "A")->capture_default_str();
  check->add_option("-c", s.c, "c of the spans c/k^gamma of differences; 0: none");
  check->add_option("--gamma", s.gamma, "their exponent")->capture_default_str();
  app.add_subcommand("all", "everything, on one page");
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Stochastic approximation: what can be learnt from noisy observations alone.");
  Settings settings;
  describe(app, settings);
  CLI11_PARSE(app, argc, argv);
  std::signal(SIGINT, on_interrupt);
  settings.common.progress = draw;
  try {
    const auto sections = study(app.get_subcommands().front()->get_name(), settings);
    for (const page::Section& section : sections) page::print(section);
    if (!settings.html.empty()) {
      page::write(settings.html, page::html("Stochastic approximation", sections));
      std::printf("\nwrote %s\n", settings.html.c_str());
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "stochastic: %s\n", error.what());
    return interrupted != 0 ? 130 : 1;
  }
  return 0;
}
