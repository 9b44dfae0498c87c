// SPDX-License-Identifier: Apache-2.0
//
// The kinds. All are causal where they can be; heads and dim are those of the softmax kinds, and
// gated units have as many values in all (heads * dim), so that a token means the same everywhere.

#include "kinds.hpp"

#include "quern/attention/feature_map.hpp"
#include "quern/attention/gated_layers.hpp"
#include "quern/attention/linear.hpp"
#include "quern/attention/linformer.hpp"
#include "quern/attention/lsh.hpp"
#include "quern/attention/performer.hpp"
#include "quern/attention/softmax.hpp"
#include "quern/attention/sparse.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/random.hpp"
#include "quern/nn/sequence_layer.hpp"

#include <algorithm>
#include <memory>

namespace kinds {
namespace {

namespace attention = quern::attention;
namespace nn = quern::nn;
using attention::SparsePattern;
using Array = quern::NdArray<float, 4>;

/// q, k, v, an output and gradients of everything.
struct Arrays {
  Array q, k, v, out, dout, dq, dk, dv;
  explicit Arrays(const Sizes& s) {
    quern::Philox random(1, "example");
    for (Array* a : {&q, &k, &v, &out, &dout, &dq, &dk, &dv}) {
      a->resize({1, s.heads, s.length, s.dim});
    }
    for (Array* a : {&q, &k, &v, &dout})
      for (float& x : *a) x = random.normal<float>();
  }
};

Kind softmax() {
  return {"softmax", true, [](const Sizes& s) {
            const auto a = std::make_shared<Arrays>(s);
            const auto sums =
                std::make_shared<quern::NdArray<float, 3>>(quern::Shape<3>{1, s.heads, s.length});
            attention::SoftmaxOptions options;
            options.visible.causal = true;
            const auto forward = [=] {
              attention::softmax_attention<float>(a->q, a->k, a->v, a->out.view(), sums->view(),
                                                  options);
            };
            return Job{forward, [=] {
                         forward();
                         attention::softmax_attention_vjp<float>(
                             a->q, a->k, a->v, {a->out, *sums}, a->dout, a->dq.view(), a->dk.view(),
                             a->dv.view(), options);
                       }};
          }};
}

Kind pattern(const std::string& name, bool quadratic,
             const std::function<SparsePattern(const Sizes&)>& of) {
  return {name, quadratic, [of](const Sizes& s) {
            const auto a = std::make_shared<Arrays>(s);
            const auto saved = std::make_shared<attention::SparseSaved<float>>();
            const auto plan = std::make_shared<attention::SparsePlan>(of(s), s.length, s.length);
            const auto forward = [=] {
              attention::sparse_attention<float>(a->q, a->k, a->v, a->out.view(), *plan, {},
                                                 saved.get());
            };
            return Job{forward, [=] {
                         forward();
                         attention::sparse_attention_vjp<float>(a->q, a->k, a->v, a->out, *saved,
                                                                a->dout, a->dq.view(), a->dk.view(),
                                                                a->dv.view(), *plan);
                       }};
          }};
}

/// Causal linear attention with a feature map and its normaliser.
Kind linear(const std::string& name,
            const std::function<std::shared_ptr<attention::FeatureMap<float>>(const Sizes&)>& of) {
  return {name, false, [of](const Sizes& s) {
            const auto a = std::make_shared<Arrays>(s);
            const auto map = of(s);
            const auto sums =
                std::make_shared<quern::NdArray<float, 3>>(quern::Shape<3>{1, s.heads, s.length});
            attention::LinearInputs<float> in;
            in.q = a->q.view(), in.k = a->k.view(), in.v = a->v.view();
            in.query_map = map.get();
            attention::LinearOptions options;
            options.visible.causal = true;
            const auto forward = [=] {
              attention::linear_attention<float>(in, a->out.view(), nullptr, sums->view(), options);
            };
            return Job{forward, [=] {
                         static_cast<void>(map);  // kept as long as this is
                         forward();
                         attention::LinearSaved<float> saved;
                         saved.out = a->out.view(), saved.normalisers = sums->view();
                         attention::LinearGradients<float> gradients;
                         gradients.q = a->dq.view(), gradients.k = a->dk.view();
                         gradients.v = a->dv.view();
                         attention::linear_attention_vjp<float>(in, saved, a->dout.view(),
                                                                gradients, options);
                       }};
          }};
}

Kind elu1() {
  return linear("linear, elu + 1", [](const Sizes&) {
    return std::make_shared<attention::NamedFeature<float>>(attention::Feature::elu1);
  });
}
Kind performer() {
  return linear("Performer, 128 features", [](const Sizes& s) {
    return std::make_shared<attention::PerformerFeatures<float>>(
        attention::performer_projection<float>(128, s.dim, 1));
  });
}

Kind hashing() {
  return {"LSH, 4 rounds", false, [](const Sizes& s) {
            const auto a = std::make_shared<Arrays>(s);
            const auto saved = std::make_shared<attention::LshSaved<float>>();
            const Index buckets = (std::max)(Index{2}, s.length / 64 / 2 * 2);
            const auto turns = std::make_shared<quern::NdArray<float, 3>>(
                attention::lsh_rotations<float>(s.dim, 4, buckets, 1));
            const attention::LshOptions<float> options{.bucket_size = 64, .causal = true};
            const auto forward = [=] {
              attention::lsh_attention<float>(a->q, a->v, *turns, a->out.view(), options,
                                              saved.get());
            };
            return Job{forward, [=] {
                         forward();
                         attention::lsh_attention_vjp<float>(a->q, a->v, a->out, *saved, a->dout,
                                                             a->dq.view(), a->dv.view(), options);
                       }};
          }};
}

Kind linformer() {
  return {"Linformer, 128 (not causal)", false, [](const Sizes& s) {
            const auto a = std::make_shared<Arrays>(s);
            const auto saved = std::make_shared<attention::LinformerSaved<float>>();
            const auto e = std::make_shared<quern::NdArray<float, 2>>();
            const auto de = std::make_shared<quern::NdArray<float, 2>>();
            e->resize({s.length, 128});
            de->resize({s.length, 128});
            quern::Philox random(2, "example");
            for (float& x : *e) x = random.normal<float>() / 16;
            const auto forward = [=] {
              attention::linformer_attention<float>(a->q, a->k, a->v, *e, *e, a->out.view(), {},
                                                    saved.get());
            };
            return Job{forward, [=] {
                         forward();
                         attention::linformer_attention_vjp<float>(
                             a->q, a->k, a->v, *e, *e, a->out, *saved, a->dout, a->dq.view(),
                             a->dk.view(), a->dv.view(), de->view(), de->view());
                       }};
          }};
}

/// A gated unit: with its projections, which the other kinds are without.
template <class Layer>
Kind gated(const std::string& name, bool quadratic) {
  return {name, quadratic, [](const Sizes& s) {
            const Index dim = s.heads * s.dim;
            attention::GatedUnitOptions<float> options{.causal = true};
            options.group = s.window;
            const auto layer = std::make_shared<Layer>(
                attention::GatedSizes{.dim = dim, .expanded = dim, .qk = 64}, options);
            const auto cache = std::make_shared<nn::Cache<float>>();
            const auto gradients =
                std::make_shared<nn::Gradients<float>>(nn::parameters_of<float>(*layer));
            struct Tensors {
              nn::Tensor<float> x, y, dx;
            };
            const auto t = std::make_shared<Tensors>();
            for (nn::Tensor<float>* x : {&t->x, &t->y, &t->dx}) {
              x->resize({1, s.length, dim}, quern::core::Fill::zero);
            }
            quern::Philox random(3, "example");
            for (float& x : t->x.span()) x = random.normal<float>();
            const auto forward = [=] {
              layer->forward(t->x.view(), t->y.view(), *cache, nn::Mode::training);
            };
            return Job{forward, [=] {
                         forward();
                         layer->backward(t->x.view(), t->dx.view(), *cache, *gradients);
                       }};
          }};
}

}  // namespace

const std::vector<Kind>& all() {
  static const std::vector<Kind> kinds = {
      softmax(),
      pattern("local, exact", false,
              [](const Sizes& s) {
                return SparsePattern::local(s.window, {.causal = true, .exact = true});
              }),
      pattern("local, blocks", false,
              [](const Sizes& s) { return SparsePattern::local(s.window, {.causal = true}); }),
      pattern("strided, sqrt N", false,
              [](const Sizes& s) {
                Index stride = 1;
                while (stride * stride < s.length) ++stride;
                return SparsePattern::strided(stride);
              }),
      pattern("fixed, 8 keys a block", true,
              [](const Sizes& s) { return SparsePattern::fixed(s.window, 8); }),
      pattern("window and 16 global", false,
              [](const Sizes& s) { return SparsePattern::window_global(s.window, 16, true); }),
      elu1(),
      performer(),
      hashing(),
      linformer(),
      gated<attention::GauLayer<float>>("GAU, whole unit", true),
      gated<attention::FlashLayer<float>>("FLASH, whole unit", false)};
  return kinds;
}

}  // namespace kinds
