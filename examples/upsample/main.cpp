// SPDX-License-Identifier: Apache-2.0
//
// A PNG in, a PNG out at another size, with any interpolation; and a sheet that sets all of them
// side by side.

#include "quern/core/error.hpp"
#include "quern/core/file.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/nn/image.hpp"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <map>
#include <span>
#include <string>
#include <vector>

#if defined(__GNUC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wsign-conversion"
#pragma GCC diagnostic ignored "-Wshadow"
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"
#endif
#define STB_IMAGE_IMPLEMENTATION
#define STB_IMAGE_STATIC
#define STBI_ONLY_PNG
#define STBI_ONLY_JPEG
#include <stb_image.h>
#define STB_IMAGE_WRITE_IMPLEMENTATION
#define STB_IMAGE_WRITE_STATIC
#include <stb_easy_font.h>
#include <stb_image_write.h>
#if defined(__GNUC__)
#pragma GCC diagnostic pop
#endif

namespace {

namespace nn = quern::nn;
using quern::Index;
using Image = quern::NdArray<std::uint8_t, 3>;

const std::map<std::string, nn::Interpolation> modes = {
    {"nearest", nn::Interpolation::nearest_exact},
    {"bilinear", nn::Interpolation::linear},
    {"bicubic", nn::Interpolation::cubic},
    {"area", nn::Interpolation::overlap},
    {"box", nn::Interpolation::box},
    {"lanczos", nn::Interpolation::lanczos}};

struct Settings {
  std::string in, out = "upsampled.png", sheet, mode = "lanczos";
  double scale = 2;
  Index width = 0, height = 0;
  bool alias = false;
};

Image read_image(const std::string& path) {
  const auto bytes = quern::read_file(path, std::uint64_t{1} << 30);
  int w = 0, h = 0, c = 0;
  stbi_uc* const pixels = stbi_load_from_memory(reinterpret_cast<const stbi_uc*>(bytes.data()),
                                                static_cast<int>(bytes.size()), &w, &h, &c, 0);
  if (pixels == nullptr) {
    throw quern::ParseError("upsample: " + path + ": expected a PNG or JPEG, got " +
                            stbi_failure_reason());
  }
  Image image({h, w, c});
  std::copy_n(pixels, image.size(), image.data());
  stbi_image_free(pixels);
  return image;
}

void write_image(const std::string& path, const Image& image) {
  std::string png;
  const auto append = [](void* to, void* data, int size) {
    static_cast<std::string*>(to)->append(static_cast<const char*>(data),
                                          static_cast<std::size_t>(size));
  };
  const auto at = [&](int r) { return static_cast<int>(image.extent(r)); };
  stbi_write_png_to_func(append, &png, at(1), at(0), at(2), image.data(), at(1) * at(2));
  quern::write_file_atomically(path, std::as_bytes(std::span(png.data(), png.size())));
}

Image resized(const Image& image, const std::string& mode, bool antialias, Index height,
              Index width) {
  Image out({height, width, image.extent(2)});
  nn::resize_image<std::uint8_t>(image.view(), out.view(),
                                 {.mode = modes.at(mode), .antialias = antialias});
  return out;
}

/// Writes `text` into the image, white on what is there.
void label(Image& image, std::string text, Index x, Index y) {
  std::vector<char> memory(text.size() * 300 + 1);
  const int quads = stb_easy_font_print(0, 0, text.data(), nullptr, memory.data(),
                                        static_cast<int>(memory.size()));
  struct Corner {
    float x, y, z;
    unsigned char colour[4];
  };
  for (int q = 0; q < quads; ++q) {
    Corner corners[4];
    std::memcpy(corners, memory.data() + static_cast<std::size_t>(q) * sizeof(corners),
                sizeof(corners));
    const auto scaled = [](float v) { return static_cast<Index>(std::lround(v * 2)); };
    for (Index j = scaled(corners[0].y); j < scaled(corners[2].y); ++j) {
      for (Index i = scaled(corners[0].x); i < scaled(corners[2].x); ++i) {
        if (y + j >= image.extent(0) || x + i >= image.extent(1)) continue;
        for (Index c = 0; c < image.extent(2); ++c) image(y + j, x + i, c) = 255;
      }
    }
  }
}

/// The middle of the image at the result's scale, once for each interpolation.
Image make_sheet(const Image& image, double scale) {
  struct Kind {
    const char* title;
    const char* mode;
    bool antialias;
  };
  constexpr Kind kinds[] = {{"nearest", "nearest", false},
                            {"bilinear", "bilinear", false},
                            {"bicubic", "bicubic", false},
                            {"lanczos", "lanczos", true},
                            {"bilinear, antialias", "bilinear", true},
                            {"area", "area", false}};
  const Index side = 360, head = 28, gap = 6, across = 3, down = 2;
  const double shown = static_cast<double>(side) / scale;
  const Index h = (std::min)(image.extent(0), static_cast<Index>(std::ceil(shown)));
  const Index w = (std::min)(image.extent(1), static_cast<Index>(std::ceil(shown)));
  const auto cut =
      image.view().slice(0, (image.extent(0) - h) / 2, h).slice(1, (image.extent(1) - w) / 2, w);
  const Image middle{quern::NdView<const std::uint8_t, 3>(cut)};
  const Index th = (std::max)(Index{1}, static_cast<Index>(static_cast<double>(h) * scale));
  const Index tw = (std::max)(Index{1}, static_cast<Index>(static_cast<double>(w) * scale));
  Image sheet({down * (th + head + gap) + gap, across * (tw + gap) + gap, image.extent(2)});
  sheet.fill(40);
  for (Index k = 0; k < across * down; ++k) {
    const Kind& kind = kinds[k];
    const Image one = resized(middle, kind.mode, kind.antialias, th, tw);
    const Index top = gap + k / across * (th + head + gap), left = gap + k % across * (tw + gap);
    label(sheet, kind.title, left, top + 4);
    for (Index y = 0; y < th; ++y) {
      std::copy_n(&one(y, 0, 0), tw * image.extent(2), &sheet(top + head + y, left, 0));
    }
  }
  return sheet;
}

int run(int argc, char** argv) {
  CLI::App app("Resizes a picture, with any interpolation.");
  Settings s;
  std::vector<std::string> names;
  for (const auto& [name, mode] : modes) names.push_back(name);
  app.add_option("picture", s.in, "PNG (or JPEG) to read")->required();
  app.add_option("--out", s.out, "PNG to write")->capture_default_str();
  app.add_option("--mode", s.mode, "interpolation")
      ->capture_default_str()
      ->check(CLI::IsMember(names));
  app.add_option("--scale", s.scale, "factor, where no size is given")
      ->capture_default_str()
      ->check(CLI::Range(0.001, 1000.0));
  app.add_option("--width", s.width, "of the result")->check(CLI::Range(1, 1 << 20));
  app.add_option("--height", s.height, "of the result")->check(CLI::Range(1, 1 << 20));
  app.add_flag("--alias", s.alias, "bilinear, bicubic: no wider filter when shrinking");
  app.add_option("--sheet", s.sheet, "PNG with the picture's middle in every interpolation");
  CLI11_PARSE(app, argc, argv);

  const Image image = read_image(s.in);
  const auto sized = [&](Index asked, Index from) {
    if (asked > 0) return asked;
    return (std::max)(Index{1}, nn::scaled_extent(from, s.scale));
  };
  const Index height = sized(s.height, image.extent(0)), width = sized(s.width, image.extent(1));
  const auto start = std::chrono::steady_clock::now();
  const Image out = resized(image, s.mode, !s.alias, height, width);
  const std::chrono::duration<double, std::milli> taken = std::chrono::steady_clock::now() - start;
  write_image(s.out, out);
  std::printf("%td x %td to %td x %td, %td channels, %s: %.2f ms\nwrote %s\n", image.extent(1),
              image.extent(0), width, height, image.extent(2), s.mode.c_str(), taken.count(),
              s.out.c_str());
  if (!s.sheet.empty()) {
    write_image(s.sheet, make_sheet(image, s.scale));
    std::printf("wrote %s\n", s.sheet.c_str());
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "upsample: %s\n", e.what());
    return 1;
  }
}
