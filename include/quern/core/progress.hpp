// SPDX-License-Identifier: Apache-2.0

/// \file
/// Progress of long work: what is told to the caller's callback, and how the callback cancels.

#ifndef QUERN_CORE_PROGRESS_HPP
#define QUERN_CORE_PROGRESS_HPP

#include "quern/core/config.hpp"
#include "quern/core/error.hpp"

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>

QUERN_NAMESPACE_BEGIN

/// One figure of the moment, such as {"valid auc", 0.93}.
struct Metric {
  std::string_view name;
  double value = 0;
};

/// What a callback is told. The views are valid during the call only.
struct Progress {
  std::string_view what;                 ///< the phase, such as "boosting rounds"
  std::int64_t done = 0;                 ///< steps finished
  std::int64_t total = 0;                ///< steps in all; 0 when unknown
  std::span<const Metric> metrics = {};  ///< figures of the moment, possibly none
};

/// Called from the thread that started the work, between steps. Returning false cancels.
using ProgressCallback = std::function<bool(const Progress&)>;

/// Tells the callback (nothing happens when there is none). Throws Cancelled when it returns false;
/// `function` names the public function that the user called.
inline void report(const ProgressCallback& callback, std::string_view function,
                   const Progress& progress) {
  if (!callback || callback(progress)) return;
  std::string text(function);
  text += ": cancelled by the progress callback during ";
  text += progress.what;
  text += " after " + std::to_string(progress.done) + " of " + std::to_string(progress.total);
  throw Cancelled(text);
}

QUERN_NAMESPACE_END

#endif  // QUERN_CORE_PROGRESS_HPP
