// SPDX-License-Identifier: Apache-2.0

/// \file
/// Networks as safetensors: weights and buffers by PyTorch's names and layouts, so that
/// `model.load_state_dict(safetensors.torch.load_file(path))` takes them, and the other way round.

#ifndef QUERN_IO_NETWORK_HPP
#define QUERN_IO_NETWORK_HPP

#include "quern/core/bfloat16.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/io/quote.hpp"
#include "quern/io/safetensors.hpp"
#include "quern/nn/layer.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <set>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace io {
namespace detail {

/// Weights, then buffers.
template <class T>
nn::ParameterList<T> network_tensors(nn::Layer<T>& network) {
  nn::ParameterList<T> all = nn::parameters_of(network);
  network.buffers(all, "");
  return all;
}

/// Adds tensors under prefix + name. `counts` holds whole numbers until the file is written.
template <class T>
void add_tensors(SafetensorsWriter& writer, const nn::ParameterList<T>& list,
                 const std::string& prefix, std::deque<std::vector<std::int64_t>>& counts) {
  for (const nn::Parameter<T>& p : list) {
    if (p.integer) {
      auto& whole = counts.emplace_back();
      for (const T value : p.values) whole.push_back(static_cast<std::int64_t>(value));
      writer.add(prefix + p.name, SafetensorType::i64, p.values.shape(),
                 std::as_bytes(std::span<const std::int64_t>(whole)));
    } else {
      writer.add(prefix + p.name, safetensor_type_of<T>(), p.values.shape(),
                 std::as_bytes(std::span<const T>(p.values.span())));
    }
  }
}

/// One of the file's tensors, checked against what the network has. ParseError where it is another.
template <class T>
const Safetensor& matching_tensor(const Safetensors& file, const nn::Parameter<T>& p,
                                  const std::string& prefix, const char* function) {
  const std::string name = prefix + p.name;
  if (!file.has(name)) {
    throw ParseError(error_text(function, "tensor " + quote_text(name),
                                nn::shape_text(p.values.extents()) + ", as the network has it",
                                "none of that name: a checkpoint of another model"));
  }
  const Safetensor& t = file.tensor(name);
  if (!std::equal(t.shape.begin(), t.shape.end(), p.values.extents().begin(),
                  p.values.extents().end())) {
    throw ParseError(error_text(function, "tensor " + quote_text(name),
                                nn::shape_text(p.values.extents()) + ", as the network has it",
                                nn::shape_text(t.shape) + ": a checkpoint of another model"));
  }
  const bool real = t.type == SafetensorType::f32 || t.type == SafetensorType::f64 ||
                    t.type == SafetensorType::bf16;
  if (p.integer ? t.type != SafetensorType::i64 : !real) {
    throw ParseError(error_text(function, "tensor " + quote_text(name),
                                p.integer ? "I64" : "F32, F64 or BF16", io::name(t.type)));
  }
  return t;
}

template <class From, class T>
void convert_tensor(const Safetensor& t, const nn::TensorView<T>& to) {
  for (Index i = 0; i < to.size(); ++i) {
    From value{};
    std::memcpy(&value, t.bytes.data() + static_cast<std::size_t>(i) * sizeof(From), sizeof(From));
    if constexpr (std::is_same_v<From, BFloat16>) {
      to[i] = static_cast<T>(static_cast<float>(value));
    } else {
      to[i] = static_cast<T>(value);
    }
  }
}

template <class T>
void copy_tensor(const Safetensor& t, const nn::TensorView<T>& to) {
  if (t.type == SafetensorType::f32) convert_tensor<float>(t, to);
  if (t.type == SafetensorType::f64) convert_tensor<double>(t, to);
  if (t.type == SafetensorType::bf16) convert_tensor<BFloat16>(t, to);
  if (t.type == SafetensorType::i64) convert_tensor<std::int64_t>(t, to);
}

/// The file's tensors of this prefix are just these, in these shapes. ParseError otherwise.
template <class T>
std::vector<const Safetensor*> check_tensors(const Safetensors& file,
                                             const nn::ParameterList<T>& list,
                                             const std::string& prefix, const char* function) {
  std::vector<const Safetensor*> found;
  std::set<std::string> names;
  for (const nn::Parameter<T>& p : list) {
    found.push_back(&matching_tensor(file, p, prefix, function));
    names.insert(prefix + p.name);
  }
  for (const Safetensor& t : file.tensors()) {
    if (t.name.compare(0, prefix.size(), prefix) != 0 || names.count(t.name) > 0) continue;
    throw ParseError(error_text(function, "tensor " + quote_text(t.name),
                                "one that the network has", "a checkpoint of another model"));
  }
  return found;
}

/// All or nothing: every tensor is checked before the first is written.
template <class T>
void load_tensors(const Safetensors& file, const nn::ParameterList<T>& list,
                  const std::string& prefix, const char* function) {
  const auto found = check_tensors(file, list, prefix, function);
  for (std::size_t k = 0; k < list.size(); ++k) copy_tensor(*found[k], list[k].values);
}

}  // namespace detail

/// Writes weights and buffers. The file is replaced only when all of it is on the disk.
template <class T>
void save_network(const std::string& path, nn::Layer<T>& network) {
  SafetensorsWriter writer;
  std::deque<std::vector<std::int64_t>> counts;
  detail::add_tensors(writer, detail::network_tensors(network), "", counts);
  writer.set_metadata("format", "pt");
  writer.write(path);
}

/// From a file that is in memory.
template <class T>
void load_network(const Safetensors& file, nn::Layer<T>& network) {
  detail::load_tensors(file, detail::network_tensors(network), "", "quern::io::load_network");
}
/// Reads them, also from floats into doubles and back. ParseError, and nothing changes, unless the
/// file holds exactly the network's tensors in its shapes.
template <class T>
void load_network(const std::string& path, nn::Layer<T>& network) {
  load_network(Safetensors::read(path), network);
}

}  // namespace io
QUERN_NAMESPACE_END

#endif  // QUERN_IO_NETWORK_HPP
