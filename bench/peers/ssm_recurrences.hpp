// SPDX-License-Identifier: Apache-2.0

/// \file
/// quern's side of the rows of areas/ssm_recurrences.py.

#ifndef QUERN_BENCH_PEERS_SSM_RECURRENCES_HPP
#define QUERN_BENCH_PEERS_SSM_RECURRENCES_HPP

#include "peers/protocol.hpp"

#include "quern/core/nd_array.hpp"
#include "quern/kernels/decayed_recurrence.hpp"
#include "quern/ssm/causal_conv.hpp"
#include "quern/ssm/retention.hpp"
#include "quern/ssm/rwkv6.hpp"
#include "quern/ssm/rwkv7.hpp"
#include "quern/ssm/selective_scan.hpp"
#include "quern/ssm/ssd.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <string>

namespace peers {

/// Runs one of those cases on arrays of the driver; false where the name is another's.
class SsmRecurrences {
 public:
  using Arrays = std::function<const Array&(const char*)>;

  explicit SsmRecurrences(Arrays arrays) : arrays_(std::move(arrays)) {}

  bool run(const Command& command, Reply& reply, Array& output) {
    const std::string& all = command.name();
    const bool gradient = all.ends_with("-gradient");
    const std::string name = gradient ? all.substr(0, all.size() - 9) : all;
    std::function<void()> job = step(all);
    if (name == "selective") job = selective(gradient);
    if (name == "ssd") job = ssd(gradient);
    if (name == "retention") job = retention(gradient);
    if (name == "rwkv6") job = rwkv6(gradient);
    if (name == "rwkv7") job = rwkv7(gradient);
    if (name == "gla") job = gla(gradient);
    if (name == "conv") job = conv(gradient);
    if (!job) return false;
    reply = {{"seconds", seconds_per_call(command.inner(), job)}};
    output = Array("<f4", {y_.size()});
    std::copy(y_.begin(), y_.end(), output.data<float>());
    return true;
  }

 private:
  using Index = quern::Index;
  template <int Rank>
  quern::NdView<const float, Rank> view(const char* name) {
    const Array& a = arrays_(name);
    quern::Shape<Rank> shape{};
    for (std::size_t r = 0; r < shape.size(); ++r) shape[r] = a.extent(r);
    return {a.data<float>(), shape};
  }
  /// Room for a result or gradient of that shape, number n.
  template <int Rank>
  quern::NdView<float, Rank> room(std::size_t n, const quern::Shape<Rank>& shape) {
    Index size = 1;
    for (const Index e : shape) size *= e;
    auto& at = n == 0 ? y_ : g_[n - 1];
    if (at.size() != size) at.resize({size});
    return {at.data(), shape};
  }
  template <int Rank>
  quern::NdView<const float, Rank> ones(const quern::Shape<Rank>& shape) {
    const auto v = room<Rank>(8, shape);
    std::fill_n(v.data(), v.size(), 1.0F);
    return v;
  }

  /// One step from a state, which moves on; nothing where the name is another's.
  std::function<void()> step(const std::string& name) {
    if (name == "selective-step") return selective_step();
    if (name == "ssd-step") return ssd_step();
    if (name == "rwkv6-step") return rwkv6_step();
    if (name == "rwkv7-step") return rwkv7_step();
    return {};
  }
  /// Step 0 of an array's axis 1 (or `axis`).
  template <int Rank>
  quern::NdView<const float, Rank - 1> first(const char* name, int axis = 1) {
    return view<Rank>(name).subview(0, axis);
  }

