// SPDX-License-Identifier: Apache-2.0

/// \file
/// Masks as run lengths, the way COCO keeps them: down the columns, a run of zeros first. Area,
/// box, IoU, union and intersection without unpacking; COCO's compressed strings in and out.

#ifndef QUERN_DETECTION_RLE_HPP
#define QUERN_DETECTION_RLE_HPP

#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/detection/box.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace detection {

/// A binary mask. The counts sum to height * width; runs of length 0 may occur.
struct Rle {
  std::uint32_t height = 0;
  std::uint32_t width = 0;
  std::vector<std::uint32_t> counts;

  [[nodiscard]] std::uint64_t pixels() const noexcept { return std::uint64_t{height} * width; }
  friend bool operator==(const Rle&, const Rle&) = default;
};

enum class MaskMerge : std::uint8_t { any, all };  ///< union or intersection

/// ShapeError unless the counts fill height x width exactly, and that has at most 2^31 - 1 pixels.
inline void check_rle(std::string_view function, std::string_view argument, const Rle& mask) {
  std::uint64_t sum = 0;
  for (const std::uint32_t c : mask.counts) sum += c;
  const std::uint64_t pixels = mask.pixels();
  if (sum != pixels || pixels > 0x7fffffffU) {
    throw ShapeError(error_text(function, argument,
                                "runs of " + std::to_string(mask.height) + " x " +
                                    std::to_string(mask.width) + " pixels together",
                                sum));
  }
}

/// Pixels that are set.
[[nodiscard]] inline std::uint64_t area(const Rle& mask) noexcept {
  std::uint64_t sum = 0;
  for (std::size_t i = 1; i < mask.counts.size(); i += 2) sum += mask.counts[i];
  return sum;
}

/// The smallest box around the pixels that are set; all 0 for a mask of at most one run. As COCO's
/// tools, a set run of length 0 counts with the pixel before it.
[[nodiscard]] inline Box box_of(const Rle& mask) noexcept {
  const std::size_t runs = mask.counts.size() / 2 * 2;
  if (runs == 0 || mask.height == 0) return {};
  const std::uint32_t h = mask.height;
  std::uint32_t x_low = mask.width, y_low = h, x_high = 0, y_high = 0, x_before = 0, end = 0;
  for (std::size_t i = 0; i < runs; ++i) {
    end += mask.counts[i];
    const std::uint32_t at = end - static_cast<std::uint32_t>(i % 2);
    const std::uint32_t y = at % h, x = at / h;
    if (i % 2 == 0) {
      x_before = x;
    } else if (x_before < x) {
      y_low = 0;
      y_high = h - 1;
    }
    x_low = (std::min)(x_low, x), x_high = (std::max)(x_high, x);
    y_low = (std::min)(y_low, y), y_high = (std::max)(y_high, y);
  }
  return {static_cast<double>(x_low), static_cast<double>(y_low),
          static_cast<double>(x_high - x_low + 1), static_cast<double>(y_high - y_low + 1)};
}

namespace detail {

/// One past the last pixel that may be set.
inline std::uint64_t end_of_set(const Rle& mask) noexcept {
  const bool zeros_last = mask.counts.size() % 2 == 1;
  return mask.pixels() - (zeros_last ? mask.counts.back() : 0);
}

}  // namespace detail

/// Pixels that are set in both; the masks have one size.
[[nodiscard]] inline std::uint64_t intersection(const Rle& a, const Rle& b) noexcept {
  std::uint64_t inter = 0, a_begin = 0, b_begin = 0;
  std::size_t i = 0, j = 0;
  // Most pairs lie in columns apart.
  if (a.counts.empty() || b.counts.empty() || a.counts[0] >= detail::end_of_set(b) ||
      b.counts[0] >= detail::end_of_set(a)) {
    return 0;
  }
  // Each step looks at one set run of either side and leaves the one that ends first.
  const auto next = [](const Rle& m, std::size_t& k, std::uint64_t& begin) {
    if (k > 0) begin += m.counts[k - 1];
    if (k + 1 >= m.counts.size()) return false;
    begin += m.counts[k];
    k += 2;
    return true;
  };
  bool more = next(a, i, a_begin) && next(b, j, b_begin);
  while (more) {
    const std::uint64_t a_end = a_begin + a.counts[i - 1], b_end = b_begin + b.counts[j - 1];
    const std::uint64_t low = (std::max)(a_begin, b_begin), high = (std::min)(a_end, b_end);
    if (high > low) inter += high - low;
    more = a_end <= b_end ? next(a, i, a_begin) : next(b, j, b_begin);
  }
  return inter;
}

