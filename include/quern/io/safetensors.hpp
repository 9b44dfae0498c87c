// SPDX-License-Identifier: Apache-2.0

/// \file
/// Safetensors files: named tensors behind a JSON header, as Hugging Face's package reads and
/// writes them. https://github.com/huggingface/safetensors#format
///
/// Eight bytes of header length (little-endian), the header
/// {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, ..., "__metadata__":
/// {...}}, then all tensors without gaps. A file that does not fit that exactly is refused.

#ifndef QUERN_IO_SAFETENSORS_HPP
#define QUERN_IO_SAFETENSORS_HPP

#include "quern/core/bfloat16.hpp"
#include "quern/core/buffer.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/file.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/io/gzip.hpp"
#include "quern/io/input.hpp"
#include "quern/io/json_scan.hpp"
#include "quern/io/quote.hpp"

#include <algorithm>
#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <limits>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace io {

static_assert(std::endian::native == std::endian::little, "the format is little-endian");

/// Element types of the format, by its names.
enum class SafetensorType : std::uint8_t {
  boolean,
  u8,
  i8,
  f8_e5m2,
  f8_e4m3,
  i16,
  u16,
  f16,
  bf16,
  i32,
  u32,
  f32,
  f64,
  i64,
  u64,
};

[[nodiscard]] inline const char* name(SafetensorType type) noexcept {
  constexpr const char* names[] = {"BOOL", "U8",  "I8",  "F8_E5M2", "F8_E4M3", "I16", "U16", "F16",
                                   "BF16", "I32", "U32", "F32",     "F64",     "I64", "U64"};
  return names[static_cast<std::size_t>(type)];
}
[[nodiscard]] constexpr std::size_t size_of(SafetensorType type) noexcept {
  constexpr std::uint8_t sizes[] = {1, 1, 1, 1, 1, 2, 2, 2, 2, 4, 4, 4, 8, 8, 8};
  return sizes[static_cast<std::size_t>(type)];
}

/// The format's type of a C++ type.
template <class T>
[[nodiscard]] constexpr SafetensorType safetensor_type_of() noexcept {
  using S = SafetensorType;
  if constexpr (std::same_as<T, bool>) {
    return S::boolean;
  } else if constexpr (std::same_as<T, BFloat16>) {
    return S::bf16;
  } else if constexpr (std::floating_point<T>) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "float or double");
    return sizeof(T) == 4 ? S::f32 : S::f64;
  } else {
    static_assert(std::integral<T> && sizeof(T) <= 8, "an arithmetic type or BFloat16");
    constexpr S with_sign[] = {S::i8, S::i16, S::i32, S::i64};
    constexpr S without[] = {S::u8, S::u16, S::u32, S::u64};
    const int log = std::countr_zero(sizeof(T));
    return std::is_signed_v<T> ? with_sign[log] : without[log];
  }
}

/// One tensor of a file.
struct Safetensor {
  std::string name;
  SafetensorType type = SafetensorType::f32;
  std::vector<Index> shape;          ///< row-major; empty: a single number
  std::span<const std::byte> bytes;  ///< not aligned
  [[nodiscard]] std::size_t size() const noexcept { return bytes.size() / size_of(type); }
};

namespace detail {

/// What Hugging Face's reader takes.
inline constexpr std::uint64_t safetensors_max_header = 100'000'000;
inline constexpr std::size_t safetensors_max_rank = 64;

/// Whether elements of `each` bytes in these extents make that many bytes.
inline bool makes_bytes(std::span<const Index> shape, std::size_t each, std::size_t bytes) {
  if (shape.size() > safetensors_max_rank) return false;
  std::size_t count = 1;
  bool empty = false;
  const std::size_t most = bytes / each;
  for (const Index extent : shape) {
    if (extent < 0) return false;
    const auto e = static_cast<std::size_t>(extent);
    empty = empty || e == 0;
    if (e != 0 && count > most / e) count = most + 1;
    if (count <= most) count *= (std::max)(e, std::size_t{1});
  }
  return empty ? bytes == 0 : count <= most && count * each == bytes;
}

/// Reads a header into tensors, whose spans are into `data`.
class SafetensorsHeader {
 public:
  SafetensorsHeader(const Input& input, std::span<const std::byte> data)
      : scan_(input), data_(data) {}

  void parse(std::vector<Safetensor>& tensors, std::map<std::string, std::string>& words) {
    if (input_first() != '{') scan_.unexpected("an object");
    scan_.object([&](std::string_view key) {
      const std::size_t at = scan_.next_offset();
      if (key == "__metadata__") {
        if (has_words_) scan_.fail_at(at, "expected '__metadata__' once");
        has_words_ = true;
        metadata(words);
      } else {
        tensors.push_back(tensor(std::string(key), at));
      }
    });
    scan_.end();
    std::sort(places_.begin(), places_.end());
    check_names(tensors);
    check_cover(tensors);
  }

