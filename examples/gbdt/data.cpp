// SPDX-License-Identifier: Apache-2.0

#include "data.hpp"

#include "labels.hpp"
#include "quern/core/file.hpp"
#include "quern/io/csv.hpp"
#include "quern/io/idx.hpp"
#include "quern/io/libsvm.hpp"
#include "quern/io/npy.hpp"

#include <algorithm>
#include <cctype>
#include <limits>
#include <string_view>

namespace gbdt {
namespace {

using namespace quern;  // NOLINT: a program's own file

/// What a reader is told of the model that the data are for; null when training.
struct Target {
  const boosting::Model* model = nullptr;
  const Meaning* meaning = nullptr;
};

/// The first line that is neither empty nor a comment.
std::string_view first_line(std::string_view text) {
  while (!text.empty()) {
    const std::size_t end = (std::min)(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    const std::size_t start = line.find_first_not_of(" \t\r");
    if (start != std::string_view::npos && line[start] != '#') return line.substr(start);
    text.remove_prefix((std::min)(end + 1, text.size()));
  }
  return {};
}

/// True for "label index:value …".
bool looks_like_libsvm(std::string_view text) {
  const std::string_view line = first_line(text);
  const std::size_t blank = line.find_first_of(" \t");
  if (blank == std::string_view::npos) return false;
  std::string_view pair = line.substr(blank);
  pair.remove_prefix((std::min)(pair.find_first_not_of(" \t"), pair.size()));
  if (pair.starts_with("qid:")) return true;
  const std::size_t colon = pair.find(':');
  return colon != std::string_view::npos && colon > 0 &&
         std::all_of(pair.begin(), pair.begin() + static_cast<std::ptrdiff_t>(colon),
                     [](unsigned char c) { return std::isdigit(c) != 0; });
}

/// The format, from the contents: names lie more often.
std::string sniff(std::string_view bytes) {
  if (bytes.starts_with("\x93NUMPY")) return "npy";
  if (bytes.size() >= 4 && bytes[0] == '\0' && bytes[1] == '\0' && bytes[3] >= 1 && bytes[3] <= 4)
    return "idx";
  return looks_like_libsvm(bytes) ? "libsvm" : "csv";
}

/// "train-labels-idx1-ubyte.gz" for "train-images-idx3-ubyte.gz", where that file is there.
std::string labels_beside(const std::string& path) {
  std::string labels = path;
  const std::size_t at = labels.rfind("images-idx3");
  if (at == std::string::npos) return {};
  labels.replace(at, 11, "labels-idx1");
  detail::StdioFile file(labels, "rb");
  return file.get() != nullptr ? labels : std::string();
}

std::vector<float> read_label_file(const std::string& path) {
  const io::Input input = io::Input::file(path, {}, "labels");
  const std::string format = sniff(input.text());
  if (format == "csv") {
    const io::Table<float> table = io::parse_csv(input.text(), {}, path);
    if (table.cols() != 1) throw ShapeError(error_text(path, "labels", "one column", table.cols()));
    return {table.features.data(), table.features.data() + table.rows()};
  }
  const io::DynamicArray<float> array = format == "npy"
                                            ? io::parse_npy<float>(input.text(), {}, path)
                                            : io::parse_idx<float>(input.text(), {}, path);
  if (array.shape.size() != 1)
    throw ShapeError(error_text(path, "labels", "one dimension", array.shape.size()));
  return {array.values.data(), array.values.data() + array.shape[0]};
}

/// Takes one column out as labels.
std::vector<float> split_label(core::Buffer<float>& values, Index rows, Index& cols,
                               const std::string& label, const std::string& path) {
  const io::Column column = io::Column::parse(label);
  const Index at = !column.index ? -1 : *column.index < 0 ? *column.index + cols : *column.index;
  if (at < 0 || at >= cols)
    throw ValueError(error_text(
        path, "--label", "a column 0.." + std::to_string(cols - 1) + " or a label file", label));
  std::vector<float> labels;
  float* to = values.data();
  for (Index r = 0; r < rows; ++r) {
    const float* row = values.data() + r * cols;
    labels.push_back(row[at]);
    for (Index c = 0; c < cols; ++c) {
      if (c != at) *to++ = row[c];
    }
  }
  --cols;
  return labels;
}

/// IDX and NPY: an array whose first extent counts rows.
Data from_array(io::DynamicArray<float> array, const DataSettings& settings, const Target& target) {
  Data data;
  if (array.shape.size() < 2)
    throw ShapeError(error_text(settings.path, "dimensions", "2 or more", array.shape.size()));
  const Index rows = array.shape[0];
  Index cols = 1;
  for (std::size_t r = 1; r < array.shape.size(); ++r) cols *= array.shape[r];
  if (array.shape.size() == 3) {
    data.meaning.image_height = static_cast<std::int32_t>(array.shape[1]);
    data.meaning.image_width = static_cast<std::int32_t>(array.shape[2]);
  }
  std::string labels = settings.labels_path;
  if (labels.empty()) labels = labels_beside(settings.path);
  std::vector<float> y;
  if (!labels.empty()) {
    y = read_label_file(labels);
    if (static_cast<Index>(y.size()) != rows)
      throw ShapeError(error_text(labels, "labels",
                                  std::to_string(rows) + " (the rows of '" + settings.path + "')",
                                  y.size()));
    data.comment = "labels from " + labels;
  } else if (!settings.label.empty() &&
             (target.model == nullptr || cols > target.model->features)) {
    y = split_label(array.values, rows, cols, settings.label, settings.path);
    data.meaning.label = settings.label;
  }
  auto storage = std::make_shared<core::Buffer<float>>(std::move(array.values));
  data.set =
      tree::make_dataset(MatrixView<const float>(storage->data(), {rows, cols}), std::move(y));
  data.storage = std::move(storage);
  return data;
}

Data from_libsvm(std::string_view text, const DataSettings& settings, const Target& target) {
  io::LibsvmOptions options;
  if (target.model != nullptr) {
    options.cols = target.model->features;
    if (target.meaning->index_base == 0) options.index_base = io::IndexBase::zero;
    if (target.meaning->index_base == 1) options.index_base = io::IndexBase::one;
  }
  auto table =
      std::make_shared<io::SparseTable<float>>(io::parse_libsvm(text, options, settings.path));
  Data data;
  data.set = io::dataset(*table);
  data.meaning.index_base = table->index_base;
  data.storage = std::move(table);
  return data;
}

/// The label column of a table when nobody named one: by a usual name, else the last column if it
/// is text (as in UCI's tables), else the first (as LightGBM and XGBoost have it).
std::string guess_label(std::string_view text, const std::string& path) {
  constexpr std::size_t enough = std::size_t{1} << 18;
  if (text.size() > enough) {
    const std::size_t line_end = text.rfind('\n', enough);
    if (line_end != std::string_view::npos) text = text.substr(0, line_end + 1);
  }
  const io::TableSchema schema = io::parse_csv(text, {}, path).schema;
  for (const std::string& name : schema.feature_names) {
    std::string lower = name;
    for (char& c : lower) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    if (lower == "label" || lower == "target" || lower == "class" || lower == "y") return name;
  }
  const bool text_last = !schema.feature_kinds.empty() &&
                         schema.feature_kinds.back() == tree::FeatureKind::categorical;
  return text_last ? "-1" : "0";
}

io::TableSchema schema_of(const Target& target) {
  io::TableSchema schema;
  const auto features = static_cast<std::size_t>(target.model->features);
  schema.feature_names = target.model->feature_names;
  schema.feature_kinds = target.model->feature_kinds;
  schema.feature_kinds.resize(features, tree::FeatureKind::numeric);
  schema.categories = target.model->categories;
  schema.categories.resize(features);
  schema.label_categories = target.meaning->label_texts;
  return schema;
}

Data from_csv(std::string_view text, const DataSettings& settings, const Target& target) {
  Data data;
  io::CsvOptions options;
  io::TableSchema schema;
  std::string label = settings.label;
  if (target.model != nullptr) {
    schema = schema_of(target);
    options.schema = &schema;
    if (label.empty()) label = target.meaning->label;
  } else if (label.empty() && settings.labels_path.empty()) {
    label = guess_label(text, settings.path);
    data.comment = "label: column " + label + " (a guess; --label says otherwise)";
  }
  if (!label.empty()) options.label = io::Column::parse(label);
  if (!settings.weight.empty()) options.weight = io::Column::parse(settings.weight);
  for (const std::string& name : settings.ignore) options.ignore.push_back(io::Column::parse(name));
  auto table = std::make_shared<io::Table<float>>(io::parse_csv(text, options, settings.path));
  data.set = io::dataset(*table);
  if (!settings.labels_path.empty()) data.set.labels = read_label_file(settings.labels_path);
  data.meaning.label = label;
  data.meaning.label_texts = table->schema.label_categories;
  data.unseen_categories = table->unseen_categories;
  data.storage = std::move(table);
  return data;
}

Data read(const DataSettings& settings, const Target& target) {
  const io::Input input = io::Input::file(settings.path, {}, "read");
  const std::string format = settings.format == "auto" ? sniff(input.text()) : settings.format;
  Data data;
  if (format == "npy") {
    data = from_array(io::parse_npy<float>(input.text(), {}, settings.path), settings, target);
  } else if (format == "idx") {
    data = from_array(io::parse_idx<float>(input.text(), {}, settings.path), settings, target);
  } else if (format == "libsvm") {
    data = from_libsvm(input.text(), settings, target);
  } else {
    data = from_csv(input.text(), settings, target);
  }
  data.format = format;
  if (data.rows() == 0) throw ShapeError(settings.path + ": no rows");
  return data;
}

/// Features of some rows.
struct RowTaker {
  const std::vector<std::int64_t>& rows;
  Data& to;

  template <class T>
  void operator()(const MatrixView<const T>& from) const {
    auto copy = std::make_shared<NdArray<T, 2>>(
        Shape<2>{static_cast<Index>(rows.size()), from.cols()}, core::Fill::none);
    Index i = 0;
    for (const std::int64_t row : rows) {
      for (Index c = 0; c < from.cols(); ++c) (*copy)(i, c) = from(row, c);
      ++i;
    }
    to.set.features = MatrixView<const T>(copy->view());
    to.storage = std::move(copy);
  }

  template <class T>
  void operator()(const tree::CsrView<T>& from) const {
    auto copy = std::make_shared<io::SparseTable<T>>();
    for (const std::int64_t row : rows) {
      const auto begin = from.row_offsets[static_cast<std::size_t>(row)];
      const auto end = from.row_offsets[static_cast<std::size_t>(row) + 1];
      copy->columns.insert(copy->columns.end(), from.columns.begin() + begin,
                           from.columns.begin() + end);
      copy->values.insert(copy->values.end(), from.values.begin() + begin,
                          from.values.begin() + end);
      copy->row_offsets.push_back(static_cast<std::int64_t>(copy->values.size()));
    }
    to.set.features = tree::CsrView<T>{copy->row_offsets, copy->columns, copy->values, from.cols};
    to.storage = std::move(copy);
  }
};

/// One row as floats.
struct RowReader {
  std::int64_t row;
  std::vector<float>& to;

  template <class T>
  void operator()(const MatrixView<const T>& from) const {
    for (Index c = 0; c < from.cols(); ++c) to.push_back(static_cast<float>(from(row, c)));
  }
  template <class T>
  void operator()(const tree::CsrView<T>& from) const {
    to.assign(static_cast<std::size_t>(from.cols), (std::numeric_limits<float>::quiet_NaN)());
    const auto end = static_cast<std::size_t>(from.row_offsets[static_cast<std::size_t>(row) + 1]);
    for (auto i = static_cast<std::size_t>(from.row_offsets[static_cast<std::size_t>(row)]);
         i < end; ++i)
      to[static_cast<std::size_t>(from.columns[i])] = static_cast<float>(from.values[i]);
  }
};

}  // namespace

Data read_data(const DataSettings& settings) { return read(settings, {}); }

Data read_data(const DataSettings& settings, const boosting::Model& model, const Meaning& meaning) {
  Data data = read(settings, {&model, &meaning});
  if (data.set.cols() != model.features)
    throw ShapeError(error_text(settings.path, "features",
                                std::to_string(model.features) + ", as the model has",
                                data.set.cols()));
  if (data.has_labels()) encode_labels(data.set.labels, meaning, settings.path);
  data.meaning = meaning;
  return data;
}

Data take_rows(const Data& data, const std::vector<std::int64_t>& rows) {
  Data part;
  part.meaning = data.meaning;
  part.format = data.format;
  part.set.feature_names = data.set.feature_names;
  part.set.feature_kinds = data.set.feature_kinds;
  part.set.categories = data.set.categories;
  std::visit(RowTaker{rows, part}, data.set.features);
  for (const std::int64_t row : rows) {
    const auto r = static_cast<std::size_t>(row);
    if (!data.set.labels.empty()) part.set.labels.push_back(data.set.labels[r]);
    if (!data.set.weights.empty()) part.set.weights.push_back(data.set.weights[r]);
  }
  return part;
}

std::pair<Data, Data> hold_out(const Data& data, double share, std::uint64_t seed) {
  const auto count = static_cast<std::int64_t>(share * static_cast<double>(data.rows()) + 0.5);
  if (count < 1 || count >= data.rows())
    throw ValueError(error_text("--holdout", "rows", "at least one in each part", count));
  Philox rng(seed, "hold out");
  const std::vector<std::int64_t> out = rng.sample(data.rows(), count);
  std::vector<std::int64_t> rest;
  for (std::int64_t row = 0, i = 0; row < data.rows(); ++row) {
    if (i < count && out[static_cast<std::size_t>(i)] == row) {
      ++i;
    } else {
      rest.push_back(row);
    }
  }
  return {take_rows(data, rest), take_rows(data, out)};
}

std::vector<float> row_of(const tree::Dataset& set, std::int64_t row) {
  std::vector<float> values;
  std::visit(RowReader{row, values}, set.features);
  return values;
}

}  // namespace gbdt
