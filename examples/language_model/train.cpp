// SPDX-License-Identifier: Apache-2.0
//
// Training on random windows of a text, and measuring: bits per byte, tokens a second, memory.

#include "lm.hpp"

#include "quern/core/error.hpp"
#include "quern/core/random.hpp"
#include "quern/io/optimizer_state.hpp"
#include "quern/optim/optimizer.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <span>

namespace lm {
namespace {

namespace attention = quern::attention;
namespace nn = quern::nn;
namespace optim = quern::optim;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// Linux: forgets the process's peak of memory, and tells it.
void forget_peak_memory() {
  std::ofstream file("/proc/self/clear_refs");
  file << '5';
}
double peak_memory_mib() {
  std::ifstream file("/proc/self/status");
  std::string word;
  while (file >> word) {
    double kib = 0;
    if (word == "VmHWM:" && file >> kib) return kib / 1024;
  }
  return 0;
}

/// Windows of a text: inputs as numbers, and the byte that follows each.
struct Batch {
  nn::Tensor<float> inputs;
  std::vector<std::int64_t> targets;
};

void put_window(const std::vector<std::uint8_t>& text, std::size_t at, Index row, Batch& batch) {
  const Index length = batch.inputs.view().extent(1);
  for (Index t = 0; t < length; ++t) {
    const std::size_t i = at + static_cast<std::size_t>(t);
    batch.inputs[row * length + t] = static_cast<float>(text[i]);
    batch.targets[static_cast<std::size_t>(row * length + t)] = text[i + 1];
  }
}

void draw_batch(const Settings& s, const Text& text, std::int64_t step, Batch& batch) {
  quern::Philox random(s.seed, "windows", static_cast<std::uint64_t>(step));
  const std::uint64_t places = text.train.size() - static_cast<std::size_t>(s.context);
  for (Index row = 0; row < s.batch; ++row) {
    put_window(text.train, static_cast<std::size_t>(random.integer(places)), row, batch);
  }
}

/// Warms up over a twentieth of the steps, then half a cosine to a tenth.
double rate_at(const Settings& s, std::int64_t step) {
  const double warm = (std::max)(1.0, static_cast<double>(s.steps) / 20);
  const double at = static_cast<double>(step);
  if (at < warm) return s.lr * (at + 1) / warm;
  const double part = (at - warm) / (std::max)(1.0, static_cast<double>(s.steps) - warm);
  return s.lr * (0.1 + 0.45 * (1 + std::cos(3.14159265358979 * part)));
}

/// Weights, gradients and the optimiser; where to begin after a pause.
class Trainer {
 public:
  Trainer(Model& model, const Settings& s) : model_(model), settings_(s) {
    const auto parameters = nn::parameters_of<float>(model);
    gradients_ = nn::Gradients<float>(parameters);
    std::vector<optim::Parameter<float>> decayed, free;
    for (std::size_t k = 0; k < parameters.size(); ++k) {
      const auto& p = parameters[k];
      auto& group = p.decay ? decayed : free;
      group.push_back({p.name, p.values.span(), gradients_[k], p.values.shape()});
    }
    optimizer_ = std::make_unique<optim::Optimizer<optim::AdamW, float>>(
        std::move(decayed), optim::AdamW{.lr = s.lr, .beta2 = 0.98, .weight_decay = 0.05},
        optim::OptimizerOptions{.clip_norm = 1});
    optimizer_->add_group(std::move(free),
                          optim::AdamW{.lr = s.lr, .beta2 = 0.98, .weight_decay = 0});
    batch_.inputs.resize({s.batch, s.context});
    batch_.targets.resize(static_cast<std::size_t>(s.batch * s.context));
    logits_.resize({s.batch, s.context, 256});
    dlogits_.resize({s.batch, s.context, 256});
  }

  /// One step; the loss in bits per byte.
  double step(const Text& text, std::int64_t number) {
    draw_batch(settings_, text, number, batch_);
    cache_.context.seed = settings_.seed;
    cache_.context.step = static_cast<std::uint64_t>(number);
    model_.forward(batch_.inputs.view(), logits_.view(), cache_, nn::Mode::training);
    const double loss =
        attention::next_token_loss<float>(logits_.view(), batch_.targets, dlogits_.view());
    gradients_.zero();
    model_.backward(dlogits_.view(), {}, cache_, gradients_);
    optimizer_->set_lr(rate_at(settings_, number));
    optimizer_->step();
    return loss / std::log(2.0);
  }