  std::function<void()> selective_step() {
    const auto given = view<2>("a");
    const Index channels = given.extent(0), states = given.extent(1);
    const auto a = room<2>(1, {states, channels}).transposed();
    for (Index i = 0; i < channels; ++i) {
      for (Index n = 0; n < states; ++n) a(i, n) = given(i, n);
    }
    const auto state = room<3>(2, {1, states, channels});
    std::fill_n(state.data(), state.size(), 0.0F);
    const quern::ssm::SelectiveScanStepInputs<float> in{
        first<3>("u"), first<3>("delta"), a, first<3>("b"), first<3>("c"), view<1>("skip")};
    const auto y = room<2>(0, {1, channels});
    return [=] {
      quern::ssm::selective_scan_step<float>(in, state.permuted({0, 2, 1}), y,
                                             {.threads = threads()});
    };
  }
  std::function<void()> ssd_step() {
    const auto x = first<4>("x"), b = first<4>("b"), c = first<4>("c");
    const auto log_a = first<3>("log_a");
    const auto state = room<4>(1, {1, x.extent(1), b.extent(2), x.extent(2)});
    std::fill_n(state.data(), state.size(), 0.0F);
    const auto y = room<3>(0, x.extents());
    return [=] {
      quern::ssm::ssd_step<float>(x, log_a, b, c, state.permuted({0, 1, 3, 2}), y,
                                  {.threads = threads()});
    };
  }
  std::function<void()> rwkv6_step() {
    const auto r = first<4>("r", 2), k = first<4>("k", 2), v = first<4>("v", 2);
    const auto logw = first<4>("logw", 2);
    const auto u = view<2>("bonus");
    const auto state = room<4>(1, {1, r.extent(1), r.extent(2), v.extent(2)});
    std::fill_n(state.data(), state.size(), 0.0F);
    const auto y = room<3>(0, v.extents());
    return
        [=] { quern::ssm::rwkv6_step<float>(r, k, v, logw, u, state, y, {.threads = threads()}); };
  }
  std::function<void()> rwkv7_step() {
    quern::ssm::Rwkv7StepInputs<float> in;
    in.r = first<4>("r", 2), in.k = first<4>("k", 2), in.v = first<4>("v", 2);
    in.a = first<4>("a", 2), in.b = first<4>("b", 2);
    const auto logw = first<4>("logw", 2);
    const auto decay = room<3>(1, logw.extents());
    for (Index h = 0; h < logw.extent(1); ++h) {
      for (Index c = 0; c < logw.extent(2); ++c) {
        decay(Index{0}, h, c) = std::exp(logw(Index{0}, h, c));
      }
    }
    in.decay = decay;
    const auto memory = room<4>(2, {1, in.r.extent(1), in.r.extent(2), in.v.extent(2)});
    std::fill_n(memory.data(), memory.size(), 0.0F);
    const auto state = memory.permuted({0, 1, 3, 2});
    const auto y = room<3>(0, in.v.extents());
    return [=] { quern::ssm::rwkv7_step<float>(in, state, y, {.threads = threads()}); };
  }

