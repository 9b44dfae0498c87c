// SPDX-License-Identifier: Apache-2.0

/// \file
/// What a cut at a random threshold asks of a node's codes: between which it may lie, and how many
/// of each class lie below it.

#if defined(QUERN_KERNELS_TREE_CUT_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_KERNELS_TREE_CUT_INL_HPP
#undef QUERN_KERNELS_TREE_CUT_INL_HPP
#else
#define QUERN_KERNELS_TREE_CUT_INL_HPP
#endif

#include "quern/core/config.hpp"
#include "quern/kernels/targets.hpp"

#include "hwy/highway.h"

#include <cstddef>
#include <cstdint>

HWY_BEFORE_NAMESPACE();
QUERN_NAMESPACE_BEGIN
namespace kernels {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

namespace tree_detail {

#if !QUERN_TARGET_IS_PORTABLE
/// Codes in a block: one bit each of a word.
inline constexpr std::int64_t cut_block = 64;

template <class Code>
using CutTag = hn::CappedTag<Code, 64>;
template <class Code>
using CutSixteen = hn::Full128<Code>;

/// Keep<V>(a, b) of all lanes, which a few loads of 16 bytes put together: Highway 1.0 reduces no
/// vectors of bytes. Four codes (a byte each) or one (of four bytes) are left in the result.
template <class Code, class Keep>
HWY_INLINE std::uint32_t reduce_codes(const hn::Vec<CutTag<Code>> v, const Keep& keep) {
  const CutTag<Code> d;
  const CutSixteen<Code> d16;
  const hn::Full128<std::uint32_t> d32;
  constexpr std::size_t kSixteen = 16 / sizeof(Code);
  HWY_ALIGN Code lanes[64];
  hn::Store(v, d, lanes);
  auto kept = hn::Load(d16, lanes);
  for (std::size_t i = kSixteen; i < hn::Lanes(d); i += kSixteen)
    kept = keep(kept, hn::Load(d16, lanes + i));
  kept = keep(kept, hn::BitCast(d16, hn::Shuffle1032(hn::BitCast(d32, kept))));
  kept = keep(kept, hn::BitCast(d16, hn::Shuffle2301(hn::BitCast(d32, kept))));
  return hn::GetLane(hn::BitCast(d32, kept));
}

HWY_INLINE std::uint32_t least_byte(std::uint32_t four) {
  std::uint32_t least = four & 255U;
  for (int shift = 8; shift < 32; shift += 8)
    least = (four >> shift & 255U) < least ? four >> shift & 255U : least;
  return least;
}
HWY_INLINE std::uint32_t largest_byte(std::uint32_t four) { return 255U - least_byte(~four); }

/// Bit i: whether code i of a block is at most \p most.
template <class Code>
HWY_INLINE std::uint64_t bits_up_to(const Code* HWY_RESTRICT codes, hn::Vec<CutTag<Code>> most) {
  const CutTag<Code> d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  std::uint64_t bits = 0;
  for (std::int64_t i = 0; i < cut_block; i += lanes) {
    HWY_ALIGN std::uint8_t bytes[8] = {};
    const auto code = hn::LoadU(d, codes + i);
    hn::StoreMaskBits(d, hn::Eq(hn::Min(code, most), code), bytes);
    std::uint64_t some = 0;
    hwy::CopyBytes<8>(bytes, &some);
    bits |= some << i;
  }
  return bits;
}
#endif

}  // namespace tree_detail

/// Smallest and largest of \p n >= 1 codes (unsigned, of one or four bytes). Reads up to the next
/// multiple of 64, where there must be copies of some of them.
template <class Code>
void code_range(const Code* HWY_RESTRICT codes, std::int64_t n, Code* HWY_RESTRICT low,
                Code* HWY_RESTRICT high) {
#if QUERN_TARGET_IS_PORTABLE
  Code least = codes[0], most = codes[0];
  for (std::int64_t i = 1; i < n; ++i) {
    least = codes[i] < least ? codes[i] : least;
    most = codes[i] > most ? codes[i] : most;
  }
  *low = least;
  *high = most;
#else
  const tree_detail::CutTag<Code> d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  auto least = hn::LoadU(d, codes), most = least;
  for (std::int64_t i = lanes; i < n; i += lanes) {
    const auto code = hn::LoadU(d, codes + i);
    least = hn::Min(least, code);
    most = hn::Max(most, code);
  }
  const auto smaller = [](auto a, auto b) HWY_ATTR { return hn::Min(a, b); };
  const auto larger = [](auto a, auto b) HWY_ATTR { return hn::Max(a, b); };
  const std::uint32_t lows = tree_detail::reduce_codes<Code>(least, smaller);
  const std::uint32_t highs = tree_detail::reduce_codes<Code>(most, larger);
  *low = static_cast<Code>(sizeof(Code) == 1 ? tree_detail::least_byte(lows) : lows);
  *high = static_cast<Code>(sizeof(Code) == 1 ? tree_detail::largest_byte(highs) : highs);
#endif
}

/// counts[k] = how many of the codes from ends[k - 1] (0 for the first) to ends[k] are at most
/// \p most. Ends ascend strictly. Reads codes up to the next multiple of 64.
template <class Code>
void count_up_to(const Code* HWY_RESTRICT codes, Code most, const std::uint32_t* HWY_RESTRICT ends,
                 std::int64_t groups, std::uint32_t* HWY_RESTRICT counts) {
#if QUERN_TARGET_IS_PORTABLE
  std::uint32_t i = 0;
  for (std::int64_t k = 0; k < groups; ++k) {
    std::uint32_t count = 0;
    for (; i < ends[k]; ++i) count += codes[i] <= most ? 1U : 0U;
    counts[k] = count;
  }
#else
  const auto v_most = hn::Set(tree_detail::CutTag<Code>(), most);
  std::uint32_t count = 0, block = 0;
  std::int64_t k = 0;
  for (; k < groups; block += 64) {
    std::uint64_t bits = tree_detail::bits_up_to(codes + block, v_most);
    for (; k < groups && ends[k] <= block + 64; ++k) {
      // Those before the end; what is left of the bits is the next group's.
      const std::uint64_t mine =
          ends[k] == block + 64 ? bits : bits & ((std::uint64_t{1} << (ends[k] - block)) - 1);
      counts[k] = count + static_cast<std::uint32_t>(hwy::PopCount(mine));
      count = 0;
      bits &= ~mine;
    }
    count += static_cast<std::uint32_t>(hwy::PopCount(bits));
  }
#endif
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
QUERN_NAMESPACE_END
HWY_AFTER_NAMESPACE();

#endif  // QUERN_KERNELS_TREE_CUT_INL_HPP
