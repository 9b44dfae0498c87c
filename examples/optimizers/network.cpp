// SPDX-License-Identifier: Apache-2.0
//
// A network of two layers by hand on the matrix product, and logistic regression.

#include "quern/core/buffer.hpp"
#include "quern/core/random.hpp"
#include "quern/io/idx.hpp"
#include "quern/kernels/gemm.hpp"
#include "quern/optim/lbfgs.hpp"
#include "quern/optim/optimizer.hpp"
#include "race.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>
#include <span>

namespace optimizers {
namespace {

namespace optim = quern::optim;
using quern::Index;
using quern::MatrixView;
using quern::kernels::gemm;

constexpr Index pixels = 784, classes = 10;

Pictures load(const std::string& stem, Index limit) {
  const auto images = quern::io::read_idx<std::uint8_t, 3>(stem + "-images-idx3-ubyte.gz");
  const auto labels = quern::io::read_idx<std::int64_t, 1>(stem + "-labels-idx1-ubyte.gz");
  const Index n = limit > 0 ? (std::min)(limit, images.extent(0)) : images.extent(0);
  Pictures out;
  out.rows = quern::NdArray<float, 2>({n, pixels});
  for (Index i = 0; i < n * pixels; ++i) {
    out.rows.data()[i] = static_cast<float>(images.data()[i]) / 255.0F;
  }
  out.labels.assign(labels.data(), labels.data() + n);
  return out;
}

/// Weights, gradients and activations of pixels -> hidden -> classes, with ReLU between.
class Network {
 public:
  Network(Index hidden, Index batch, std::uint64_t seed)
      : hidden_(hidden),
        w_(sizes(hidden)),
        g_(w_.size()),
        h_(batch * hidden),
        dh_(batch * hidden),
        o_(batch * classes) {
    quern::Philox rng(seed, "weights", 0);
    for (Index i = 0; i < pixels * hidden; ++i) w_[i] = 0.0505F * rng.normal<float>();
    for (Index i = 0; i < hidden * classes; ++i) {
      w_[b1() + hidden + i] = std::sqrt(2.0F / static_cast<float>(hidden)) * rng.normal<float>();
    }
  }
  [[nodiscard]] std::vector<optim::Parameter<float>> parameters() {
    std::vector<optim::Parameter<float>> out;
    const auto add = [&](const char* name, Index at, std::vector<Index> shape) {
      std::size_t n = 1;
      for (const Index e : shape) n *= static_cast<std::size_t>(e);
      const auto from = static_cast<std::size_t>(at);
      out.push_back({name, std::span(w_).subspan(from, n), std::span(g_).subspan(from, n), shape});
    };
    add("w1", 0, {pixels, hidden_});
    add("b1", b1(), {hidden_});
    add("w2", b1() + hidden_, {hidden_, classes});
    add("b2", b1() + hidden_ + hidden_ * classes, {classes});
    return out;
  }
  [[nodiscard]] double norm() const {
    double sum = 0;
    for (const float x : w_) sum += static_cast<double>(x) * static_cast<double>(x);
    return std::sqrt(sum);
  }

  /// Log-probabilities of n rows.
  void forward(MatrixView<const float> x) {
    const Index n = x.rows();
    MatrixView<float> h(h_.data(), {n, hidden_}), o(o_.data(), {n, classes});
    gemm<float>(x, weights(0, pixels, hidden_), h);
    for (Index i = 0; i < n; ++i) {
      for (Index j = 0; j < hidden_; ++j) h(i, j) = (std::max)(0.0F, h(i, j) + w_[b1() + j]);
    }
    gemm<float>(h, weights(b1() + hidden_, hidden_, classes), o);
    for (Index i = 0; i < n; ++i) {
      float most = -1e30F, sum = 0;
      for (Index j = 0; j < classes; ++j) {
        o(i, j) += w_[b1() + hidden_ + hidden_ * classes + j];
        most = (std::max)(most, o(i, j));
      }
      for (Index j = 0; j < classes; ++j) sum += std::exp(o(i, j) - most);
      for (Index j = 0; j < classes; ++j) o(i, j) -= most + std::log(sum);
    }
  }
  /// Mean loss of the rows given to forward(), and its gradients.
  double backward(MatrixView<const float> x, const std::int64_t* labels) {
    const Index n = x.rows();
    const float share = 1.0F / static_cast<float>(n);
    MatrixView<float> h(h_.data(), {n, hidden_}), dh(dh_.data(), {n, hidden_}),
        o(o_.data(), {n, classes});
    double loss = 0;
    for (Index i = 0; i < n; ++i) {
      loss -= static_cast<double>(o(i, labels[i]));
      for (Index j = 0; j < classes; ++j) o(i, j) = share * std::exp(o(i, j));
      o(i, labels[i]) -= share;
    }
    gemm<float>(MatrixView<const float>(h).transposed(), o,
                gradient(b1() + hidden_, hidden_, classes));
    gemm<float>(o, weights(b1() + hidden_, hidden_, classes).transposed(), dh);
    for (Index j = 0; j < classes; ++j) {
      float sum = 0;
      for (Index i = 0; i < n; ++i) sum += o(i, j);
      g_[b1() + hidden_ + hidden_ * classes + j] = sum;
    }
    for (Index j = 0; j < hidden_; ++j) {
      float sum = 0;
      for (Index i = 0; i < n; ++i) {
        if (h(i, j) <= 0) dh(i, j) = 0;
        sum += dh(i, j);
      }
      g_[b1() + j] = sum;
    }
    gemm<float>(x.transposed(), dh, gradient(0, pixels, hidden_));
    return loss / static_cast<double>(n);
  }
  [[nodiscard]] const float* outputs() const { return o_.data(); }

