// SPDX-License-Identifier: Apache-2.0

/// \file
/// References of tests/reference: lines of a key and numbers, and small NPY files.

#ifndef QUERN_TESTS_BOOSTING_REFERENCE_HPP
#define QUERN_TESTS_BOOSTING_REFERENCE_HPP

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace quern::test {

/// Numbers by key.
class ReferenceText {
 public:
  explicit ReferenceText(const std::string& name, const std::string& folder = "trees") {
    std::ifstream in(std::string(QUERN_TEST_REFERENCE_DIR) + "/" + folder + "/" + name);
    std::string line;
    while (std::getline(in, line)) {
      std::istringstream words(line);
      std::string key, word;
      words >> key;
      std::vector<double>& values = numbers_[key];
      values.clear();
      while (words >> word) values.push_back(std::stod(word));
    }
    if (numbers_.empty()) throw std::runtime_error("no reference " + name);
  }
  [[nodiscard]] bool has(const std::string& key) const { return numbers_.count(key) > 0; }
  [[nodiscard]] const std::vector<double>& operator[](const std::string& key) const {
    return numbers_.at(key);
  }
  [[nodiscard]] std::vector<float> floats(const std::string& key) const {
    std::vector<float> out;
    for (const double v : numbers_.at(key)) out.push_back(static_cast<float>(v));
    return out;
  }
  /// Offsets of groups of these sizes.
  [[nodiscard]] std::vector<std::int64_t> offsets(const std::string& key) const {
    std::vector<std::int64_t> out = {0};
    for (const double v : numbers_.at(key))
      out.push_back(out.back() + static_cast<std::int64_t>(v));
    return out;
  }

 private:
  std::map<std::string, std::vector<double>> numbers_;
};

/// The elements of a little-endian NPY file of T, version 1.
template <class T>
std::vector<T> reference_npy(const std::string& name) {
  std::ifstream in(std::string(QUERN_TEST_REFERENCE_DIR) + "/trees/" + name + ".npy",
                   std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  if (bytes.size() < 10) throw std::runtime_error("no reference " + name);
  const std::size_t head =
      10 + static_cast<unsigned char>(bytes[8]) + 256u * static_cast<unsigned char>(bytes[9]);
  std::vector<T> out((bytes.size() - head) / sizeof(T));
  std::memcpy(out.data(), bytes.data() + head, out.size() * sizeof(T));
  return out;
}

}  // namespace quern::test

#endif  // QUERN_TESTS_BOOSTING_REFERENCE_HPP
