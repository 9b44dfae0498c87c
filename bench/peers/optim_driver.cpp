// SPDX-License-Identifier: Apache-2.0
//
// quern's side of the optim area (areas/optim.py says what each case measures).

#include "limits.hpp"
#include "peers/protocol.hpp"

#include "quern/core/buffer.hpp"
#include "quern/core/parallel.hpp"
#include "quern/kernels/kernels.hpp"
#include "quern/optim/lbfgs.hpp"
#include "quern/optim/matrix_optimizer.hpp"
#include "quern/optim/optimizer.hpp"
#include "quern/version.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace {

namespace optim = quern::optim;
using quern::Index;
using Parameters = std::vector<optim::Parameter<float>>;
using Base = optim::OptimizerBase<float>;

template <class Method>
std::unique_ptr<Base> make(const Parameters& p, const Method& method) {
  return std::make_unique<optim::Optimizer<Method, float>>(p, method);
}

std::unique_ptr<Base> named(const std::string& name, const Parameters& p) {
  if (name == "adamw") return make(p, optim::AdamW{});
  if (name == "adamw-bf16") {
    return std::make_unique<optim::Optimizer<optim::AdamW, float, quern::BFloat16>>(p,
                                                                                    optim::AdamW{});
  }
  if (name == "sgd") return make(p, optim::Sgd{.lr = 1e-3});
  if (name == "momentum") return make(p, optim::Sgd{.lr = 1e-3, .momentum = 0.9});
  if (name == "nesterov") return make(p, optim::Sgd{.lr = 1e-3, .momentum = 0.9, .nesterov = true});
  if (name == "adam") return make(p, optim::Adam{});
  if (name == "amsgrad") return make(p, optim::Adam{.amsgrad = true});
  if (name == "nadam") return make(p, optim::NAdam{});
  if (name == "radam") return make(p, optim::RAdam{});
  if (name == "adamax") return make(p, optim::Adamax{});
  if (name == "rmsprop") return make(p, optim::RmsProp{});
  if (name == "rmsprop-full") return make(p, optim::RmsProp{.momentum = 0.9, .centered = true});
  if (name == "adagrad") return make(p, optim::Adagrad{});
  if (name == "adadelta") return make(p, optim::Adadelta{});
  if (name == "asgd") return make(p, optim::AveragedSgd{});
  if (name == "rprop") return make(p, optim::Rprop{});
  if (name == "adafactor") {
    return std::make_unique<optim::MatrixOptimizer<optim::Adafactor, float>>(p, optim::Adafactor{});
  }
  if (name == "muon") {
    return std::make_unique<optim::MatrixOptimizer<optim::Muon, float>>(p, optim::Muon{});
  }
  throw std::runtime_error("no method " + name);
}

/// Tensors of one size, filled from the data's p and g over and over.
struct Job {
  quern::core::Buffer<float> values, gradients;
  std::unique_ptr<Base> optimizer;

  Job(const std::string& method, std::size_t tensors, const std::vector<Index>& shape,
      const peers::Array& p, const peers::Array& g) {
    std::size_t each = 1;
    for (const Index extent : shape) each *= static_cast<std::size_t>(extent);
    values.reset(tensors * each);
    gradients.reset(tensors * each);
    const auto base = static_cast<std::size_t>(p.size());
    for (std::size_t at = 0; at < values.size(); at += base) {
      const std::size_t some = (std::min)(base, values.size() - at);
      std::copy_n(p.data<float>(), some, values.data() + at);
      std::copy_n(g.data<float>(), some, gradients.data() + at);
    }
    Parameters parameters;
    for (std::size_t k = 0; k < tensors; ++k) {
      parameters.push_back({.values = values.span().subspan(k * each, each),
                            .gradient = gradients.span().subspan(k * each, each),
                            .shape = shape});
    }
    optimizer = named(method, parameters);
  }
};

/// Mean logistic loss with a ridge of l2/2 |w|^2; every row is read from memory once.
class Logistic {
 public:
  Logistic(const double* x, const double* y, Index rows, Index cols, double l2)
      : x_(x), y_(y), rows_(rows), cols_(cols), l2_(l2) {}

  double operator()(std::span<const double> w, std::span<double> gradient) {
    const Index blocks = quern::block_count(rows_, each);
    std::vector<double> losses(static_cast<std::size_t>(blocks));
    std::vector<double> parts(static_cast<std::size_t>(blocks * cols_), 0.0);
    quern::parallel_for(blocks, [&](Index b) {
      losses[static_cast<std::size_t>(b)] =
          block(quern::block_range(rows_, each, b), w.data(), parts.data() + b * cols_);
    });
    double loss = 0;
    for (const double part : losses) loss += part;
    const double share = 1 / static_cast<double>(rows_);
    for (std::size_t j = 0; j < w.size(); ++j) {
      double sum = 0;
      for (Index b = 0; b < blocks; ++b) sum += parts[static_cast<std::size_t>(b * cols_) + j];
      gradient[j] = sum * share + l2_ * w[j];
      loss += 0.5 * l2_ * w[j] * w[j] / share;
    }
    return loss * share;
  }

