// SPDX-License-Identifier: Apache-2.0

/// \file
/// Everything of quern that needs only Eigen and Highway's headers. File and model formats are in
/// quern/io/ (zlib, nlohmann-json) and are included by who needs them.

#ifndef QUERN_QUERN_HPP
#define QUERN_QUERN_HPP

#include "quern/boosting/model.hpp"
#include "quern/core/archive.hpp"
#include "quern/core/buffer.hpp"
#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/file.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/core/parallel.hpp"
#include "quern/core/progress.hpp"
#include "quern/core/random.hpp"
#include "quern/tree/binned_matrix.hpp"
#include "quern/tree/dataset.hpp"
#include "quern/tree/tree.hpp"
#include "quern/version.hpp"

#endif  // QUERN_QUERN_HPP
