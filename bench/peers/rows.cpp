// SPDX-License-Identifier: Apache-2.0
//
// Loops over single rows through the peers' C interfaces, so that one row's latency is not that of
// Python. The function pointers come from the libraries that Python has loaded; the prototypes are
// those of their public C headers. Each returns the seconds of one row, or -1 after a failed call.

#include <chrono>
#include <cstdint>
#include <cstring>

namespace {

template <class F>
double seconds_per_row(long long rows, long long passes, F&& f) {
  const auto start = std::chrono::steady_clock::now();
  for (long long pass = 0; pass < passes; ++pass)
    for (long long row = 0; row < rows; ++row)
      if (!f(row)) return -1;
  const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
  return taken.count() / static_cast<double>(rows * passes);
}

using LightgbmFast = int (*)(void*, const void*, std::int64_t*, double*);
using XgboostDense = int (*)(void*, const char*, const char*, void*, const std::uint64_t**,
                             std::uint64_t*, const float**);

}  // namespace

extern "C" double peers_lightgbm_rows(LightgbmFast predict, void* fast, const float* data,
                                      long long rows, long long cols, double* out,
                                      long long passes) {
  std::int64_t length = 0;
  return seconds_per_row(rows, passes, [&](long long row) {
    return predict(fast, data + row * cols, &length, out + row) == 0;
  });
}

/// \p array describes the buffer \p one, into which each row is copied.
extern "C" double peers_xgboost_rows(XgboostDense predict, void* booster, const char* array,
                                     const char* config, float* one, const float* data,
                                     long long rows, long long cols, double* out,
                                     long long passes) {
  const std::uint64_t* shape = nullptr;
  std::uint64_t dimension = 0;
  const float* result = nullptr;
  return seconds_per_row(rows, passes, [&](long long row) {
    std::memcpy(one, data + row * cols, static_cast<std::size_t>(cols) * sizeof(float));
    if (predict(booster, array, config, nullptr, &shape, &dimension, &result) != 0) return false;
    out[row] = static_cast<double>(result[0]);
    return true;
  });
}
