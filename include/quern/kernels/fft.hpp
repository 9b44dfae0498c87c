// SPDX-License-Identifier: Apache-2.0

/// \file
/// Fourier transforms of tiles of channels: tables, made once for each size, and transforms of any
/// length.

#ifndef QUERN_KERNELS_FFT_HPP
#define QUERN_KERNELS_FFT_HPP

#include "quern/core/buffer.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/kernels/fft_types.hpp"
#include "quern/kernels/kernels.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <numbers>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace kernels {

/// Tables of a transform of a power of two. Angles are worked out in double, one by one, and then
/// rounded to T.
template <class T>
class FftTables {
 public:
  FftTables() = default;
  explicit FftTables(std::size_t size) : size_(size), twist_(2 * size), untwist_(2 * size) {
    const double step = std::numbers::pi / (2.0 * static_cast<double>(size));
    std::vector<double> circle(2 * size);
    for (std::size_t j = 0; j < size; ++j) {
      const double turn = step * static_cast<double>(j);
      const double c = std::cos(turn), s = std::sin(turn);
      twist_[2 * j] = static_cast<T>(c), twist_[2 * j + 1] = static_cast<T>(s);
      untwist_[2 * j] = static_cast<T>(c / static_cast<double>(size));
      untwist_[2 * j + 1] = static_cast<T>(s / static_cast<double>(size));
      circle[2 * j] = std::cos(-4 * turn), circle[2 * j + 1] = std::sin(-4 * turn);
    }
    make_twiddles(circle);
  }

  [[nodiscard]] FftTask<T> task() const {
    return {size_, twiddles_.data(), twist_.data(), untwist_.data()};
  }

  /// The tables of a size, a power of two; made at the first use and kept.
  [[nodiscard]] static const FftTables& of(std::size_t size) {
    struct Slot {
      std::once_flag made;
      std::unique_ptr<FftTables> tables;
    };
    static std::array<Slot, 48> slots;
    Slot& slot = slots[static_cast<std::size_t>(std::countr_zero(size))];
    std::call_once(slot.made, [&] { slot.tables = std::make_unique<FftTables>(size); });
    return *slot.tables;
  }

 private:
  /// For passes over size, size / 4, … points, while there are at least 8: w^j, w^2j, w^3j.
  void make_twiddles(const std::vector<double>& circle) {
    twiddles_.reserve(2 * size_ + 6);
    for (std::size_t m = size_; m >= 4; m /= 4) {
      for (std::size_t j = 0; j < m / 4; ++j) {
        for (std::size_t power = 1; power <= 3; ++power) {
          const std::size_t at = j * power * (size_ / m);
          twiddles_.push_back(static_cast<T>(circle[2 * at]));
          twiddles_.push_back(static_cast<T>(circle[2 * at + 1]));
        }
      }
    }
  }

  std::size_t size_ = 1;
  std::vector<T> twiddles_, twist_, untwist_;
};

/// A complex transform of any length over tiles of fft_lanes<T> channels. Powers of two run
/// directly; other lengths as a convolution with a chirp (Bluestein 1970), whose angles are reduced
/// as integers before they are rounded. Frequency of place p: frequencies()[p].
template <class T>
class Fft {
 public:
  explicit Fft(std::size_t length) : length_(length), frequencies_(length) {
    if (length == 0) throw ShapeError(error_text("quern::kernels::Fft", "length", ">= 1", 0));
    direct_ = std::has_single_bit(length);
    size_ = direct_ ? length : std::bit_ceil(2 * length - 1);
    tables_ = &FftTables<T>::of(size_);
    for (std::size_t p = 0; p < length; ++p) frequencies_[p] = direct_ ? reversed(p) : p;
    if (!direct_) make_chirp();
  }

  [[nodiscard]] std::size_t length() const { return length_; }
  /// Numbers that a tile needs; the first length() points are the data, the rest is work space.
  [[nodiscard]] std::size_t tile_size() const { return size_ * fft_point<T>; }
  [[nodiscard]] const std::vector<std::size_t>& frequencies() const { return frequencies_; }

