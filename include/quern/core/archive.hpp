// SPDX-License-Identifier: Apache-2.0

/// \file
/// The archive that learners are saved in: a small versioned binary format with a checksum.
///
/// Layout, all numbers little-endian:
///
///     bytes    what
///     6        magic: 'Q' 'U' 'E' 'R' 'N' 0
///     2        format version (1)
///     8        size of the whole archive in bytes
///     2 + n    kind of learner: length and text
///     4        version of that learner's sections
///     4        number of sections
///     …        sections
///     8        checksum of everything before it
///
/// A section is: 1 byte type, 2 + n bytes name, 8 bytes count, 8 bytes size of the payload, and
/// the payload: `count` numbers, or `count` texts of 4 + n bytes each. Readers skip sections they
/// do not know, so adding one needs no new version.

#ifndef QUERN_CORE_ARCHIVE_HPP
#define QUERN_CORE_ARCHIVE_HPP

#include "quern/core/config.hpp"
#include "quern/core/detail/archive_format.hpp"
#include "quern/core/error.hpp"
#include "quern/core/file.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN

/// Collects the sections of a learner and saves them.
///
///     ArchiveWriter out("gbtree", 1);
///     out.scalar("learning_rate", 0.1);
///     out.array<std::int32_t>("left", left);
///     out.text("objective", "reg:squarederror");
///     out.save("model.quern");
class ArchiveWriter {
 public:
  /// `kind` names the learner; `version` is the version of its sections, for the reader to check.
  explicit ArchiveWriter(std::string_view kind, std::uint32_t version = 1) {
    for (char c : detail::archive_magic) bytes_.push_back(static_cast<std::byte>(c));
    number(detail::archive_format);
    number(std::uint64_t{0});  // the size, known at the end
    short_text("kind", kind);
    number(version);
    sections_at_ = bytes_.size();
    number(std::uint32_t{0});
  }

  template <ArchiveNumber T>
  void scalar(std::string_view name, T value) {
    array(name, std::span<const T>(&value, 1));
  }
  template <ArchiveNumber T>
  void array(std::string_view name, std::span<const T> values) {
    begin(detail::archive_type<T>(), name, values.size(), values.size_bytes());
    if constexpr (std::endian::native == std::endian::little) {
      const auto raw = std::as_bytes(values);
      bytes_.insert(bytes_.end(), raw.begin(), raw.end());
    } else {
      for (T value : values) number(value);
    }
  }
  template <ArchiveNumber T>
  void array(std::string_view name, const std::vector<T>& values) {
    array(name, std::span<const T>(values));
  }
  void text(std::string_view name, std::string_view value) {
    texts(name, std::span<const std::string_view>(&value, 1));
  }
  /// Any span or vector of strings or string views.
  template <class Texts>
  void texts(std::string_view name, const Texts& values) {
    std::uint64_t payload = 0;
    std::uint64_t count = 0;
    for (const auto& value : values) {
      payload += 4 + checked_length(name, std::string_view(value), 0xffffffffULL);
      ++count;
    }
    begin(detail::archive_text, name, count, payload);
    for (const auto& value : values) {
      const std::string_view view(value);
      number(static_cast<std::uint32_t>(view.size()));
      append(view);
    }
  }

  /// The finished archive. The writer can go on adding sections afterwards.
  [[nodiscard]] std::vector<std::byte> bytes() const {
    std::vector<std::byte> all;
    all.reserve(bytes_.size() + 8);
    all = bytes_;
    finish(all);
    return all;
  }
  /// Writes aside, syncs and renames: an existing file is replaced only by a complete one. IoError
  /// when the disk is full or the place cannot be written. The writer is unchanged by it.
  void save(const std::string& path) {
    const std::size_t size = bytes_.size();
    const std::vector<std::byte> header(bytes_.begin(),
                                        bytes_.begin() + static_cast<std::ptrdiff_t>(size_at + 8));
    finish(bytes_);  // in place: a copy of a big model would double the memory
    const auto restore = [&] {
      bytes_.resize(size);
      std::copy(header.begin(), header.end(), bytes_.begin());
    };
    try {
      write_file_atomically(path, bytes_);
    } catch (...) {
      restore();
      throw;
    }
    restore();
  }

 private:
  static constexpr std::size_t size_at = 8;

