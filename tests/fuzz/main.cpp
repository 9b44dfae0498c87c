// SPDX-License-Identifier: Apache-2.0

/// \file
/// The program of all fuzz targets; the environment's QUERN_FUZZ_TARGET says which one runs. With
/// libFuzzer it is the fuzzer's entry. Without, it feeds the target every file of the folders named
/// on the command line, each file's every 7th prefix, and the empty input.

#include "target.hpp"

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <vector>

namespace {

quern::test::FuzzTarget chosen() {
  const char* name = std::getenv("QUERN_FUZZ_TARGET");
  const auto& targets = quern::test::fuzz_targets();
  const auto found = targets.find(name == nullptr ? "" : name);
  if (found != targets.end()) return found->second;
  std::fprintf(stderr, "QUERN_FUZZ_TARGET: expected one of");
  for (const auto& [known, target] : targets) std::fprintf(stderr, " %s", known.c_str());
  std::fprintf(stderr, ", got \"%s\"\n", name == nullptr ? "" : name);
  std::exit(2);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const quern::test::FuzzTarget target = chosen();
  return target(data, size);
}

#ifndef QUERN_LIBFUZZER

namespace {

std::vector<std::uint8_t> read(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

// A file cut short is the commonest damage; big files are cut at fewer places.
std::size_t replay(const std::vector<std::uint8_t>& bytes) {
  const std::size_t step = bytes.size() / 512 + 7;
  std::size_t inputs = 0;
  for (std::size_t size = 0; size < bytes.size(); size += step, ++inputs) {
    const std::vector<std::uint8_t> prefix(bytes.begin(),
                                           bytes.begin() + static_cast<std::ptrdiff_t>(size));
    LLVMFuzzerTestOneInput(prefix.data(), prefix.size());
  }
  LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
  return inputs + 1;
}

}  // namespace

int main(int argc, char** argv) {
  std::size_t inputs = replay({});
  for (int i = 1; i < argc; ++i) {
    if (!std::filesystem::is_directory(argv[i])) continue;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(argv[i])) {
      if (entry.is_regular_file()) inputs += replay(read(entry.path()));
    }
  }
  std::printf("%zu inputs replayed\n", inputs);
  return 0;
}

#endif
