// SPDX-License-Identifier: Apache-2.0

/// \file
/// Predicting alone: boosting::Model and boosting::Predictor on std::span, without Eigen and
/// without what training needs. Models come from a loader, each in a header of its own:
/// quern/boosting/model_io.hpp (quern's archive), quern/io/xgboost_json.hpp and its neighbours.
///
///     #include "quern/io/xgboost_json.hpp"
///     #include "quern/predict.hpp"
///
///     const quern::boosting::Predictor predictor(quern::io::load_xgboost_json("model.json"));
///     predictor.predict(std::span<const float>(rows), n, std::span<float>(out));

#ifndef QUERN_PREDICT_HPP
#define QUERN_PREDICT_HPP

#include "quern/boosting/model.hpp"
#include "quern/boosting/predictor.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"

#endif  // QUERN_PREDICT_HPP