  template <class T>
  void number(T value) {
    value = detail::little_endian(value);
    std::array<std::byte, sizeof(T)> raw;
    std::memcpy(raw.data(), &value, sizeof(T));
    bytes_.insert(bytes_.end(), raw.begin(), raw.end());
  }
  void append(std::string_view text) {
    const auto raw = std::as_bytes(std::span<const char>(text.data(), text.size()));
    bytes_.insert(bytes_.end(), raw.begin(), raw.end());
  }
  static std::uint64_t checked_length(std::string_view what, std::string_view text,
                                      std::uint64_t longest) {
    if (text.size() > longest) {
      throw ValueError(error_text("quern::ArchiveWriter", what,
                                  "at most " + std::to_string(longest) + " bytes of text",
                                  text.size()));
    }
    return text.size();
  }
  void short_text(std::string_view what, std::string_view text) {
    number(static_cast<std::uint16_t>(checked_length(what, text, 0xffff)));
    append(text);
  }
  void begin(std::uint8_t type, std::string_view name, std::uint64_t count, std::uint64_t payload) {
    checked_length("name", name, 0xffff);
    if (std::find(names_.begin(), names_.end(), name) != names_.end()) {
      throw ValueError(error_text("quern::ArchiveWriter", "name", "each name once",
                                  "'" + std::string(name) + "'"));
    }
    names_.emplace_back(name);
    const std::uint32_t sections = detail::little_endian(static_cast<std::uint32_t>(names_.size()));
    std::memcpy(bytes_.data() + sections_at_, &sections, sizeof(sections));
    number(type);
    short_text("name", name);
    number(count);
    number(payload);
  }
  static void finish(std::vector<std::byte>& all) {
    const std::uint64_t size =
        detail::little_endian(static_cast<std::uint64_t>(all.size() + sizeof(std::uint64_t)));
    std::memcpy(all.data() + size_at, &size, sizeof(size));
    const std::uint64_t sum = detail::little_endian(detail::archive_checksum(all));
    std::array<std::byte, sizeof(sum)> raw;
    std::memcpy(raw.data(), &sum, sizeof(sum));
    all.insert(all.end(), raw.begin(), raw.end());
  }

  std::vector<std::byte> bytes_;
  std::vector<std::string> names_;
  std::size_t sections_at_ = 0;
};

/// Reads what ArchiveWriter wrote. The constructors check the whole frame, so afterwards only
/// missing or unexpected sections can fail. Everything that is wrong with the data is a ParseError
/// that names the source and the byte; sizes are checked against the bytes that are there before
/// memory is asked for.
class ArchiveReader {
 public:
  /// `source` names the data in messages.
  explicit ArchiveReader(std::vector<std::byte> bytes, std::string source = "archive")
      : bytes_(std::move(bytes)), source_(std::move(source)) {
    parse();
  }
  explicit ArchiveReader(std::span<const std::byte> bytes, std::string source = "archive")
      : ArchiveReader(std::vector<std::byte>(bytes.begin(), bytes.end()), std::move(source)) {}
  /// From a file: IoError when it cannot be read, ParseError above `max_bytes`.
  [[nodiscard]] static ArchiveReader load(const std::string& path,
                                          std::uint64_t max_bytes = default_max_file_bytes) {
    return ArchiveReader(read_file(path, max_bytes), path);
  }

  [[nodiscard]] const std::string& kind() const noexcept { return kind_; }
  [[nodiscard]] std::uint32_t version() const noexcept { return version_; }
  /// ParseError unless the archive holds this kind of learner, of a version 1..newest.
  void expect(std::string_view kind, std::uint32_t newest) const {
    if (kind_ != kind) fail(16, "a learner of kind '" + std::string(kind) + "'", "'" + kind_ + "'");
    if (version_ == 0 || version_ > newest) {
      fail(18 + kind_.size(), "version 1.." + std::to_string(newest) + " of '" + kind_ + "'",
           std::to_string(version_));
    }
  }

  [[nodiscard]] bool has(std::string_view name) const { return sections_.contains(name); }
  /// Elements of a section; 0 when there is none.
  [[nodiscard]] std::size_t count(std::string_view name) const {
    const auto found = sections_.find(name);
    return found == sections_.end() ? 0 : found->second.count;
  }

