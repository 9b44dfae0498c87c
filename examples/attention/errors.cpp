// SPDX-License-Identifier: Apache-2.0

#include "errors.hpp"

#include "quern/attention/performer.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/random.hpp"

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace errors {
namespace {

using quern::Index;
namespace attention = quern::attention;
using attention::PerformerKernel;

constexpr Index tokens = 256;
constexpr int draws = 4;

quern::NdArray<float, 2> normal(Index dim, double spread, const char* name) {
  quern::NdArray<float, 2> x({tokens, dim});
  quern::Philox random(1, name);
  for (float& v : std::span(x.data(), static_cast<std::size_t>(x.size())))
    v = static_cast<float>(spread * random.normal());
  return x;
}

/// Root mean square over draws of the directions; without directions (0) there is one.
double error_of(PerformerKernel kernel, Index directions, Index dim, double spread) {
  const auto q = normal(dim, spread, "queries"), k = normal(dim, spread, "keys");
  double squares = 0;
  const int count = directions > 0 ? draws : 1;
  for (int draw = 0; draw < count; ++draw) {
    const auto seed = static_cast<std::uint64_t>(draw);
    auto w = directions > 0 ? attention::performer_projection<float>(directions, dim, seed)
                            : quern::NdArray<float, 2>{};
    const attention::PerformerFeatures<float> map(std::move(w), {.kernel = kernel});
    const double e = attention::performer_error<float>(q.view(), k.view(), map).relative;
    squares += e * e;
  }
  return std::sqrt(squares / count);
}

}  // namespace

page::Section performer(Index dim) {
  page::Section s;
  s.title = "How near Performer's features come to softmax";
  s.text =
      "|weights - softmax's weights| / |softmax's weights| for 256 normal queries and keys of " +
      std::to_string(dim) +
      " numbers, by their standard deviation. Above 0.5 it is another attention, which may still "
      "learn: examples/language_model compares bits per byte.";
  const std::vector<double> spreads = {0.125, 0.25, 0.5, 1};
  s.table.head = {"feature", "directions"};
  for (const double spread : spreads) s.table.head.push_back(page::number(spread));
  page::Chart chart{.title = "Error of the weights",
                    .x_name = "standard deviation of queries and keys",
                    .y_name = "relative error",
                    .log_x = true,
                    .log_y = true,
                    .levels = {{"useless above", 0.5}}};
  const std::vector<std::pair<const char*, PerformerKernel>> kernels = {
      {"exp", PerformerKernel::exp},
      {"elu + 1", PerformerKernel::elu1},
      {"ReLU", PerformerKernel::relu}};
  for (const auto& [name, kernel] : kernels) {
    for (const Index directions : {Index{0}, Index{64}, Index{266}, Index{2048}}) {
      const std::string many = directions > 0 ? std::to_string(directions) : "none";
      std::vector<std::string> row = {name, many};
      page::Series series{std::string(name) + ", " + many, {}, {}};
      for (const double spread : spreads) {
        const double e = error_of(kernel, directions, dim, spread);
        row.push_back(page::number(e, "%.3f"));
        series.x.push_back(spread);
        series.y.push_back(e);
      }
      s.table.rows.push_back(row);
      if (kernel == PerformerKernel::exp || directions == 266) chart.series.push_back(series);
    }
  }
  s.charts.push_back(chart);
  return s;
}

}  // namespace errors
