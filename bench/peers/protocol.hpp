// SPDX-License-Identifier: Apache-2.0

/// \file
/// The protocol of bench/peers for a C++ side: commands on stdin, one line of JSON each on stdout.
///
/// A driver derives from peers::Driver, does its work in run() and calls peers::serve(driver).
/// Arrays come from .npy files and stay in memory, so a process is warm when it is timed.

#ifndef QUERN_BENCH_PEERS_PROTOCOL_HPP
#define QUERN_BENCH_PEERS_PROTOCOL_HPP

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <fstream>
#include <iostream>
#include <map>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace peers {

/// A row-major array read from a .npy file, aligned to a cache line.
class Array {
 public:
  Array() = default;
  Array(std::string type, std::vector<std::int64_t> shape)
      : type_(std::move(type)), shape_(std::move(shape)) {
    const std::size_t rounded = (bytes() + 63) / 64 * 64;
    data_.reset(std::aligned_alloc(64, rounded == 0 ? 64 : rounded));
    if (data_ == nullptr) throw std::bad_alloc();
  }

  /// "<f4", "<f8", "<i4", "<i8" or "|u1".
  [[nodiscard]] const std::string& type() const { return type_; }
  [[nodiscard]] const std::vector<std::int64_t>& shape() const { return shape_; }
  [[nodiscard]] std::int64_t extent(std::size_t r) const { return shape_.at(r); }
  [[nodiscard]] std::int64_t size() const {
    std::int64_t count = 1;
    for (const std::int64_t extent : shape_) count *= extent;
    return count;
  }
  [[nodiscard]] std::size_t bytes() const {
    return static_cast<std::size_t>(size()) * static_cast<std::size_t>(type_.at(2) - '0');
  }
  [[nodiscard]] void* raw() const { return data_.get(); }
  template <class T>
  [[nodiscard]] T* data() const {
    return static_cast<T*>(data_.get());
  }

 private:
  struct Free {
    void operator()(void* p) const { std::free(p); }
  };
  std::string type_ = "<f4";
  std::vector<std::int64_t> shape_ = {0};
  std::unique_ptr<void, Free> data_;
};

namespace detail {

/// The quoted text or parenthesised list that follows 'key': in a .npy header.
inline std::string npy_field(const std::string& header, const std::string& key, char open,
                             char close) {
  const std::size_t at = header.find("'" + key + "':");
  const std::size_t begin = header.find(open, at + key.size() + 3);
  const std::size_t end = header.find(close, begin + 1);
  if (at == std::string::npos || begin == std::string::npos || end == std::string::npos)
    throw std::runtime_error("not a .npy header: no " + key);
  return header.substr(begin + 1, end - begin - 1);
}

}  // namespace detail

/// Reads a .npy file of versions 1 to 3 in C order.
inline Array load_npy(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  char magic[8] = {};
  if (!file.read(magic, 8) || std::memcmp(magic, "\x93NUMPY", 6) != 0)
    throw std::runtime_error(path + ": not a .npy file");
  std::uint32_t length = 0;
  file.read(reinterpret_cast<char*>(&length), magic[6] == 1 ? 2 : 4);
  std::string header(length, ' ');
  file.read(header.data(), static_cast<std::streamsize>(length));
  if (header.find("'fortran_order': False") == std::string::npos)
    throw std::runtime_error(path + ": not in C order");
  std::vector<std::int64_t> shape;
  std::istringstream extents(detail::npy_field(header, "shape", '(', ')'));
  for (std::string word; std::getline(extents, word, ',');)
    if (word.find_first_of("0123456789") != std::string::npos) shape.push_back(std::stoll(word));
  Array array(detail::npy_field(header, "descr", '\'', '\''), std::move(shape));
  if (!file.read(array.data<char>(), static_cast<std::streamsize>(array.bytes())))
    throw std::runtime_error(path + ": cut short");
  return array;
}

inline void save_npy(const std::string& path, const Array& array) {
  std::string shape;
  for (const std::int64_t extent : array.shape()) shape += std::to_string(extent) + ", ";
  std::string header =
      "{'descr': '" + array.type() + "', 'fortran_order': False, 'shape': (" + shape + "), }";
  header.append(64 - (header.size() + 11) % 64, ' ').push_back('\n');
  const auto length = static_cast<std::uint16_t>(header.size());
  std::ofstream file(path, std::ios::binary);
  file.write("\x93NUMPY\x01\x00", 8);
  file.write(reinterpret_cast<const char*>(&length), 2);
  file << header;
  file.write(array.data<char>(), static_cast<std::streamsize>(array.bytes()));
  if (!file.flush()) throw std::runtime_error(path + ": cannot be written");
}