  /// sum_t z_t e^(-2 pi i f t / length) at place p of frequency f.
  void forward(T* z) const { direct_ ? direct(true, z) : bluestein(true, z); }
  /// sum_f z_f e^(2 pi i f t / length), f in the order of frequencies(); not divided by anything.
  void inverse(T* z) const { direct_ ? direct(false, z) : bluestein(false, z); }

 private:
  [[nodiscard]] std::size_t reversed(std::size_t p) const {
    std::size_t r = 0;
    for (std::size_t bit = 1; bit < length_; bit *= 2, p /= 2) r = 2 * r + p % 2;
    return r;
  }

  void direct(bool forward, T* z) const {
    const FftTask<T> task = tables_->task();
    if (forward) {
      QUERN_DISPATCH(fft_forward<T>(task, z));
    } else {
      QUERN_DISPATCH(fft_inverse<T>(task, z));
    }
  }

  /// e^(-i pi j^2 / length), and the transform of its conjugate, divided by size.
  void make_chirp() {
    const std::uint64_t period = 2 * std::uint64_t{length_};
    std::vector<double> chirp(2 * length_);
    for (std::uint64_t j = 0; j < length_; ++j) {
      const std::uint64_t turn = (j * j) % period;
      const double angle = -std::numbers::pi * static_cast<double>(turn) / double(length_);
      chirp[2 * j] = std::cos(angle), chirp[2 * j + 1] = std::sin(angle);
    }
    chirp_.assign(chirp.begin(), chirp.end());
    core::Buffer<double> z(size_ * fft_point<double>, core::Fill::zero);
    for (std::size_t j = 0; j < length_; ++j) {
      for (const std::size_t at : {j, (size_ - j) % size_}) {
        z[at * fft_point<double>] = chirp[2 * j];
        z[at * fft_point<double> + fft_lanes<double>] = -chirp[2 * j + 1];
      }
    }
    const FftTask<double> task = FftTables<double>::of(size_).task();
    QUERN_DISPATCH(fft_forward<double>(task, z.data()));
    spectrum_.resize(2 * size_);
    for (std::size_t p = 0; p < size_; ++p) {
      spectrum_[2 * p] = static_cast<T>(z[p * fft_point<double>] / double(size_));
      spectrum_[2 * p + 1] =
          static_cast<T>(z[p * fft_point<double> + fft_lanes<double>] / double(size_));
    }
  }

  void bluestein(bool forward, T* z) const {
    const FftTask<T> task = tables_->task();
    // The inverse is the forward one with real and imaginary parts in each other's place.
    if (!forward) exchange(z);
    QUERN_DISPATCH(fft_scale_points<T>(length_, chirp_.data(), false, z));
    std::memset(z + length_ * fft_point<T>, 0, (size_ - length_) * fft_point<T> * sizeof(T));
    QUERN_DISPATCH(fft_forward<T>(task, z));
    QUERN_DISPATCH(fft_scale_points<T>(size_, spectrum_.data(), false, z));
    QUERN_DISPATCH(fft_inverse<T>(task, z));
    QUERN_DISPATCH(fft_scale_points<T>(length_, chirp_.data(), false, z));
    if (!forward) exchange(z);
  }

  void exchange(T* z) const {
    for (std::size_t j = 0; j < length_; ++j, z += fft_point<T>) {
      std::swap_ranges(z, z + fft_lanes<T>, z + fft_lanes<T>);
    }
  }

  std::size_t length_;
  bool direct_ = true;
  std::size_t size_ = 1;
  const FftTables<T>* tables_ = nullptr;
  std::vector<std::size_t> frequencies_;
  std::vector<T> chirp_, spectrum_;
};

}  // namespace kernels
QUERN_NAMESPACE_END

#endif  // QUERN_KERNELS_FFT_HPP
