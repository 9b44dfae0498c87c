// SPDX-License-Identifier: Apache-2.0

#include "data.hpp"

#include "quern/core/checks.hpp"
#include "quern/core/error.hpp"
#include "quern/core/random.hpp"
#include "quern/io/csv.hpp"
#include "quern/io/idx.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numeric>

namespace ensembles {
namespace {

using quern::Index;
using quern::NdArray;

Rows read_pictures(const std::string& folder, const std::string& which, std::int64_t rows) {
  const auto pixels = quern::io::read_idx<float, 3>(folder + "/" + which + "-images-idx3-ubyte.gz");
  const auto labels =
      quern::io::read_idx<std::uint8_t, 1>(folder + "/" + which + "-labels-idx1-ubyte.gz");
  if (labels.extent(0) != pixels.extent(0))
    throw quern::ShapeError(folder + ": as many labels as pictures are expected");
  rows = (std::min)(rows, pixels.extent(0));
  Rows out{NdArray<float, 2>({rows, pixels.extent(1) * pixels.extent(2)}), {}};
  for (Index i = 0; i < out.x.size(); ++i) out.x.data()[i] = pixels.data()[i] / 255;
  out.y.assign(labels.data(), labels.data() + rows);
  return out;
}

/// One column for each text, numbers in units of their deviation.
NdArray<float, 2> encode(const quern::io::Table<float>& table) {
  std::vector<Index> width;
  for (Index c = 0; c < table.cols(); ++c) {
    const auto& texts = table.schema.categories;
    const auto column = static_cast<std::size_t>(c);
    width.push_back(
        texts.empty() || texts[column].empty() ? 0 : static_cast<Index>(texts[column].size()));
  }
  Index cols = 0;
  for (const Index w : width) cols += (std::max)(w, Index{1});
  NdArray<float, 2> out({table.rows(), cols});
  Index at = 0;
  for (Index c = 0; c < table.cols(); ++c) {
    const Index w = width[static_cast<std::size_t>(c)];
    double mean = 0, squares = 0;
    for (Index i = 0; i < table.rows(); ++i) {
      const float v = table.features(i, c);
      if (quern::is_nan_bits(v)) continue;
      if (w > 0) out(i, at + static_cast<Index>(v)) = 1;
      mean += static_cast<double>(v) / static_cast<double>(table.rows());
      squares +=
          static_cast<double>(v) * static_cast<double>(v) / static_cast<double>(table.rows());
    }
    const double deviation = std::sqrt((std::max)(squares - mean * mean, 1e-12));
    for (Index i = 0; i < table.rows() && w == 0; ++i)
      out(i, at) =
          static_cast<float>((static_cast<double>(table.features(i, c)) - mean) / deviation);
    at += (std::max)(w, Index{1});
  }
  return out;
}

Rows take(const NdArray<float, 2>& x, const std::vector<float>& y,
          const std::vector<std::int32_t>& order, std::size_t begin, std::size_t end) {
  Rows out{NdArray<float, 2>({static_cast<Index>(end - begin), x.extent(1)}), {}};
  for (std::size_t i = begin; i < end; ++i) {
    const Index row = order[i];
    std::copy_n(x.data() + row * x.extent(1), x.extent(1),
                out.x.data() + static_cast<Index>(i - begin) * x.extent(1));
    out.y.push_back(y[static_cast<std::size_t>(row)] > 0.5f ? 1 : 0);
  }
  return out;
}

}  // namespace

DataSet read_fashion_mnist(const std::string& folder, std::int64_t rows) {
  return {"Fashion-MNIST", 10, read_pictures(folder, "train", rows),
          read_pictures(folder, "t10k", 10000)};
}

DataSet read_adult(const std::string& path, std::int64_t rows) {
  quern::io::CsvOptions options;
  options.delimiter = ',';
  options.header = quern::io::CsvHeader::absent;
  options.label = quern::io::Column(-1);
  const auto table = quern::io::read_csv<float>(path, options);
  const NdArray<float, 2> x = encode(table);
  std::vector<std::int32_t> order(table.labels.size());
  std::iota(order.begin(), order.end(), 0);
  quern::Philox(1, "adult").shuffle(order);
  const std::size_t cut =
      (std::min)(static_cast<std::size_t>(rows), order.size() - order.size() / 4);
  return {"adult", 2, take(x, table.labels, order, 0, cut),
          take(x, table.labels, order, cut, order.size())};
}

}  // namespace ensembles
