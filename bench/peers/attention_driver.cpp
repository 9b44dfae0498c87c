// SPDX-License-Identifier: Apache-2.0
//
// quern's side of the attention area (areas/attention.py says what each case measures).

#include "limits.hpp"
#include "peers/protocol.hpp"

#include "quern/attention/gated_layers.hpp"
#include "quern/attention/linear.hpp"
#include "quern/attention/lsh.hpp"
#include "quern/attention/performer.hpp"
#include "quern/attention/softmax.hpp"
#include "quern/attention/sparse.hpp"
#include "quern/attention/sparse_layers.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/kernels/kernels.hpp"
#include "quern/nn/layer.hpp"
#include "quern/version.hpp"

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>

namespace {

namespace attention = quern::attention;
namespace nn = quern::nn;
using quern::Index;
using Array4 = quern::NdArray<float, 4>;

/// A case: what is timed, and the output that is judged (null: none).
struct Job {
  std::function<void()> forward, both;
  const Array4* out = nullptr;
};

/// q, k, v, dout of (1, heads, length, dim), filled from the data's values over and over.
struct Arrays {
  Array4 q, k, v, dout, out, dq, dk, dv;
  Arrays(const quern::Shape<4>& shape, const peers::Array& values) {
    Index at = 0;
    for (Array4* a : {&q, &k, &v, &dout}) {
      a->resize(shape);
      for (float& x : *a) x = values.data<float>()[at++ % values.size()];
    }
    for (Array4* a : {&out, &dq, &dk, &dv}) {
      a->resize(shape);
      a->fill(0);  // pages are there before anything is measured
    }
  }
};

Job local_job(std::shared_ptr<Arrays> a, Index window) {
  const Index n = a->q.extent(2);
  const auto plan = std::make_shared<attention::SparsePlan>(
      attention::SparsePattern::local(window, {.causal = true}), n, n);
  const auto saved = std::make_shared<attention::SparseSaved<float>>();
  const auto forward = [=] {
    attention::sparse_attention<float>(a->q, a->k, a->v, a->out.view(), *plan, {}, saved.get());
  };
  return {forward,
          [=] {
            forward();
            attention::sparse_attention_vjp<float>(a->q, a->k, a->v, a->out, *saved, a->dout,
                                                   a->dq.view(), a->dk.view(), a->dv.view(), *plan);
          },
          &a->out};
}

Job lsh_job(std::shared_ptr<Arrays> a, Index bucket, Index rounds) {
  const Index n = a->q.extent(2);
  const auto turns = std::make_shared<quern::NdArray<float, 3>>(
      attention::lsh_rotations<float>(a->q.extent(3), rounds, n / bucket / 2 * 2, 1));
  const auto saved = std::make_shared<attention::LshSaved<float>>();
  const attention::LshOptions<float> options{.bucket_size = bucket, .causal = true};
  const auto forward = [=] {
    attention::lsh_attention<float>(a->q, a->v, *turns, a->out.view(), options, saved.get());
  };
  return {forward, [=] {
            forward();
            attention::lsh_attention_vjp<float>(a->q, a->v, a->out, *saved, a->dout, a->dq.view(),
                                                a->dv.view(), options);
          }};
}

/// Softmax attention, causal.
Job softmax_job(std::shared_ptr<Arrays> a) {
  const auto sums = std::make_shared<quern::NdArray<float, 3>>(
      quern::Shape<3>{1, a->q.extent(1), a->q.extent(2)});
  attention::SoftmaxOptions options;
  options.visible.causal = true;
  const auto forward = [=] {
    attention::softmax_attention<float>(a->q, a->k, a->v, a->out.view(), sums->view(), options);
  };
  return {forward,
          [=] {
            forward();
            attention::softmax_attention_vjp<float>(a->q, a->k, a->v, {a->out.view(), sums->view()},
                                                    a->dout, a->dq.view(), a->dk.view(),
                                                    a->dv.view(), options);
          },
          &a->out};
}

/// Linear attention with a map and the normaliser.
Job linear_job(std::shared_ptr<Arrays> a, bool causal,
               std::shared_ptr<const attention::FeatureMap<float>> map) {
  const auto sums = std::make_shared<quern::NdArray<float, 3>>(
      quern::Shape<3>{1, a->q.extent(1), a->q.extent(2)});
  attention::LinearInputs<float> in;
  in.q = a->q.view(), in.k = a->k.view(), in.v = a->v.view(), in.query_map = map.get();
  attention::LinearOptions options;
  options.visible.causal = causal;
  const auto forward = [=] {
    attention::linear_attention<float>(in, a->out.view(), nullptr, sums->view(), options);
  };
  return {forward,
          [=] {
            static_cast<void>(map);  // kept alive
            forward();
            attention::LinearGradients<float> to;
            to.q = a->dq.view(), to.k = a->dk.view(), to.v = a->dv.view();
            attention::linear_attention_vjp<float>(in, {a->out.view(), sums->view()}, a->dout, to,
                                                   options);
          },
          &a->out};
}

/// One step of causal linear attention after n others.
Job decode_job(std::shared_ptr<Arrays> a, std::shared_ptr<const attention::FeatureMap<float>> map) {
  const auto state = std::make_shared<attention::LinearState<float>>(
      1, a->q.extent(1), a->q.extent(3), a->q.extent(3));
  attention::LinearInputs<float> in;
  in.q = a->q.view().slice(2, 0, 1), in.k = a->k.view().slice(2, 0, 1);
  in.v = a->v.view().slice(2, 0, 1), in.query_map = map.get();
  attention::LinearOptions options;
  options.visible.causal = true;
  const auto step = [=] {
    static_cast<void>(map);
    attention::linear_attention<float>(in, a->out.view().slice(2, 0, 1), state.get(), {}, options);
  };
  return {step, step};
}

/// A layer over (1, length, dim), with its projections.
Job layer_job(std::shared_ptr<nn::Layer<float>> layer, Index length, Index dim,
              const peers::Array& values) {
  struct State {
    nn::Tensor<float> x, y, dx;
    nn::Cache<float> cache;
    nn::Gradients<float> gradients;
  };
  const auto s = std::make_shared<State>();
  for (nn::Tensor<float>* t : {&s->x, &s->y, &s->dx}) t->resize({1, length, dim});
  Index at = 0;
  for (float& x : s->x.span()) x = values.data<float>()[at++ % values.size()];
  s->gradients = nn::Gradients<float>(nn::parameters_of(*layer));
  const auto forward = [=] {
    layer->forward(s->x.view(), s->y.view(), s->cache, nn::Mode::inference);
  };
  return {forward, [=] {
            layer->forward(s->x.view(), s->y.view(), s->cache, nn::Mode::training);
            layer->backward(s->x.view(), s->dx.view(), s->cache, s->gradients);
          }};
}

class AttentionDriver : public peers::Driver {
 public:
  [[nodiscard]] std::string describe() const override {
    return "quern " QUERN_VERSION " (" +
           std::string(quern::simd::name(quern::simd::active_level())) + ")";
  }

