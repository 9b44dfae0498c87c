// SPDX-License-Identifier: Apache-2.0

/// \file
/// Kinds of attention, each as a forward and a forward-and-backward call at a given length.

#ifndef QUERN_EXAMPLES_ATTENTION_KINDS_HPP
#define QUERN_EXAMPLES_ATTENTION_KINDS_HPP

#include "quern/core/nd_view.hpp"

#include <functional>
#include <string>
#include <vector>

namespace kinds {

using quern::Index;

/// Sizes of a call.
struct Sizes {
  Index length = 1024;
  Index heads = 4;
  Index dim = 64;  ///< of a head
  Index window = 128;
};

/// Arrays are made once; then each call runs on them.
struct Job {
  std::function<void()> forward;
  std::function<void()> both;  ///< forward and backward
};

struct Kind {
  std::string name;
  bool quadratic = false;  ///< left out where the length is beyond what the user gives it
  std::function<Job(const Sizes&)> make;
};

const std::vector<Kind>& all();

}  // namespace kinds

#endif  // QUERN_EXAMPLES_ATTENTION_KINDS_HPP