 private:
  /// A tensor's bytes, and where its entry is in the header.
  struct Range {
    std::size_t begin, end, at;
    bool operator<(const Range& other) const {
      return begin != other.begin ? begin < other.begin : end < other.end;
    }
  };

  char input_first() { return scan_.peek(); }

  void metadata(std::map<std::string, std::string>& words) {
    scan_.object([&](std::string_view key) {
      const std::size_t at = scan_.next_offset();
      std::string name(key), buffer;
      const bool added = words.emplace(std::move(name), scan_.string(buffer)).second;
      if (!added) scan_.fail_at(at, "expected each key of '__metadata__' once");
    });
  }

  SafetensorType type() {
    const std::size_t at = scan_.next_offset();
    std::string buffer;
    const std::string_view text = scan_.string(buffer);
    for (std::size_t k = 0; k <= static_cast<std::size_t>(SafetensorType::u64); ++k) {
      if (text == io::name(static_cast<SafetensorType>(k))) return static_cast<SafetensorType>(k);
    }
    scan_.fail_at(at, "expected an element type such as 'F32', got " + quote_text(text));
  }

  std::int64_t not_negative(const char* what) {
    const std::size_t at = scan_.next_offset();
    const std::int64_t value = scan_.integer();
    if (value < 0) scan_.fail_at(at, std::string("expected ") + what + " of at least 0");
    return value;
  }

  Safetensor tensor(std::string name, std::size_t at) {
    Safetensor out;
    out.name = std::move(name);
    std::vector<std::int64_t> offsets;
    int seen = 0;
    const auto once = [&](int bit) {
      if ((seen & bit) != 0) scan_.fail("expected each key of a tensor once");
      seen |= bit;
    };
    scan_.object([&](std::string_view key) {
      if (key == "dtype") {
        once(1);
        out.type = type();
      } else if (key == "shape") {
        once(2);
        scan_.array([&] {
          if (out.shape.size() == safetensors_max_rank) scan_.fail("more than 64 dimensions");
          out.shape.push_back(not_negative("an extent"));
        });
      } else if (key == "data_offsets") {
        once(4);
        scan_.array([&] {
          if (offsets.size() == 2) scan_.fail("expected two offsets");
          offsets.push_back(not_negative("an offset"));
        });
      } else {
        scan_.fail("expected 'dtype', 'shape' or 'data_offsets', got " + quote_text(key));
      }
    });
    if (seen != 7 || offsets.size() != 2) {
      scan_.fail_at(at, "expected 'dtype', 'shape' and two 'data_offsets'");
    }
    const auto begin = static_cast<std::size_t>(offsets[0]);
    const auto end = static_cast<std::size_t>(offsets[1]);
    if (begin > end || end > data_.size()) {
      scan_.fail_at(at, "offsets " + std::to_string(begin) + ", " + std::to_string(end) +
                            " outside of the " + std::to_string(data_.size()) +
                            " bytes behind the header");
    }
    out.bytes = data_.subspan(begin, end - begin);
    check_size(out, at);
    places_.push_back({begin, end, at});
    return out;
  }

  void check_size(const Safetensor& t, std::size_t at) {
    if (makes_bytes(t.shape, size_of(t.type), t.bytes.size())) return;
    scan_.fail_at(at, "shape and type of " + quote_text(t.name) + " do not make " +
                          std::to_string(t.bytes.size()) + " bytes");
  }

  void check_names(const std::vector<Safetensor>& tensors) {
    std::vector<std::string_view> names;
    names.reserve(tensors.size());
    for (const Safetensor& t : tensors) names.push_back(t.name);
    std::sort(names.begin(), names.end());
    const auto twice = std::adjacent_find(names.begin(), names.end());
    if (twice != names.end()) scan_.fail("tensor " + quote_text(*twice) + " twice");
  }

  void check_cover(const std::vector<Safetensor>& /*tensors*/) {
    std::size_t at = 0;
    for (const Range& r : places_) {
      if (r.begin != at) {
        scan_.fail_at(r.at, "offsets start at " + std::to_string(r.begin) + " where byte " +
                                std::to_string(at) + " is next");
      }
      at = r.end;
    }
    if (at != data_.size()) {
      scan_.fail(std::to_string(data_.size() - at) + " bytes behind the last tensor");
    }
  }

  JsonScan scan_;
  std::span<const std::byte> data_;
  std::vector<Range> places_;
  bool has_words_ = false;
};

}  // namespace detail

