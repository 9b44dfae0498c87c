// SPDX-License-Identifier: Apache-2.0

#include "studies.hpp"

#include "quern/core/random.hpp"
#include "quern/stochastic/conditions.hpp"
#include "quern/stochastic/kiefer_wolfowitz.hpp"
#include "quern/stochastic/robbins_monro.hpp"
#include "quern/stochastic/running.hpp"
#include "quern/stochastic/spsa.hpp"
#include "quern/stochastic/temporal_difference.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace studies {
namespace {

using quern::Philox;
using namespace quern::stochastic;
using page::number;

RunOptions run_options(const Common& common, std::int64_t steps, std::int64_t points = 400) {
  RunOptions run;
  run.steps = steps;
  run.record_every = (std::max)(steps / points, std::int64_t{1});
  run.progress = common.progress;
  return run;
}

/// f of every kept iterate, by step.
template <class F>
page::Series series(const std::string& name, const Path<double>& path, F&& f) {
  page::Series s;
  s.name = name;
  for (quern::Index i = 0; i < path.size(); ++i) {
    s.x.push_back(static_cast<double>(path.steps()[static_cast<std::size_t>(i)]));
    s.y.push_back(f(path.row(i)));
  }
  return s;
}

double polynomial(const std::vector<double>& c, double w) {
  double sum = 0;
  for (std::size_t i = c.size(); i-- > 0;) sum = sum * w + c[i];
  return sum;
}

/// The exact root, to judge by: bisection between points around the start where signs differ.
double exact_root(const std::vector<double>& c, double start) {
  double reach = 1;
  const auto bracketed = [&] {
    return polynomial(c, start - reach) < 0 && polynomial(c, start + reach) > 0;
  };
  while (!bracketed() && reach < 1e6) reach *= 1.5;
  if (!bracketed())
    throw std::runtime_error("root: the polynomial does not rise through 0 around the start");
  double low = start - reach, high = start + reach;
  for (int i = 0; i < 200; ++i) {
    const double middle = 0.5 * (low + high);
    (polynomial(c, middle) < 0 ? low : high) = middle;
  }
  return 0.5 * (low + high);
}

std::string polynomial_text(const std::vector<double>& c) {
  std::string text;
  for (std::size_t i = c.size(); i-- > 0;) {
    if (c[i] == 0) continue;
    text += text.empty() ? (c[i] < 0 ? "-" : "") : c[i] < 0 ? " - " : " + ";
    if (std::fabs(c[i]) != 1 || i == 0) text += number(std::fabs(c[i]));
    if (i > 0) text += "w";
    if (i > 1) text += "^" + std::to_string(i);
  }
  return text;
}

}  // namespace

