// SPDX-License-Identifier: Apache-2.0

/// \file
/// Saving and loading of learners. A learner that can be saved has a `kind` (its tag in the file),
/// `save(ArchiveWriter&) const` and `load(const ArchiveReader&)`; one that holds others keeps each
/// as an archive within its own, so that every tag is checked.

#ifndef QUERN_CORE_SAVING_HPP
#define QUERN_CORE_SAVING_HPP

#include "quern/core/archive.hpp"
#include "quern/core/config.hpp"

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN

/// A learner that archives can hold, see the file comment.
template <class L>
concept Saveable = requires(const L& saved, L& loaded, ArchiveWriter& out,
                            const ArchiveReader& in) {
  std::string_view(saved.kind());
  saved.save(out);
  loaded.load(in);
};

/// Version of the sections that learners saved so write.
inline constexpr std::uint32_t learner_version = 1;

template <Saveable L>
void save_learner(const L& learner, const std::string& path) {
  ArchiveWriter out(learner.kind(), learner_version);
  learner.save(out);
  out.save(path);
}

/// Into a learner of the type that was saved. Errors (IoError, ParseError) leave it as it was.
template <Saveable L>
void load_learner(L& learner, const std::string& path) {
  const ArchiveReader in = ArchiveReader::load(path);
  in.expect(learner.kind(), learner_version);
  L loaded = learner;
  loaded.load(in);
  learner = std::move(loaded);
}

/// A learner within another one's archive, as the section \p name.
template <Saveable L>
void save_member(ArchiveWriter& out, std::string_view name, const L& learner) {
  ArchiveWriter member(learner.kind(), learner_version);
  learner.save(member);
  const std::vector<std::byte> bytes = member.bytes();
  out.array(name, std::span(reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()));
}
template <Saveable L>
void load_member(const ArchiveReader& in, std::string_view name, L& learner) {
  const std::vector<std::uint8_t> bytes = in.array<std::uint8_t>(name);
  const ArchiveReader member(std::as_bytes(std::span(bytes)), std::string(name));
  member.expect(learner.kind(), learner_version);
  learner.load(member);
}

QUERN_NAMESPACE_END

#endif  // QUERN_CORE_SAVING_HPP
