// SPDX-License-Identifier: Apache-2.0
//
// What each kind of attention costs against the length: nanoseconds a token, forward and with
// backward, and how near Performer comes to softmax, as tables and a page with curves.

#include "../common/page.hpp"
#include "errors.hpp"
#include "kinds.hpp"

#include "quern/core/parallel.hpp"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <exception>
#include <limits>
#include <string>
#include <vector>

namespace {

using quern::Index;

/// Nanoseconds of the fastest of some calls.
double fastest(const std::function<void()>& call, double seconds) {
  using Clock = std::chrono::steady_clock;
  double best = std::numeric_limits<double>::infinity(), spent = 0;
  for (int i = 0; i < 2 || (spent < seconds && i < 1000); ++i) {
    const auto start = Clock::now();
    call();
    const double took = std::chrono::duration<double>(Clock::now() - start).count();
    best = (std::min)(best, took);
    spent += took;
  }
  return 1e9 * best;
}

void begin_section(page::Section& s, const char* title, const kinds::Sizes& sizes) {
  s.title = title;
  s.text = "Nanoseconds a token and head: " + std::to_string(sizes.heads) + " heads of " +
           std::to_string(sizes.dim) + ", windows and groups of " + std::to_string(sizes.window) +
           ". Gated units have one head and their projections; their figures are divided alike.";
  s.charts.push_back({.title = title,
                      .x_name = "length",
                      .y_name = "ns a token and head",
                      .log_x = true,
                      .log_y = true});
}

int run(int argc, char** argv) {
  CLI::App app("What each kind of attention costs against the length.");
  kinds::Sizes sizes;
  Index shortest = 256, longest = 16384, longest_quadratic = 8192;
  int threads = 0;
  double seconds = 0.2;
  std::string html = "attention.html";
  const auto positive = CLI::PositiveNumber;
  app.add_option("--heads", sizes.heads, "heads")->capture_default_str()->check(positive);
  app.add_option("--dim", sizes.dim, "of a head")->capture_default_str()->check(positive);
  app.add_option("--window", sizes.window, "of local kinds; the group of FLASH")
      ->capture_default_str()
      ->check(positive);
  app.add_option("--shortest", shortest, "length to begin with")
      ->capture_default_str()
      ->check(positive);
  app.add_option("--longest", longest, "length to end with")
      ->capture_default_str()
      ->check(positive);
  app.add_option("--longest-quadratic", longest_quadratic, "the same for quadratic kinds")
      ->capture_default_str()
      ->check(positive);
  app.add_option("--seconds", seconds, "to repeat each call for")->capture_default_str();
  app.add_option("--threads", threads, "0: all")->capture_default_str();
  app.add_option("--html", html, "page to write")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  quern::set_default_threads(threads);

  std::vector<page::Section> sections(2);
  begin_section(sections[0], "Forward", sizes);
  begin_section(sections[1], "Forward and backward", sizes);
  std::vector<Index> lengths;
  for (Index n = shortest; n <= longest; n *= 2) lengths.push_back(n);
  for (page::Section& s : sections) {
    s.table.head = {"kind"};
    for (const Index n : lengths) s.table.head.push_back(std::to_string(n));
  }
  for (const kinds::Kind& kind : kinds::all()) {
    std::vector<std::string> rows[2] = {{kind.name}, {kind.name}};
    page::Series series[2] = {{kind.name, {}, {}}, {kind.name, {}, {}}};
    for (const Index n : lengths) {
      if (kind.quadratic && n > longest_quadratic) {
        for (auto& row : rows) row.push_back("-");
        continue;
      }
      sizes.length = n;
      const kinds::Job job = kind.make(sizes);
      const double tokens = static_cast<double>(n * sizes.heads);
      const double times[2] = {fastest(job.forward, seconds), fastest(job.both, seconds)};
      for (std::size_t i = 0; i < 2; ++i) {
        series[i].x.push_back(static_cast<double>(n));
        series[i].y.push_back(times[i] / tokens);
        rows[i].push_back(page::number(times[i] / tokens, "%.0f"));
      }
    }
    for (std::size_t i = 0; i < 2; ++i) {
      sections[i].table.rows.push_back(rows[i]);
      sections[i].charts[0].series.push_back(series[i]);
    }
    std::fprintf(stderr, "%s\n", kind.name.c_str());
  }
  sections.push_back(errors::performer(sizes.dim));
  for (const page::Section& s : sections) page::print(s);
  page::write(html, page::html("Attention against length", sections));
  std::printf("\nopen %s\n", html.c_str());
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "attention: %s\n", e.what());
    return 1;
  }
}
