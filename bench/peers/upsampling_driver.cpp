// SPDX-License-Identifier: Apache-2.0
//
// quern's side of the upsampling area (areas/upsampling.py says what each case measures).

#include "limits.hpp"
#include "peers/protocol.hpp"

#include "quern/core/parallel.hpp"
#include "quern/nn/resample.hpp"
#include "quern/nn/shuffle.hpp"
#include "quern/nn/unpool.hpp"
#include "quern/version.hpp"

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace {

namespace nn = quern::nn;
using quern::Index;

/// Channels last of an array that has them first, or back.
nn::Tensor<float> turned(nn::TensorView<const float> x, bool to_last) {
  const Index n = x.extent(0);
  const Index c = to_last ? x.extent(1) : x.extent(3);
  const Index inner = x.size() / n / c;
  nn::Extents shape = to_last ? nn::Extents{n, x.extent(2), x.extent(3), c}
                              : nn::Extents{n, c, x.extent(1), x.extent(2)};
  nn::Tensor<float> y(shape);
  for (Index i = 0; i < n; ++i) {
    for (Index k = 0; k < c; ++k) {
      for (Index p = 0; p < inner; ++p) {
        const Index first = (i * c + k) * inner + p, last = (i * inner + p) * c + k;
        y[to_last ? last : first] = x[to_last ? first : last];
      }
    }
  }
  return y;
}

class UpsamplingDriver : public peers::Driver {
 public:
  [[nodiscard]] std::string describe() const override {
    return "quern " QUERN_VERSION " (" +
           std::string(quern::simd::name(quern::simd::active_level())) + ")";
  }
  peers::Reply run(const peers::Command& command) override {
    const std::string key = command.name() + command.text("mode") + command.text("layout", "nchw");
    if (key != key_) {
      make(command);
      key_ = key;
    }
    return {{"seconds", peers::seconds_per_call(command.inner(), call_)}};
  }
  [[nodiscard]] const peers::Array& output() const override {
    const nn::Tensor<float> first = last_ ? turned(out_.view(), false) : out_.clone();
    sample_ = peers::Array("<f4", {(first.size() + 96) / 97});
    for (Index i = 0; i < first.size(); i += 97) sample_.data<float>()[i / 97] = first[i];
    return sample_;
  }
  void forget() override {
    peers::Driver::forget();
    key_.clear();
  }
  peers::Reply limits(const peers::Command& command) override {
    const bench::Limits l = bench::measure_limits(static_cast<int>(command.integer("threads", 1)));
    return {{"read", l.read}, {"copy", l.copy}};
  }

 private:
  [[nodiscard]] nn::TensorView<const float> given(const char* name) const {
    const peers::Array& a = array(name);
    return {a.data<float>(), {a.extent(0), a.extent(1), a.extent(2), a.extent(3)}};
  }
  nn::Tensor<float> laid_out(const char* name) const {
    if (last_) return turned(given(name), true);
    nn::Tensor<float> copy;
    copy.assign(given(name));
    return copy;
  }

  void make(const peers::Command& command) {
    last_ = command.text("layout", "nchw") == "nhwc";
    const std::string mode = command.text("mode");
    nn::ResampleOptions options{.channels_last = last_};
    if (mode == "bilinear") options.mode = nn::Interpolation::linear;
    if (mode == "bicubic") options.mode = nn::Interpolation::cubic;
    in_ = laid_out("x");
    nn::Extents shape = in_.shape();
    const std::size_t h = last_ ? 1 : 2;
    shape[h] *= 2;
    shape[h + 1] *= 2;
    if (command.name() == "forward") {
      out_.resize(shape, quern::core::Fill::zero);
      call_ = [this, options] { nn::resample<float>(in_.view(), out_.view(), options); };
    } else if (command.name() == "backward") {
      out_ = nn::Tensor<float>(in_.shape());
      in_ = laid_out("y");
      call_ = [this, options] { nn::resample_vjp<float>(in_.view(), out_.view(), options); };
    } else if (command.name() == "shuffle") {
      shape[1] /= 4;
      out_.resize(shape, quern::core::Fill::zero);
      call_ = [this] { nn::pixel_shuffle<float>(in_.view(), out_.view(), 2); };
    } else {
      make_unpool();
    }
  }

  void make_unpool() {
    const nn::TensorView<const float> y = given("y");
    const Index planes = y.extent(0) * y.extent(1), h = y.extent(2), w = y.extent(3);
    out_ = nn::Tensor<float>(y.shape());
    places_.assign(static_cast<std::size_t>(in_.size()), 0);
    for (Index p = 0; p < planes; ++p) {
      for (Index i = 0; i < h / 2; ++i) {
        for (Index j = 0; j < w / 2; ++j) {
          Index best = 2 * i * w + 2 * j;
          for (const Index at : {best + 1, best + w, best + w + 1}) {
            if (y[p * h * w + at] > y[p * h * w + best]) best = at;
          }
          const Index to = (p * (h / 2) + i) * (w / 2) + j;
          places_[static_cast<std::size_t>(to)] = best;
          in_[to] = y[p * h * w + best];
        }
      }
    }
    call_ = [this] { nn::max_unpool2d<float>(in_.view(), places_, out_.view()); };
  }

  bool last_ = false;
  std::string key_;
  nn::Tensor<float> in_, out_;
  std::vector<std::int64_t> places_;
  std::function<void()> call_;
  mutable peers::Array sample_;
};

}  // namespace

int main() {
  UpsamplingDriver driver;
  return peers::serve(driver);
}
