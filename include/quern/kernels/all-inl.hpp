// SPDX-License-Identifier: Apache-2.0

/// \file
/// The list of all kernels: read once for every target. A new kernel is added here and nowhere
/// else.

#include "quern/kernels/activation-inl.hpp"
#include "quern/kernels/box_iou-inl.hpp"
#include "quern/kernels/columns-inl.hpp"
#include "quern/kernels/decayed_recurrence-inl.hpp"
#include "quern/kernels/elementwise-inl.hpp"
#include "quern/kernels/functors-inl.hpp"
#include "quern/kernels/gemm-inl.hpp"
#include "quern/kernels/linear_rows-inl.hpp"
#include "quern/kernels/math-inl.hpp"
#include "quern/kernels/objective-inl.hpp"
#include "quern/kernels/optim-inl.hpp"
#include "quern/kernels/optim_matrix-inl.hpp"
#include "quern/kernels/optim_rules-inl.hpp"
#include "quern/kernels/partial-inl.hpp"
#include "quern/kernels/reduce-inl.hpp"
#include "quern/kernels/scan-inl.hpp"
#include "quern/kernels/softmax-inl.hpp"
#include "quern/kernels/tree_binning-inl.hpp"
#include "quern/kernels/tree_codes-inl.hpp"
#include "quern/kernels/tree_gradient-inl.hpp"
#include "quern/kernels/tree_histogram-inl.hpp"
#include "quern/kernels/tree_partition-inl.hpp"
#include "quern/kernels/tree_predict-inl.hpp"
#include "quern/kernels/tree_shap-inl.hpp"
#include "quern/kernels/tree_split-inl.hpp"
