// SPDX-License-Identifier: Apache-2.0

/// \file
/// hippo: a stretch of sound kept in a few coefficients by each of HiPPO's measures, and rebuilt
/// from them, with a picture.

#include "../common/page.hpp"
#include "wave.hpp"

#include "quern/core/nd_array.hpp"
#include "quern/ssm/hippo_memory.hpp"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <exception>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

using quern::Index;
using quern::ssm::HippoMemory;
using quern::ssm::Measure;

struct Settings {
  std::string wave;
  int factor = 3;
  int start = 2400;
  int length = 1600;
  std::vector<int> orders = {16, 64, 256};
  std::string html;
};

constexpr Measure measures[] = {Measure::legs, Measure::legt, Measure::lmu, Measure::fout,
                                Measure::lagt};

/// Time between samples so that a window holds just the stretch; Laguerre functions of this order
/// reach about so far.
double step_of(Measure measure, Index order, Index length) {
  const double samples = static_cast<double>(length);
  switch (measure) {
    case Measure::lmu:
      return 1 / samples;
    case Measure::lagt:
      return 2 * static_cast<double>(order) / samples;
    default:
      return 2 / samples;
  }
}

/// The stretch as it is rebuilt after its last sample.
std::vector<double> rebuilt(Measure measure, Index order, const std::vector<double>& signal) {
  const Index length = static_cast<Index>(signal.size());
  HippoMemory<double> memory(order, 1, {.measure = measure, .dt = step_of(measure, order, length)});
  memory.update({signal.data(), {length, 1}});
  std::vector<double> ages;
  for (Index i = 0; i < length; ++i) ages.push_back(static_cast<double>(length - 1 - i));
  const auto values = memory.reconstruct(ages);
  return {values.begin(), values.end()};
}

/// Root mean square of the difference, by that of the signal, over the newest `share` of it.
double error_of(const std::vector<double>& signal, const std::vector<double>& other, double share) {
  const auto first = static_cast<std::size_t>((1 - share) * static_cast<double>(signal.size()));
  double difference = 0, size = 0;
  for (std::size_t i = first; i < signal.size(); ++i) {
    difference += (signal[i] - other[i]) * (signal[i] - other[i]);
    size += signal[i] * signal[i];
  }
  return std::sqrt(difference / (std::max)(size, 1e-300));
}

std::vector<double> stretch_of(const Settings& s, double& rate) {
  const Wave wave =
      s.wave.empty() ? made_up(s.start + s.length) : slower(read_wave(s.wave), s.factor);
  const auto begin = static_cast<std::size_t>(s.start), count = static_cast<std::size_t>(s.length);
  if (begin + count > wave.samples.size()) {
    throw std::runtime_error("the signal has only " + std::to_string(wave.samples.size()) +
                             " samples: choose another --start and --length");
  }
  rate = wave.rate;
  const auto first = wave.samples.begin() + static_cast<std::ptrdiff_t>(begin);
  return {first, first + static_cast<std::ptrdiff_t>(count)};
}

page::Section study(const Settings& s) {
  double rate = 8000;
  const std::vector<double> signal = stretch_of(s, rate);
  std::vector<double> time;
  for (std::size_t i = 0; i < signal.size(); ++i) {
    time.push_back(1000 * static_cast<double>(i) / rate);
  }
  page::Section section;
  section.title = "What each measure remembers";
  section.text = std::to_string(signal.size()) + " samples of " +
                 (s.wave.empty() ? "a made-up signal" : s.wave) + " at " + page::number(rate) +
                 " a second, kept online in a fixed number of coefficients and rebuilt after the "
                 "last one. Errors are root mean squares relative to the signal's, over all of the "
                 "stretch and over its newest quarter.";
  section.table.head = {"coefficients", "measure", "error", "newest quarter"};
  for (const int order : s.orders) {
    for (const Measure measure : measures) {
      const std::vector<double> again = rebuilt(measure, order, signal);
      section.table.rows.push_back({std::to_string(order), std::string(name(measure)),
                                    page::number(error_of(signal, again, 1)),
                                    page::number(error_of(signal, again, 0.25))});
      if (order != s.orders[s.orders.size() / 2]) continue;
      page::Chart chart;
      chart.title = std::string(name(measure)) + ", " + std::to_string(order) + " coefficients";
      chart.x_name = "ms";
      chart.y_name = "signal";
      chart.series = {{"signal", time, signal}, {"rebuilt", time, again}};
      section.charts.push_back(chart);
    }
  }
  return section;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("HiPPO: the past of a signal in a few coefficients, and rebuilt from them.");
  Settings s;
  app.add_option("--wave", s.wave, "sound file, 16-bit PCM (none: a made-up signal)");
  app.add_option("--factor", s.factor, "samples of the file to a mean")
      ->capture_default_str()
      ->check(CLI::Range(1, 1000));
  app.add_option("--start", s.start, "first sample of the stretch")
      ->capture_default_str()
      ->check(CLI::Range(0, 100000000));
  app.add_option("--length", s.length, "samples of the stretch")
      ->capture_default_str()
      ->check(CLI::Range(2, 1000000));
  app.add_option("--orders", s.orders, "numbers of coefficients")
      ->capture_default_str()
      ->check(CLI::Range(1, 1024));
  app.add_option("--html", s.html, "write a page with pictures");
  CLI11_PARSE(app, argc, argv);
  try {
    const page::Section section = study(s);
    page::print(section);
    if (!s.html.empty()) {
      page::write(s.html, page::html("HiPPO", {section}));
      std::printf("\nwrote %s\n", s.html.c_str());
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "hippo: %s\n", error.what());
    return 1;
  }
  return 0;
}