  /// ParseError when the section is missing, of another type, or not a single number.
  template <ArchiveNumber T>
  [[nodiscard]] T scalar(std::string_view name) const {
    return detail::read_little_endian<T>(bytes_.data() +
                                         find(name, detail::archive_type<T>(), 1).payload_at);
  }
  /// The same, but `fallback` when the section is missing (older archives).
  template <ArchiveNumber T>
  [[nodiscard]] T scalar_or(std::string_view name, T fallback) const {
    return has(name) ? scalar<T>(name) : fallback;
  }
  /// ParseError when the section is missing or of another type.
  template <ArchiveNumber T>
  [[nodiscard]] std::vector<T> array(std::string_view name) const {
    return numbers<T>(find(name, detail::archive_type<T>()));
  }
  /// The same, and ParseError unless it holds exactly `expected` numbers.
  template <ArchiveNumber T>
  [[nodiscard]] std::vector<T> array(std::string_view name, std::size_t expected) const {
    return numbers<T>(find(name, detail::archive_type<T>(), expected));
  }
  /// Into memory that is there; ParseError unless the counts agree.
  template <ArchiveNumber T>
  void array_into(std::string_view name, std::span<T> to) const {
    copy_numbers(find(name, detail::archive_type<T>(), to.size()), to.data());
  }
  [[nodiscard]] std::string text(std::string_view name) const {
    return std::move(strings(find(name, detail::archive_text, 1)).front());
  }
  [[nodiscard]] std::vector<std::string> texts(std::string_view name) const {
    return strings(find(name, detail::archive_text));
  }

  /// ParseError about a section, for learners whose own checks find it wrong (an index out of
  /// range): names the source and the byte where the section's values begin.
  [[noreturn]] void fail_section(std::string_view name, const std::string& expected,
                                 const std::string& got) const {
    const auto found = sections_.find(name);
    fail(found == sections_.end() ? 0 : found->second.payload_at,
         "section '" + std::string(name) + "' with " + expected, got);
  }

 private:
  struct Section {
    std::uint8_t type = 0;
    std::size_t count = 0;
    std::size_t payload_at = 0;
    std::size_t payload = 0;
  };
  static constexpr std::size_t smallest_section = 1 + 2 + 8 + 8;

  [[noreturn]] void fail(std::size_t at, const std::string& expected,
                         const std::string& got) const {
    throw ParseError("quern::ArchiveReader: " + source_ + ": byte " + std::to_string(at) +
                     ": expected " + expected + ", got " + got);
  }

  /// Moves over `n` bytes before `end_`; ParseError when there are fewer.
  std::size_t take(std::uint64_t n, const char* what) {
    if (n > end_ - at_) {
      fail(at_, std::to_string(n) + " bytes of " + what, std::to_string(end_ - at_) + " left");
    }
    return std::exchange(at_, at_ + static_cast<std::size_t>(n));
  }
  template <class T>
  T number(const char* what) {
    return detail::read_little_endian<T>(bytes_.data() + take(sizeof(T), what));
  }
  std::string short_text(const char* what) {
    const std::size_t length = number<std::uint16_t>(what);
    const std::size_t from = take(length, what);
    return std::string(reinterpret_cast<const char*>(bytes_.data() + from), length);
  }

  void parse() {
    end_ = bytes_.size();
    parse_frame();
    end_ = bytes_.size() - sizeof(std::uint64_t);
    kind_ = short_text("the kind");
    version_ = number<std::uint32_t>("the learner's version");
    const std::size_t counted_at = at_;
    const std::uint32_t sections = number<std::uint32_t>("the number of sections");
    if (sections > (end_ - at_) / smallest_section) {
      fail(counted_at, "a number of sections that fits the archive", std::to_string(sections));
    }
    for (std::uint32_t s = 0; s < sections; ++s) parse_section();
    if (at_ != end_) {
      fail(at_, "the checksum after the last section", std::to_string(end_ - at_) + " more bytes");
    }
  }

  /// Magic, format, size and checksum.
  void parse_frame() {
    const std::size_t magic = take(detail::archive_magic.size(), "the magic of a quern archive");
    if (std::memcmp(bytes_.data() + magic, detail::archive_magic.data(),
                    detail::archive_magic.size()) != 0) {
      fail(0, "a quern archive", "other data");
    }
    const auto format = number<std::uint16_t>("the format version");
    if (format != detail::archive_format) {
      fail(6, "format version " + std::to_string(detail::archive_format), std::to_string(format));
    }
    const auto size = number<std::uint64_t>("the archive's size");
    if (size != bytes_.size()) {
      fail((std::min)(std::size_t{8}, bytes_.size()),
           "an archive of " + std::to_string(size) + " bytes",
           std::to_string(bytes_.size()) + (size > bytes_.size() ? " (cut short)" : ""));
    }
    if (bytes_.size() - at_ < sizeof(std::uint64_t)) fail(at_, "a checksum", "the end");
    const std::size_t sum_at = bytes_.size() - sizeof(std::uint64_t);
    const auto sum = detail::read_little_endian<std::uint64_t>(bytes_.data() + sum_at);
    if (sum != detail::archive_checksum(std::span(bytes_).first(sum_at))) {
      fail(sum_at, "the checksum of the bytes before it", "another: the archive is damaged");
    }
  }

