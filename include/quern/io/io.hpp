// SPDX-License-Identifier: Apache-2.0

/// \file
/// Every file format (zlib, nlohmann-json): what quern/quern.hpp leaves out.

#ifndef QUERN_IO_IO_HPP
#define QUERN_IO_IO_HPP

#include "quern/io/catboost_json.hpp"
#include "quern/io/coco.hpp"
#include "quern/io/csv.hpp"
#include "quern/io/detection_folder.hpp"
#include "quern/io/forest_model.hpp"
#include "quern/io/groups.hpp"
#include "quern/io/idx.hpp"
#include "quern/io/libsvm.hpp"
#include "quern/io/lightgbm_text.hpp"
#include "quern/io/model_formats.hpp"
#include "quern/io/npy.hpp"
#include "quern/io/optimizer_state.hpp"
#include "quern/io/safetensors.hpp"
#include "quern/io/table.hpp"
#include "quern/io/voc_xml.hpp"
#include "quern/io/xgboost_json.hpp"
#include "quern/io/xgboost_ubj.hpp"
#include "quern/io/yolo.hpp"

#endif  // QUERN_IO_IO_HPP
