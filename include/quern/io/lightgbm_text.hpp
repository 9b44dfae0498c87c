// SPDX-License-Identifier: Apache-2.0

/// \file
/// LightGBM's text models, both ways: numeric and categorical splits, its rules for missing values,
/// linear leaves, several classes, forests (average_output).
///
/// LightGBM compares and adds in double, and tests x <= t: thresholds come over as the next double,
/// so margins agree to the last bits. Cover is its count of rows, as its Shapley values weigh by
/// it. A forest's margin is the mean of its trees, what LightGBM's objective sees (its raw score is
/// the sum).

#ifndef QUERN_IO_LIGHTGBM_TEXT_HPP
#define QUERN_IO_LIGHTGBM_TEXT_HPP

#include "quern/boosting/model.hpp"
#include "quern/core/config.hpp"
#include "quern/core/file.hpp"
#include "quern/io/lightgbm_reader.hpp"
#include "quern/io/lightgbm_writer.hpp"

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace io {

/// Reads a model from the text of a LightGBM file (versions v2 to v4). ParseError, naming
/// \p source, the line, the tree and the key, for anything that is not such a model. Memory stays
/// within a fixed multiple of the text's size.
[[nodiscard]] inline boosting::Model lightgbm_from_text(std::string_view text,
                                                        const std::string& source = "model") {
  return detail::LightgbmReader(text, source).read();
}

/// Reads a LightGBM text file. IoError when it cannot be read, ParseError for its content.
[[nodiscard]] inline boosting::Model load_lightgbm_text(const std::string& path) {
  const std::vector<std::byte> bytes = read_file(path);
  return lightgbm_from_text({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, path);
}

/// The model as LightGBM's text (v4): its raw scores are the model's margins, with base margins and
/// tree weights put into the leaves, of the rounds that predictions use. ParseError for a model
/// that fails Model::check, ValueError for one that the format cannot hold (vector leaves, linear
/// models, many nested categorical splits that send missing values right).
[[nodiscard]] inline std::string lightgbm_text(const boosting::Model& model) {
  return detail::LightgbmWriter(model, "quern::io::lightgbm_text").write();
}

/// Saves as LightGBM's text; an existing file is replaced only by a complete one. IoError.
inline void save_lightgbm_text(const boosting::Model& model, const std::string& path) {
  const std::string text = lightgbm_text(model);
  write_file_atomically(path, std::as_bytes(std::span<const char>(text.data(), text.size())));
}

/// LightGBM's number of each node's leaf, as its pred_leaf shows; -1 where the node is not one.
/// (nodes). For models that were read, and for those that were written, unless a categorical split
/// sends missing values right.
[[nodiscard]] inline std::vector<std::int32_t> lightgbm_leaf_numbers(const tree::Tree& tree) {
  std::vector<std::int32_t> numbers(tree.nodes.size(), -1);
  std::int32_t next = 0;
  for (std::int32_t i = 0; i < tree.size(); ++i) {
    if (tree.in_use(i) && tree.node(i).is_leaf()) numbers[static_cast<std::size_t>(i)] = next++;
  }
  return numbers;
}

}  // namespace io
QUERN_NAMESPACE_END

#endif  // QUERN_IO_LIGHTGBM_TEXT_HPP
