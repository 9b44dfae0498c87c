// SPDX-License-Identifier: Apache-2.0

/// \file
/// Raw array elements in files (IDX, NPY): their types, byte orders and conversions.

#ifndef QUERN_IO_ELEMENTS_HPP
#define QUERN_IO_ELEMENTS_HPP

#include "quern/core/buffer.hpp"
#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/io/input.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace io {

/// Types of elements that files hold.
enum class ElementType : std::uint8_t {
  boolean,
  int8,
  int16,
  int32,
  int64,
  uint8,
  uint16,
  uint32,
  uint64,
  float16,
  float32,
  float64,
};

[[nodiscard]] inline const char* name(ElementType type) noexcept {
  constexpr const char* names[] = {"bool",   "int8",   "int16",  "int32",   "int64",   "uint8",
                                   "uint16", "uint32", "uint64", "float16", "float32", "float64"};
  return names[static_cast<std::size_t>(type)];
}
[[nodiscard]] constexpr std::size_t size_of(ElementType type) noexcept {
  constexpr std::uint8_t sizes[] = {1, 1, 2, 4, 8, 1, 2, 4, 8, 2, 4, 8};
  return sizes[static_cast<std::size_t>(type)];
}

/// The file's name for a C++ type.
template <class T>
[[nodiscard]] constexpr ElementType element_type_of() noexcept {
  if constexpr (std::same_as<T, bool>) {
    return ElementType::boolean;
  } else if constexpr (std::floating_point<T>) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "float or double");
    return sizeof(T) == 4 ? ElementType::float32 : ElementType::float64;
  } else {
    static_assert(std::integral<T> && sizeof(T) <= 8, "an arithmetic type");
    const int first =
        static_cast<int>(std::is_signed_v<T> ? ElementType::int8 : ElementType::uint8);
    return static_cast<ElementType>(first + std::countr_zero(sizeof(T)));
  }
}

/// An array whose rank is known at run time; row-major.
template <class T>
struct DynamicArray {
  std::vector<Index> shape;
  core::Buffer<T> values;
};

namespace detail {

/// What a header says about the bytes behind it.
struct RawArray {
  ElementType type = ElementType::uint8;
  bool big_endian = false;
  bool column_major = false;
  std::vector<Index> shape;
  std::size_t offset = 0;  ///< of the first element in the input
};

/// Number of elements; −1 where they would take more than `bytes` bytes, and where an empty array
/// has extents whose product would overflow elsewhere. No extent is negative.
inline Index count_elements(const std::vector<Index>& shape, std::size_t element_bytes,
                            std::size_t bytes) {
  const bool empty = std::find(shape.begin(), shape.end(), Index{0}) != shape.end();
  constexpr Index largest = (std::numeric_limits<Index>::max)();
  const Index most =
      (empty ? largest : static_cast<Index>(bytes)) / static_cast<Index>(element_bytes);
  Index count = 1;
  for (Index extent : shape) {
    if (extent == 0) continue;
    if (extent > most / count) return -1;
    count *= extent;
  }
  if (empty) return 0;
  return count > most ? -1 : count;
}

inline std::string shape_text_of(const std::vector<Index>& shape) {
  std::string text;
  for (Index extent : shape) text += (text.empty() ? "" : " x ") + std::to_string(extent);
  return text.empty() ? "no dimensions" : text;
}

/// Throws unless the elements fill the rest of the input exactly.
inline Index check_extent(const Input& input, const RawArray& raw) {
  const std::size_t rest = input.text().size() - raw.offset;
  const Index count = count_elements(raw.shape, size_of(raw.type), rest);
  const std::size_t wanted =
      count < 0 ? rest + 1 : static_cast<std::size_t>(count) * size_of(raw.type);
  if (wanted == rest) return count;
  input.fail_byte(input.text().size(),
                  (wanted > rest ? "cut short: " : "bytes behind the last element: ") +
                      shape_text_of(raw.shape) + " elements of type " + name(raw.type) +
                      (wanted > rest ? " need more than" : " need fewer than") + " the " +
                      std::to_string(rest) + " bytes behind the header");
}

/// float16 (IEEE 754 binary16) to float, exactly.
inline float from_half(std::uint16_t bits) {
  const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x8000U) << 16;
  const std::uint32_t exponent = bits >> 10 & 31U;
  const std::uint32_t fraction = bits & 1023U;
  if (exponent == 0) {
    const float value = static_cast<float>(fraction) * 0x1p-24F;
    return sign != 0 ? -value : value;
  }
  const std::uint32_t wide = exponent == 31 ? 255U : exponent + 112U;
  return std::bit_cast<float>(sign | wide << 23 | fraction << 13);
}

