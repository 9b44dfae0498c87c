// SPDX-License-Identifier: Apache-2.0
//
// quern's side of the nn area (areas/nn.py says what each case measures).

#include "limits.hpp"
#include "peers/protocol.hpp"

#include "quern/nn/conv.hpp"
#include "quern/version.hpp"

#include <algorithm>
#include <memory>
#include <span>
#include <string>

namespace {

namespace nn = quern::nn;
using quern::Index;

/// Values of the data's array over and over, times a factor.
void fill(std::span<float> to, const peers::Array& from, float factor) {
  const auto base = static_cast<std::size_t>(from.size());
  for (std::size_t i = 0; i < to.size(); ++i) to[i] = factor * from.data<float>()[i % base];
}

/// One layer with everything that its passes touch.
struct Job {
  std::unique_ptr<nn::Layer<float>> layer;
  nn::Tensor<float> x, y, dx;
  nn::Cache<float> cache;
  nn::Gradients<float> gradients;

  Job(const peers::Command& c, const peers::Array& values) {
    const Index ci = c.integer("ci", 1), co = c.integer("co", 1), size = c.integer("h", 1);
    nn::Conv2dOptions options;
    options.kernel = c.integer("k", 3);
    options.stride = c.integer("s", 1);
    options.padding = c.integer("p", 0);
    options.layout = nn::Layout::channels_last;
    if (c.text("kind") == "convT") {
      layer = std::make_unique<nn::ConvTranspose2d<float>>(ci, co, options);
    } else {
      layer = std::make_unique<nn::Conv2d<float>>(ci, co, options);
    }
    for (const auto& p : nn::parameters_of(*layer)) fill(p.values.span(), values, 0.05F);
    x.resize({c.integer("n", 1), size, size, ci});
    fill(x.span(), values, 1);
    y.resize(layer->output_shape(x.shape()));
    dx.resize(x.shape());
    gradients = nn::Gradients<float>(nn::parameters_of(*layer));
    forward();
  }
  void forward() { layer->forward(x.view(), y.view(), cache, nn::Mode::training); }
  /// With the output for its gradient.
  void backward() {
    gradients.zero();
    layer->backward(y.view(), dx.view(), cache, gradients);
  }
};

class NnDriver : public peers::Driver {
 public:
  [[nodiscard]] std::string describe() const override {
    return "quern " QUERN_VERSION " (" +
           std::string(quern::simd::name(quern::simd::active_level())) + ")";
  }

  peers::Reply run(const peers::Command& command) override {
    std::string key;
    for (const char* part : {"kind", "n", "ci", "h", "co", "k", "s", "p"}) {
      key += command.text(part) + "|";
    }
    if (key != key_) {
      job_.reset();
      job_ = std::make_unique<Job>(command, array("values"));
      key_ = key;
    }
    const bool forward = command.name() == "forward";
    const double seconds = peers::seconds_per_call(
        command.inner(), [&] { forward ? job_->forward() : job_->backward(); });
    const nn::Tensor<float>& result = forward ? job_->y : job_->dx;
    out_ = peers::Array("<f4", {result.size()});
    std::copy(result.span().begin(), result.span().end(), out_.data<float>());
    return {{"seconds", seconds}};
  }

  [[nodiscard]] const peers::Array& output() const override { return out_; }
  void forget() override {
    peers::Driver::forget();
    job_.reset();
    key_.clear();
  }
  peers::Reply limits(const peers::Command& command) override {
    const bench::Limits l = bench::measure_limits(static_cast<int>(command.integer("threads", 1)));
    return {{"fma_f32", l.fma_f32}, {"triad", l.triad}};
  }

 private:
  peers::Array out_;
  std::string key_;
  std::unique_ptr<Job> job_;
};

}  // namespace

int main() {
  NnDriver driver;
  return peers::serve(driver);
}