page::Section root(const Common& common, std::vector<double> coefficients, double start) {
  const double exact = exact_root(coefficients, start);
  const double h = 1e-5 * (std::fabs(exact) + 1);
  const double slope =
      (polynomial(coefficients, exact + h) - polynomial(coefficients, exact - h)) / (2 * h);
  const double best = slope > 0 ? 1 / slope : 1;
  struct Entry {
    std::string name;
    StepSize step;
    Conditions conditions;
  };
  const std::vector<Entry> entries = {
      {"a/k, a = 1/slope", StepSize::harmonic(best), Conditions::enforce},
      {"a/k, a = 0.2/slope", StepSize::harmonic(0.2 * best), Conditions::enforce},
      {"a/k^0.7", StepSize::power(best, 0.7), Conditions::enforce},
      {"constant", StepSize(0.1 * best), Conditions::ignore}};
  page::Section out;
  out.title = "A root seen through noise: " + polynomial_text(coefficients) + " = 0";
  out.text = "Only values with noise of deviation " + number(common.noise) +
             " are seen; the root is " + number(exact, "%.6f") +
             ". Robbins-Monro, truncated where it would fly off (Chen), with different steps; the "
             "average of the iterates of a/k^0.7 reaches the least possible error, "
             "sqrt(noise^2 / (k slope^2)), whatever a; that of a/k does not.";
  out.table.head = {"steps", "last iterate", "average", number(100 * common.level) + " % interval",
                    "conditions"};
  page::Chart iterates{.title = "Iterates", .x_name = "step", .y_name = "w", .log_x = true};
  page::Chart errors{.title = "Error of the iterates",
                     .x_name = "step",
                     .y_name = "|w - root|",
                     .log_x = true,
                     .log_y = true};
  page::Chart averages = errors;
  averages.title = "Error of the averages";
  std::uint64_t stream = 0;
  for (const Entry& entry : entries) {
    RobbinsMonroOptions<double> options;
    options.step = entry.step;
    options.conditions = entry.conditions;
    options.truncation = {.bound = 2 * (std::fabs(exact) + std::fabs(start) + 1)};
    options.burn_in = common.steps / 20;
    Philox random(common.seed, "root", stream++);
    RobbinsMonro<double> state(std::vector<double>{start}, options);
    Path<double> path(1), mean(1);
    const RunOptions run = run_options(common, common.steps);
    std::int64_t next = 1;  // kept for the log axis: the first ones, then each a twentieth later
    for (std::int64_t k = 1; k <= run.steps; ++k) {
      const double w = state.current()[0];
      state.step({polynomial(coefficients, w) + common.noise * random.normal()});
      if (k % (run.steps / 100) == 0) {
        quern::report(run.progress, "stochastic root", {"steps", k, run.steps, {}});
      }
      if (k < next && k % run.record_every != 0) continue;
      next = (std::max)(next, k + 1 + k / 20);
      path.record(k, state.current());
      if (state.average().count() > 0) mean.record(k, state.average().mean());
    }
    const auto error = [&](std::span<const double> w) { return std::fabs(w[0] - exact); };
    iterates.series.push_back(series(entry.name, path, [](auto w) { return w[0]; }));
    errors.series.push_back(series(entry.name, path, error));
    averages.series.push_back(series(entry.name, mean, error));
    // Intervals are for averages in Polyak and Ruppert's range of steps.
    const bool enough =
        state.average().count() >= 32 && entry.step.exponent() > 0.5 && entry.step.exponent() < 1;
    const Interval i = enough ? state.average().interval(0, common.level) : Interval{};
    const std::string violated = check_robbins_monro(entry.step).violated();
    out.table.rows.push_back(
        {entry.name, number(state.current()[0], "%.5f"), number(state.average().mean()[0], "%.5f"),
         enough ? number(i.low, "%.5f") + " .. " + number(i.high, "%.5f") : "-",
         violated.empty() ? "met" : "violates " + violated});
  }
  iterates.levels = {{"root", exact}};
  out.charts = {iterates, errors, averages};
  return out;
}

page::Section means(const Common& common, std::vector<double> values, double fading) {
  const bool made_up = values.empty();
  Philox random(common.seed, "means");
  for (std::int64_t k = 0; made_up && k < common.steps; ++k) {
    values.push_back((2 * k < common.steps ? 0.0 : 3.0) + common.noise * random.normal());
  }
  page::Section out;
  out.title = "Running means";
  out.text = std::string(made_up ? "A stream whose mean moves from 0 to 3 half-way. " : "") +
             "Steps 1/k weigh all observations alike, a constant step forgets, 1/k^0.7 is between.";
  out.table.head = {"steps", "mean", "deviation"};
  page::Chart chart{.title = "Running mean", .x_name = "observation", .y_name = "mean"};
  const std::vector<std::pair<std::string, StepSize>> kinds = {
      {"1/k", StepSize::harmonic(1)},
      {"1/k^0.7", StepSize::power(1, 0.7)},
      {"constant " + number(fading), StepSize(fading)}};
  const std::size_t every = (std::max)(values.size() / 400, std::size_t{1});
  for (const auto& [name, step] : kinds) {
    StepMoments moments(step);
    page::Series s{.name = name, .x = {}, .y = {}};
    for (std::size_t k = 0; k < values.size(); ++k) {
      moments.step(values[k]);
      if ((k + 1) % every != 0) continue;
      s.x.push_back(static_cast<double>(k + 1));
      s.y.push_back(moments.mean());
    }
    chart.series.push_back(std::move(s));
    out.table.rows.push_back(
        {name, number(moments.mean(), "%.6g"), number(std::sqrt(moments.variance()), "%.6g")});
  }
  out.charts = {chart};
  return out;
}