template <std::size_t Bytes>
using UnsignedOf = std::conditional_t<
    Bytes == 1, std::uint8_t,
    std::conditional_t<Bytes == 2, std::uint16_t,
                       std::conditional_t<Bytes == 4, std::uint32_t, std::uint64_t>>>;

/// The unsigned number at `p` in the given byte order.
template <std::size_t Bytes>
inline UnsignedOf<Bytes> load_bits(const char* p, bool big_endian) {
  std::array<char, Bytes> bytes;
  std::memcpy(bytes.data(), p, Bytes);
  if (big_endian != (std::endian::native == std::endian::big)) {
    std::reverse(bytes.begin(), bytes.end());
  }
  return std::bit_cast<UnsignedOf<Bytes>>(bytes);
}

template <class From>
inline From load_element(const char* p, bool big_endian) {
  return std::bit_cast<From>(load_bits<sizeof(From)>(p, big_endian));
}

/// Whether a number survives the conversion: exactly for integers and bool; for floating point
/// rounded, but not from finite to infinite.
template <class To, class From>
inline bool convert_element(From from, To& to) {
  if constexpr (std::floating_point<To> && std::floating_point<From>) {
    if constexpr (sizeof(To) < sizeof(From)) {
      // Half a unit past the largest float is where rounding to nearest goes up to infinity.
      constexpr From limit = static_cast<From>(0x1.ffffffp127);
      if (is_finite_bits(from) && !(from < limit && from > -limit)) return false;
    }
    to = static_cast<To>(from);
    return true;
  } else if constexpr (std::floating_point<To>) {
    to = static_cast<To>(from);
    return true;
  } else if constexpr (std::floating_point<From>) {
    // 2^digits is exact in every floating type, the largest integer itself is not.
    const From beyond =
        static_cast<From>(std::uint64_t{1} << (std::numeric_limits<To>::digits - 1)) * 2;
    const From lowest = std::is_signed_v<To> ? -beyond : From(0);
    if (!is_finite_bits(from) || !(from >= lowest && from < beyond)) return false;
    to = static_cast<To>(from);
    return static_cast<From>(to) == from;
  } else if constexpr (std::same_as<To, bool>) {
    to = from != From(0);
    return from == From(0) || from == From(1);
  } else {
    if constexpr (std::same_as<From, bool>) {
      to = static_cast<To>(from ? 1 : 0);
      return true;
    } else {
      to = static_cast<To>(from);
      return std::in_range<To>(from);
    }
  }
}

/// Reads element i of the file into to[place(i)], all of them, converting from From.
template <class To, class From, class Load, class Place>
void convert_elements(const Input& input, const RawArray& raw, Index count, Load load, Place place,
                      To* to) {
  const char* p = input.text().data() + raw.offset;
  const std::size_t step = size_of(raw.type);
  for (Index i = 0; i < count; ++i, p += step) {
    const From from = load(p, raw.big_endian);
    if (!convert_element(from, to[place(i)])) {
      input.fail_byte(static_cast<std::size_t>(p - input.text().data()),
                      "element " + std::to_string(i) + " (" + std::to_string(from) +
                          ") does not fit " + name(element_type_of<To>()));
    }
  }
}

/// A byte that must be 0 or 1 to be a bool, told as a number otherwise.
inline std::uint8_t load_bool(const char* p, bool) { return static_cast<std::uint8_t>(*p); }
inline float load_half(const char* p, bool big) { return from_half(load_bits<2>(p, big)); }

