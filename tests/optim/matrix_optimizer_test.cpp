// SPDX-License-Identifier: Apache-2.0

#include "quern/optim/matrix_optimizer.hpp"

#include "quern/core/error.hpp"
#include "quern/core/random.hpp"
#include "reference.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

namespace quern::test::optim_matrix_optimizer {
namespace {

using namespace quern::optim;

template <class T, class Method>
std::vector<double> trajectory(const Method& method, const std::vector<Index>& shape) {
  const std::vector<double> grads = optim_reference("grads_2d"), p0 = optim_reference("p0_2d");
  std::vector<T> p(p0.begin(), p0.end()), g(p.size());
  MatrixOptimizer<Method, T> optimizer({{.name = "w", .values = p, .gradient = g, .shape = shape}},
                                       method);
  std::vector<double> path;
  for (std::size_t t = 0; t < 20; ++t) {
    for (std::size_t i = 0; i < p.size(); ++i) g[i] = static_cast<T>(grads[t * p.size() + i]);
    optimizer.step();
    path.insert(path.end(), p.begin(), p.end());
  }
  return path;
}

/// Blocks of 256 rows below the diagonal and their mirror images are the whole product.
TEST(MatrixOptimizer, SymmetricProductsAreWhole) {
  for (const Index n : {5, 256, 300, 600}) {
    const Index k = 40;
    const auto size = static_cast<std::size_t>(n * k), square = static_cast<std::size_t>(n * n);
    std::vector<double> x(size), whole(square, 0.5), halves(square, 0.5);
    Philox rng(7, "product");
    for (double& v : x) v = rng.normal();
    const MatrixView<const double> a(x.data(), {n, k});
    kernels::gemm<double>(a, a.transposed(), MatrixView<double>(whole.data(), {n, n}),
                          {.alpha = 2, .beta = 3});
    optim::detail::symmetric_product<double>(a, a.transposed(),
                                             MatrixView<double>(halves.data(), {n, n}), 2, 3, 1);
    for (std::size_t i = 0; i < square; ++i) ASSERT_NEAR(halves[i], whole[i], 1e-12) << n;
  }
}

std::vector<Index> reference_shape() { return {7, 12}; }

TEST(MatrixOptimizer, TrajectoriesOfAdafactorAndMuon) {
  const auto shape = reference_shape();
  expect_close(trajectory<float>(Adafactor{.lr = 0.01}, shape), optim_reference("adafactor"), 2e-6);
  expect_close(trajectory<float>(Adafactor{.lr = 0.01, .weight_decay = 0.05}, shape),
               optim_reference("adafactor_wd"), 2e-6);
  expect_close(trajectory<double>(Adafactor{.lr = 0.01}, shape), optim_reference("adafactor"),
               2e-6);
  // The reference iterates in bfloat16; a dropped term would be nine times this.
  expect_close(trajectory<float>(Muon{.lr = 0.02}, shape), optim_reference("muon"), 3e-3);
  expect_close(trajectory<double>(Muon{.lr = 0.02}, shape), optim_reference("muon"), 3e-3);
}

template <class Method>
std::vector<float> trained(const Method& method, std::vector<Index> shape, int threads,
                           OptimizerState* state = nullptr) {
  const auto n = static_cast<std::size_t>(shape[0] * (shape.size() == 2 ? shape[1] : 1));
  std::vector<float> p(n, 0.5F), g(n);
  MatrixOptimizer<Method, float> o({{.values = p, .gradient = g, .shape = shape}}, method,
                                   {.threads = threads});
  Philox rng(1, "gradients", 0);
  for (int t = 0; t < 4; ++t) {
    for (float& x : g) x = static_cast<float>(rng.normal());
    o.step();
    if (t == 1 && state != nullptr) {
      const OptimizerState saved = o.state();
      o.step();
      o.load_state(saved);
      *state = o.state();
    }
  }
  return p;
}

TEST(MatrixOptimizer, BitsDoNotDependOnThreads) {
  for (const std::vector<Index>& shape :
       {std::vector<Index>{301, 517}, std::vector<Index>{130, 40}, std::vector<Index>{70'001}}) {
    const auto one = trained(Adafactor{}, shape, 1);
    EXPECT_EQ(one, trained(Adafactor{}, shape, 2));
    EXPECT_EQ(one, trained(Adafactor{}, shape, 3));
    if (shape.size() < 2) continue;
    const auto muon = trained(Muon{}, shape, 1);
    EXPECT_EQ(muon, trained(Muon{}, shape, 2));
    EXPECT_EQ(muon, trained(Muon{}, shape, 3));
  }
}

TEST(MatrixOptimizer, StatesHaveTheirShapes) {
  OptimizerState state;
  (void)trained(Adafactor{}, {7, 5}, 1, &state);
  ASSERT_EQ(state.tensors.size(), 2U);
  EXPECT_EQ(state.tensors[0].name, "0.0.row_var");
  EXPECT_EQ(state.tensors[0].shape, std::vector<Index>{7});
  EXPECT_EQ(state.tensors[1].shape, std::vector<Index>{5});
  (void)trained(Muon{}, {7, 5}, 1, &state);
  ASSERT_EQ(state.tensors.size(), 1U);
  EXPECT_EQ(state.tensors[0].bytes.size(), 7U * 5U * 4U);
}

TEST(MatrixOptimizer, OtherRanksAreRefused) {
  std::vector<float> p(8), g(8);
  EXPECT_THROW((MatrixOptimizer<Muon, float>({{.values = p, .gradient = g}}, Muon{})), ShapeError);
  EXPECT_THROW((MatrixOptimizer<Adafactor, float>(
                   {{.values = p, .gradient = g, .shape = {2, 2, 2}}}, Adafactor{})),
               ShapeError);
  EXPECT_THROW((MatrixOptimizer<Muon, float>({{.values = p, .gradient = g, .shape = {2, 4}}},
                                             Muon{.lr = -1})),
               ValueError);
}

}  // namespace
}  // namespace quern::test::optim_matrix_optimizer