namespace detail {

/// iou() of masks that are known to fill their images.
inline double mask_iou(const Rle& detection, const Rle& truth, bool crowd) {
  if (detection.height != truth.height || detection.width != truth.width) {
    throw ShapeError(error_text(
        "quern::detection::iou", "truth",
        "a mask of " + std::to_string(detection.height) + " x " + std::to_string(detection.width),
        std::to_string(truth.height) + " x " + std::to_string(truth.width)));
  }
  const std::uint64_t inter = intersection(detection, truth);
  if (inter == 0) return 0;
  const std::uint64_t first = area(detection);
  const std::uint64_t both = crowd ? first : first + area(truth) - inter;
  return static_cast<double>(inter) / static_cast<double>(both);
}

}  // namespace detail

/// IoU of two masks of one size, 0 when nothing is common; for a crowd as second mask intersection
/// over the area of the first. ShapeError for sizes that differ, and for runs that do not fill
/// them.
[[nodiscard]] inline double iou(const Rle& detection, const Rle& truth, bool crowd = false) {
  check_rle("quern::detection::iou", "detection", detection);
  check_rle("quern::detection::iou", "truth", truth);
  return detail::mask_iou(detection, truth, crowd);
}

namespace detail {

inline Rle merge_two(const Rle& a, const Rle& b, MaskMerge how) {
  Rle out{a.height, a.width, {}};
  std::size_t i = 1, j = 1;
  std::uint32_t left_a = a.counts.empty() ? 0 : a.counts[0];
  std::uint32_t left_b = b.counts.empty() ? 0 : b.counts[0];
  std::uint32_t run = 0, left = 1;
  bool set_a = false, set_b = false, set = false;
  while (left > 0) {
    const std::uint32_t step = (std::min)(left_a, left_b);
    run += step;
    left_a -= step, left_b -= step;
    if (left_a == 0 && i < a.counts.size()) left_a = a.counts[i++], set_a = !set_a;
    if (left_b == 0 && j < b.counts.size()) left_b = b.counts[j++], set_b = !set_b;
    left = left_a + left_b;
    const bool now = how == MaskMerge::all ? set_a && set_b : set_a || set_b;
    if (now != set || left == 0) {
      out.counts.push_back(run);
      run = 0;
    }
    set = now;
  }
  return out;
}

}  // namespace detail

/// Union or intersection of masks of one size. ShapeError for none, or sizes that differ.
[[nodiscard]] inline Rle merge(std::span<const Rle> masks, MaskMerge how) {
  static constexpr const char* function = "quern::detection::merge";
  if (masks.empty()) throw ShapeError(error_text(function, "masks", "at least one", 0));
  for (const Rle& m : masks) {
    check_rle(function, "masks", m);
    if (m.height != masks[0].height || m.width != masks[0].width) {
      throw ShapeError(error_text(function, "masks", "masks of one size",
                                  std::to_string(m.height) + " x " + std::to_string(m.width) +
                                      " after " + std::to_string(masks[0].height) + " x " +
                                      std::to_string(masks[0].width)));
    }
  }
  Rle out = masks[0];
  for (std::size_t i = 1; i < masks.size(); ++i) out = detail::merge_two(out, masks[i], how);
  return out;
}

/// The mask of an image (height, width), where what is not 0 is set.
template <class T>
[[nodiscard]] Rle encode(const NdView<T, 2>& pixels) {
  if (pixels.rows() > 0 && pixels.cols() > 0x7fffffff / pixels.rows()) {
    throw ShapeError(error_text("quern::detection::encode", "pixels", "at most 2^31 - 1 of them",
                                shape_text(pixels.extents())));
  }
  Rle mask{
      static_cast<std::uint32_t>(pixels.rows()), static_cast<std::uint32_t>(pixels.cols()), {}};
  bool set = false;
  std::uint32_t run = 0;
  for (Index x = 0; x < pixels.cols(); ++x) {
    for (Index y = 0; y < pixels.rows(); ++y) {
      const bool now = pixels(y, x) != 0;
      if (now != set) {
        mask.counts.push_back(run);
        run = 0;
        set = now;
      }
      ++run;
    }
  }
  mask.counts.push_back(run);
  return mask;
}

