// SPDX-License-Identifier: Apache-2.0

/// \file
/// Models in quern's own archive: every bit comes back.

#ifndef QUERN_BOOSTING_MODEL_IO_HPP
#define QUERN_BOOSTING_MODEL_IO_HPP

#include "quern/boosting/model.hpp"
#include "quern/boosting/objective_params.hpp"
#include "quern/core/archive.hpp"
#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace boosting {

inline constexpr const char* model_archive_kind = "boosting.model";
/// Version 2 adds linear models, linear leaves and rules of missing values; a model that has none
/// of them is written as version 1.
inline constexpr std::uint32_t model_archive_version = 2;

namespace detail {

/// each(name, stored, member): the members of nodes, and the type that an archive has them in.
template <class Each>
void each_node_member(const Each& each) {
  using tree::Node;
  each("left", std::int32_t{}, &Node::left);
  each("right", std::int32_t{}, &Node::right);
  each("parent", std::int32_t{}, &Node::parent);
  each("feature", std::int32_t{}, &Node::feature);
  each("threshold", double{}, &Node::threshold);
  each("value", double{}, &Node::value);
  each("gain", double{}, &Node::gain);
  each("cover", double{}, &Node::cover);
  each("default_left", std::uint8_t{}, &Node::default_left);
  each("kind", std::uint8_t{}, &Node::kind);
  each("missing", std::uint8_t{}, &Node::missing);
  each("category_begin", std::uint32_t{}, &Node::category_begin);
  each("category_count", std::uint32_t{}, &Node::category_count);
}

/// One member of every node of every tree, in order.
template <class T, class Member>
void write_nodes(ArchiveWriter& out, const char* name, const Model& model, Member tree::Node::*m) {
  std::vector<T> values;
  for (const tree::Tree& tree : model.trees) {
    for (const tree::Node& n : tree.nodes) values.push_back(static_cast<T>(n.*m));
  }
  out.array<T>(name, values);
}

template <class T, class Member>
void read_nodes(const ArchiveReader& in, const char* name, Model& model, std::size_t total,
                Member tree::Node::*m) {
  const std::vector<T> values = in.array<T>(name, total);
  std::size_t i = 0;
  for (tree::Tree& tree : model.trees) {
    for (tree::Node& n : tree.nodes) n.*m = static_cast<Member>(values[i++]);
  }
}

/// One vector of every tree, which of(tree) returns: its length in `<name>_sizes`, and all of them
/// in `<name>`.
template <class Of>
void write_lists(ArchiveWriter& out, const std::string& name, const Model& model, const Of& of) {
  std::vector<std::uint64_t> sizes;
  typename std::remove_cvref_t<std::invoke_result_t<const Of&, const tree::Tree&>> all;
  for (const tree::Tree& tree : model.trees) {
    const auto& list = of(tree);
    sizes.push_back(list.size());
    all.insert(all.end(), list.begin(), list.end());
  }
  out.array<std::uint64_t>(name + "_sizes", sizes);
  out.array(name, all);
}

/// ParseError unless the lengths add up to exactly what is there.
inline void expect_sum(const ArchiveReader& in, const std::string& name,
                       const std::vector<std::uint64_t>& sizes, std::uint64_t total) {
  std::uint64_t left = total;
  for (std::uint64_t size : sizes) {
    if (size > left) in.fail_section(name, "lengths up to the end", std::to_string(size));
    left -= size;
  }
  if (left != 0) in.fail_section(name, "lengths that add up", std::to_string(left) + " too few");
}

template <class Of>
void read_lists(const ArchiveReader& in, const std::string& name, Model& model, const Of& of) {
  using List = std::remove_cvref_t<std::invoke_result_t<const Of&, tree::Tree&>>;
  const auto sizes = in.array<std::uint64_t>(name + "_sizes", model.trees.size());
  const List all = in.array<typename List::value_type>(name);
  expect_sum(in, name + "_sizes", sizes, all.size());
  auto at = all.begin();
  for (std::size_t t = 0; t < model.trees.size(); ++t) {
    const auto end = at + static_cast<std::ptrdiff_t>(sizes[t]);
    of(model.trees[t]).assign(at, end);
    at = end;
  }
}

/// each(name, of): the vectors that every tree has.
template <class Each>
void each_list(const Each& each) {
  each("category_words", [](auto& t) -> decltype(auto) { return (t.category_words); });
  each("vector_values", [](auto& t) -> decltype(auto) { return (t.vector_values); });
}
/// The same for those of linear leaves.
template <class Each>
void each_linear_list(const Each& each) {
  each("linear_offsets", [](auto& t) -> decltype(auto) { return (t.linear.offsets); });
  each("linear_features", [](auto& t) -> decltype(auto) { return (t.linear.features); });
  each("linear_coefficients", [](auto& t) -> decltype(auto) { return (t.linear.coefficients); });
  each("linear_constants", [](auto& t) -> decltype(auto) { return (t.linear.constants); });
}

inline void write_trees(ArchiveWriter& out, const Model& model) {
  std::vector<std::uint64_t> sizes;
  std::vector<std::int32_t> outputs;
  std::vector<std::uint8_t> symmetric;
  for (const tree::Tree& tree : model.trees) {
    sizes.push_back(tree.nodes.size());
    outputs.push_back(tree.outputs);
    symmetric.push_back(tree.symmetric ? 1 : 0);
  }
  out.array<std::uint64_t>("node_sizes", sizes);
  out.array<std::int32_t>("leaf_outputs", outputs);
  out.array<std::uint8_t>("symmetric", symmetric);
  each_node_member([&](const char* name, auto stored, auto member) {
    write_nodes<decltype(stored)>(out, name, model, member);
  });
  each_list([&](const char* name, const auto& of) { write_lists(out, name, model, of); });
}

[[nodiscard]] inline bool has_linear_leaves(const Model& model) {
  return std::any_of(model.trees.begin(), model.trees.end(),
                     [](const tree::Tree& tree) { return !tree.linear.empty(); });
}

/// The first version that can hold the model.
[[nodiscard]] inline std::uint32_t archive_version_of(const Model& model) {
  const auto new_missing = [](const tree::Node& n) { return n.missing != tree::Node().missing; };
  const bool rules = std::any_of(model.trees.begin(), model.trees.end(), [&](const auto& tree) {
    return std::any_of(tree.nodes.begin(), tree.nodes.end(), new_missing);
  });
  return model.is_linear() || has_linear_leaves(model) || rules ? 2 : 1;
}

inline void write_linear_leaves(ArchiveWriter& out, const Model& model) {
  if (!has_linear_leaves(model)) return;
  each_linear_list([&](const char* name, const auto& of) { write_lists(out, name, model, of); });
}

inline void read_linear_leaves(const ArchiveReader& in, Model& model) {
  if (!in.has("linear_offsets")) return;
  each_linear_list([&](const char* name, const auto& of) { read_lists(in, name, model, of); });
}

inline void expect_bytes_below(const ArchiveReader& in, const char* name, unsigned limit) {
  for (std::uint8_t b : in.array<std::uint8_t>(name)) {
    if (b >= limit)
      in.fail_section(name, "values below " + std::to_string(limit), std::to_string(b));
  }
}

/// Absent from archives older than symmetric trees.
inline void read_symmetric(const ArchiveReader& in, Model& model) {
  if (!in.has("symmetric")) return;
  expect_bytes_below(in, "symmetric", 2);
  const auto flags = in.array<std::uint8_t>("symmetric", model.trees.size());
  for (std::size_t t = 0; t < flags.size(); ++t) model.trees[t].symmetric = flags[t] != 0;
}

inline void read_trees(const ArchiveReader& in, Model& model) {
  const auto sizes = in.array<std::uint64_t>("node_sizes");
  const auto outputs = in.array<std::int32_t>("leaf_outputs", sizes.size());
  const std::size_t total = in.count("left");
  expect_sum(in, "node_sizes", sizes, total);
  expect_bytes_below(in, "default_left", 2);
  expect_bytes_below(in, "kind", 2);
  if (in.has("missing")) expect_bytes_below(in, "missing", 3);
  model.trees.resize(sizes.size());
  for (std::size_t t = 0; t < sizes.size(); ++t) {
    if (sizes[t] > static_cast<std::uint64_t>((std::numeric_limits<std::int32_t>::max)()))
      in.fail_section("node_sizes", "at most 2^31 - 1 nodes a tree", std::to_string(sizes[t]));
    model.trees[t].nodes.resize(static_cast<std::size_t>(sizes[t]));
    model.trees[t].outputs = outputs[t];
  }
  read_symmetric(in, model);
  each_node_member([&](const char* name, auto stored, auto member) {
    if (name != std::string_view("missing") || in.has(name))  // older archives have none
      read_nodes<decltype(stored)>(in, name, model, total, member);
  });
  each_list([&](const char* name, const auto& of) { read_lists(in, name, model, of); });
}

inline void write_features(ArchiveWriter& out, const Model& model) {
  out.texts("feature_names", model.feature_names);
  std::vector<std::uint8_t> kinds;
  for (tree::FeatureKind kind : model.feature_kinds)
    kinds.push_back(static_cast<std::uint8_t>(kind));
  out.array<std::uint8_t>("feature_kinds", kinds);
  std::vector<std::uint64_t> sizes;
  std::vector<std::string> all;
  for (const std::vector<std::string>& texts : model.categories) {
    sizes.push_back(texts.size());
    all.insert(all.end(), texts.begin(), texts.end());
  }
  out.array<std::uint64_t>("category_sizes", sizes);
  out.texts("categories", all);
}

inline void read_features(const ArchiveReader& in, Model& model) {
  model.feature_names = in.texts("feature_names");
  expect_bytes_below(in, "feature_kinds", 2);
  for (std::uint8_t kind : in.array<std::uint8_t>("feature_kinds")) {
    model.feature_kinds.push_back(static_cast<tree::FeatureKind>(kind));
  }
  const auto sizes = in.array<std::uint64_t>("category_sizes");
  const std::vector<std::string> all = in.texts("categories");
  expect_sum(in, "category_sizes", sizes, all.size());
  auto at = all.begin();
  for (std::uint64_t size : sizes) {
    const auto end = at + static_cast<std::ptrdiff_t>(size);
    model.categories.emplace_back(at, end);
    at = end;
  }
}

/// Parameters of the objective, where a model needs them to be judged or trained further.
inline void write_objective(ArchiveWriter& out, const Model& model) {
  out.text("objective", model.objective);
  const ObjectiveParams &p = model.objective_params, usual;
  if (!p.quantile_alpha.empty()) out.array<double>("quantile_alpha", p.quantile_alpha);
  const std::vector<double> numbers = {p.huber_slope, p.tweedie_variance_power,
                                       p.poisson_max_delta_step, p.aft_loss_distribution_scale,
                                       static_cast<double>(p.aft_loss_distribution)};
  const std::vector<double> defaults = {
      usual.huber_slope, usual.tweedie_variance_power, usual.poisson_max_delta_step,
      usual.aft_loss_distribution_scale, static_cast<double>(usual.aft_loss_distribution)};
  if (numbers != defaults) out.array<double>("objective_numbers", numbers);
}

inline void read_objective(const ArchiveReader& in, Model& model) {
  model.objective = in.text("objective");
  ObjectiveParams& p = model.objective_params;
  if (in.has("quantile_alpha")) p.quantile_alpha = in.array<double>("quantile_alpha");
  if (!in.has("objective_numbers")) return;
  const std::vector<double> numbers = in.array<double>("objective_numbers", 5);
  for (const double v : numbers)
    if (!is_finite_bits(v))
      in.fail_section("objective_numbers", "finite numbers", std::to_string(v));
  p.huber_slope = numbers[0];
  p.tweedie_variance_power = numbers[1];
  p.poisson_max_delta_step = numbers[2];
  p.aft_loss_distribution_scale = numbers[3];
  p.aft_loss_distribution = numbers[4] == 1   ? AftDistribution::logistic
                            : numbers[4] == 2 ? AftDistribution::extreme
                                              : AftDistribution::normal;
}

}  // namespace detail