  void save(std::int64_t step) {
    save_model(model_, settings_, settings_.folder + "/model.safetensors");
    auto state = optimizer_->state();
    state.words["example.step"] = std::to_string(step);
    quern::io::save_optimizer_state(settings_.folder + "/optimizer.safetensors", state);
  }
  std::int64_t load() {
    load_model(model_, settings_.folder + "/model.safetensors");
    auto state = quern::io::load_optimizer_state(settings_.folder + "/optimizer.safetensors");
    const std::int64_t step = std::stoll(state.words.at("example.step"));
    state.words.erase("example.step");
    optimizer_->load_state(state);
    return step;
  }

 private:
  Model& model_;
  const Settings& settings_;
  nn::Gradients<float> gradients_;
  std::unique_ptr<optim::Optimizer<optim::AdamW, float>> optimizer_;
  nn::Cache<float> cache_;
  Batch batch_;
  nn::Tensor<float> logits_, dlogits_;
};

}  // namespace

Text read_text(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw quern::IoError(path + ": cannot be read");
  const std::vector<char> all{std::istreambuf_iterator<char>(file), {}};
  Text text;
  const std::size_t cut = all.size() - all.size() / 20;
  text.train.assign(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(cut));
  text.held_out.assign(all.begin() + static_cast<std::ptrdiff_t>(cut), all.end());
  return text;
}

double held_out_bits(const Model& model, const Settings& s, const Text& text) {
  const auto length = static_cast<std::size_t>(s.context);
  const std::size_t bytes =
      (std::min)(text.held_out.size() - 1, static_cast<std::size_t>(s.held_out_bytes));
  Batch batch;
  batch.inputs.resize({1, s.context});
  batch.targets.resize(length);
  double total = 0;
  std::size_t windows = 0;
  nn::Cache<float> cache;
  nn::Tensor<float> logits({1, s.context, 256});
  for (std::size_t at = 0; at + length <= bytes; at += length, ++windows) {
    put_window(text.held_out, at, 0, batch);
    model.forward(batch.inputs.view(), logits.view(), cache, nn::Mode::inference);
    total += attention::next_token_loss<float>(logits.view(), batch.targets, {});
  }
  return total / static_cast<double>((std::max)(windows, std::size_t{1})) / std::log(2.0);
}

Report train(Model& model, const Settings& s, const Text& text) {
  if (text.train.size() < static_cast<std::size_t>(s.context) + 2) {
    throw quern::ValueError("language_model: the text is shorter than a window");
  }
  Report report;
  report.mixer = s.mixer;
  report.weights = nn::weight_count<float>(model);
  forget_peak_memory();
  Trainer trainer(model, s);
  std::int64_t first = s.resume ? trainer.load() : 0;
  std::printf("%s: %lld weights, from step %lld\n", s.mixer.c_str(),
              static_cast<long long>(report.weights), static_cast<long long>(first));
  double bits = 0, spent = 0;
  std::int64_t since = 0;
  for (std::int64_t step = first; step < s.steps; ++step) {
    const auto start = Clock::now();
    bits += trainer.step(text, step);
    spent += seconds_since(start);
    ++since;
    if ((step + 1) % s.report_every != 0 && step + 1 != s.steps) continue;
    report.steps.push_back(static_cast<double>(step + 1));
    report.train_bits.push_back(bits / static_cast<double>(since));
    const double tokens = static_cast<double>((step + 1 - first) * s.batch * s.context);
    report.train_rate = tokens / spent;
    std::printf("  step %6lld  %.3f bits per byte  %.0f tokens/s\n",
                static_cast<long long>(step + 1), report.train_bits.back(), report.train_rate);
    std::fflush(stdout);
    bits = 0, since = 0;
    if (!s.folder.empty()) trainer.save(step + 1);
  }
  report.peak_mib = peak_memory_mib();
  report.held_out_bits = held_out_bits(model, s, text);
  continue_text(model, "And it came to pass", 200, 0.8, 40, s.seed, &report.decode_rate);
  return report;
}

std::string continue_text(const Model& model, const std::string& prompt, Index tokens,
                          double temperature, Index top_k, std::uint64_t seed, double* rate) {
  std::vector<std::int64_t> given;
  for (const char c : prompt) given.push_back(static_cast<unsigned char>(c));
  const auto start = Clock::now();
  const auto added = attention::generate<float>(
      model, given, {.tokens = tokens, .temperature = temperature, .top_k = top_k, .seed = seed});
  if (rate != nullptr) {
    *rate = static_cast<double>(given.size() + added.size()) / seconds_since(start);
  }
  std::string text;
  for (const std::int64_t token : added) text += static_cast<char>(token);
  return text;
}

}  // namespace lm
