// SPDX-License-Identifier: Apache-2.0

/// \file
/// The lexical side of delimited text: where fields and records end, quotes, and the delimiter.

#ifndef QUERN_IO_CSV_TEXT_HPP
#define QUERN_IO_CSV_TEXT_HPP

#include "quern/core/config.hpp"
#include "quern/io/input.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

QUERN_NAMESPACE_BEGIN
namespace io::detail {

/// Walks over the fields of delimited text. With the delimiter ' ' runs of blanks separate fields,
/// and blanks at either end of a line mean nothing. Positions are pointers into the text.
class CsvScanner {
 public:
  CsvScanner(const Input& input, std::string_view text, char delimiter)
      : input_(input),
        begin_(text.data()),
        end_(text.data() + text.size()),
        delimiter_(delimiter),
        other_blank_(delimiter == '\t' ? ' ' : '\t') {}

  [[nodiscard]] const char* begin() const noexcept { return begin_; }
  [[nodiscard]] const char* end() const noexcept { return end_; }

  /// Start of the first record at or after the line that starts at `p`; end() when there is none.
  /// Lines that hold nothing but blanks are no records.
  [[nodiscard]] const char* record_at(const char* p) const {
    while (p != end_) {
      const char* q = skip_blanks(p);
      if (q != end_ && *q == '\r') ++q;
      if (q == end_) return end_;
      if (*q != '\n') return delimiter_ == ' ' ? skip_blanks(p) : p;
      p = q + 1;
    }
    return end_;
  }

  /// Past blanks that are not delimiters: the start of a field's text.
  [[nodiscard]] const char* skip_blanks(const char* p) const {
    while (p != end_ && is_blank(*p)) ++p;
    return p;
  }

  /// Past the blanks behind a field, and a carriage return that ends the line.
  [[nodiscard]] const char* skip_behind(const char* p) const {
    p = skip_blanks(p);
    if (p != end_ && *p == '\r' && (p + 1 == end_ || p[1] == '\n')) ++p;
    return p;
  }

  /// With the delimiter ' ', blanks were skipped before the end of the field was looked for; so
  /// whatever comes next starts another field.
  [[nodiscard]] bool field_ends_at(const char* p, bool blanks_before) const {
    return p == end_ || *p == '\n' || (delimiter_ == ' ' ? blanks_before : *p == delimiter_);
  }
  [[nodiscard]] bool record_ends_at(const char* p) const { return p == end_ || *p == '\n'; }

  /// From the end of a field that is not the record's last to the start of the next.
  [[nodiscard]] const char* next_field(const char* p) const {
    return delimiter_ == ' ' ? p : p + 1;
  }

  /// Reads the field whose text starts at `p` (after blanks) into `text`, without surrounding
  /// blanks and quotes. Returns where it ends. `text` lives until the next call.
  const char* read(const char* p, std::string_view& text) {
    if (p != end_ && *p == '"') return read_quoted(p, text);
    const char* q = p;
    while (q != end_ && *q != delimiter_ && *q != '\n') {
      if (delimiter_ == ' ' && is_blank(*q)) break;
      ++q;
    }
    const char* last = q;
    if (last != p && last[-1] == '\r' && record_ends_at(last)) --last;
    while (last != p && is_blank(last[-1])) --last;
    text = {p, static_cast<std::size_t>(last - p)};
    return delimiter_ == ' ' ? skip_behind(last) : q;
  }

  [[noreturn]] void fail(const char* p, std::string_view message) const {
    input_.fail_at(static_cast<std::size_t>(p - input_.text().data()), message);
  }

 private:
  [[nodiscard]] bool is_blank(char c) const { return c == ' ' || c == other_blank_; }

  const char* read_quoted(const char* open, std::string_view& text) {
    const char* p = open + 1;
    const char* piece = p;
    bool doubled = false;
    for (;;) {
      p = static_cast<const char*>(std::memchr(p, '"', static_cast<std::size_t>(end_ - p)));
      if (p == nullptr) fail(open, "this quote is never closed");
      if (p + 1 == end_ || p[1] != '"') break;
      if (!doubled) scratch_.clear();
      doubled = true;
      scratch_.append(piece, p + 1);  // one of the two quotes
      p += 2;
      piece = p;
    }
    if (doubled) scratch_.append(piece, p);
    text = doubled ? std::string_view(scratch_)
                   : std::string_view(piece, static_cast<std::size_t>(p - piece));
    const char* const after = skip_behind(p + 1);
    if (!field_ends_at(after, after != p + 1)) {
      fail(after, "expected a delimiter or the end of the line after the closing quote, got " +
                      quote_text({after, 1}));
    }
    return after;
  }

  const Input& input_;
  const char* begin_;
  const char* end_;
  char delimiter_;
  char other_blank_;  ///< the tab, unless it is the delimiter
  std::string scratch_;
};

/// Counts each candidate outside quotes in one line that starts at `p`; returns the next line.
template <std::size_t N>
const char* count_candidates(const char* p, const char* end, const std::array<char, N>& candidates,
                             std::array<std::int64_t, N>& counts) {
  counts.fill(0);
  bool inside = false;
  for (; p != end && (inside || *p != '\n'); ++p) {
    if (*p == '"') inside = !inside;
    if (inside) continue;
    for (std::size_t i = 0; i < N; ++i) counts[i] += *p == candidates[i];
  }
  return p == end ? end : p + 1;
}

/// The delimiter: the first of tab, semicolon and comma that every one of the first lines has, the
/// same number of times; else the commonest one of the first line; else a blank, if the first line
/// has one inside; else a comma (one column).
inline char guess_delimiter(std::string_view text) {
  constexpr std::array<char, 3> candidates{'\t', ';', ','};
  constexpr int lines = 64;
  constexpr std::size_t longest = std::size_t{1} << 20;  // look at no more than this
  const char* const end = text.data() + (std::min)(text.size(), longest);
  std::array<std::int64_t, 3> first{};
  std::array<bool, 3> same{true, true, true};
  bool seen = false;
  bool blank_inside = false;
  const char* p = text.data();
  for (int line = 0; line < lines && p != end; ++line) {
    std::array<std::int64_t, 3> counts{};
    const char* const next = count_candidates(p, end, candidates, counts);
    std::string_view here(p, static_cast<std::size_t>(next - p));
    p = next;
    const std::size_t from = here.find_first_not_of(" \t\r\n");
    if (from == std::string_view::npos) continue;
    // A line cut by the limit says nothing.
    if (seen && next == end && end != text.data() + text.size()) break;
    for (std::size_t i = 0; i < 3; ++i) {
      if (!seen) first[i] = counts[i];
      same[i] = same[i] && counts[i] == first[i];
    }
    if (!seen) {
      const std::size_t last = here.find_last_not_of(" \t\r\n");
      blank_inside = here.substr(from, last - from).find(' ') != std::string_view::npos;
    }
    seen = true;
  }
  for (std::size_t i = 0; i < 3; ++i) {
    if (first[i] > 0 && same[i]) return candidates[i];
  }
  std::size_t most = 0;
  for (std::size_t i = 1; i < 3; ++i) {
    if (first[i] > first[most]) most = i;
  }
  if (first[most] > 0) return candidates[most];
  return blank_inside ? ' ' : ',';
}

}  // namespace io::detail
QUERN_NAMESPACE_END

#endif  // QUERN_IO_CSV_TEXT_HPP
