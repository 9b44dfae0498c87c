// SPDX-License-Identifier: Apache-2.0

/// \file
/// The one place that states quern's version; CMake reads it from here.

#ifndef QUERN_VERSION_HPP
#define QUERN_VERSION_HPP

#define QUERN_VERSION_MAJOR 0
#define QUERN_VERSION_MINOR 1
#define QUERN_VERSION_PATCH 0
/// "major.minor.patch"
#define QUERN_VERSION "0.1.0"
/// Part of the inline namespace: changes whenever layouts or semantics do.
#define QUERN_VERSION_ABI 0_1

#endif  // QUERN_VERSION_HPP