/// What follows "run" or "prepare": the case's name and key=value options.
class Command {
 public:
  explicit Command(const std::vector<std::string>& words) : name_(words.at(0)) {
    for (std::size_t i = 1; i < words.size(); ++i) {
      const std::size_t equals = words[i].find('=');
      if (equals == std::string::npos)
        throw std::runtime_error("expected key=value, got " + words[i]);
      options_[words[i].substr(0, equals)] = words[i].substr(equals + 1);
    }
  }

  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] std::string text(const std::string& key, const std::string& otherwise = "") const {
    const auto found = options_.find(key);
    return found == options_.end() ? otherwise : found->second;
  }
  [[nodiscard]] std::int64_t integer(const std::string& key, std::int64_t otherwise) const {
    const auto found = options_.find(key);
    return found == options_.end() ? otherwise : std::stoll(found->second);
  }
  [[nodiscard]] std::int64_t inner() const { return integer("inner", 1); }

 private:
  std::string name_;
  std::map<std::string, std::string> options_;
};

/// A reply: numbers by name.
using Reply = std::map<std::string, double>;

/// Seconds of one call of \p f, the mean of \p inner calls in a row.
template <class F>
double seconds_per_call(std::int64_t inner, F&& f) {
  const auto start = std::chrono::steady_clock::now();
  for (std::int64_t i = 0; i < inner; ++i) f();
  const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
  return taken.count() / static_cast<double>(inner);
}

/// Threads that this side was told to use.
inline int threads() {
  const char* text = std::getenv("QUERN_NUM_THREADS");
  return text == nullptr ? 1 : std::atoi(text);
}

/// Resident and peak megabytes of this process; \p reset makes the present size the peak.
inline Reply memory(bool reset) {
  if (reset) std::ofstream("/proc/self/clear_refs") << "5";
  Reply reply;
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("VmRSS:", 0) == 0) reply["rss_mb"] = std::stod(line.substr(6)) / 1024;
    if (line.rfind("VmHWM:", 0) == 0) reply["peak_mb"] = std::stod(line.substr(6)) / 1024;
  }
  return reply;
}

/// One side of the comparison; a driver overrides what it has.
class Driver {
 public:
  virtual ~Driver() = default;
  [[nodiscard]] virtual std::string describe() const = 0;
  virtual Reply prepare(const Command&) { return {}; }
  virtual Reply run(const Command&) = 0;
  /// The result of the last run, from which quality is computed.
  [[nodiscard]] virtual const Array& output() const = 0;
  virtual void forget() { arrays.clear(); }
  /// The machine's measured limits, by name.
  virtual Reply limits(const Command&) { return {}; }

  [[nodiscard]] const Array& array(const std::string& name) const {
    const auto found = arrays.find(name);
    if (found == arrays.end()) throw std::runtime_error("no array " + name + " was loaded");
    return found->second;
  }

  std::map<std::string, Array> arrays;
};

namespace detail {

inline std::string quoted(const std::string& text) {
  std::string result = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') result += '\\';
    result += static_cast<unsigned char>(c) < 32 ? ' ' : c;
  }
  return result + "\"";
}

inline std::string json(const Reply& reply) {
  std::string result;
  for (const auto& [key, value] : reply) {
    char number[40];
    std::snprintf(number, sizeof number, "%.17g", value);
    result += (result.empty() ? "" : ", ") + quoted(key) + ": " + number;
  }
  return "{" + result + "}";
}

inline std::string answer(Driver& driver, const std::vector<std::string>& words) {
  const std::string& verb = words[0];
  const std::vector<std::string> rest(words.begin() + 1, words.end());
  if (verb == "info") return "{\"name\": " + quoted(driver.describe()) + "}";
  if (verb == "prepare") return json(driver.prepare(Command(rest)));
  if (verb == "run") return json(driver.run(Command(rest)));
  if (verb == "limits") return json(driver.limits(Command(words)));
  if (verb == "memory") return json(memory(!rest.empty()));
  if (verb == "load") {
    driver.arrays[rest.at(0)] = load_npy(rest.at(1));
  } else if (verb == "save") {
    save_npy(rest.at(0), driver.output());
  } else if (verb == "forget") {
    driver.forget();
  } else {
    throw std::runtime_error("unknown command " + verb);
  }
  return "{}";
}

}  // namespace detail

/// Answers commands until "quit" or the end of the input.
inline int serve(Driver& driver) {
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream stream(line);
    std::vector<std::string> words;
    for (std::string word; stream >> word;) words.push_back(word);
    if (words.empty() || words[0] == "quit") break;
    std::string reply;
    try {
      reply = detail::answer(driver, words);
    } catch (const std::exception& error) {
      reply = "{\"error\": " + detail::quoted(error.what()) + "}";
    }
    std::cout << reply << std::endl;
  }
  return 0;
}

}  // namespace peers

#endif  // QUERN_BENCH_PEERS_PROTOCOL_HPP