 private:
  static constexpr Index each = 4096, small = 64;

  double block(const quern::BlockRange& range, const double* w, double* gradient) {
    double loss = 0;
    double margins[small], softplus[small];
    for (Index at = range.begin; at < range.end; at += small) {
      const auto count = static_cast<std::size_t>((std::min)(small, range.end - at));
      const auto width = static_cast<std::size_t>(cols_);
      const double* rows = x_ + at * cols_;
      for (std::size_t i = 0; i < count; ++i) {
        margins[i] = QUERN_DISPATCH(dot(rows + i * width, w, width));
      }
      const double* const m = margins;
      double* const s = softplus;
      const double* const sc = softplus;
      QUERN_DISPATCH(transform(quern::kernels::Softplus{}, m, count, s));
      loss += QUERN_DISPATCH(sum(sc, count)) - QUERN_DISPATCH(dot(m, y_ + at, count));
      QUERN_DISPATCH(transform(quern::kernels::Sigmoid{}, m, count, s));
      for (std::size_t i = 0; i < count; ++i) {  // the rows are in the cache now
        QUERN_DISPATCH(
            axpy(softplus[i] - y_[at + static_cast<Index>(i)], rows + i * width, width, gradient));
      }
    }
    return loss;
  }

  const double* x_;
  const double* y_;
  Index rows_, cols_;
  double l2_;
};

class OptimDriver : public peers::Driver {
 public:
  [[nodiscard]] std::string describe() const override {
    return "quern " QUERN_VERSION " (" +
           std::string(quern::simd::name(quern::simd::active_level())) + ")";
  }

  peers::Reply run(const peers::Command& command) override {
    if (command.name() == "lbfgs") return lbfgs(command);
    const std::string key = command.text("method") + "|" + command.text("tensors", "1") + "|" +
                            command.text("rows", "0") + "|" + command.text("size");
    if (command.name() == "check") {
      Job job(command.text("method"), 1, shape_of(command), array("p"), array("g"));
      for (int t = 0; t < 3; ++t) job.optimizer->step();
      out_ = peers::Array("<f4", {static_cast<std::int64_t>(job.values.size())});
      std::copy(job.values.begin(), job.values.end(), out_.data<float>());
      return {{"seconds", 0.0}};
    }
    if (key != key_) {
      job_.reset();
      job_ = std::make_unique<Job>(command.text("method"),
                                   static_cast<std::size_t>(command.integer("tensors", 1)),
                                   shape_of(command), array("p"), array("g"));
      key_ = key;
      job_->optimizer->step();
    }
    return {
        {"seconds", peers::seconds_per_call(command.inner(), [&] { job_->optimizer->step(); })}};
  }

  [[nodiscard]] const peers::Array& output() const override { return out_; }
  void forget() override {
    peers::Driver::forget();
    job_.reset();
    key_.clear();
  }

  peers::Reply limits(const peers::Command& command) override {
    const bench::Limits l = bench::measure_limits(static_cast<int>(command.integer("threads", 1)));
    return {{"read", l.read}, {"copy", l.copy}, {"update", l.update}};
  }

 private:
  static std::vector<Index> shape_of(const peers::Command& command) {
    const Index rows = command.integer("rows", 0), size = command.integer("size", 16);
    if (rows == 0) return {size};
    return {rows, size / rows};
  }

  peers::Reply lbfgs(const peers::Command& command) {
    const peers::Array& x = array("x");
    Logistic f(x.data<double>(), array("y").data<double>(), x.extent(0), x.extent(1),
               1.0 / static_cast<double>(x.extent(0)));
    std::vector<double> w(static_cast<std::size_t>(x.extent(1)));
    const double seconds = peers::seconds_per_call(command.inner(), [&] {
      std::fill(w.begin(), w.end(), 0.0);
      (void)optim::minimize_lbfgs<double>(f, std::span<double>(w), {.gradient_tolerance = 1e-4});
    });
    out_ = peers::Array("<f8", {x.extent(1)});
    std::copy(w.begin(), w.end(), out_.data<double>());
    return {{"seconds", seconds}};
  }

  peers::Array out_;
  std::string key_;
  std::unique_ptr<Job> job_;
};

}  // namespace

int main() {
  OptimDriver driver;
  return peers::serve(driver);
}