  void parse_section() {
    const std::size_t began = at_;
    Section section;
    section.type = number<std::uint8_t>("a section's type");
    std::string name = short_text("a section's name");
    const std::size_t counted_at = at_;
    const auto count = number<std::uint64_t>("a section's count");
    const auto payload = number<std::uint64_t>("a section's size");
    section.payload_at = take(payload, "a section's values");
    section.payload = static_cast<std::size_t>(payload);
    // Of known types count and size agree; at least one byte a value keeps later memory bounded.
    const std::uint64_t least = section.type == detail::archive_text ? 4 : section.type & 0x0fU;
    const bool known = section.type == detail::archive_text || (least != 0 && least <= 8);
    const bool fits = least == 0 || count <= payload / least;
    if (known && (!fits || (section.type != detail::archive_text && count * least != payload))) {
      fail(counted_at, "a count that fits " + std::to_string(payload) + " bytes",
           std::to_string(count));
    }
    section.count = static_cast<std::size_t>(count);
    if (section.type == detail::archive_text) check_texts(section);
    if (!sections_.emplace(name, section).second) {
      fail(began, "each section once", "'" + name + "' again");
    }
  }

  void check_texts(const Section& section) const {
    std::size_t at = section.payload_at;
    const std::size_t end = at + section.payload;
    for (std::size_t i = 0; i < section.count; ++i) {
      if (end - at < 4) fail(at, "the length of a text", "the end of the section");
      const auto length = detail::read_little_endian<std::uint32_t>(bytes_.data() + at);
      if (length > end - at - 4) {
        fail(at, "a text inside its section", std::to_string(length) + " bytes");
      }
      at += 4 + std::size_t{length};
    }
    if (at != end) fail(at, "the end of the section", std::to_string(end - at) + " more bytes");
  }

  const Section& find(std::string_view name, std::uint8_t type) const {
    const auto found = sections_.find(name);
    if (found == sections_.end()) {
      fail(bytes_.size(), "a section '" + std::string(name) + "'", "none of that name");
    }
    if (found->second.type != type) {
      fail(found->second.payload_at,
           "section '" + std::string(name) + "' to hold " + detail::archive_type_name(type),
           detail::archive_type_name(found->second.type));
    }
    return found->second;
  }
  const Section& find(std::string_view name, std::uint8_t type, std::size_t expected) const {
    const Section& section = find(name, type);
    if (section.count != expected) {
      fail_section(name, std::to_string(expected) + " values", std::to_string(section.count));
    }
    return section;
  }

  template <class T>
  void copy_numbers(const Section& section, T* to) const {
    if (section.count == 0) return;
    std::memcpy(to, bytes_.data() + section.payload_at, section.payload);
    if constexpr (std::endian::native == std::endian::big) {
      std::transform(to, to + section.count, to, [](T v) { return detail::little_endian(v); });
    }
  }
  template <class T>
  std::vector<T> numbers(const Section& section) const {
    std::vector<T> values(section.count);
    copy_numbers(section, values.data());
    return values;
  }
  std::vector<std::string> strings(const Section& section) const {
    std::vector<std::string> values;
    values.reserve(section.count);
    std::size_t at = section.payload_at;
    for (std::size_t i = 0; i < section.count; ++i) {
      const auto length = detail::read_little_endian<std::uint32_t>(bytes_.data() + at);
      values.emplace_back(reinterpret_cast<const char*>(bytes_.data() + at + 4), length);
      at += 4 + std::size_t{length};
    }
    return values;
  }

  std::vector<std::byte> bytes_;
  std::string source_;
  std::size_t at_ = 0;
  std::size_t end_ = 0;
  std::string kind_;
  std::uint32_t version_ = 0;
  std::map<std::string, Section, std::less<>> sections_;
};

QUERN_NAMESPACE_END

#endif  // QUERN_CORE_ARCHIVE_HPP
