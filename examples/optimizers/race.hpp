// SPDX-License-Identifier: Apache-2.0

/// \file
/// What the example compares, and what it found.

#ifndef QUERN_EXAMPLES_OPTIMIZERS_RACE_HPP
#define QUERN_EXAMPLES_OPTIMIZERS_RACE_HPP

#include "../common/page.hpp"

#include "quern/core/nd_array.hpp"
#include "quern/optim/optimizer_base.hpp"

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace optimizers {

/// A curve: one point an epoch, or a point of a path.
using Curve = page::Series;

/// Pictures as rows of 784 numbers in 0..1, labels 0..9.
struct Pictures {
  quern::NdArray<float, 2> rows;
  std::vector<std::int64_t> labels;
};
struct Data {
  Pictures train, test;
};
[[nodiscard]] Data load_fashion_mnist(const std::string& folder, quern::Index limit);

/// Makes an optimiser for these tensors.
template <class T>
using Maker = std::function<std::unique_ptr<quern::optim::OptimizerBase<T>>(
    std::vector<quern::optim::Parameter<T>>)>;

/// A surface over the plane, and the ways that methods took on it.
struct Surface {
  std::string name, picture;  ///< of the surface, a PNG as a data URI
  double left = 0, right = 0, bottom = 0, top = 0;
  std::vector<Curve> paths;
};
[[nodiscard]] std::vector<Surface> walk_surfaces(int steps);

/// How one optimiser trained the network.
struct Training {
  std::string name;
  Curve loss;                ///< on the training set, by epoch
  std::vector<double> test;  ///< accuracy by epoch
  double weight_norm = 0;    ///< of all weights at the end
  double seconds = 0;        ///< in the optimiser's steps
};
struct NetworkOptions {
  int epochs = 5;
  quern::Index hidden = 128;
  quern::Index batch = 128;
  std::uint64_t seed = 1;
};
[[nodiscard]] Training train_network(const Data& data, const std::string& name,
                                     const Maker<float>& make, const NetworkOptions& options);

/// Logistic regression of two classes; loss by passes over the data.
[[nodiscard]] std::vector<Curve> race_logistic(const Data& data, int epochs);

struct Findings {
  std::vector<Surface> surfaces;
  std::vector<Curve> logistic;
  std::vector<Training> race, decay, apart;
};
[[nodiscard]] std::string html(const Findings& findings);

}  // namespace optimizers

#endif  // QUERN_EXAMPLES_OPTIMIZERS_RACE_HPP
