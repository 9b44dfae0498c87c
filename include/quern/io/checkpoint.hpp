// SPDX-License-Identifier: Apache-2.0

/// \file
/// Checkpoints of training: weights and buffers, the optimiser's state, the weights' average and
/// where training is, in one safetensors file. Training that goes on from one has the bits of
/// training that was never interrupted.

#ifndef QUERN_IO_CHECKPOINT_HPP
#define QUERN_IO_CHECKPOINT_HPP

#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/io/network.hpp"
#include "quern/io/safetensors.hpp"
#include "quern/nn/trainer.hpp"
#include "quern/optim/optimizer_base.hpp"
#include "quern/optim/state.hpp"

#include <zlib.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace io {
namespace detail {

inline constexpr std::string_view checkpoint_model = "model.";
inline constexpr std::string_view checkpoint_average = "average.";
inline constexpr std::string_view checkpoint_optimizer = "optimizer.";
inline constexpr std::string_view checkpoint_sum = "train.checksum";

inline SafetensorType type_of_state(optim::StateType type) {
  constexpr SafetensorType types[] = {SafetensorType::f32, SafetensorType::f64,
                                      SafetensorType::bf16};
  return types[static_cast<int>(type)];
}

/// The optimiser's part of a checkpoint.
inline optim::OptimizerState optimizer_part(const Safetensors& file, const char* function) {
  optim::OptimizerState state;
  for (const auto& [key, value] : file.metadata()) {
    if (key.compare(0, 6, "quern.") == 0) state.words[key] = value;
  }
  for (const Safetensor& t : file.tensors()) {
    if (t.name.compare(0, checkpoint_optimizer.size(), checkpoint_optimizer) != 0) continue;
    optim::StateTensor out;
    out.name = t.name.substr(checkpoint_optimizer.size());
    out.shape = t.shape;
    bool known = false;
    for (const optim::StateType type :
         {optim::StateType::float32, optim::StateType::float64, optim::StateType::bfloat16}) {
      if (type_of_state(type) != t.type) continue;
      out.type = type;
      known = true;
    }
    if (!known) {
      throw ParseError(error_text(function, "tensor " + quote_text(t.name), "F32, F64 or BF16",
                                  io::name(t.type)));
    }
    out.bytes.assign(t.bytes.begin(), t.bytes.end());
    state.tensors.push_back(std::move(out));
  }
  return state;
}

/// CRC-32 of all that a checkpoint says, in an order that does not depend on the file's.
inline std::string checkpoint_checksum(std::span<const Safetensor> tensors,
                                       const std::map<std::string, std::string>& words) {
  uLong sum = crc32_z(0, nullptr, 0);
  const auto add = [&](std::string_view text) {
    sum = crc32_z(sum, reinterpret_cast<const Bytef*>(text.data()), text.size());
    sum = crc32_z(sum, reinterpret_cast<const Bytef*>("\n"), 1);
  };
  std::map<std::string_view, const Safetensor*> by_name;
  for (const Safetensor& t : tensors) by_name[t.name] = &t;
  for (const auto& [name, t] : by_name) {
    add(name);
    add(io::name(t->type));
    for (const Index extent : t->shape) add(std::to_string(extent));
    sum = crc32_z(sum, reinterpret_cast<const Bytef*>(t->bytes.data()), t->bytes.size());
  }
  for (const auto& [key, value] : words) {
    if (key == checkpoint_sum) continue;
    add(key);
    add(value);
  }
  return std::to_string(sum);
}

/// ParseError for bytes that are not those that were written.
inline void expect_checksum(const Safetensors& file, const char* function) {
  const auto at = file.metadata().find(std::string(checkpoint_sum));
  const std::string said = at == file.metadata().end() ? "none" : at->second;
  const std::string is = checkpoint_checksum(file.tensors(), file.metadata());
  if (said == is) return;
  throw ParseError(error_text(function, "'" + std::string(checkpoint_sum) + "'",
                              is + ", the checksum of what the file holds", said));
}

/// The average's tensors by the parameters' names.
template <class T>
nn::ParameterList<T> average_tensors(nn::Trainer<T>& trainer) {
  nn::ParameterList<T> list;
  if (trainer.average() == nullptr) return list;
  const auto& parameters = trainer.parameters();
  for (std::size_t k = 0; k < parameters.size(); ++k) {
    const std::span<T> mean = trainer.average()->average(k);
    list.push_back(
        {parameters[k].name, nn::TensorView<T>(mean.data(), parameters[k].values.extents())});
  }
  return list;
}

}  // namespace detail

