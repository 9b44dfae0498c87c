// SPDX-License-Identifier: Apache-2.0

#include "terminal.hpp"

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdio>
#include <vector>

#include <sys/ioctl.h>
#include <unistd.h>

namespace gbdt {
namespace {

volatile std::sig_atomic_t interrupt_seen = 0;

extern "C" void note_interrupt(int) {
  interrupt_seen = 1;
  std::signal(SIGINT, SIG_DFL);  // whoever presses it twice means it
}

std::size_t terminal_width() {
  winsize size{};
  if (::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 80;
  return size.ws_col;
}

/// A bar of eighths of a cell.
std::string bar(double share, std::size_t width) {
  static constexpr std::array<const char*, 8> parts = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
  const auto eighths = static_cast<std::size_t>(share * static_cast<double>(width) * 8);
  std::string text;
  for (std::size_t i = 0; i < eighths / 8; ++i) text += "█";
  text += parts[eighths % 8];
  return fit(text, width);
}

std::string metrics_text(const quern::Progress& progress) {
  std::string text;
  for (const quern::Metric& m : progress.metrics)
    text += "  " + std::string(m.name) + format(" %.5f", m.value);
  return text;
}

}  // namespace

bool interrupted() { return interrupt_seen != 0; }
void watch_interrupts() { std::signal(SIGINT, note_interrupt); }

std::string count_text(std::int64_t value) {
  std::string text = std::to_string(value);
  for (std::size_t i = text.size(); i > 3 && text[i - 4] != '-'; i -= 3) text.insert(i - 3, 1, ',');
  return text;
}

std::string size_text(double bytes) {
  if (bytes < 1e3) return format("%.0f bytes", bytes);
  if (bytes < 1e6) return format("%.1f kB", bytes / 1e3);
  return bytes < 1e9 ? format("%.1f MB", bytes / 1e6) : format("%.1f GB", bytes / 1e9);
}

std::string time_text(double seconds) {
  if (seconds < 0.01) return format("%.0f µs", seconds * 1e6);
  if (seconds < 1) return format("%.0f ms", seconds * 1e3);
  if (seconds < 10) return format("%.2f s", seconds);
  if (seconds < 120) return format("%.1f s", seconds);
  const auto whole = static_cast<long long>(seconds + 0.5);
  if (whole < 7200) return format("%lld min %lld s", whole / 60, whole % 60);
  return format("%lld h %lld min", whole / 3600, whole / 60 % 60);
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

std::size_t width_of(std::string_view text) {
  return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  }));
}

std::string fit(std::string_view text, std::size_t width, bool right) {
  std::size_t used = 0;
  std::size_t end = 0;
  while (end < text.size()) {
    const bool starts = (static_cast<unsigned char>(text[end]) & 0xC0) != 0x80;
    if (starts && used == width) break;
    used += starts ? 1 : 0;
    ++end;
  }
  const std::string padding(width - used, ' ');
  const std::string kept(text.substr(0, end));
  return right ? padding + kept : kept + padding;
}

ProgressBar::ProgressBar(int log_every, bool quiet)
    : log_every_((std::max)(log_every, 1)),
      quiet_(quiet),
      terminal_(::isatty(STDERR_FILENO) == 1),
      start_(Clock::now()),
      drawn_(start_) {}

ProgressBar::~ProgressBar() { finish(); }

void ProgressBar::finish() {
  if (open_) std::fputc('\n', stderr);
  open_ = false;
}

bool ProgressBar::update(const quern::Progress& progress) {
  const auto now = Clock::now();
  if (first_ == 0) {
    start_ = now;
    first_ = progress.done;
  }
  const double seconds = std::chrono::duration<double>(now - start_).count();
  const auto rounds = static_cast<double>(progress.done - first_);
  const double rate = seconds > 0 ? rounds / seconds : 0;
  const double left = rate > 0 ? static_cast<double>(progress.total - progress.done) / rate : -1;
  const bool last = progress.done == progress.total;
  const bool due =
      terminal_ ? now - drawn_ > std::chrono::milliseconds(50) : progress.done % log_every_ == 0;
  if (!quiet_ && (due || last || progress.done == 1)) {
    draw(progress, rate, left);
    drawn_ = now;
  }
  return !interrupted();
}

void ProgressBar::draw(const quern::Progress& progress, double rate, double left) {
  const std::string speed = rate > 0 ? format("%.3g rounds/s", rate) : "";
  const std::string to_go = left >= 0 ? "  ETA " + time_text(left) : "";
  const auto done = static_cast<long long>(progress.done);
  const auto total = static_cast<long long>(progress.total);
  if (!terminal_) {
    const std::string line =
        format("round %*lld/%lld  ", int(std::to_string(total).size()), done, total) + speed +
        to_go + metrics_text(progress);
    std::fprintf(stderr, "%s\n", line.c_str());
    return;
  }
  const std::size_t width = terminal_width();
  const std::string head = format("%lld/%lld  ", done, total) + speed + to_go;
  const std::size_t bar_width = width >= 100 ? 24 : 12;
  const double share = static_cast<double>(done) / static_cast<double>((std::max)(total, 1LL));
  const std::string line = "▕" + bar(share, bar_width) + "▏" + head + metrics_text(progress);
  std::fprintf(stderr, "\r%s", fit(line, width - 1).c_str());
  std::fflush(stderr);
  open_ = true;
}

}  // namespace gbdt