/// A file in memory. Tensors are in the header's order.
class Safetensors {
 public:
  /// ParseError ("function: name: ...") when the file is malformed, cut short, or longer than it
  /// says; IoError when the system refuses.
  [[nodiscard]] static Safetensors read(const std::string& path, const Limits& limits = {}) {
    Safetensors out;
    out.owned_ = read_file(path, limits.bytes());
    out.parse(out.owned_, path, "quern::io::Safetensors::read");
    return out;
  }
  /// From memory, which is copied; `name` stands for the file in messages.
  [[nodiscard]] static Safetensors from_bytes(std::span<const std::byte> bytes,
                                              std::string_view name = "memory") {
    Safetensors out;
    out.owned_.assign(bytes.begin(), bytes.end());
    out.parse(out.owned_, std::string(name), "quern::io::Safetensors::from_bytes");
    return out;
  }
  Safetensors(Safetensors&&) noexcept = default;
  Safetensors& operator=(Safetensors&&) noexcept = default;

  [[nodiscard]] const std::vector<Safetensor>& tensors() const noexcept { return tensors_; }
  [[nodiscard]] const std::map<std::string, std::string>& metadata() const noexcept {
    return metadata_;
  }
  [[nodiscard]] bool has(std::string_view name) const { return find(name) != nullptr; }
  /// ParseError when there is none of that name.
  [[nodiscard]] const Safetensor& tensor(std::string_view name) const {
    if (const Safetensor* found = find(name)) return *found;
    throw ParseError(name_ + ": no tensor " + quote_text(name));
  }
  /// Copies a tensor of this very type and shape; ParseError where it is another.
  template <class T, int Rank>
  void copy_to(std::string_view name, const NdView<T, Rank>& to) const {
    const Safetensor& t = tensor(name);
    const std::vector<Index> shape(to.extents().begin(), to.extents().end());
    expect(t, safetensor_type_of<T>(), shape);
    if (t.bytes.empty()) return;
    if (!to.is_contiguous()) {
      throw ShapeError(
          error_text("quern::io::Safetensors::copy_to", "to", "a contiguous view", "strides"));
    }
    std::memcpy(to.data(), t.bytes.data(), t.bytes.size());
  }
  /// The values of a tensor of this very type.
  template <class T>
  [[nodiscard]] std::vector<T> values(std::string_view name) const {
    const Safetensor& t = tensor(name);
    expect(t, safetensor_type_of<T>(), t.shape);
    std::vector<T> out(t.size());
    if (!out.empty()) std::memcpy(out.data(), t.bytes.data(), t.bytes.size());
    return out;
  }

 private:
  Safetensors() = default;

  void parse(std::span<const std::byte> bytes, const std::string& name, const char* function) {
    name_ = std::string(function) + ": " + name;
    const auto fail = [&](std::size_t at, const std::string& message) {
      throw ParseError(name_ + ": byte " + std::to_string(at) + ": " + message);
    };
    if (bytes.size() < 8) fail(bytes.size(), "cut short: expected the header's length");
    std::uint64_t length = 0;
    std::memcpy(&length, bytes.data(), 8);
    if (length > detail::safetensors_max_header) {
      fail(0, "expected a header of up to 100000000 bytes, got " + std::to_string(length));
    }
    if (length > bytes.size() - 8) fail(bytes.size(), "cut short in the header");
    const auto size = static_cast<std::size_t>(length);
    const std::string_view header(reinterpret_cast<const char*>(bytes.data()) + 8, size);
    if (header.empty() || header[0] != '{') fail(8, "expected '{'");
    const Input input = Input::memory(header, name + ": header", Limits{}, function);
    detail::SafetensorsHeader(input, bytes.subspan(8 + size)).parse(tensors_, metadata_);
  }

  [[nodiscard]] const Safetensor* find(std::string_view name) const {
    for (const Safetensor& t : tensors_) {
      if (t.name == name) return &t;
    }
    return nullptr;
  }
  void expect(const Safetensor& t, SafetensorType type, const std::vector<Index>& shape) const {
    if (t.type == type && t.shape == shape) return;
    const auto text = [](SafetensorType of, const std::vector<Index>& extents) {
      std::string out = io::name(of);
      for (const Index e : extents) out += " " + std::to_string(e);
      return out;
    };
    throw ParseError(error_text(name_, "tensor " + quote_text(t.name), text(type, shape),
                                text(t.type, t.shape)));
  }

  std::string name_;
  std::vector<std::byte> owned_;
  std::vector<Safetensor> tensors_;
  std::map<std::string, std::string> metadata_;
};

/// Collects tensors and writes them. What is added is looked at when it is written, and has to stay
/// until then.
class SafetensorsWriter {
 public:
  /// Text beside the tensors.
  void set_metadata(const std::string& key, const std::string& value) { metadata_[key] = value; }