  peers::Reply run(const peers::Command& command) override {
    if (command.name() == "memory") return memory(command);
    const std::string key = command.name() + "|" + command.text("n") + "|" +
                            command.text("heads", "8") + "|" + command.text("d", "64");
    if (key != key_) {
      job_ = {};
      job_ = make(command);
      key_ = key;
      job_.forward();
    }
    const auto& call = command.text("pass") == "forward" ? job_.forward : job_.both;
    return {{"seconds", peers::seconds_per_call(command.inner(), [&] { call(); })}};
  }

  [[nodiscard]] const peers::Array& output() const override {
    if (job_.out == nullptr) throw std::runtime_error("no output to judge");
    out_ = peers::Array("<f4", {job_.out->size()});
    std::copy(job_.out->begin(), job_.out->end(), out_.data<float>());
    return out_;
  }
  void forget() override {
    peers::Driver::forget();
    job_ = {};
    key_.clear();
  }
  peers::Reply limits(const peers::Command& command) override {
    const bench::Limits l = bench::measure_limits(static_cast<int>(command.integer("threads", 1)));
    return {{"fma_f32", l.fma_f32}, {"read", l.read}};
  }

 private:
  /// The peak of one call over what is held when its arguments are there.
  peers::Reply memory(const peers::Command& command) {
    job_ = {};
    key_.clear();
    job_ = make(command);
    const double before = peers::memory(true).at("rss_mb");
    (command.text("pass") == "forward" ? job_.forward : job_.both)();
    return {{"value", peers::memory(false).at("peak_mb") - before}};
  }

  /// The kinds, by name.
  Job make(const peers::Command& command) {
    const std::string& kind = command.name() == "memory" ? command.text("kind") : command.name();
    const Index n = command.integer("n", 4096), heads = command.integer("heads", 8);
    const Index d = command.integer("d", 64);
    const peers::Array& values = array("x");
    const auto inputs = [&] {
      return std::make_shared<Arrays>(quern::Shape<4>{1, heads, n, d}, values);
    };
    if (kind == "softmax") return softmax_job(inputs());
    const auto elu1 = std::make_shared<attention::NamedFeature<float>>(attention::Feature::elu1);
    if (kind == "linear") return linear_job(inputs(), true, elu1);
    if (kind == "linear-full") return linear_job(inputs(), false, elu1);
    if (kind == "decode") return decode_job(inputs(), elu1);
    if (kind == "performer" || kind == "performer-full") {
      return linear_job(inputs(), kind == "performer",
                        std::make_shared<attention::PerformerFeatures<float>>(
                            attention::performer_projection<float>(266, d, 1)));
    }
    if (kind == "local") return local_job(inputs(), 128);
    if (kind == "lsh") return lsh_job(inputs(), 64, 4);
    const Index dim = heads * d;
    if (kind == "linformer") {
      return layer_job(std::make_shared<attention::LinformerSelfAttention<float>>(
                           attention::MultiHeadSizes{.dim = dim, .heads = heads}, n, 256),
                       n, dim, values);
    }
    if (kind == "gau") {
      return layer_job(std::make_shared<attention::GauLayer<float>>(
                           attention::GatedSizes{.dim = dim},
                           attention::GatedUnitOptions<float>{.causal = true}),
                       n, dim, values);
    }
    if (kind == "flash") {
      return layer_job(std::make_shared<attention::FlashLayer<float>>(
                           attention::GatedSizes{.dim = dim},
                           attention::GatedUnitOptions<float>{.causal = true}),
                       n, dim, values);
    }
    throw std::runtime_error("no kind " + kind);
  }

  std::string key_;
  Job job_;
  mutable peers::Array out_;
};

}  // namespace

int main() {
  AttentionDriver driver;
  return peers::serve(driver);
}
