// SPDX-License-Identifier: Apache-2.0

#include "quern/optim/optimizer.hpp"

#include "quern/core/error.hpp"
#include "quern/core/random.hpp"
#include "quern/kernels/simd.hpp"
#include "quern/optim/schedule.hpp"
#include "reference.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

namespace quern::test::optim_optimizer {
namespace {

using namespace quern::optim;

template <class T>
std::vector<T> as(const std::vector<double>& from) {
  std::vector<T> to;
  for (const double x : from) to.push_back(static_cast<T>(x));
  return to;
}

/// Parameters after each of the reference's 20 steps.
template <class T, class Method>
std::vector<double> trajectory(
    const Method& method, const OptimizerOptions& options = {},
    const std::function<void(Optimizer<Method, T>&, std::int64_t)>& before = {}) {
  const std::vector<T> grads = as<T>(optim_reference("grads"));
  std::vector<T> p = as<T>(optim_reference("p0")), g(p.size());
  Optimizer<Method, T> optimizer({{.name = "p", .values = p, .gradient = g}}, method, options);
  std::vector<double> path;
  for (std::size_t t = 0; t < 20; ++t) {
    std::copy_n(grads.begin() + static_cast<std::ptrdiff_t>(t * p.size()), p.size(), g.begin());
    if (before) before(optimizer, static_cast<std::int64_t>(t));
    EXPECT_TRUE(optimizer.step().stepped);
    path.insert(path.end(), p.begin(), p.end());
  }
  return path;
}

template <class Method>
void check(const std::string& name, const Method& method, const OptimizerOptions& options = {}) {
  SCOPED_TRACE(name);
  const std::vector<double> expected = optim_reference(name);
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    SCOPED_TRACE(simd::name(level));
    expect_close(trajectory<float>(method, options), expected, 2e-6);
  }
}

template <class Method>
void check_scheduled(const std::string& name, const Method& method, const RateSchedule& schedule) {
  SCOPED_TRACE(name);
  expect_close(
      trajectory<float, Method>(
          method, {}, [&](Optimizer<Method, float>& o, std::int64_t s) { o.set_lr(schedule(s)); }),
      optim_reference(name), 2e-6);
}

TEST(Optimizer, TrajectoriesOfSgd) {
  check("sgd", Sgd{.lr = 0.01});
  check("sgd_wd", Sgd{.lr = 0.01, .l2 = 0.1});
  check("sgd_mom", Sgd{.lr = 0.01, .momentum = 0.9});
  check("sgd_mom_damp", Sgd{.lr = 0.01, .momentum = 0.9, .dampening = 0.3, .l2 = 0.05});
  check("sgd_nesterov", Sgd{.lr = 0.01, .momentum = 0.9, .nesterov = true, .l2 = 0.01});
  check("sgd_maximize", Sgd{.lr = 0.01, .momentum = 0.8, .maximize = true});
  check("sgd_clipvalue", Sgd{.lr = 0.01, .momentum = 0.9}, {.clip_value = 0.1});
  check("optax_sgd_globalclip", Sgd{.lr = 0.01, .momentum = 0.9, .nesterov = true},
        {.clip_norm = 1});
  check("asgd", AveragedSgd{.lr = 0.01, .t0 = 5});
  check("rprop", Rprop{.lr = 0.01});
  check("optax_lion", Lion{.lr = 1e-3, .weight_decay = 0.1});
}

TEST(Optimizer, TrajectoriesOfAdam) {
  check("adam", Adam{.lr = 0.01});
  check("adam_l2", Adam{.lr = 0.01, .l2 = 0.1});
  check("adamw", AdamW{.lr = 0.01, .weight_decay = 0.1});
  check("optax_adamw", AdamW{.lr = 0.01, .weight_decay = 0.1});
  check("adamw_b",
        AdamW{.lr = 0.01, .beta1 = 0.8, .beta2 = 0.95, .eps = 1e-6, .weight_decay = 0.05});
  check("adam_amsgrad", Adam{.lr = 0.01, .beta2 = 0.9, .amsgrad = true});
  check("adamw_amsgrad_max",
        AdamW{.lr = 0.01, .beta2 = 0.9, .amsgrad = true, .weight_decay = 0.02, .maximize = true});
  check("adam_clipnorm", Adam{.lr = 0.01}, {.clip_norm = 1});
  check("optax_adamw_epsroot", AdamW{.lr = 0.01, .eps_root = 1e-6, .weight_decay = 0});
  check("nadam", NAdam{.lr = 0.01});
  check("nadamw", NAdam{.lr = 0.01, .weight_decay = 0.05});
  check("radam", RAdam{.lr = 0.01});
  check("adamax", Adamax{.lr = 0.01});
  check("optax_adabelief", AdaBelief{.lr = 0.01});
  check("optax_yogi", Yogi{.lr = 0.01});
}

TEST(Optimizer, TrajectoriesOfAdaptiveRatesAndLayers) {
  check("rmsprop", RmsProp{.lr = 0.01});
  check("rmsprop_centered_mom",
        RmsProp{.lr = 0.01, .alpha = 0.9, .momentum = 0.9, .centered = true, .l2 = 0.01});
  check("optax_rmsprop", RmsProp{.lr = 0.01, .alpha = 0.9, .eps = 0, .eps_root = 1e-8});
  check("adagrad", Adagrad{.lr = 0.01});
  check("adagrad_decay",
        Adagrad{.lr = 0.01, .lr_decay = 0.1, .initial_accumulator = 0.1, .eps = 1e-8, .l2 = 0.01});
  check("adadelta", Adadelta{.lr = 1, .rho = 0.9});
  check("optax_lamb", Lamb{.lr = 0.01, .weight_decay = 0.1});
  check("optax_lars", Lars{.lr = 0.01, .weight_decay = 0.01});
}

TEST(Optimizer, ScheduledTrajectories) {
  check_scheduled("adamw_cosine", AdamW{.lr = 0.01, .weight_decay = 0.1}, cosine(0.01, 1e-4, 15));
  check_scheduled("sgd_step", Sgd{.lr = 0.01}, step_decay(0.01, 6, 0.5));
  check_scheduled("sgd_exp", Sgd{.lr = 0.01}, exponential(0.01, 0.9));
  check_scheduled("sgd_warmup_linear", Sgd{.lr = 0.01},
                  then(linear(0.01, 0.1, 1, 5), 5, linear(0.01, 1, 0, 15)));
  check_scheduled("optax_adamw_warmcos", AdamW{.lr = 0.01, .weight_decay = 0.1},
                  warm_up(5, cosine(0.01, 1e-4, 15)));
  const OneCycle cycle{.highest = 0.05, .total_steps = 21};
  const Sgd sgd{.lr = 0.01, .momentum = 0.9};
  expect_close(trajectory<float, Sgd>(sgd, {},
                                      [&](Optimizer<Sgd, float>& o, std::int64_t s) {
                                        Sgd now = sgd;
                                        now.momentum = cycle.momentum(s);
                                        o.set_method(0, now);
                                        o.set_lr(cycle.lr(s));
                                      }),
               optim_reference("sgd_onecycle"), 2e-6);
}

TEST(Optimizer, DoublesFollowTheSamePath) {
  expect_close(trajectory<double>(AdamW{.lr = 0.01, .weight_decay = 0.1}), optim_reference("adamw"),
               2e-6);
  expect_close(trajectory<double>(Lamb{.lr = 0.01, .weight_decay = 0.1}),
               optim_reference("optax_lamb"), 2e-6);
}

/// Loshchilov and Hutter's point. With plain SGD a decay of lambda is L2 of lambda; with Adam the
/// L2 term is divided by each element's own scale, so that large gradients decay less.
TEST(Optimizer, L2InsideAdamIsNotWeightDecay) {
  const double lr = 0.01, lambda = 0.5;
  const auto sgd_l2 = trajectory<double>(Sgd{.lr = lr, .l2 = lambda});
  const auto sgd_decay = trajectory<double>(Sgd{.lr = lr, .weight_decay = lambda});
  expect_close(sgd_decay, sgd_l2, 1e-14);

  const auto adam_l2 = trajectory<double>(Adam{.lr = lr, .l2 = lambda});
  const auto adamw = trajectory<double>(AdamW{.lr = lr, .weight_decay = lambda});
  double apart = 0;
  for (std::size_t i = 0; i < adamw.size(); ++i) {
    apart = (std::max)(apart, std::fabs(adamw[i] - adam_l2[i]));
  }
  EXPECT_GT(apart, 0.01);

  // Two weights of 1, gradients of alternating sign, one a thousand times the other.
  const auto left = [&](auto method) {
    std::vector<double> p = {1, 1}, g = {0, 0};
    Optimizer<decltype(method), double> o({{.values = p, .gradient = g}}, method);
    for (int t = 0; t < 500; ++t) {
      g = {t % 2 == 0 ? 10.0 : -10.0, t % 2 == 0 ? 0.01 : -0.01};
      o.step();
    }
    return p;
  };
  const auto decoupled = left(AdamW{.lr = 1e-3, .weight_decay = 0.5});
  EXPECT_NEAR(decoupled[0], decoupled[1], 0.01);
  EXPECT_NEAR(decoupled[0], std::pow(1 - 1e-3 * 0.5, 500), 0.02);
  const auto coupled = left(Adam{.lr = 1e-3, .l2 = 0.5});
  EXPECT_GT(coupled[0], 0.9);  // hardly decays
  EXPECT_LT(coupled[1], 0.7);  // decays at Adam's full pace
}

TEST(Optimizer, PaperDecayFollowsTheScheduleOnly) {
  std::vector<double> p = {2}, g = {0};
  Optimizer<AdamW, double> paper({{.values = p, .gradient = g}},
                                 AdamW{.lr = 1e-3, .weight_decay = 0.1, .decay = Decay::schedule});
  paper.step();
  EXPECT_DOUBLE_EQ(p[0], 2 * (1 - 0.1));
  paper.set_lr_multiplier(0.5);
  paper.step();
  EXPECT_DOUBLE_EQ(p[0], 2 * (1 - 0.1) * (1 - 0.05));
  p[0] = 2;
  Optimizer<AdamW, double> torch({{.values = p, .gradient = g}},
                                 AdamW{.lr = 1e-3, .weight_decay = 0.1});
  torch.step();
  EXPECT_DOUBLE_EQ(p[0], 2 * (1 - 1e-4));
}

TEST(Optimizer, BFloat16MomentsFollowOnAverage) {
  // A second moment in bfloat16 must fall although each fall is less than half a unit.
  std::vector<float> p(4096, 1.0F), g(4096, 1.0F);
  Optimizer<Adam, float, BFloat16> small({{.values = p, .gradient = g}}, Adam{.lr = 1e-3});
  Philox rng(3, "gradients", 0);
  double moment = 0;
  for (int t = 0; t < 2000; ++t) {
    const double size = t < 500 ? 1 : 0.1;
    for (float& x : g) x = static_cast<float>(size * rng.normal());
    moment = 0.999 * moment + 0.001 * size * size;
    small.step();
  }
  double mean = 0;
  for (const BFloat16 v : small.moment(0, 0, 1)) mean += static_cast<double>(static_cast<float>(v));
  EXPECT_NEAR(mean / 4096 / moment, 1, 0.03);
}

TEST(Optimizer, BadOptionsAreNamed) {
  std::vector<float> p(3), g(3);
  const auto message = [&](auto method) -> std::string {
    try {
      Optimizer<decltype(method), float> o({{.values = p, .gradient = g}}, method);
    } catch (const ValueError& e) {
      return e.what();
    }
    return "none";
  };
  EXPECT_EQ(message(AdamW{.lr = 0}),
            "quern::optim::AdamW: lr: expected a finite number above 0, got 0");
  EXPECT_NE(message(Adam{.lr = -1}).find("lr"), std::string::npos);
  EXPECT_NE(message(Adam{.lr = NAN}).find("lr"), std::string::npos);
  EXPECT_NE(message(Adam{.beta1 = 1}).find("beta1: expected 0 <= value < 1"), std::string::npos);
  EXPECT_NE(message(Lion{.beta2 = -0.1}).find("beta2"), std::string::npos);
  EXPECT_NE(message(Sgd{.momentum = 2}).find("momentum"), std::string::npos);
  EXPECT_NE(message(Sgd{.nesterov = true}).find("nesterov"), std::string::npos);
  EXPECT_NE(message(Sgd{.momentum = 0.9, .dampening = 0.5, .nesterov = true})
                .find("dampening: expected 0 with nesterov, got 0.5"),
            std::string::npos);
  EXPECT_NE(message(Rprop{.eta_minus = 1.5}).find("eta_minus"), std::string::npos);
  EXPECT_NE(message(AdamW{.weight_decay = -1}).find("weight_decay"), std::string::npos);
  Optimizer<Sgd, float> plain({{.values = p, .gradient = g}}, Sgd{});
  EXPECT_THROW(plain.set_method(0, Sgd{.momentum = 0.9}), ValueError);
  EXPECT_THROW(plain.set_lr(-1), ValueError);
}

}  // namespace
}  // namespace quern::test::optim_optimizer