  /// ValueError for a name twice, and for "__metadata__"; ShapeError where shape and bytes
  /// disagree.
  void add(const std::string& name, SafetensorType type, std::vector<Index> shape,
           std::span<const std::byte> bytes) {
    constexpr const char* function = "quern::io::SafetensorsWriter::add";
    if (name == "__metadata__") {
      throw ValueError(error_text(function, "name", "a tensor's name", name));
    }
    if (!detail::makes_bytes(shape, size_of(type), bytes.size())) {
      throw ShapeError(error_text(function, "'" + name + "'",
                                  "as many bytes as its extents make, none negative, at most 64",
                                  std::to_string(bytes.size()) + " bytes"));
    }
    if (!names_.emplace(name, tensors_.size()).second) {
      throw ValueError(error_text(function, "name", "different names", "'" + name + "' twice"));
    }
    tensors_.push_back({name, type, std::move(shape), bytes});
  }
  [[nodiscard]] const std::vector<Safetensor>& tensors() const noexcept { return tensors_; }
  [[nodiscard]] const std::map<std::string, std::string>& metadata() const noexcept {
    return metadata_;
  }
  /// A contiguous view.
  template <class T, int Rank>
  void add(const std::string& name, const NdView<T, Rank>& array) {
    if (!array.is_contiguous()) {
      throw ShapeError(error_text("quern::io::SafetensorsWriter::add", "'" + name + "'",
                                  "a contiguous view", "strides"));
    }
    add(name, safetensor_type_of<std::remove_const_t<T>>(),
        {array.extents().begin(), array.extents().end()},
        std::as_bytes(std::span(array.data(), static_cast<std::size_t>(array.size()))));
  }

  /// The file. Tensors of wider elements come first, so that each is aligned to its own size in a
  /// file that is mapped (the header is padded to eight bytes).
  [[nodiscard]] std::vector<std::byte> bytes() const {
    std::vector<const Safetensor*> order;
    for (const Safetensor& t : tensors_) order.push_back(&t);
    std::stable_sort(order.begin(), order.end(), [](const Safetensor* a, const Safetensor* b) {
      return size_of(a->type) > size_of(b->type);
    });
    const std::string header = make_header(order);
    std::size_t total = 8 + header.size();
    for (const Safetensor* t : order) total += t->bytes.size();
    std::vector<std::byte> out(total);
    const std::uint64_t length = header.size();
    std::memcpy(out.data(), &length, 8);
    std::memcpy(out.data() + 8, header.data(), header.size());
    std::size_t at = 8 + header.size();
    for (const Safetensor* t : order) {
      if (!t->bytes.empty()) std::memcpy(out.data() + at, t->bytes.data(), t->bytes.size());
      at += t->bytes.size();
    }
    return out;
  }
  /// Replaces an existing file only when all of it is on the disk.
  void write(const std::string& path) const { write_file_atomically(path, bytes()); }

 private:
  static void quote(const std::string& text, std::string& out) {
    out += '"';
    for (const char c : text) {
      if (c == '"' || c == '\\') {
        out += '\\';
        out += c;
      } else if (static_cast<unsigned char>(c) < 32) {
        constexpr const char* digits = "0123456789abcdef";
        out += "\\u00";
        out += digits[static_cast<unsigned char>(c) >> 4];
        out += digits[static_cast<unsigned char>(c) & 15];
      } else {
        out += c;
      }
    }
    out += '"';
  }
  [[nodiscard]] std::string make_header(const std::vector<const Safetensor*>& order) const {
    std::string text = "{";
    if (!metadata_.empty()) {
      text += "\"__metadata__\":{";
      for (const auto& [key, value] : metadata_) {
        if (text.back() != '{') text += ',';
        quote(key, text);
        text += ':';
        quote(value, text);
      }
      text += '}';
    }
    std::size_t at = 0;
    for (const Safetensor* t : order) {
      if (text.size() > 1) text += ',';
      quote(t->name, text);
      text += ":{\"dtype\":\"" + std::string(io::name(t->type)) + "\",\"shape\":[";
      for (std::size_t k = 0; k < t->shape.size(); ++k) {
        text += (k > 0 ? "," : "") + std::to_string(t->shape[k]);
      }
      text += "],\"data_offsets\":[" + std::to_string(at) + ",";
      at += t->bytes.size();
      text += std::to_string(at) + "]}";
    }
    text += '}';
    text.resize((text.size() + 7) / 8 * 8, ' ');
    return text;
  }

  std::vector<Safetensor> tensors_;
  std::map<std::string, std::size_t> names_;
  std::map<std::string, std::string> metadata_;
};

}  // namespace io
QUERN_NAMESPACE_END

#endif  // QUERN_IO_SAFETENSORS_HPP
