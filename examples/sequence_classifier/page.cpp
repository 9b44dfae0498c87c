// SPDX-License-Identifier: Apache-2.0
//
// The page: one table, and how each mixer learnt.

#include "../common/page.hpp"
#include "classifier.hpp"

namespace classifier {

std::string page(const std::vector<Outcome>& outcomes, const ModelOptions& model,
                 const TrainOptions& options) {
  ::page::Section table;
  table.title = "Pictures read pixel by pixel";
  table.text = "Fashion-MNIST as sequences of 784 numbers; " + std::to_string(model.layers) +
               " blocks of " + std::to_string(model.dim) + " channels, " +
               std::to_string(options.epochs) + " epochs, the same surroundings for every mixer.";
  table.table.head = {"mixer", "weights", "test accuracy", "training, s", "test, ms a picture"};
  ::page::Chart accuracy{.title = "Test accuracy", .x_name = "epoch", .y_name = "share right"};
  ::page::Chart loss{.title = "Training loss", .x_name = "epoch", .y_name = "cross-entropy"};
  for (const Outcome& o : outcomes) {
    const double each = o.test_seconds / static_cast<double>((std::max)(Index{1}, o.test_pictures));
    table.table.rows.push_back({o.mixer, std::to_string(o.weights),
                                o.accuracy.empty() ? "" : ::page::number(o.accuracy.back(), "%.4f"),
                                ::page::number(o.train_seconds, "%.0f"),
                                ::page::number(1e3 * each, "%.2f")});
    ::page::Series a{o.mixer, {}, o.accuracy}, l{o.mixer, {}, o.loss};
    for (std::size_t k = 0; k < o.accuracy.size(); ++k) {
      a.x.push_back(static_cast<double>(k + 1));
      l.x.push_back(static_cast<double>(k + 1));
    }
    accuracy.series.push_back(a);
    loss.series.push_back(l);
  }
  table.charts = {accuracy, loss};
  return ::page::html("Sequence classifier", {table});
}

}  // namespace classifier
