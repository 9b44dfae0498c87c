// SPDX-License-Identifier: Apache-2.0

/// \file
/// Pictures that a page can hold. For examples; needs stb_image_write.h.

#ifndef QUERN_EXAMPLES_COMMON_PICTURE_HPP
#define QUERN_EXAMPLES_COMMON_PICTURE_HPP

#if defined(__GNUC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"
#endif
#define STB_IMAGE_WRITE_IMPLEMENTATION
#define STB_IMAGE_WRITE_STATIC
#include <stb_image_write.h>
#if defined(__GNUC__)
#pragma GCC diagnostic pop
#endif

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace page {
namespace detail {

inline std::string base64(const std::string& bytes) {
  static constexpr char digits[] =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    unsigned word = 0;
    for (std::size_t k = 0; k < 3; ++k)
      word = word << 8 | (i + k < bytes.size() ? static_cast<unsigned char>(bytes[i + k]) : 0U);
    for (std::size_t k = 0; k < 4; ++k)
      text += i + k > bytes.size() ? '=' : digits[word >> (18 - 6 * k) & 63U];
  }
  return text;
}

}  // namespace detail

/// A PNG as a data URI. \p pixels: (height, width, channels); channels 1: grey, 3: colour.
inline std::string png(const std::vector<unsigned char>& pixels, std::int64_t height,
                       std::int64_t width, int channels) {
  std::string bytes;
  const auto collect = [](void* to, void* data, int size) {
    static_cast<std::string*>(to)->append(static_cast<const char*>(data),
                                          static_cast<std::size_t>(size));
  };
  const int row = static_cast<int>(width);
  if (stbi_write_png_to_func(collect, &bytes, row, static_cast<int>(height), channels,
                             pixels.data(), row * channels) == 0)
    throw std::runtime_error("no memory for a picture");
  return "data:image/png;base64," + detail::base64(bytes);
}

}  // namespace page

#endif  // QUERN_EXAMPLES_COMMON_PICTURE_HPP