 private:
  struct Values : std::vector<float> {
    using std::vector<float>::vector;
    explicit Values(Index n) : std::vector<float>(static_cast<std::size_t>(n)) {}
    float& operator[](Index i) { return data()[i]; }
    const float& operator[](Index i) const { return data()[i]; }
  };
  static Index sizes(Index hidden) { return (pixels + 1) * hidden + (hidden + 1) * classes; }
  [[nodiscard]] Index b1() const { return pixels * hidden_; }
  [[nodiscard]] MatrixView<const float> weights(Index at, Index rows, Index cols) const {
    return {w_.data() + at, {rows, cols}};
  }
  [[nodiscard]] MatrixView<float> gradient(Index at, Index rows, Index cols) {
    return {g_.data() + at, {rows, cols}};
  }
  Index hidden_;
  Values w_, g_, h_, dh_, o_;
};

double accuracy(Network& net, const Pictures& test, Index batch) {
  Index right = 0;
  const Index n = test.rows.extent(0);
  for (Index at = 0; at < n; at += batch) {
    const Index some = (std::min)(batch, n - at);
    net.forward({test.rows.data() + at * pixels, {some, pixels}});
    for (Index i = 0; i < some; ++i) {
      const float* o = net.outputs() + i * classes;
      right +=
          std::max_element(o, o + classes) - o == test.labels[static_cast<std::size_t>(at + i)];
    }
  }
  return static_cast<double>(right) / static_cast<double>(n);
}

/// T-shirts (0) against shirts (6), the pair that is hardest to tell apart.
struct Pair {
  std::vector<double> x, y;
  Index rows = 0;
};
Pair tell_apart(const Pictures& all) {
  Pair out;
  for (Index i = 0; i < all.rows.extent(0); ++i) {
    const std::int64_t label = all.labels[static_cast<std::size_t>(i)];
    if (label != 0 && label != 6) continue;
    const float* row = all.rows.data() + i * pixels;
    out.x.insert(out.x.end(), row, row + pixels);
    out.y.push_back(label == 6 ? 1 : 0);
    ++out.rows;
  }
  return out;
}

/// Mean loss of rows [begin, end) and its gradient, with a little ridge.
double logistic(const Pair& data, Index begin, Index end, std::span<const double> w,
                std::span<double> gradient) {
  const Index n = end - begin;
  const MatrixView<const double> x(data.x.data() + begin * pixels, {n, pixels});
  std::vector<double> z(static_cast<std::size_t>(n));
  const MatrixView<double> margins(z.data(), {n, 1});
  gemm<double>(x, MatrixView<const double>(w.data(), {pixels, 1}), margins);
  double loss = 0;
  for (std::size_t i = 0; i < z.size(); ++i) {
    const double y = data.y[static_cast<std::size_t>(begin) + i];
    loss += std::log1p(std::exp(-std::fabs(z[i]))) + (std::max)(z[i], 0.0) - y * z[i];
    z[i] = (1 / (1 + std::exp(-z[i])) - y) / static_cast<double>(n);
  }
  gemm<double>(x.transposed(), MatrixView<const double>(z.data(), {n, 1}),
               MatrixView<double>(gradient.data(), {pixels, 1}));
  loss /= static_cast<double>(n);
  for (std::size_t j = 0; j < w.size(); ++j) {
    gradient[j] += 1e-4 * w[j];
    loss += 0.5e-4 * w[j] * w[j];
  }
  return loss;
}

template <class Method>
Curve fit_logistic(const Pair& data, const std::string& name, const Method& method, int epochs) {
  std::vector<double> w(pixels), g(pixels), unused(pixels);
  optim::Optimizer<Method, double> optimizer({{.values = w, .gradient = g}}, method);
  Curve curve{name, {0}, {logistic(data, 0, data.rows, w, unused)}};
  constexpr Index batch = 64;
  for (int e = 1; e <= epochs; ++e) {
    for (Index at = 0; at < data.rows; at += batch) {
      (void)logistic(data, at, (std::min)(at + batch, data.rows), w, g);
      optimizer.step();
    }
    curve.x.push_back(e);
    curve.y.push_back(logistic(data, 0, data.rows, w, unused));
  }
  return curve;
}

}  // namespace

Data load_fashion_mnist(const std::string& folder, Index limit) {
  return {load(folder + "/train", limit), load(folder + "/t10k", limit)};
}

Training train_network(const Data& data, const std::string& name, const Maker<float>& make,
                       const NetworkOptions& options) {
  Network net(options.hidden, options.batch, options.seed);
  const auto optimizer = make(net.parameters());
  Training out;
  out.name = out.loss.name = name;
  const Index n = data.train.rows.extent(0);
  std::vector<Index> order(static_cast<std::size_t>(n));
  std::iota(order.begin(), order.end(), Index{0});
  quern::Philox rng(options.seed, "order", 0);
  quern::NdArray<float, 2> rows({options.batch, pixels});
  std::vector<std::int64_t> labels(static_cast<std::size_t>(options.batch));
  for (int e = 1; e <= options.epochs; ++e) {
    rng.shuffle(order);
    double sum = 0;
    Index batches = 0;
    for (Index at = 0; at + options.batch <= n; at += options.batch, ++batches) {
      for (Index i = 0; i < options.batch; ++i) {
        const Index row = order[static_cast<std::size_t>(at + i)];
        std::copy_n(data.train.rows.data() + row * pixels, pixels, rows.data() + i * pixels);
        labels[static_cast<std::size_t>(i)] = data.train.labels[static_cast<std::size_t>(row)];
      }
      const MatrixView<const float> x(rows.data(), {options.batch, pixels});
      net.forward(x);
      sum += net.backward(x, labels.data());
      const auto start = std::chrono::steady_clock::now();
      optimizer->step();
      out.seconds +=
          std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    }
    out.loss.x.push_back(e);
    out.loss.y.push_back(sum / static_cast<double>((std::max)(batches, Index{1})));
    out.test.push_back(accuracy(net, data.test, options.batch));
  }
  out.weight_norm = net.norm();
  return out;
}

std::vector<Curve> race_logistic(const Data& data, int epochs) {
  const Pair pair = tell_apart(data.train);
  std::vector<Curve> curves = {
      fit_logistic(pair, "SGD", optim::Sgd{.lr = 0.02}, epochs),
      fit_logistic(pair, "Nesterov", optim::Sgd{.lr = 0.005, .momentum = 0.9, .nesterov = true},
                   epochs),
      fit_logistic(pair, "Adagrad", optim::Adagrad{.lr = 0.02}, epochs),
      fit_logistic(pair, "Adam", optim::Adam{.lr = 1e-3}, epochs),
      fit_logistic(pair, "Lion", optim::Lion{.lr = 2e-4}, epochs)};
  // A pass over the data is an evaluation here.
  std::vector<double> w(pixels);
  Curve curve{"L-BFGS", {}, {}};
  const auto f = [&](std::span<const double> at, std::span<double> g) {
    const double value = logistic(pair, 0, pair.rows, at, g);
    const double best = curve.y.empty() ? value : (std::min)(curve.y.back(), value);
    curve.x.push_back(static_cast<double>(curve.x.size()));
    curve.y.push_back(best);
    return value;
  };
  (void)optim::minimize_lbfgs<double>(f, std::span<double>(w), {.max_iterations = epochs});
  while (curve.x.size() > static_cast<std::size_t>(epochs) + 1) {
    curve.x.pop_back();
    curve.y.pop_back();
  }
  curves.push_back(curve);
  return curves;
}

}  // namespace optimizers
