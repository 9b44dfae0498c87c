// SPDX-License-Identifier: Apache-2.0

/// \file
/// core::Buffer: memory for kernels, 64-byte aligned whatever the compile flags are.

#ifndef QUERN_CORE_BUFFER_HPP
#define QUERN_CORE_BUFFER_HPP

#include "quern/core/config.hpp"
#include "quern/core/error.hpp"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <new>
#include <span>
#include <type_traits>
#include <utility>

#if defined(__linux__)
#include <sys/mman.h>
#endif

QUERN_NAMESPACE_BEGIN

namespace core {

/// Every buffer starts at a multiple of this: a cache line, and the widest vector there is.
inline constexpr std::size_t buffer_alignment = 64;

/// Says whether a new buffer holds zeros or whatever was there.
enum class Fill { none, zero };

namespace detail {

/// An aligned pointer, and the one to free.
struct Allocation {
  void* base = nullptr;
  void* aligned = nullptr;
};

/// Gathers over big tables spend their time in TLB misses without large pages.
inline void advise_large_pages([[maybe_unused]] void* at, [[maybe_unused]] std::size_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr std::size_t page = std::size_t{1} << 21;
  if (bytes < 2 * page) return;
  const std::uintptr_t begin = (reinterpret_cast<std::uintptr_t>(at) + page - 1) / page * page;
  const std::uintptr_t end = (reinterpret_cast<std::uintptr_t>(at) + bytes) / page * page;
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
}

/// std::bad_alloc when there is no memory. calloc gets big blocks as fresh zero pages from the
/// system, so a large zeroed buffer costs nothing until it is touched.
inline Allocation allocate(std::size_t bytes, Fill fill) {
  if (bytes == 0) return {};
  if (bytes > (std::numeric_limits<std::size_t>::max)() / 2 - buffer_alignment) {
    throw std::bad_alloc();
  }
  const std::size_t padded = bytes + buffer_alignment - 1;
  void* const base = fill == Fill::zero ? std::calloc(padded, 1) : std::malloc(padded);
  if (base == nullptr) throw std::bad_alloc();
  const std::uintptr_t at = reinterpret_cast<std::uintptr_t>(base);
  const std::uintptr_t aligned = (at + buffer_alignment - 1) / buffer_alignment * buffer_alignment;
  void* const result = static_cast<char*>(base) + (aligned - at);
  advise_large_pages(result, bytes);
  return {base, result};
}

}  // namespace detail

/// Owning array of trivially copyable T, 64-byte aligned, not initialised unless asked for. Moves,
/// does not copy (say clone()). Constness is deep, as in std::vector.
template <class T>
class Buffer {
  static_assert(std::is_trivially_copyable_v<T> && std::is_trivially_destructible_v<T>,
                "a Buffer holds plain values");
  static_assert(alignof(T) <= buffer_alignment);

 public:
  using value_type = T;

  Buffer() noexcept = default;
  /// `size` elements; std::bad_alloc when there is no room for them.
  explicit Buffer(std::size_t size, Fill fill = Fill::none)
      : memory_(detail::allocate(checked_bytes(size), fill)), size_(size) {}

  Buffer(Buffer&& other) noexcept
      : memory_(std::exchange(other.memory_, {})), size_(std::exchange(other.size_, 0)) {}
  Buffer& operator=(Buffer&& other) noexcept {
    Buffer taken(std::move(other));
    swap(taken);
    return *this;
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { std::free(memory_.base); }

  void swap(Buffer& other) noexcept {
    std::swap(memory_, other.memory_);
    std::swap(size_, other.size_);
  }

  /// A copy, said aloud.
  [[nodiscard]] Buffer clone() const {
    Buffer copy(size_);
    if (size_ > 0) std::memcpy(copy.memory_.aligned, memory_.aligned, size_ * sizeof(T));
    return copy;
  }

  /// Makes this `size` elements; what they held is lost. The old memory goes first, so the peak is
  /// the larger of the two. Keeps the memory when the size is the same and no zeros are asked for.
  void reset(std::size_t size, Fill fill = Fill::none) {
    if (size == size_ && fill == Fill::none) return;
    *this = Buffer();
    *this = Buffer(size, fill);
  }

  [[nodiscard]] T* data() noexcept { return static_cast<T*>(memory_.aligned); }
  [[nodiscard]] const T* data() const noexcept { return static_cast<const T*>(memory_.aligned); }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] std::size_t bytes() const noexcept { return size_ * sizeof(T); }
  [[nodiscard]] bool empty() const noexcept { return size_ == 0; }
  [[nodiscard]] T& operator[](std::size_t i) noexcept { return data()[i]; }
  [[nodiscard]] const T& operator[](std::size_t i) const noexcept { return data()[i]; }
  [[nodiscard]] T* begin() noexcept { return data(); }
  [[nodiscard]] T* end() noexcept { return data() + size_; }
  [[nodiscard]] const T* begin() const noexcept { return data(); }
  [[nodiscard]] const T* end() const noexcept { return data() + size_; }
  [[nodiscard]] std::span<T> span() noexcept { return {data(), size_}; }
  [[nodiscard]] std::span<const T> span() const noexcept { return {data(), size_}; }

 private:
  static std::size_t checked_bytes(std::size_t size) {
    if (size > (std::numeric_limits<std::size_t>::max)() / sizeof(T)) throw std::bad_alloc();
    return size * sizeof(T);
  }

  detail::Allocation memory_;
  std::size_t size_ = 0;
};

}  // namespace core

QUERN_NAMESPACE_END

#endif  // QUERN_CORE_BUFFER_HPP
