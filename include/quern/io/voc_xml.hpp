// SPDX-License-Identifier: Apache-2.0

/// \file
/// Pascal VOC's annotation files: one small XML document an image. The reader takes the XML that
/// such files are made of (elements, attributes, text, comments, entities) and refuses the rest.

#ifndef QUERN_IO_VOC_XML_HPP
#define QUERN_IO_VOC_XML_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/detection/voc_eval.hpp"
#include "quern/io/input.hpp"
#include "quern/io/number.hpp"

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace io {

struct VocObject {
  std::string name;
  detection::CornerBox box{};  ///< xmin ymin xmax ymax as they stand in the file
  bool difficult = false;
};

struct VocAnnotation {
  std::string filename;
  double width = 0;  ///< 0: not said
  double height = 0;
  std::vector<VocObject> objects;
};

namespace detail {

/// Walks over an XML text once.
class XmlScan {
 public:
  explicit XmlScan(const Input& input) : input_(input), text_(input.text()) {
    if (text_.substr(0, 3) == "\xEF\xBB\xBF") at_ = 3;
  }

  [[nodiscard]] std::size_t offset() const noexcept { return at_; }
  [[noreturn]] void fail(std::string_view message) const { input_.fail_at(at_, message); }
  [[noreturn]] void fail_at(std::size_t at, std::string_view message) const {
    input_.fail_at(at, message);
  }

  /// The root element: each(name) is called for each child, which it reads with children() or
  /// text().
  template <class F>
  void root(std::string_view name, F&& each) {
    prologue();
    if (open() != name) fail("expected the element <" + std::string(name) + ">");
    children(name, each);
    prologue();
    if (at_ != text_.size()) fail("expected the end of the text");
  }

  /// The children of the element that was just opened, up to its end.
  template <class F>
  void children(std::string_view name, F&& each) {
    if (empty_) return void(empty_ = false);
    if (++depth_ > 64) fail("nested deeper than 64");
    while (!next_is_end()) each(open());
    close(name);
    --depth_;
  }

  /// The text of the element that was just opened, which may have no children.
  std::string text(std::string_view name) {
    std::string value;
    if (empty_) return empty_ = false, value;
    while (!starts("</")) {
      if (at_ == text_.size()) fail("cut short inside <" + std::string(name) + ">");
      if (starts("<!--")) {
        after("-->");
      } else if (starts("<![CDATA[")) {
        const std::size_t from = at_ + 9;
        after("]]>");
        value += text_.substr(from, at_ - 3 - from);
      } else if (text_[at_] == '<') {
        fail("expected text in <" + std::string(name) + ">");
      } else if (text_[at_] == '&') {
        value += entity();
      } else {
        value += text_[at_++];
      }
    }
    close(name);
    const std::size_t first = value.find_first_not_of(" \t\r\n");
    if (first == std::string::npos) return {};
    return value.substr(first, value.find_last_not_of(" \t\r\n") - first + 1);
  }

  double number(std::string_view name) {
    const std::size_t at = at_;
    const std::string value = text(name);
    const Number<double> n = parse_whole_number<double>(value);
    if (n.status != NumberStatus::ok || !is_finite_bits(n.value)) {
      fail_at(at, "expected a number in <" + std::string(name) + ">, got " + quote_text(value));
    }
    return n.value;
  }

  void skip(std::string_view name) {
    const std::string own(name);
    if (empty_) return void(empty_ = false);
    if (++depth_ > 64) fail("nested deeper than 64");
    for (;;) {
      while (at_ != text_.size() && text_[at_] != '<') ++at_;
      if (starts("<![CDATA[")) {
        after("]]>");
      } else if (next_is_end()) {
        break;
      } else {
        skip(std::string(open()));
      }
    }
    close(own);
    --depth_;
  }

 private:
  static bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }
  static bool is_name(char c) {
    const char l = lower(c);
    return (l >= 'a' && l <= 'z') || is_digit(c) || c == '_' || c == '-' || c == '.' || c == ':' ||
           static_cast<unsigned char>(c) >= 128;
  }

  [[nodiscard]] bool starts(std::string_view word) const {
    return text_.substr(at_, word.size()) == word;
  }
  void spaces() {
    while (at_ != text_.size() && is_space(text_[at_])) ++at_;
  }
  void after(std::string_view mark) {
    const std::size_t found = text_.find(mark, at_);
    if (found == std::string_view::npos) fail("cut short: expected " + std::string(mark));
    at_ = found + mark.size();
  }

  /// White space, comments and processing instructions.
  void prologue() {
    for (;;) {
      spaces();
      if (starts("<?")) {
        after("?>");
      } else if (starts("<!--")) {
        after("-->");
      } else {
        return;
      }
    }
  }

  /// Whether the end of the element is next, not another child.
  bool next_is_end() {
    prologue();
    if (at_ == text_.size()) fail("cut short: an element does not end");
    if (text_[at_] != '<') fail("expected an element");
    return starts("</");
  }

  std::string_view name() {
    const std::size_t from = at_;
    while (at_ != text_.size() && is_name(text_[at_])) ++at_;
    if (at_ == from) fail("expected a name");
    return text_.substr(from, at_ - from);
  }

  /// Reads <name attributes> or <name/>; the latter is remembered for who reads the contents.
  std::string_view open() {
    if (!starts("<")) fail("expected an element");
    ++at_;
    const std::string_view found = name();
    for (spaces(); at_ != text_.size() && is_name(text_[at_]); spaces()) attribute();
    empty_ = starts("/>");
    if (!empty_ && !starts(">")) fail("expected '>'");
    at_ += empty_ ? 2 : 1;
    return found;
  }
  void attribute() {
    (void)name();
    spaces();
    if (!starts("=")) fail("expected '=' after an attribute");
    ++at_;
    spaces();
    if (!starts("\"") && !starts("'")) fail("expected a value in quotes");
    const char quote = text_[at_++];
    after(std::string_view(&quote, 1));
  }

  void close(std::string_view expected) {
    at_ += 2;
    const std::size_t from = at_;
    if (name() != expected) fail_at(from, "expected </" + std::string(expected) + ">");
    spaces();
    if (!starts(">")) fail("expected '>'");
    ++at_;
  }

  /// The five entities that XML knows, and ASCII by number.
  char entity() {
    const std::size_t end = text_.find(';', at_);
    const std::string_view word =
        end == std::string_view::npos ? "" : text_.substr(at_ + 1, end - at_ - 1);
    static constexpr std::string_view names[] = {"amp", "lt", "gt", "quot", "apos"};
    static constexpr std::string_view means = "&<>\"'";
    for (std::size_t i = 0; i < 5; ++i) {
      if (word == names[i]) return at_ = end + 1, means[i];
    }
    if (word.size() > 1 && word.size() < 5 && word[0] == '#') {
      const Number<double> code = parse_whole_number<double>(word.substr(1));
      if (code.status == NumberStatus::ok && code.value >= 32 && code.value < 127 &&
          code.value == static_cast<int>(code.value)) {
        at_ = end + 1;
        return static_cast<char>(static_cast<int>(code.value));
      }
    }
    fail("an entity that is not known");
  }

  const Input& input_;
  std::string_view text_;
  std::size_t at_ = 0;
  bool empty_ = false;
  int depth_ = 0;
};

class VocXmlReader {
 public:
  explicit VocXmlReader(const Input& input) : xml_(input) {}

  VocAnnotation read() {
    xml_.root("annotation", [&](std::string_view name) {
      if (name == "filename") {
        result_.filename = xml_.text(name);
      } else if (name == "size") {
        size();
      } else if (name == "object") {
        object();
      } else {
        xml_.skip(name);
      }
    });
    return std::move(result_);
  }

 private:
  void size() {
    xml_.children("size", [&](std::string_view name) {
      const std::size_t at = xml_.offset();
      if (name != "width" && name != "height") return xml_.skip(name);
      const double pixels = xml_.number(name);
      if (pixels < 0) xml_.fail_at(at, "a negative size");
      (name == "width" ? result_.width : result_.height) = pixels;
    });
  }

  void object() {
    const std::size_t at = xml_.offset();
    VocObject o;
    bool named = false, boxed = false;
    xml_.children("object", [&](std::string_view name) {
      if (name == "name") {
        o.name = xml_.text(name);
        named = true;
      } else if (name == "difficult") {
        o.difficult = xml_.number(name) != 0;
      } else if (name == "bndbox") {
        box(o.box);
        boxed = true;
      } else {
        xml_.skip(name);  // also <part>, which has names and boxes of its own
      }
    });
    if (!named || !boxed) xml_.fail_at(at, "an object without name or bndbox");
    result_.objects.push_back(std::move(o));
  }

  void box(detection::CornerBox& b) {
    const std::size_t at = xml_.offset();
    int found = 0;
    xml_.children("bndbox", [&](std::string_view name) {
      double* const to = name == "xmin"   ? &b.x1
                         : name == "ymin" ? &b.y1
                         : name == "xmax" ? &b.x2
                         : name == "ymax" ? &b.y2
                                          : nullptr;
      if (to == nullptr) return xml_.skip(name);
      *to = xml_.number(name);
      found |= 1 << (to == &b.x1 ? 0 : to == &b.y1 ? 1 : to == &b.x2 ? 2 : 3);
    });
    if (found != 15) xml_.fail_at(at, "a bndbox without all of xmin, ymin, xmax, ymax");
    if (b.x2 < b.x1 || b.y2 < b.y1) xml_.fail_at(at, "a bndbox of negative size");
  }

  XmlScan xml_;
  VocAnnotation result_;
};

}  // namespace detail

/// Reads one annotation file. ParseError with line and column for what is no such file, objects
/// without name or box, boxes of negative size; IoError when the system refuses.
[[nodiscard]] inline VocAnnotation read_voc_xml(const std::string& path,
                                                const Limits& limits = {}) {
  const Input input = Input::file(path, limits, "quern::io::read_voc_xml");
  return detail::VocXmlReader(input).read();
}
/// The same of memory; `name` stands for the file in messages.
[[nodiscard]] inline VocAnnotation parse_voc_xml(std::string_view text,
                                                 std::string_view name = "memory",
                                                 const Limits& limits = {}) {
  const Input input = Input::memory(text, name, limits, "quern::io::parse_voc_xml");
  return detail::VocXmlReader(input).read();
}

}  // namespace io
QUERN_NAMESPACE_END

#endif  // QUERN_IO_VOC_XML_HPP