template <class To, class Place>
void read_elements(const Input& input, const RawArray& raw, Index count, Place place, To* to) {
  const auto go = [&]<class From>(From) {
    convert_elements<To, From>(input, raw, count, load_element<From>, place, to);
  };
  switch (raw.type) {
    case ElementType::boolean:
      return convert_elements<To, std::uint8_t>(input, raw, count, load_bool, place, to);
    case ElementType::int8:
      return go(std::int8_t{});
    case ElementType::int16:
      return go(std::int16_t{});
    case ElementType::int32:
      return go(std::int32_t{});
    case ElementType::int64:
      return go(std::int64_t{});
    case ElementType::uint8:
      return go(std::uint8_t{});
    case ElementType::uint16:
      return go(std::uint16_t{});
    case ElementType::uint32:
      return go(std::uint32_t{});
    case ElementType::uint64:
      return go(std::uint64_t{});
    case ElementType::float16:
      return convert_elements<To, float>(input, raw, count, load_half, place, to);
    case ElementType::float32:
      return go(float{});
    case ElementType::float64:
      return go(double{});
  }
}

/// Place in row-major order of the i-th element of a column-major file.
class RowMajorPlace {
 public:
  explicit RowMajorPlace(const std::vector<Index>& shape)
      : shape_(shape), at_(shape.size(), 0), strides_(shape.size(), 1) {
    for (std::size_t r = shape.size(); r-- > 1;) strides_[r - 1] = strides_[r] * shape[r];
  }
  /// Of the next element; called once for each in turn.
  Index operator()(Index) {
    const Index here = next_;
    for (std::size_t r = 0; r < at_.size(); ++r) {
      next_ += strides_[r];
      if (++at_[r] < shape_[r]) return here;
      next_ -= strides_[r] * at_[r];
      at_[r] = 0;
    }
    return here;
  }

 private:
  const std::vector<Index>& shape_;
  std::vector<Index> at_;
  std::vector<Index> strides_;
  Index next_ = 0;
};

/// All elements, converted, in row-major order. The size was checked against the input before.
template <class T>
void read_array(const Input& input, const RawArray& raw, Index count, T* to) {
  const bool native = raw.big_endian == (std::endian::native == std::endian::big);
  const bool same_bits = raw.type == element_type_of<T>() && raw.type != ElementType::boolean &&
                         (native || sizeof(T) == 1);
  if (count == 0) return;
  if (raw.column_major && raw.shape.size() > 1) {
    read_elements(input, raw, count, RowMajorPlace(raw.shape), to);
  } else if (same_bits) {
    std::memcpy(to, input.text().data() + raw.offset, static_cast<std::size_t>(count) * sizeof(T));
  } else {
    read_elements(
        input, raw, count, [](Index i) { return i; }, to);
  }
}

template <class T>
DynamicArray<T> to_dynamic(const Input& input, const RawArray& raw) {
  DynamicArray<T> array;
  const Index count = check_extent(input, raw);
  array.shape = raw.shape;
  array.values = core::Buffer<T>(static_cast<std::size_t>(count));
  read_array(input, raw, count, array.values.data());
  return array;
}

template <class T, int Rank>
NdArray<T, Rank> to_array(const Input& input, const RawArray& raw) {
  if (raw.shape.size() != static_cast<std::size_t>(Rank)) {
    input.fail_byte(
        0, "expected " + std::to_string(Rank) + " dimensions, got " + shape_text_of(raw.shape));
  }
  const Index count = check_extent(input, raw);
  Shape<Rank> shape{};
  std::copy(raw.shape.begin(), raw.shape.end(), shape.begin());
  NdArray<T, Rank> array(shape, core::Fill::none);
  read_array(input, raw, count, array.data());
  return array;
}

}  // namespace detail

}  // namespace io
QUERN_NAMESPACE_END

#endif  // QUERN_IO_ELEMENTS_HPP