  std::function<void()> selective(bool gradient) {
    const quern::ssm::SelectiveScanInputs<float> in{
        view<3>("u"), view<3>("delta"), view<2>("a"), view<3>("b"), view<3>("c"), view<1>("skip")};
    const quern::ssm::SelectiveScanOptions options{.threads = threads()};
    const auto y = room<3>(0, in.u.extents());
    if (!gradient) {
      return [=] { quern::ssm::selective_scan<float>(in, y, {}, options); };
    }
    quern::ssm::SelectiveScanGradients<float> g;
    g.u = room<3>(1, in.u.extents());
    g.delta = room<3>(2, in.u.extents());
    g.a = room<2>(3, in.a.extents());
    g.b = room<3>(4, in.b.extents());
    g.c = room<3>(5, in.b.extents());
    g.skip = room<1>(6, in.skip.extents());
    const auto dy = ones<3>(in.u.extents());
    return [=, this] {
      quern::ssm::selective_scan<float>(in, y, {}, options, &saved_);
      quern::ssm::selective_scan_vjp<float>(in, dy, {}, g, options, &saved_);
    };
  }
  std::function<void()> ssd(bool gradient) {
    const quern::ssm::SsdInputs<float> in{view<4>("x"), view<3>("log_a"), view<4>("b"),
                                          view<4>("c")};
    const quern::ssm::SsdOptions options{.threads = threads()};
    const auto y = room<4>(0, in.x.extents());
    if (!gradient) {
      return [=] { quern::ssm::ssd<float>(in, y, {}, options); };
    }
    const quern::ssm::SsdGradients<float> g{room<4>(1, in.x.extents()),
                                            room<3>(2, in.log_a.extents()),
                                            room<4>(3, in.b.extents()), room<4>(4, in.b.extents())};
    const auto dy = ones<4>(in.x.extents());
    return [=] {
      quern::ssm::ssd<float>(in, y, {}, options);
      quern::ssm::ssd_vjp<float>(in, dy, {}, g, options);
    };
  }
  std::function<void()> retention(bool gradient) {
    const quern::ssm::RetentionInputs<float> in{view<4>("q"), view<4>("k"), view<4>("v"),
                                                view<1>("gamma")};
    const quern::ssm::RetentionOptions options{.threads = threads()};
    const auto y = room<4>(0, in.v.extents());
    if (!gradient) {
      return [=] { quern::ssm::retention<float>(in, y, {}, options); };
    }
    const quern::ssm::RetentionGradients<float> g{
        room<4>(1, in.q.extents()), room<4>(2, in.q.extents()), room<4>(3, in.v.extents())};
    const auto dy = ones<4>(in.v.extents());
    return [=] {
      quern::ssm::retention<float>(in, y, {}, options);
      quern::ssm::retention_vjp<float>(in, dy, {}, g, options);
    };
  }
  std::function<void()> rwkv6(bool gradient) {
    const quern::ssm::Rwkv6Inputs<float> in{view<4>("r"), view<4>("k"), view<4>("v"),
                                            view<4>("logw"), view<2>("bonus")};
    const quern::ssm::RwkvOptions options{.threads = threads()};
    const auto shape = in.v.extents();
    const auto y = room<4>(0, shape);
    if (!gradient) {
      return [=] { quern::ssm::rwkv6<float>(in, y, {}, options); };
    }
    const quern::ssm::Rwkv6Gradients<float> g{room<4>(1, shape), room<4>(2, shape),
                                              room<4>(3, shape), room<4>(4, shape),
                                              room<2>(5, in.u.extents())};
    const auto dy = ones<4>(shape);
    return [=] {
      quern::ssm::rwkv6<float>(in, y, {}, options);
      quern::ssm::rwkv6_vjp<float>(in, dy, {}, g, options);
    };
  }
  std::function<void()> rwkv7(bool gradient) {
    quern::ssm::Rwkv7Inputs<float> in;
    in.r = view<4>("r"), in.k = view<4>("k"), in.v = view<4>("v");
    in.a = view<4>("a"), in.b = view<4>("b");
    const auto shape = in.v.extents();
    const auto logw = view<4>("logw");
    const auto decay = room<4>(7, shape);
    for (Index i = 0; i < decay.size(); ++i) decay.data()[i] = std::exp(logw.data()[i]);
    in.decay = decay;
    const quern::ssm::RwkvOptions options{.threads = threads()};
    const auto y = room<4>(0, shape);
    if (!gradient) {
      return [=] { quern::ssm::rwkv7<float>(in, y, {}, options); };
    }
    const quern::ssm::Rwkv7Gradients<float> g{room<4>(1, shape), room<4>(2, shape),
                                              room<4>(3, shape), room<4>(4, shape),
                                              room<4>(5, shape), room<4>(6, shape)};
    const auto dy = ones<4>(shape);
    return [=] {
      quern::ssm::rwkv7<float>(in, y, {}, options);
      quern::ssm::rwkv7_vjp<float>(in, dy, {}, g, options);
    };
  }
  /// Gated linear attention: the decayed recurrence with a decay a key channel.
  std::function<void()> gla(bool gradient) {
    quern::kernels::RecurrenceViews<float> in;
    in.q = view<4>("r"), in.k = view<4>("k"), in.v = view<4>("v");
    in.channel_decay = view<4>("logw");
    quern::kernels::RecurrenceOptions options;
    options.threads = threads();
    const auto shape = in.v.extents();
    const auto y = room<4>(0, shape);
    if (!gradient) {
      return [=] { quern::kernels::decayed_recurrence<float>(in, y, {}, options); };
    }
    quern::kernels::RecurrenceGradients<float> g;
    g.q = room<4>(1, shape), g.k = room<4>(2, shape), g.v = room<4>(3, shape);
    g.channel_decay = room<4>(4, shape);
    const auto dy = ones<4>(shape);
    return [=] {
      quern::kernels::decayed_recurrence<float>(in, y, {}, options);
      quern::kernels::decayed_recurrence_vjp<float>(in, dy, {}, g, options);
    };
  }
  std::function<void()> conv(bool gradient) {
    const quern::ssm::CausalConvInputs<float> in{view<3>("x"), view<2>("w")};
    const quern::ssm::CausalConvOptions options{.silu = true, .threads = threads()};
    const auto y = room<3>(0, in.x.extents());
    if (!gradient) {
      return [=] { quern::ssm::causal_conv<float>(in, y, {}, options); };
    }
    const quern::ssm::CausalConvGradients<float> g{room<3>(1, in.x.extents()),
                                                   room<2>(2, in.weight.extents())};
    const auto dy = ones<3>(in.x.extents());
    return [=] {
      quern::ssm::causal_conv<float>(in, y, {}, options);
      quern::ssm::causal_conv_vjp<float>(in, dy, {}, g, options);
    };
  }

  Arrays arrays_;
  quern::NdArray<float, 1> y_;
  quern::NdArray<float, 1> g_[8];
  quern::ssm::SelectiveScanSaved<float> saved_;
};

}  // namespace peers

#endif  // QUERN_BENCH_PEERS_SSM_RECURRENCES_HPP
