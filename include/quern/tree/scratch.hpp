// SPDX-License-Identifier: Apache-2.0

/// \file
/// Working memory that const objects lend to their callers' threads without locks.

#ifndef QUERN_TREE_SCRATCH_HPP
#define QUERN_TREE_SCRATCH_HPP

#include "quern/core/buffer.hpp"
#include "quern/core/config.hpp"

#include <array>
#include <atomic>
#include <cstddef>
#include <memory>
#include <utility>

QUERN_NAMESPACE_BEGIN
namespace tree::detail {

/// A block of memory that grows and is kept.
class Scratch {
 public:
  /// At least \p bytes, 64-byte aligned; what they held before is lost.
  std::byte* at_least(std::size_t bytes) {
    if (memory_.size() < bytes) memory_.reset(bytes, core::Fill::zero);
    return memory_.data();
  }

 private:
  core::Buffer<std::byte> memory_;
};

/// Up to 64 blocks at rest. More threads than that at once allocate and free for themselves.
class ScratchPool {
 public:
  ScratchPool() = default;
  ScratchPool(const ScratchPool&) = delete;
  ScratchPool& operator=(const ScratchPool&) = delete;
  ~ScratchPool() {
    for (std::atomic<Scratch*>& place : places_) delete place.load(std::memory_order_acquire);
  }

  [[nodiscard]] std::unique_ptr<Scratch> take() {
    for (std::atomic<Scratch*>& place : places_) {
      if (place.load(std::memory_order_relaxed) == nullptr) continue;
      if (Scratch* found = place.exchange(nullptr, std::memory_order_acquire)) {
        return std::unique_ptr<Scratch>(found);
      }
    }
    return std::make_unique<Scratch>();
  }

  void give_back(std::unique_ptr<Scratch> scratch) noexcept {
    for (std::atomic<Scratch*>& place : places_) {
      Scratch* empty = nullptr;
      if (place.compare_exchange_strong(empty, scratch.get(), std::memory_order_release,
                                        std::memory_order_relaxed)) {
        (void)scratch.release();
        return;
      }
    }
  }

 private:
  std::array<std::atomic<Scratch*>, 64> places_{};
};

/// Takes a block for a scope.
class ScratchLease {
 public:
  explicit ScratchLease(ScratchPool& pool) : pool_(pool), scratch_(pool.take()) {}
  ScratchLease(const ScratchLease&) = delete;
  ScratchLease& operator=(const ScratchLease&) = delete;
  ~ScratchLease() { pool_.give_back(std::move(scratch_)); }

  [[nodiscard]] Scratch& scratch() const noexcept { return *scratch_; }

 private:
  ScratchPool& pool_;
  std::unique_ptr<Scratch> scratch_;
};

}  // namespace tree::detail
QUERN_NAMESPACE_END

#endif  // QUERN_TREE_SCRATCH_HPP