/// Adds a model's sections to an archive.
inline void write_model(ArchiveWriter& out, const Model& model) {
  detail::write_objective(out, model);
  out.scalar<std::int32_t>("outputs", model.outputs);
  out.array<double>("base_margin", model.base_margin);
  out.array<std::int32_t>("tree_outputs", model.tree_outputs);
  out.array<double>("tree_weights", model.tree_weights);
  out.scalar<std::int32_t>("parallel_trees", model.parallel_trees);
  out.scalar<std::int64_t>("best_round", model.best_round);
  out.scalar<std::int64_t>("features", model.features);
  out.scalar<std::uint8_t>("input_type", static_cast<std::uint8_t>(model.input_type));
  detail::write_features(out, model);
  detail::write_trees(out, model);
  detail::write_linear_leaves(out, model);
  if (model.is_linear()) out.array<double>("linear_weights", model.linear_weights);
}

/// A model from an archive's sections; ParseError where they do not make one.
[[nodiscard]] inline Model read_model(const ArchiveReader& in, const std::string& source) {
  Model model;
  detail::read_objective(in, model);
  model.outputs = in.scalar<std::int32_t>("outputs");
  model.base_margin = in.array<double>("base_margin");
  model.tree_outputs = in.array<std::int32_t>("tree_outputs");
  model.tree_weights = in.array<double>("tree_weights");
  model.parallel_trees = in.scalar<std::int32_t>("parallel_trees");
  model.best_round = in.scalar<std::int64_t>("best_round");
  model.features = in.scalar<std::int64_t>("features");
  detail::expect_bytes_below(in, "input_type", 2);
  model.input_type = static_cast<InputType>(in.scalar<std::uint8_t>("input_type"));
  detail::read_features(in, model);
  detail::read_trees(in, model);
  detail::read_linear_leaves(in, model);
  if (in.has("linear_weights")) model.linear_weights = in.array<double>("linear_weights");
  model.check(source);
  return model;
}

