// SPDX-License-Identifier: Apache-2.0

#include "wave.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace {

/// Little-endian numbers of a file.
class Bytes {
 public:
  Bytes(std::string path, std::string text) : path_(std::move(path)), text_(std::move(text)) {}
  [[nodiscard]] std::size_t size() const { return text_.size(); }
  [[nodiscard]] std::string_view tag(std::size_t at) const {
    need(at, 4);
    return std::string_view(text_).substr(at, 4);
  }
  [[nodiscard]] std::uint32_t number(std::size_t at, std::size_t bytes) const {
    need(at, bytes);
    std::uint32_t value = 0;
    for (std::size_t i = bytes; i-- > 0;) {
      value = value << 8U | static_cast<unsigned char>(text_[at + i]);
    }
    return value;
  }
  [[noreturn]] void fail(const std::string& what) const {
    throw std::runtime_error(path_ + ": " + what);
  }

 private:
  void need(std::size_t at, std::size_t bytes) const {
    if (at > text_.size() || bytes > text_.size() - at) fail("the file is cut short");
  }
  std::string path_, text_;
};

}  // namespace

Wave read_wave(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw std::runtime_error(path + ": cannot be read");
  const Bytes bytes(path, std::string((std::istreambuf_iterator<char>(in)), {}));
  if (bytes.size() < 12 || bytes.tag(0) != "RIFF" || bytes.tag(8) != "WAVE") {
    bytes.fail("no RIFF WAVE file");
  }
  Wave wave;
  std::size_t channels = 0;
  for (std::size_t at = 12; at + 8 <= bytes.size();) {
    const std::size_t size = bytes.number(at + 4, 4);
    if (bytes.tag(at) == "fmt ") {
      if (bytes.number(at + 8, 2) != 1 || bytes.number(at + 22, 2) != 16) {
        bytes.fail("only samples of 16 bits, not compressed, are read");
      }
      channels = bytes.number(at + 10, 2);
      wave.rate = bytes.number(at + 12, 4);
    } else if (bytes.tag(at) == "data") {
      if (channels == 0) bytes.fail("samples before their format");
      for (std::size_t i = 0; i + 2 * channels <= size; i += 2 * channels) {
        const auto sample = static_cast<std::int16_t>(bytes.number(at + 8 + i, 2));
        wave.samples.push_back(static_cast<double>(sample) / 32768);
      }
      return wave;
    }
    at += 8 + size + size % 2;
  }
  bytes.fail("no samples");
}

Wave slower(const Wave& wave, int factor) {
  const auto each = static_cast<std::size_t>((std::max)(1, factor));
  Wave out;
  out.rate = wave.rate / static_cast<double>(each);
  for (std::size_t i = 0; i + each <= wave.samples.size(); i += each) {
    double sum = 0;
    for (std::size_t j = 0; j < each; ++j) sum += wave.samples[i + j];
    out.samples.push_back(sum / static_cast<double>(each));
  }
  return out;
}

Wave made_up(int samples) {
  Wave wave;
  for (int i = 0; i < samples; ++i) {
    const double t = static_cast<double>(i) / samples;
    const double loud = std::fabs(std::sin(9 * t)) * (t < 0.3 || t > 0.4 ? 1 : 0.1);
    wave.samples.push_back(0.6 * loud * std::sin(60 * t + 120 * t * t));
  }
  return wave;
}
