// SPDX-License-Identifier: Apache-2.0

/// \file
/// What both units of the consumer program do. Everything is static: each unit runs its own copy,
/// built with its own flags, of the same work. CONSUMER_LIGHT leaves out training, which is most of
/// the compile time, where the way that quern is found is in question and not what it does.

#ifndef QUERN_TESTS_CONSUMER_HPP
#define QUERN_TESTS_CONSUMER_HPP

#ifdef CONSUMER_HIGHWAY_FIRST
#include <hwy/highway.h>
#endif

#include "quern/quern.hpp"

#include <Eigen/Dense>

#include <string>

/// What a unit found out.
struct Findings {
  double product = 0;
  double prediction = 0;
  double eigen = 0;
  std::string level;
};

// The sum of a matrix product of more than one block in each direction.
static double multiply() {
  const Eigen::MatrixXf a = Eigen::MatrixXf::Constant(70, 300, 0.5F);
  const Eigen::MatrixXf b = Eigen::MatrixXf::Constant(300, 50, 0.25F);
  Eigen::MatrixXf c = Eigen::MatrixXf::Zero(70, 50);
  quern::kernels::gemm<float>(quern::view(a), quern::view(b), quern::view(c));
  return static_cast<double>(c.sum());
}

#ifdef CONSUMER_LIGHT
static double train() { return 1; }
#else
// The sum of what boosted trees predict after a few rounds on a made-up table.
static double train() {
  Eigen::MatrixXf x(400, 3);
  Eigen::VectorXf y(400);
  for (int i = 0; i < 400; ++i) {
    x.row(i) << static_cast<float>(i % 7), static_cast<float>(i % 11), static_cast<float>(i % 13);
    y(i) = x(i, 0) * x(i, 1) + x(i, 2);
  }
  quern::boosting::Booster booster({.num_round = 5, .max_depth = 4});
  booster.fit(quern::tree::make_dataset(x, y));
  const auto predicted = booster.predict(x);
  double sum = 0;
  for (std::int64_t i = 0; i < predicted.extent(0); ++i)
    sum += static_cast<double>(predicted(i, 0)) * static_cast<double>(i % 17);
  return sum;
}
#endif

static Findings find_out() {
  Findings findings;
  findings.product = multiply();
  findings.prediction = train();
  // An owning Eigen object that stays within its unit, where its alignment is one thing.
  const Eigen::VectorXf ones = Eigen::VectorXf::Ones(37);
  findings.eigen = static_cast<double>((ones + ones).sum());
  findings.level = quern::simd::name(quern::simd::active_level());
  return findings;
}

#endif  // QUERN_TESTS_CONSUMER_HPP