/// The model as the bytes of an archive.
[[nodiscard]] inline std::vector<std::byte> model_to_bytes(const Model& model) {
  ArchiveWriter out(model_archive_kind, detail::archive_version_of(model));
  write_model(out, model);
  return out.bytes();
}

/// ParseError, naming \p source and the byte, unless these are the bytes of a whole, sound model.
[[nodiscard]] inline Model model_from_bytes(std::span<const std::byte> bytes,
                                            const std::string& source = "archive") {
  const ArchiveReader in(bytes, source);
  in.expect(model_archive_kind, model_archive_version);
  return read_model(in, source);
}

/// Saves in quern's own format. An existing file is replaced only by a complete one; IoError.
inline void save_model(const Model& model, const std::string& path) {
  ArchiveWriter out(model_archive_kind, detail::archive_version_of(model));
  write_model(out, model);
  out.save(path);
}

/// Loads what save_model() wrote, to the bit. IoError when it cannot be read, ParseError else.
[[nodiscard]] inline Model load_model(const std::string& path) {
  const ArchiveReader in = ArchiveReader::load(path);
  in.expect(model_archive_kind, model_archive_version);
  return read_model(in, path);
}

}  // namespace boosting
QUERN_NAMESPACE_END

#endif  // QUERN_BOOSTING_MODEL_IO_HPP