/// The image (height, width) of 0 and 1.
[[nodiscard]] inline NdArray<std::uint8_t, 2> decode(const Rle& mask) {
  check_rle("quern::detection::decode", "mask", mask);
  NdArray<std::uint8_t, 2> pixels(
      {static_cast<Index>(mask.height), static_cast<Index>(mask.width)});
  std::uint64_t at = 0;
  for (std::size_t i = 0; i < mask.counts.size(); ++i) {
    const std::uint64_t end = at + mask.counts[i];
    for (; at < end; ++at) {
      if (i % 2 == 1) {
        pixels(static_cast<Index>(at % mask.height), static_cast<Index>(at / mask.height)) = 1;
      }
    }
  }
  return pixels;
}

/// COCO's compressed string: from the fourth on, counts are differences to the count two before;
/// 5 bits a character, the low ones first, bit 5 says that more follow, sign-extended, + 48.
[[nodiscard]] inline std::string compressed(const Rle& mask) {
  std::string text;
  for (std::size_t i = 0; i < mask.counts.size(); ++i) {
    std::int64_t x = mask.counts[i];
    if (i > 2) x -= mask.counts[i - 2];
    for (bool more = true; more;) {
      const std::int64_t low = x & 31;
      x >>= 5;
      more = (low & 16) != 0 ? x != -1 : x != 0;
      text.push_back(static_cast<char>((low | (more ? 32 : 0)) + 48));
    }
  }
  return text;
}

/// What is wrong with a compressed string, or none.
enum class RleFault : std::uint8_t { none, character, cut_short, range, size };

/// Reads a compressed string into mask.counts for mask's height and width; the place of a fault
/// goes to `at`. Never throws for what the text holds.
[[nodiscard]] inline RleFault parse_compressed(std::string_view text, Rle& mask, std::size_t& at) {
  mask.counts.clear();
  mask.counts.reserve(text.size() / 2 + 1);
  const std::uint64_t pixels = mask.pixels();
  std::uint64_t sum = 0;
  for (at = 0; at < text.size();) {
    std::int64_t x = 0;
    int shift = 0;
    for (bool more = true; more;) {
      if (at == text.size()) return RleFault::cut_short;
      const int c = static_cast<unsigned char>(text[at]) - 48;
      if (c < 0 || c > 63) return RleFault::character;
      if (shift > 35) return RleFault::range;
      x |= std::int64_t{c & 31} << shift;
      shift += 5;
      more = (c & 32) != 0;
      if (!more && (c & 16) != 0) x -= std::int64_t{1} << shift;
      ++at;
    }
    if (mask.counts.size() > 2) x += mask.counts[mask.counts.size() - 2];
    if (x < 0 || static_cast<std::uint64_t>(x) > pixels - sum) return RleFault::range;
    sum += static_cast<std::uint64_t>(x);
    mask.counts.push_back(static_cast<std::uint32_t>(x));
  }
  return sum == pixels ? RleFault::none : RleFault::size;
}

/// The mask of a compressed string. ParseError, with the place in the string, for characters that
/// cannot occur, a string that is cut short, and counts that do not fill height x width.
[[nodiscard]] inline Rle from_compressed(std::string_view text, std::uint32_t height,
                                         std::uint32_t width) {
  Rle mask{height, width, {}};
  std::size_t at = 0;
  const RleFault fault =
      mask.pixels() > 0x7fffffffU ? RleFault::range : parse_compressed(text, mask, at);
  if (fault == RleFault::none) return mask;
  throw ParseError("quern::detection::from_compressed: text: character " + std::to_string(at) +
                   (fault == RleFault::character   ? ": not one of a compressed mask"
                    : fault == RleFault::cut_short ? ": cut short"
                                                   : ": the runs do not fit ") +
                   (fault == RleFault::range || fault == RleFault::size
                        ? std::to_string(height) + " x " + std::to_string(width) + " pixels"
                        : ""));
}

}  // namespace detection
QUERN_NAMESPACE_END

#endif  // QUERN_DETECTION_RLE_HPP
