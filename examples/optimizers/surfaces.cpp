// SPDX-License-Identifier: Apache-2.0

#include "../common/picture.hpp"

#include "quern/optim/lbfgs.hpp"
#include "quern/optim/optimizer.hpp"
#include "race.hpp"

#include <algorithm>
#include <cmath>
#include <span>

namespace optimizers {
namespace {

namespace optim = quern::optim;
using Function = std::function<double(const double* x, double* gradient)>;

/// Heights in bands, on a logarithmic scale: contour lines without lines.
std::string picture(const Surface& s, const Function& f) {
  constexpr int width = 360, height = 300;
  std::vector<unsigned char> bytes;
  std::vector<double> heights;
  for (int i = 0; i < height; ++i) {
    for (int j = 0; j < width; ++j) {
      const double at[2] = {s.left + (s.right - s.left) * (j + 0.5) / width,
                            s.top - (s.top - s.bottom) * (i + 0.5) / height};
      double gradient[2];
      heights.push_back(std::log(1e-2 + f(at, gradient)));
    }
  }
  const auto [low, high] = std::minmax_element(heights.begin(), heights.end());
  for (const double h : heights) {
    const double band = std::floor(18 * (h - *low) / (*high - *low + 1e-12)) / 18;
    const auto shade = [&](double dark, double light) {
      return static_cast<unsigned char>(dark + (light - dark) * band);
    };
    bytes.insert(bytes.end(), {shade(40, 246), shade(70, 244), shade(110, 236)});
  }
  return page::png(bytes, height, width, 3);
}

template <class Method>
Curve walk(const std::string& name, const Function& f, const double* start, int steps,
           const Method& method) {
  std::vector<double> x(start, start + 2), g(2);
  optim::Optimizer<Method, double> optimizer({{.values = x, .gradient = g}}, method);
  Curve path{name, {x[0]}, {x[1]}};
  for (int t = 0; t < steps; ++t) {
    (void)f(x.data(), g.data());
    optimizer.step();
    path.x.push_back(x[0]);
    path.y.push_back(x[1]);
  }
  return path;
}

Curve walk_lbfgs(const Function& f, const double* start) {
  std::vector<double> x(start, start + 2);
  Curve path{"L-BFGS", {x[0]}, {x[1]}};
  optim::LbfgsOptions options;
  options.progress = [&](const quern::Progress&) {
    path.x.push_back(x[0]);
    path.y.push_back(x[1]);
    return true;
  };
  (void)optim::minimize_lbfgs<double>(
      [&](std::span<const double> at, std::span<double> g) { return f(at.data(), g.data()); },
      std::span<double>(x), options);
  return path;
}

Surface explore(Surface s, const Function& f, const double* start, int steps, double sgd,
                double rate) {
  s.picture = picture(s, f);
  s.paths = {walk("SGD", f, start, steps, optim::Sgd{.lr = sgd}),
             walk("momentum", f, start, steps, optim::Sgd{.lr = sgd / 2, .momentum = 0.9}),
             walk("RMSProp", f, start, steps, optim::RmsProp{.lr = rate / 3}),
             walk("Adam", f, start, steps, optim::Adam{.lr = rate}),
             walk("Lion", f, start, steps, optim::Lion{.lr = rate / 5}),
             walk_lbfgs(f, start)};
  return s;
}

}  // namespace

std::vector<Surface> walk_surfaces(int steps) {
  const Function valley = [](const double* x, double* g) {
    g[0] = x[0] / 10;
    g[1] = 2 * x[1];
    return x[0] * x[0] / 20 + x[1] * x[1];
  };
  const Function rosenbrock = [](const double* x, double* g) {
    const double a = x[1] - x[0] * x[0], b = 1 - x[0];
    g[0] = -400 * a * x[0] - 2 * b;
    g[1] = 200 * a;
    return 100 * a * a + b * b;
  };
  const Function beale = [](const double* x, double* g) {
    double value = 0;
    g[0] = g[1] = 0;
    const double targets[3] = {1.5, 2.25, 2.625};
    double power = 1;
    for (int k = 0; k < 3; ++k) {
      const double before = power;
      power *= x[1];
      const double r = targets[k] - x[0] + x[0] * power;
      value += r * r;
      g[0] += 2 * r * (power - 1);
      g[1] += 2 * r * x[0] * (k + 1) * before;
    }
    return value;
  };
  const double start1[2] = {-9, 2.5}, start2[2] = {-1.2, 1.0}, start3[2] = {1.0, 1.5};
  return {explore({"A long valley: x²/20 + y²", "", -11, 3, -3.5, 3.5, {}}, valley, start1, steps,
                  0.9, 0.3),
          explore({"Rosenbrock: 100 (y - x²)² + (1 - x)²", "", -2, 2, -1, 2.5, {}}, rosenbrock,
                  start2, steps, 1e-3, 0.05),
          explore({"Beale", "", -1, 4, -1.5, 2.5, {}}, beale, start3, steps, 5e-3, 0.05)};
}

}  // namespace optimizers
