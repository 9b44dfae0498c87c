// SPDX-License-Identifier: Apache-2.0

/// \file
/// What both units of the consumer program do. Everything is static: each unit runs its own copy,
/// built with its own flags, of the same work.

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
  double number = 0;
  double eigen = 0;
  std::string level;
};

static double sum_in_parallel() {
  double parts[8] = {};
  quern::parallel_for(8, [&](std::int64_t block) { parts[block] = static_cast<double>(block); });
  double sum = 0;
  for (double part : parts) sum += part;
  return sum;
}

static Findings find_out() {
  Findings findings;
  findings.number = sum_in_parallel();
  // An owning Eigen object that stays within its unit, where its alignment is one thing.
  Eigen::VectorXf ones = Eigen::VectorXf::Ones(37);
  findings.eigen = static_cast<double>((ones + ones).sum());
  findings.level = quern::simd::name(quern::simd::active_level());
  return findings;
}

#endif  // QUERN_TESTS_CONSUMER_HPP