/// Writes everything that training needs to go on. The file is replaced only when all of it is on
/// the disk, so the last good checkpoint stays whatever happens.
template <class T>
void save_checkpoint(const std::string& path, nn::Trainer<T>& trainer,
                     const optim::OptimizerBase<T>& optimizer) {
  SafetensorsWriter writer;
  std::deque<std::vector<std::int64_t>> counts;
  detail::add_tensors(writer, detail::network_tensors(trainer.network()),
                      std::string(detail::checkpoint_model), counts);
  detail::add_tensors(writer, detail::average_tensors(trainer),
                      std::string(detail::checkpoint_average), counts);
  const optim::OptimizerState state = optimizer.state();
  for (const auto& [key, value] : state.words) writer.set_metadata(key, value);
  for (const optim::StateTensor& t : state.tensors) {
    writer.add(std::string(detail::checkpoint_optimizer) + t.name, detail::type_of_state(t.type),
               t.shape, t.bytes);
  }
  const nn::TrainerState& at = trainer.state();
  const auto word = [&](const char* key, auto value) {
    writer.set_metadata(std::string("train.") + key, optim::detail::number_word(value));
  };
  word("epoch", at.epoch);
  word("batch", at.batch);
  word("step", at.step);
  word("loss_sum", at.loss_sum);
  word("best", at.best);
  word("waited", at.waited);
  word("average_updates",
       trainer.average() == nullptr ? std::int64_t{0} : trainer.average()->updates());
  writer.set_metadata(std::string(detail::checkpoint_sum),
                      detail::checkpoint_checksum(writer.tensors(), writer.metadata()));
  writer.write(path);
}

/// Sets network, average, optimiser and trainer to where they were. The trainer and optimiser have
/// been made the same way as those that were saved. ParseError where the file is malformed, damaged
/// (it holds a checksum of itself) or of another model, optimiser or average; nothing changes then.
template <class T>
void load_checkpoint(const Safetensors& file, nn::Trainer<T>& trainer,
                     optim::OptimizerBase<T>& optimizer) {
  constexpr const char* function = "quern::io::load_checkpoint";
  optim::OptimizerState words;
  words.words = file.metadata();
  const auto number = [&]<class N>(const char* key, N) {
    return optim::detail::word_number<N>(words, std::string("train.") + key);
  };
  nn::TrainerState at;
  at.epoch = number("epoch", Index{});
  at.batch = number("batch", Index{});
  at.step = number("step", std::int64_t{});
  at.loss_sum = number("loss_sum", double{});
  at.best = number("best", double{});
  at.waited = number("waited", Index{});
  const auto updates = number("average_updates", std::int64_t{});
  if (at.epoch < 0 || at.batch < 0 || at.step < 0 || at.waited < 0 || updates < 0) {
    throw ParseError(error_text(function, "words 'train.…'", "numbers of at least 0", "others"));
  }
  const auto model = detail::network_tensors(trainer.network());
  const auto average = detail::average_tensors(trainer);
  // Everything is looked at before anything changes; the optimiser checks its own part.
  const std::string model_prefix(detail::checkpoint_model);
  const std::string average_prefix(detail::checkpoint_average);
  detail::check_tensors(file, model, model_prefix, function);
  detail::check_tensors(file, average, average_prefix, function);
  const optim::OptimizerState state = detail::optimizer_part(file, function);
  detail::expect_checksum(file, function);
  optimizer.load_state(state);
  detail::load_tensors(file, model, model_prefix, function);
  detail::load_tensors(file, average, average_prefix, function);
  if (trainer.average() != nullptr) trainer.average()->set_updates(updates);
  trainer.set_state(at);
}

/// The same from a file on the disk.
template <class T>
void load_checkpoint(const std::string& path, nn::Trainer<T>& trainer,
                     optim::OptimizerBase<T>& optimizer) {
  load_checkpoint(Safetensors::read(path), trainer, optimizer);
}

}  // namespace io
QUERN_NAMESPACE_END

#endif  // QUERN_IO_CHECKPOINT_HPP
