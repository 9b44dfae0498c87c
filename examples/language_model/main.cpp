// SPDX-License-Identifier: Apache-2.0
//
// A language model of bytes: train it on a text with the mixer of your choice, let it write, or
// compare mixers at equal parameters.

#include "../common/page.hpp"
#include "lm.hpp"

#include "quern/core/error.hpp"
#include "quern/core/parallel.hpp"
#include "quern/io/safetensors.hpp"

#include <CLI/CLI.hpp>

#include <cstdio>
#include <exception>
#include <string>
#include <vector>

namespace {

using lm::Settings;
using quern::Index;

void add_settings(CLI::App& app, Settings& s) {
  const auto positive = CLI::PositiveNumber;
  app.add_option("--dim", s.dim, "of the model")->capture_default_str()->check(positive);
  app.add_option("--blocks", s.blocks, "transformer blocks, or pairs of gated units")
      ->capture_default_str()
      ->check(positive);
  app.add_option("--heads", s.heads, "where there are heads")
      ->capture_default_str()
      ->check(positive);
  app.add_option("--context", s.context, "bytes of a window")
      ->capture_default_str()
      ->check(positive);
  app.add_option("--batch", s.batch, "windows of a step")->capture_default_str()->check(positive);
  app.add_option("--window", s.window, "of local attention; the group of FLASH")
      ->capture_default_str()
      ->check(positive);
  app.add_option("--steps", s.steps, "of training")->capture_default_str()->check(positive);
  app.add_option("--lr", s.lr, "largest rate")->capture_default_str()->check(positive);
  app.add_option("--seed", s.seed, "of weights and windows")->capture_default_str();
  app.add_option("--report", s.report_every, "steps between lines")
      ->capture_default_str()
      ->check(positive);
}

/// What a model's file says of its sizes.
void settings_of_file(const std::string& path, Settings& s) {
  const auto file = quern::io::Safetensors::read(path);
  const auto number = [&](const char* key, Index& to) { to = std::stoll(file.metadata().at(key)); };
  number("dim", s.dim);
  number("blocks", s.blocks);
  number("heads", s.heads);
  number("context", s.context);
  number("window", s.window);
  s.mixer = file.metadata().at("mixer");
}

void print_report(const lm::Report& r) {
  std::printf(
      "%s: held out %.3f bits per byte; training %.0f tokens/s, decoding %.0f tokens/s, peak "
      "%.0f MiB\n",
      r.mixer.c_str(), r.held_out_bits, r.train_rate, r.decode_rate, r.peak_mib);
}

void write_comparison(const std::vector<lm::Report>& reports, const Settings& s,
                      const std::string& html) {
  page::Section table;
  table.title = "Mixers at equal parameters";
  table.text = std::to_string(s.steps) + " steps of " + std::to_string(s.batch) + " windows of " +
               std::to_string(s.context) + " bytes, dim " + std::to_string(s.dim) +
               ". Bits per byte are those of text that was held out.";
  table.table.head = {
      "mixer", "weights", "bits per byte", "training, tokens/s", "decode, tokens/s", "peak MiB"};
  page::Chart chart{.title = "Learning", .x_name = "step", .y_name = "bits per byte"};
  for (const lm::Report& r : reports) {
    table.table.rows.push_back(
        {r.mixer, std::to_string(r.weights), page::number(r.held_out_bits, "%.3f"),
         page::number(r.train_rate, "%.0f"), page::number(r.decode_rate, "%.0f"),
         page::number(r.peak_mib, "%.0f")});
    chart.series.push_back({r.mixer, r.steps, r.train_bits});
  }
  table.charts.push_back(chart);
  page::print(table);
  page::write(html, page::html("Language models", {table}));
  std::printf("open %s\n", html.c_str());
}

int run(int argc, char** argv) {
  CLI::App app("A language model of bytes with any mixer.");
  app.require_subcommand(1);
  app.fallthrough();  // --threads may stand behind the command too
  int threads = 0;
  app.add_option("--threads", threads, "0: all")->capture_default_str();
  Settings s;
  std::string text = "text", html = "language_model.html", prompt = "In the beginning";
  std::vector<std::string> compared = {"softmax",     "gau",        "flash",    "linear-identity",
                                       "linear-elu1", "linear-exp", "performer"};
  double temperature = 0.8;
  Index tokens = 400, top_k = 40;
  std::string names;
  for (const lm::Mixer& m : lm::mixers()) names += std::string("\n  ") + m.name + ": " + m.about;

  CLI::App& train = *app.add_subcommand("train", "train a model and keep it in --folder");
  train.add_option("--text", text, "file to learn")->capture_default_str();
  train.add_option("--mixer", s.mixer, "one of" + names)->capture_default_str();
  train.add_option("--folder", s.folder, "for model.safetensors and optimizer.safetensors");
  train.add_flag("--resume", s.resume, "go on with what is in --folder");
  add_settings(train, s);
  CLI::App& write = *app.add_subcommand("generate", "continue a prompt");
  write.add_option("--folder", s.folder, "with model.safetensors")->required();
  write.add_option("--prompt", prompt, "to continue")->capture_default_str();
  write.add_option("--tokens", tokens, "bytes to write")->capture_default_str();
  write.add_option("--temperature", temperature, "0: the likeliest")->capture_default_str();
  write.add_option("--top-k", top_k, "only the k likeliest, 0: all")->capture_default_str();
  write.add_option("--seed", s.seed, "of the draws")->capture_default_str();
  CLI::App& compare = *app.add_subcommand("compare", "train several mixers at equal parameters");
  compare.add_option("--text", text, "file to learn")->capture_default_str();
  compare.add_option("--mixers", compared, "which")->capture_default_str()->delimiter(',');
  compare.add_option("--html", html, "page to write")->capture_default_str();
  add_settings(compare, s);
  CLI11_PARSE(app, argc, argv);
  quern::set_default_threads(threads);

  if (write.parsed()) {
    settings_of_file(s.folder + "/model.safetensors", s);
    const auto model = lm::make_model(s);
    lm::load_model(*model, s.folder + "/model.safetensors");
    double rate = 0;
    const std::string more =
        lm::continue_text(*model, prompt, tokens, temperature, top_k, s.seed, &rate);
    std::printf("%s%s\n(%.0f tokens/s)\n", prompt.c_str(), more.c_str(), rate);
    return 0;
  }
  const lm::Text bytes = lm::read_text(text);
  if (train.parsed()) {
    if (s.resume) settings_of_file(s.folder + "/model.safetensors", s);
    const auto model = lm::make_model(s);
    print_report(lm::train(*model, s, bytes));
    std::printf(
        "%s%s\n", prompt.c_str(),
        lm::continue_text(*model, prompt, tokens, temperature, top_k, s.seed, nullptr).c_str());
    return 0;
  }
  std::vector<lm::Report> reports;
  for (const std::string& mixer : compared) {
    s.mixer = mixer;
    const auto model = lm::make_model(s);
    reports.push_back(lm::train(*model, s, bytes));
    print_report(reports.back());
  }
  write_comparison(reports, s, html);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "language_model: %s\n", e.what());
    return 1;
  }
}
