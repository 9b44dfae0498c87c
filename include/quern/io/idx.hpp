// SPDX-License-Identifier: Apache-2.0

/// \file
/// IDX, the format of MNIST and its kin (also gzip): two zero bytes, a type, a rank, big-endian
/// extents, big-endian elements. http://yann.lecun.com/exdb/mnist/

#ifndef QUERN_IO_IDX_HPP
#define QUERN_IO_IDX_HPP

#include "quern/core/config.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/io/elements.hpp"
#include "quern/io/gzip.hpp"
#include "quern/io/input.hpp"

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

QUERN_NAMESPACE_BEGIN
namespace io {

/// How read_idx reads.
struct IdxOptions {
  /// Refuse a file whose element type is not T; otherwise elements are converted: to integers
  /// exactly or not at all, to floating point rounded, never from finite to infinite.
  bool exact_type = false;
  Limits limits{};
};

namespace detail {

/// Ranks above 4 are not in use and would only help hostile headers.
inline constexpr std::size_t idx_max_rank = 4;

inline ElementType idx_type(const Input& input, unsigned char code) {
  switch (code) {
    case 0x08:
      return ElementType::uint8;
    case 0x09:
      return ElementType::int8;
    case 0x0B:
      return ElementType::int16;
    case 0x0C:
      return ElementType::int32;
    case 0x0D:
      return ElementType::float32;
    case 0x0E:
      return ElementType::float64;
    default:
      input.fail_byte(
          2, "expected an IDX element type (8, 9, 11, 12, 13, 14), got " + std::to_string(code));
  }
}

template <class T>
RawArray read_idx_head(const Input& input, const IdxOptions& options) {
  const std::string_view bytes = input.text();
  if (bytes.size() < 4) input.fail_byte(bytes.size(), "cut short: expected an IDX header");
  if (bytes[0] != '\0' || bytes[1] != '\0') input.fail_byte(0, "expected two zero bytes (IDX)");
  RawArray raw;
  raw.type = idx_type(input, static_cast<unsigned char>(bytes[2]));
  raw.big_endian = true;
  if (options.exact_type && raw.type != element_type_of<T>()) {
    input.fail_byte(2, std::string("expected elements of type ") + name(element_type_of<T>()) +
                           ", got " + name(raw.type));
  }
  const std::size_t rank = static_cast<unsigned char>(bytes[3]);
  if (rank < 1 || rank > idx_max_rank) {
    input.fail_byte(3, "expected 1 to 4 dimensions, got " + std::to_string(rank));
  }
  raw.offset = 4 + 4 * rank;
  if (bytes.size() < raw.offset) input.fail_byte(bytes.size(), "cut short among the extents");
  for (std::size_t r = 0; r < rank; ++r) {
    raw.shape.push_back(static_cast<Index>(load_bits<4>(bytes.data() + 4 + 4 * r, true)));
  }
  return raw;
}

}  // namespace detail

/// Reads an IDX file of exactly `Rank` dimensions, gzip or not. ParseError ("name: byte n: …") when
/// it is malformed, cut short, longer than its header says, or has another rank.
template <class T, int Rank>
[[nodiscard]] NdArray<T, Rank> read_idx(const std::string& path, const IdxOptions& options = {}) {
  const Input input = Input::file(path, options.limits, "quern::io::read_idx");
  return detail::to_array<T, Rank>(input, detail::read_idx_head<T>(input, options));
}

/// The same for a rank known at run time only.
template <class T>
[[nodiscard]] DynamicArray<T> read_idx(const std::string& path, const IdxOptions& options = {}) {
  const Input input = Input::file(path, options.limits, "quern::io::read_idx");
  return detail::to_dynamic<T>(input, detail::read_idx_head<T>(input, options));
}

/// From memory; `name` stands for the file in messages.
template <class T, int Rank>
[[nodiscard]] NdArray<T, Rank> parse_idx(std::string_view bytes, const IdxOptions& options = {},
                                         std::string_view name = "memory") {
  const Input input = Input::memory(bytes, name, options.limits, "quern::io::parse_idx");
  return detail::to_array<T, Rank>(input, detail::read_idx_head<T>(input, options));
}

template <class T>
[[nodiscard]] DynamicArray<T> parse_idx(std::string_view bytes, const IdxOptions& options = {},
                                        std::string_view name = "memory") {
  const Input input = Input::memory(bytes, name, options.limits, "quern::io::parse_idx");
  return detail::to_dynamic<T>(input, detail::read_idx_head<T>(input, options));
}

}  // namespace io
QUERN_NAMESPACE_END

#endif  // QUERN_IO_IDX_HPP
