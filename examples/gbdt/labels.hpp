// SPDX-License-Identifier: Apache-2.0

/// \file
/// What labels are: numbers, or classes with names; and the objective that fits them.

#ifndef QUERN_EXAMPLES_GBDT_LABELS_HPP
#define QUERN_EXAMPLES_GBDT_LABELS_HPP

#include "data.hpp"

#include <string>
#include <vector>

namespace gbdt {

/// Chooses the objective by the labels (unless one is given) and, where it is one of classes, codes
/// the labels as 0, 1, … and notes their names. Returns the objective.
std::string settle_labels(Data& data, const std::string& given_objective,
                          const std::vector<std::string>& class_names);

/// Codes labels as training did. ValueError, naming \p where and the row, for a label that training
/// did not see.
void encode_labels(std::vector<float>& labels, const Meaning& meaning, const std::string& where);

}  // namespace gbdt

#endif  // QUERN_EXAMPLES_GBDT_LABELS_HPP
