// SPDX-License-Identifier: Apache-2.0

/// \file
/// The second of two units that include every public header (see odr_main.cpp).

#include "odr.inc"

const char* version_of_other_unit();
const char* version_of_other_unit() { return QUERN_VERSION; }
