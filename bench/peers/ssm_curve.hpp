// SPDX-License-Identifier: Apache-2.0

/// \file
/// Cost of a step and memory over long sequences: quern alone, states carried over pieces of 1,000
/// steps. The rows "curve" of areas/ssm_recurrences.py.

#ifndef QUERN_BENCH_PEERS_SSM_CURVE_HPP
#define QUERN_BENCH_PEERS_SSM_CURVE_HPP

#include "peers/protocol.hpp"

#include "quern/core/nd_array.hpp"
#include "quern/ssm/hippo_memory.hpp"
#include "quern/ssm/retention.hpp"
#include "quern/ssm/rwkv7.hpp"
#include "quern/ssm/s4d.hpp"
#include "quern/ssm/s5.hpp"
#include "quern/ssm/selective_scan.hpp"
#include "quern/ssm/ssd.hpp"

#include <cmath>
#include <complex>
#include <cstdint>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>

namespace peers {

/// One model with a state; piece() goes on by `steps` steps of the same inputs.
class SsmCurve {
 public:
  static constexpr quern::Index steps = 1000;

  explicit SsmCurve(const std::string& model) {
    if (model == "selective") selective();
    if (model == "ssd") ssd();
    if (model == "retention") retention();
    if (model == "rwkv7") rwkv7();
    if (model == "s5") s5();
    if (model == "s4d") s4d();
    if (model == "legs") legs();
    if (!piece_) throw std::runtime_error("no model " + model);
  }

  /// The command "curve model=NAME steps=N [memory=1]".
  static Reply run(const Command& command) {
    const std::int64_t total = command.integer("steps", steps);
    SsmCurve curve(command.text("model"));
    if (command.integer("memory", 0) != 0) {
      const double before = peers::memory(true)["rss_mb"];
      for (std::int64_t t = 0; t < total; t += steps) curve.piece_();
      return {{"value", peers::memory(false)["peak_mb"] - before}};
    }
    curve.piece_();  // warm
    return {{"seconds", seconds_per_call(command.inner(), [&] {
               for (std::int64_t t = 0; t < total; t += steps) curve.piece_();
             })}};
  }

 private:
  using Index = quern::Index;
  using Complex = std::complex<float>;
  template <int Rank>
  using Real = quern::NdArray<float, Rank>;

  /// Numbers of the kind of waves, from low to high.
  template <int Rank>
  static Real<Rank> waves(const quern::Shape<Rank>& shape, float low, float high) {
    Real<Rank> x(shape);
    for (Index i = 0; i < x.size(); ++i) {
      x.data()[i] = low + (high - low) * (0.5F + 0.5F * std::sin(0.37F * static_cast<float>(i)));
    }
    return x;
  }
  static quern::NdArray<Complex, 2> poles(Index rows, Index modes) {
    quern::NdArray<Complex, 2> a({rows, modes});
    for (Index i = 0; i < a.size(); ++i) {
      a.data()[i] = {-0.5F, 3.1415927F * static_cast<float>(i % modes)};
    }
    return a;
  }

  void selective() {
    constexpr Index channels = 64, states = 16;
    piece_ = [u = waves<3>({1, steps, channels}, -1, 1), a = waves<2>({channels, states}, -2, -.1F),
              b = waves<3>({1, steps, states}, -1, 1), state = Real<3>({1, channels, states}),
              y = Real<3>({1, steps, channels})]() mutable {
      quern::ssm::SelectiveScanInputs<float> in{u.view(), u.view(), a.view(), b.view(), b.view()};
      in.initial_state = state.view();
      quern::ssm::selective_scan<float>(in, y.view(), state.view(), {.threads = threads()});
    };
  }
  void ssd() {
    piece_ = [x = waves<4>({1, steps, 4, 32}, -1, 1), b = waves<4>({1, steps, 1, 32}, -1, 1),
              log_a = waves<3>({1, steps, 4}, -.1F, 0), state = Real<4>({1, 4, 32, 32}),
              y = Real<4>({1, steps, 4, 32})]() mutable {
      quern::ssm::ssd<float>({x.view(), log_a.view(), b.view(), b.view(), state.view()}, y.view(),
                             state.view(), {.threads = threads()});
    };
  }
  void retention() {
    piece_ = [q = waves<4>({1, 4, steps, 32}, -1, 1), state = Real<4>({1, 4, 32, 32}),
              gamma = quern::ssm::retention_decays<float>(4),
              y = Real<4>({1, 4, steps, 32})]() mutable {
      quern::ssm::retention<float>({q.view(), q.view(), q.view(), gamma.view(), state.view()},
                                   y.view(), state.view(), {.threads = threads()});
    };
  }
  void rwkv7() {
    const quern::Shape<4> shape{1, 4, steps, 32};
    piece_ = [r = waves<4>(shape, -1, 1), decay = waves<4>(shape, .9F, 1),
              a = waves<4>(shape, -.01F, .01F), state = Real<4>({1, 4, 32, 32}),
              y = Real<4>(shape)]() mutable {
      quern::ssm::rwkv7<float>(
          {r.view(), decay.view(), r.view(), r.view(), a.view(), a.view(), state.view()}, y.view(),
          state.view(), {.threads = threads()});
    };
  }
  void s5() {
    constexpr Index states = 32, channels = 16;
    piece_ = [u = waves<3>({1, steps, channels}, -1, 1), lambda = poles(1, states),
              b = poles(states, channels), c = poles(channels, states),
              dt = waves<1>({states}, .001F, .1F), state = quern::NdArray<Complex, 2>({1, states}),
              y = Real<3>({1, steps, channels})]() mutable {
      const quern::ssm::S5Parameters<float> p{
          .lambda = lambda.view().row(0), .b = b.view(), .c = c.view(), .dt = dt.view()};
      quern::ssm::s5<float>(u.view(), p, state.view(), y.view(), state.view(),
                            {.threads = threads()});
    };
  }
  void s4d() {
    constexpr Index channels = 16, modes = 32;
    piece_ = [u = waves<3>({1, steps, channels}, -1, 1), a = poles(channels, modes),
              dt = waves<1>({channels}, .001F, .1F),
              state = quern::NdArray<Complex, 2>({1, channels * modes}),
              y = Real<3>({1, steps, channels})]() mutable {
      quern::ssm::s4d<float>(u.view(), {.a = a.view(), .c = a.view(), .dt = dt.view()},
                             state.view(), y.view(), state.view(), {.threads = threads()});
    };
  }
  void legs() {
    piece_ = [u = waves<2>({steps, 16}, -1, 1),
              memory = std::make_shared<quern::ssm::HippoMemory<float>>(
                  64, 16, quern::ssm::HippoMemoryOptions{.threads = threads()})] {
      memory->update(u.view());
    };
  }

  std::function<void()> piece_;
};

}  // namespace peers

#endif  // QUERN_BENCH_PEERS_SSM_CURVE_HPP