namespace {

/// Mean daily cost of keeping stock for 90 days: below s units, order up to s + q. An order costs
/// 32 and comes after two days, a unit in stock 1 a day, a unit that lacks 12.
double stock_cost(std::span<const double> policy, Philox& random) {
  const double least = (std::max)(policy[0], 0.0), lot = (std::max)(policy[1], 1.0);
  double stock = least + lot, cost = 0;
  double coming[2] = {0, 0};
  for (int day = 0; day < 90; ++day) {
    stock += std::exchange(coming[day % 2], 0.0);
    stock -= (std::max)(0.0, 20 + 6 * random.normal());
    cost += stock > 0 ? stock : -12 * stock;
    stock = (std::max)(stock, 0.0);
    if (stock + coming[0] + coming[1] < least) {
      coming[day % 2] = least + lot - stock - coming[1 - day % 2];
      cost += 32;
    }
  }
  return cost / 90;
}

/// The cost without (much) noise.
double true_cost(std::span<const double> policy) {
  RunningMoments costs;
  for (std::uint64_t i = 0; i < 300; ++i) {
    Philox random(99, "judge", i);
    costs.step(stock_cost(policy, random));
  }
  return costs.mean();
}

}  // namespace

page::Section simulator(const Common& common) {
  const std::vector<double> start = {30, 20};
  std::uint64_t calls = 0;
  const auto cost = [&](std::span<const double> policy) {
    Philox random(common.seed, "days", calls++);
    return stock_cost(policy, random);
  };
  const std::int64_t evaluations =
      (std::clamp)(common.steps / 2, std::int64_t{400}, std::int64_t{8000});
  const SpsaGains gains =
      tune_spsa(cost, start, {.steps = evaluations / 2, .initial_move = 2, .seed = common.seed});
  SpsaOptions<double> spsa_options;
  spsa_options.step = gains.step();
  spsa_options.span = gains.span();
  spsa_options.max_move = 5;
  spsa_options.seed = common.seed;
  spsa_options.projection = project_on_box(1.0, 300.0);
  const auto by_spsa = spsa(cost, start, spsa_options, run_options(common, evaluations / 2, 60));
  KieferWolfowitzOptions<double> kw_options;
  kw_options.step = StepSize::power(40 * gains.a, 1, 20);
  kw_options.span = StepSize::power(4 * gains.c, 1.0 / 6);
  kw_options.projection = project_on_box(1.0, 300.0);
  const auto by_kw =
      kiefer_wolfowitz(cost, start, kw_options, run_options(common, evaluations / 4, 60));

  page::Section out;
  out.title = "A noisy simulator: when to order, and how much";
  out.text =
      "A simulated stock of 90 days gives one noisy cost. SPSA takes two simulations a step, "
      "Kiefer-Wolfowitz four; both get " +
      std::to_string(evaluations) +
      ". SPSA's gains are tuned by 24 simulations: a = " + number(gains.a) +
      ", c = " + number(gains.c) + ", A = " + number(gains.stability) + ".";
  out.table.head = {"method", "order below", "lot", "mean daily cost"};
  const auto row = [&](const std::string& name, std::span<const double> w) {
    out.table.rows.push_back({name, number(w[0]), number(w[1]), number(true_cost(w), "%.2f")});
  };
  row("start", start);
  row("SPSA", by_spsa.w);
  row("Kiefer-Wolfowitz", by_kw.w);
  page::Chart costs{.title = "Cost of the policy", .x_name = "simulations", .y_name = "cost a day"};
  page::Chart policy{.title = "Policy", .x_name = "simulations", .y_name = "units"};
  const auto add = [&](page::Chart& chart, const std::string& name, const Path<double>& path,
                       double each, auto&& f) {
    chart.series.push_back(series(name, path, f));
    for (double& x : chart.series.back().x) x *= each;
  };
  add(costs, "SPSA", by_spsa.path, 2, true_cost);
  add(costs, "Kiefer-Wolfowitz", by_kw.path, 4, true_cost);
  add(policy, "SPSA: order below", by_spsa.path, 2, [](auto w) { return w[0]; });
  add(policy, "SPSA: lot", by_spsa.path, 2, [](auto w) { return w[1]; });
  add(policy, "Kiefer-Wolfowitz: order below", by_kw.path, 4, [](auto w) { return w[0]; });
  add(policy, "Kiefer-Wolfowitz: lot", by_kw.path, 4, [](auto w) { return w[1]; });
  out.charts = {costs, policy};
  return out;
}

