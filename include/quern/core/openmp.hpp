// SPDX-License-Identifier: Apache-2.0

/// \file
/// OpenMpExecutor: parallel_for on the OpenMP runtime's threads, for programs that already have
/// them. Not in the umbrella. Empty unless the compiler has OpenMP switched on (-fopenmp).
///
///     quern::OpenMpExecutor executor;
///     quern::set_executor(&executor);

#ifndef QUERN_CORE_OPENMP_HPP
#define QUERN_CORE_OPENMP_HPP

#include "quern/core/config.hpp"
#include "quern/core/parallel.hpp"

#if defined(_OPENMP)

#include <omp.h>

#include <cstdint>

QUERN_NAMESPACE_BEGIN

/// Uses omp_get_max_threads() threads; one where OpenMP's nesting rules give no more.
class OpenMpExecutor final : public Executor {
 public:
  [[nodiscard]] int concurrency() const override { return omp_get_max_threads(); }

  void run(std::int64_t blocks, void (*fn)(void*, std::int64_t), void* context) override {
    const int threads = static_cast<int>(blocks);
#pragma omp parallel for schedule(static, 1) num_threads(threads)
    for (std::int64_t i = 0; i < blocks; ++i) fn(context, i);
  }
};

QUERN_NAMESPACE_END

#endif  // _OPENMP

#endif  // QUERN_CORE_OPENMP_HPP
