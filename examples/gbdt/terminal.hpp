// SPDX-License-Identifier: Apache-2.0

/// \file
/// The terminal: a progress bar, tables, Ctrl-C.

#ifndef QUERN_EXAMPLES_GBDT_TERMINAL_HPP
#define QUERN_EXAMPLES_GBDT_TERMINAL_HPP

#include "../common/page.hpp"

#include "quern/core/progress.hpp"

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace gbdt {

/// True once Ctrl-C was pressed since watch_interrupts(). A second Ctrl-C ends the program at once.
[[nodiscard]] bool interrupted();
void watch_interrupts();

using page::format;

/// "1,234,567", "12.3 MB", "4.5 s" or "2 min 3 s".
[[nodiscard]] std::string count_text(std::int64_t value);
[[nodiscard]] std::string size_text(double bytes);
[[nodiscard]] std::string time_text(double seconds);

[[nodiscard]] double seconds_since(std::chrono::steady_clock::time_point start);

/// Letters that a text takes on the screen (UTF-8), and the text padded or cut to a width.
[[nodiscard]] std::size_t width_of(std::string_view text);
[[nodiscard]] std::string fit(std::string_view text, std::size_t width, bool right = false);

/// Rounds, speed, time to go and metrics: one line that is drawn over on a terminal, else a line
/// every so many rounds. Writes to stderr.
class ProgressBar {
 public:
  ProgressBar(int log_every, bool quiet);
  ~ProgressBar();
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  /// Shows the state; false when Ctrl-C was pressed.
  bool update(const quern::Progress& progress);
  void finish();

 private:
  using Clock = std::chrono::steady_clock;

  void draw(const quern::Progress& progress, double rate, double left);

  int log_every_;
  bool quiet_;
  bool terminal_;
  bool open_ = false;        ///< a drawn line waits for its end
  Clock::time_point start_;  ///< of the first round's end, since binning comes before it
  Clock::time_point drawn_;
  std::int64_t first_ = 0;
};

}  // namespace gbdt

#endif  // QUERN_EXAMPLES_GBDT_TERMINAL_HPP
