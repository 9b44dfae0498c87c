// SPDX-License-Identifier: Apache-2.0

/// \file
/// Sound files of 16-bit samples (RIFF WAVE, PCM), and a signal of its own where there is none.

#ifndef QUERN_EXAMPLES_HIPPO_WAVE_HPP
#define QUERN_EXAMPLES_HIPPO_WAVE_HPP

#include <string>
#include <vector>

/// Samples of the first channel, in -1 … 1.
struct Wave {
  double rate = 8000;  ///< samples a second
  std::vector<double> samples;
};

/// Reads a file. std::runtime_error, with what is wrong, for another format or a file cut short.
Wave read_wave(const std::string& path);

/// Means of `factor` samples each.
Wave slower(const Wave& wave, int factor);

/// A chirp with two pauses.
Wave made_up(int samples);

#endif  // QUERN_EXAMPLES_HIPPO_WAVE_HPP
