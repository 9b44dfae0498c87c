// SPDX-License-Identifier: Apache-2.0

/// \file
/// One of two units that include every public header: a function that is not inline fails the link.

#include "odr.inc"

const char* version_of_other_unit();

int main() { return std::string(QUERN_VERSION) == version_of_other_unit() ? 0 : 1; }
