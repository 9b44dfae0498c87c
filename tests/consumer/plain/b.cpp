// SPDX-License-Identifier: Apache-2.0

#include "consumer.hpp"

Findings find_out_in_b();
Findings find_out_in_b() { return find_out(); }
