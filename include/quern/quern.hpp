// SPDX-License-Identifier: Apache-2.0

/// \file
/// Everything of quern that needs only Eigen and Highway's headers. File and model formats are in
/// quern/io/ (zlib, nlohmann-json) and are included by who needs them.

#ifndef QUERN_QUERN_HPP
#define QUERN_QUERN_HPP

#include "quern/boosting/booster.hpp"
#include "quern/boosting/importance.hpp"
#include "quern/boosting/linear_predict.hpp"
#include "quern/boosting/metric.hpp"
#include "quern/boosting/model.hpp"
#include "quern/boosting/model_io.hpp"
#include "quern/boosting/objective.hpp"
#include "quern/boosting/options.hpp"
#include "quern/boosting/predictor.hpp"
#include "quern/boosting/trainer.hpp"
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
#include "quern/kernels/functors.hpp"
#include "quern/kernels/gemm.hpp"
#include "quern/kernels/gemm_types.hpp"
#include "quern/kernels/kernels.hpp"
#include "quern/kernels/simd.hpp"
#include "quern/kernels/targets.hpp"
#include "quern/kernels/tree_binning_types.hpp"
#include "quern/kernels/tree_predict_types.hpp"
#include "quern/kernels/tree_types.hpp"
#include "quern/tree/binned_matrix.hpp"
#include "quern/tree/binning.hpp"
#include "quern/tree/column_sampler.hpp"
#include "quern/tree/dataset.hpp"
#include "quern/tree/float_key.hpp"
#include "quern/tree/gradient.hpp"
#include "quern/tree/grow.hpp"
#include "quern/tree/histogram.hpp"
#include "quern/tree/linear_leaves.hpp"
#include "quern/tree/packed_forest.hpp"
#include "quern/tree/predict.hpp"
#include "quern/tree/quantile_sketch.hpp"
#include "quern/tree/row_partition.hpp"
#include "quern/tree/scratch.hpp"
#include "quern/tree/split.hpp"
#include "quern/tree/tree.hpp"
#include "quern/tree/walk.hpp"
#include "quern/version.hpp"

#endif  // QUERN_QUERN_HPP
