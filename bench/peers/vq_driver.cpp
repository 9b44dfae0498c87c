// SPDX-License-Identifier: Apache-2.0
//
// quern's side of the vq area (areas/vq.py says what each case measures).

#include "limits.hpp"
#include "peers/protocol.hpp"

#include "quern/core/parallel.hpp"
#include "quern/version.hpp"
#include "quern/vq/ema.hpp"
#include "quern/vq/loss.hpp"
#include "quern/vq/nearest.hpp"
#include "quern/vq/pixelcnn_sampler.hpp"
#include "quern/vq/training.hpp"
#include "quern/vq/vq_vae.hpp"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace {

namespace nn = quern::nn;
namespace vq = quern::vq;
using quern::Index;
using Rows = quern::MatrixView<const float>;

/// One step of training an EMA codebook, as a network would make it.
struct Step {
  Step(Rows rows, Rows codes)
      : x(rows),
        book(codes, {.convention = vq::EmaConvention::plain}),
        found(static_cast<std::size_t>(rows.rows())),
        q(rows.extents(), quern::core::Fill::zero),
        dout(rows.extents()),
        dx(rows.extents(), quern::core::Fill::zero) {
    dout.fill(1.0F / static_cast<float>(rows.rows()));
  }
  void run() {
    vq::nearest_codes<float>(x, book.codebook(), found);
    vq::lookup_codes<float>(book.codebook(), found, q.view());
    loss = vq::vq_loss<float>(x, q.view(), {.codebook_weight = 0}).total;
    vq::vq_loss_vjp<float>(x, q.view(), found, dout.view(), 1, dx.view(), {},
                           {.codebook_weight = 0});
    book.update(x, found);
  }
  Rows x;
  vq::EmaCodebook<float> book;
  std::vector<std::int64_t> found;
  quern::NdArray<float, 2> q, dout, dx;
  double loss = 0;
};

class VqDriver : public peers::Driver {
 public:
  [[nodiscard]] std::string describe() const override {
    return "quern " QUERN_VERSION " (" +
           std::string(quern::simd::name(quern::simd::active_level())) + ")";
  }
  peers::Reply run(const peers::Command& command) override {
    if (command.name() == "nearest") return nearest(command.inner());
    if (command.name() == "step") return step(command.inner());
    return command.name() == "epoch" ? epoch() : sample();
  }
  [[nodiscard]] const peers::Array& output() const override { return out_; }
  void forget() override {
    peers::Driver::forget();
    search_.reset();
    step_.reset();
  }
  peers::Reply limits(const peers::Command& command) override {
    const bench::Limits l = bench::measure_limits(static_cast<int>(command.integer("threads", 1)));
    return {{"fma_f32", l.fma_f32}};
  }

 private:
  [[nodiscard]] Rows rows(const char* name) const {
    const peers::Array& a = array(name);
    return {a.data<float>(), {a.extent(0), a.extent(1)}};
  }
  /// (N, 1, H, W) is (N, H, W, 1) too.
  [[nodiscard]] nn::TensorView<const float> images(const char* name) const {
    const peers::Array& a = array(name);
    return {a.data<float>(), {a.extent(0), a.extent(2), a.extent(3), 1}};
  }
  void keep(const std::vector<std::int64_t>& codes) {
    out_ = peers::Array("<i8", {static_cast<std::int64_t>(codes.size())});
    std::copy(codes.begin(), codes.end(), out_.data<std::int64_t>());
  }

  peers::Reply nearest(std::int64_t inner) {
    if (!search_) search_ = std::make_unique<vq::CodeSearch<float>>(rows("c"));
    std::vector<std::int64_t> codes(static_cast<std::size_t>(rows("x").rows()));
    const double seconds = peers::seconds_per_call(inner, [&] { search_->find(rows("x"), codes); });
    keep(codes);
    return {{"seconds", seconds}};
  }

  peers::Reply step(std::int64_t inner) {
    if (!step_) step_ = std::make_unique<Step>(rows("x"), rows("c"));
    const double seconds = peers::seconds_per_call(inner, [&] { step_->run(); });
    keep(step_->found);
    return {{"seconds", seconds}};
  }

  peers::Reply epoch() {
    vq::VqVaeOptions options;
    options.plain = true;
    vq::VqVae<float> model(options);
    const double seconds = peers::seconds_per_call(1, [&] {
      vq::fit_vq_vae<float>(model, images("train"), {.epochs = 1, .cosine = false, .seed = 1});
    });
    const nn::TensorView<const float> test = images("test");
    const nn::Tensor<float> again = model.reconstruct(test);
    double error = 0;
    for (Index i = 0; i < test.size(); ++i) {
      const double apart = static_cast<double>(again[i]) - static_cast<double>(test[i]);
      error += apart * apart;
    }
    out_ = peers::Array("<f8", {1});
    out_.data<double>()[0] = error / static_cast<double>(test.size());
    return {{"seconds", seconds}};
  }

  peers::Reply sample() {
    const vq::PixelCnn<float> model({.layers = 8, .stacks = 1});
    const vq::PixelCnnSampler<float> sampler(model);
    const std::vector<std::int64_t> classes(64, 0);
    quern::NdArray<std::int64_t, 2> codes({64, 49});
    const double seconds =
        peers::seconds_per_call(1, [&] { sampler.sample(classes, codes.view(), {.seed = 1}); });
    keep({codes.begin(), codes.end()});
    return {{"seconds", seconds}};
  }

  peers::Array out_;
  std::unique_ptr<vq::CodeSearch<float>> search_;
  std::unique_ptr<Step> step_;
};

}  // namespace

int main() {
  VqDriver driver;
  return peers::serve(driver);
}