page::Section walk(const Common& common, std::int64_t states) {
  page::Section out;
  out.title = "Temporal differences on a random walk of " + std::to_string(states) + " states";
  out.text = "Left or right by a coin; the right end pays 1, so state s is worth (s + 1) / " +
             std::to_string(states + 1) +
             ". TD(0) is Robbins-Monro on the expected difference: "
             "steps that meet its conditions converge, a constant one keeps moving.";
  out.table.head = {"steps", "root mean squared error"};
  page::Chart errors{.title = "Error of the values",
                     .x_name = "transition",
                     .y_name = "root mean squared error",
                     .log_x = true,
                     .log_y = true};
  page::Chart values{.title = "Values at the end", .x_name = "state", .y_name = "value"};
  const auto truth = [&](std::size_t s) {
    return static_cast<double>(s + 1) / static_cast<double>(states + 1);
  };
  const auto error = [&](std::span<const double> v) {
    double sum = 0;
    for (std::size_t s = 0; s < v.size(); ++s) sum += (v[s] - truth(s)) * (v[s] - truth(s));
    return std::sqrt(sum / static_cast<double>(v.size()));
  };
  const std::vector<std::pair<std::string, StepSize>> kinds = {
      {"1/visits", StepSize::harmonic(1)},
      {"1/visits^0.7", StepSize::power(1, 0.7)},
      {"constant 0.1", StepSize(0.1)}};
  for (const auto& [name, step] : kinds) {
    TabularTd td(states, {.discount = 1, .step = step});
    Philox random(common.seed, "walk");
    quern::Index state = states / 2;
    const auto next = [&](const TabularTd&) {
      Transition t{.state = state};
      t.next = state + (random.bernoulli(0.5) ? 1 : -1);
      t.terminal = t.next < 0 || t.next >= states;
      t.reward = t.next >= states ? 1 : 0;
      state = t.terminal ? states / 2 : t.next;
      return t;
    };
    const Path<double> path = run_td(td, next, run_options(common, common.steps));
    errors.series.push_back(series(name, path, error));
    page::Series s{.name = name, .x = {}, .y = {}};
    for (std::size_t i = 0; i < td.current().size(); ++i) {
      s.x.push_back(static_cast<double>(i));
      s.y.push_back(td.current()[i]);
    }
    values.series.push_back(std::move(s));
    out.table.rows.push_back({name, number(error(td.current()))});
  }
  page::Series exact{.name = "exact", .x = {}, .y = {}};
  for (std::size_t i = 0; i < static_cast<std::size_t>(states); ++i) {
    exact.x.push_back(static_cast<double>(i));
    exact.y.push_back(truth(i));
  }
  values.series.push_back(std::move(exact));
  out.charts = {errors, values};
  return out;
}

page::Section check(double a, double alpha, double offset, double c, double gamma) {
  const StepSize step = StepSize::power(a, alpha, offset);
  page::Section out;
  out.title = "Conditions";
  out.text = "Robbins-Monro, " + check_robbins_monro(step).text() + "Dvoretzky, " +
             check_dvoretzky(step).text();
  if (c > 0) {
    const StepSize span = StepSize::power(c, gamma);
    out.text += "Kiefer-Wolfowitz, " + check_kiefer_wolfowitz(step, span).text() + "SPSA, " +
                check_kiefer_wolfowitz(step, span, true).text();
  }
  return out;
}

}  // namespace studies
