// SPDX-License-Identifier: Apache-2.0

/// \file
/// How near Performer's features come to softmax attention.

#ifndef QUERN_EXAMPLES_ATTENTION_ERRORS_HPP
#define QUERN_EXAMPLES_ATTENTION_ERRORS_HPP

#include "../common/page.hpp"

#include "quern/core/nd_view.hpp"

namespace errors {

/// A table by feature map and spread of the queries and keys, and its chart. \p dim: of a head.
page::Section performer(quern::Index dim);

}  // namespace errors

#endif  // QUERN_EXAMPLES_ATTENTION_ERRORS_HPP
