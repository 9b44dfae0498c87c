// SPDX-License-Identifier: Apache-2.0

/// \file
/// quern's side of the area "stochastic": logistic regression by mini-batches, SVRG and SAGA.

#include "limits.hpp"
#include "peers/protocol.hpp"

#include "quern/stochastic/descent.hpp"
#include "quern/stochastic/linear_objective.hpp"
#include "quern/version.hpp"

#include <cmath>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

using quern::Index;
using quern::stochastic::Descent;

template <class T>
class Fit {
 public:
  Fit(const peers::Array& x, const peers::Array& y)
      : objective_(quern::MatrixView<const T>(x.data<T>(), {x.extent(0), x.extent(1)}),
                   std::span<const T>(y.data<T>(), static_cast<std::size_t>(y.size())),
                   {.l2 = 1e-4, .threads = peers::threads()}),
        zeros_(static_cast<std::size_t>(x.extent(1))) {}

  std::vector<T> run(Descent method, Index batch, Index epochs) const {
    quern::stochastic::DescentOptions<T> options;
    options.method = method;
    options.batch = batch;
    options.epochs = epochs;
    options.seed = 1;
    return quern::stochastic::minimise(objective_, zeros_, options).w;
  }
  /// Least number of epochs that brings the objective within `gap` of its value at the optimum.
  Index epochs_to(Descent method, double gap, const double* optimum) const {
    const std::vector<T> best(optimum, optimum + zeros_.size());
    const double least = objective_.value(best);
    Index epochs = 1;
    while (epochs < 200 && objective_.value(run(method, 1, epochs)) - least >= gap) ++epochs;
    return epochs;
  }

 private:
  quern::stochastic::LinearObjective<T> objective_;
  std::vector<T> zeros_;
};

class StochasticDriver : public peers::Driver {
 public:
  [[nodiscard]] std::string describe() const override {
    return "quern " QUERN_VERSION " (" +
           std::string(quern::simd::name(quern::simd::active_level())) + ")";
  }
  peers::Reply limits(const peers::Command& command) override {
    const bench::Limits l = bench::measure_limits(static_cast<int>(command.integer("threads", 1)));
    return {{"read", l.read}, {"copy", l.copy}};
  }
  void forget() override {
    Driver::forget();
    f32_.reset();
    f64_.reset();
  }
  peers::Reply prepare(const peers::Command& command) override {
    if (command.name() == "sgd") return {};
    const double gap = std::stod(command.text("gap"));
    const double* optimum = array("optimum").data<double>();
    const Descent method = method_of(command);
    epochs_ = command.text("type") == "f32" ? fit(f32_).epochs_to(method, gap, optimum)
                                            : fit(f64_).epochs_to(method, gap, optimum);
    return {{"epochs", static_cast<double>(epochs_)}};
  }
  peers::Reply run(const peers::Command& command) override {
    return command.text("type") == "f32" ? timed(fit(f32_), command) : timed(fit(f64_), command);
  }
  [[nodiscard]] const peers::Array& output() const override { return output_; }

 private:
  static Descent method_of(const peers::Command& command) {
    if (command.name() == "sgd") return Descent::gradient;
    if (command.name() == "saga") return Descent::saga;
    if (command.name() == "svrg") return Descent::svrg;
    throw std::runtime_error("no case " + command.name());
  }
  template <class T>
  const Fit<T>& fit(std::unique_ptr<Fit<T>>& kept) {
    if (!kept) kept = std::make_unique<Fit<T>>(array("x"), array("y"));
    return *kept;
  }
  template <class T>
  peers::Reply timed(const Fit<T>& fit, const peers::Command& command) {
    const Descent method = method_of(command);
    const Index batch = command.integer("batch", 1), epochs = command.integer("epochs", epochs_);
    std::vector<T> w;
    const double seconds =
        peers::seconds_per_call(command.inner(), [&] { w = fit.run(method, batch, epochs); });
    output_ = peers::Array("<f8", {static_cast<std::int64_t>(w.size())});
    for (std::size_t j = 0; j < w.size(); ++j)
      output_.data<double>()[j] = static_cast<double>(w[j]);
    return {{"seconds", seconds}};
  }

  std::unique_ptr<Fit<float>> f32_;
  std::unique_ptr<Fit<double>> f64_;
  Index epochs_ = 1;
  peers::Array output_;
};

}  // namespace

int main() {
  StochasticDriver driver;
  return peers::serve(driver);
}
