// SPDX-License-Identifier: Apache-2.0

/// \file
/// Saving and loading of learners: core/saving.hpp's, by this room's name.

#ifndef QUERN_ENSEMBLE_SAVING_HPP
#define QUERN_ENSEMBLE_SAVING_HPP

#include "quern/core/config.hpp"
#include "quern/core/saving.hpp"

QUERN_NAMESPACE_BEGIN
namespace ensemble {

using quern::learner_version;
using quern::load_learner;
using quern::load_member;
using quern::save_learner;
using quern::save_member;
using quern::Saveable;

}  // namespace ensemble
QUERN_NAMESPACE_END

#endif  // QUERN_ENSEMBLE_SAVING_HPP
