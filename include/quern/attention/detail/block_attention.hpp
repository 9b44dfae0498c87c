// SPDX-License-Identifier: Apache-2.0

/// \file
/// Attention over rounds of tasks for all rows of a batch and all heads, forward and backward: what
/// sparse patterns, hashed buckets and projected keys have in common.

#ifndef QUERN_ATTENTION_DETAIL_BLOCK_ATTENTION_HPP
#define QUERN_ATTENTION_DETAIL_BLOCK_ATTENTION_HPP

#include "quern/attention/sparse_pattern.hpp"
#include "quern/core/buffer.hpp"
#include "quern/core/config.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/core/parallel.hpp"
#include "quern/kernels/block_attention_types.hpp"
#include "quern/kernels/kernels.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace attention {
namespace detail {

// Every SIMD level's kernel is behind one function a scalar type.

template <class T>
void run_block_attention(const kernels::BlockAttentionTask<T>& task,
                         const kernels::BlockAttentionSums<T>& sums) {
  QUERN_DISPATCH(block_attention<T>(task, sums));
}
template <class T>
void run_block_attention_gradients(const kernels::BlockAttentionTask<T>& task,
                                   const kernels::BlockAttentionGradients<T>& gradients) {
  QUERN_DISPATCH(block_attention_gradients<T>(task, gradients));
}
/// out[i] = a[i] . b[i] for the rows of two matrices.
template <class T>
void row_products(MatrixView<const T> a, MatrixView<const T> b, T* out) {
  for (Index i = 0; i < a.rows(); ++i) {
    out[i] = static_cast<T>(
        QUERN_DISPATCH(dot<T>(a.row_data(i), b.row_data(i), static_cast<std::size_t>(a.cols()))));
  }
}
template <class T>
void scale_row(T factor, T* row, Index n) {
  QUERN_DISPATCH(scale<T>(factor, row, static_cast<std::size_t>(n), row));
}
template <class T>
void add_to_row(const T* x, Index n, T* y) {
  QUERN_DISPATCH(axpy<T>(T{1}, x, static_cast<std::size_t>(n), y));
}

/// The arrays of one call, (batch, heads, length, dim) with adjacent elements of a row. Heads of k
/// and v divide those of q.
template <class T>
struct BlockInputs {
  NdView<const T, 4> q, k, v;
  T scale = T{1};
  bool replace_self = false;
  T self_logit = T{0};
  std::span<const std::int64_t> lengths;  ///< visible keys of each row of the batch, or none
  int threads = 0;

  [[nodiscard]] Index batch() const { return q.extent(0); }
  [[nodiscard]] Index heads() const { return q.extent(1); }
  /// Heads of q for one of k and v.
  [[nodiscard]] Index group() const {
    return k.extent(1) > 0 ? q.extent(1) / k.extent(1) : Index{1};
  }
};

/// The rounds that a row of the batch and a head go through: the same for all, or of each its own.
template <class T>
struct BlockPlan {
  const std::vector<SparseRound>* rounds = nullptr;
  const std::int64_t* ids = nullptr;
};

/// What the task of a plan is for the kernel, for a row of the batch and a head of q.
template <class T>
kernels::BlockAttentionTask<T> kernel_task(const BlockInputs<T>& in, const SparseRound& round,
                                           const SparseTask& task, const std::int64_t* ids, Index b,
                                           Index h, T* scratch) {
  kernels::BlockAttentionTask<T> t;
  const Index kv = h / in.group();
  t.q = in.q.data() + b * in.q.stride(0) + h * in.q.stride(1);
  t.k = in.k.data() + b * in.k.stride(0) + kv * in.k.stride(1);
  t.v = in.v.data() + b * in.v.stride(0) + kv * in.v.stride(1);
  t.q_stride = in.q.stride(2), t.k_stride = in.k.stride(2), t.v_stride = in.v.stride(2);
  t.dim = in.q.extent(3), t.value_dim = in.v.extent(3);
  t.scale = in.scale;
  t.replace_self = in.replace_self, t.self_logit = in.self_logit;
  t.lowest = round.bounds->lowest.data(), t.highest = round.bounds->highest.data();
  t.key_limit = in.k.extent(2);
  if (!in.lengths.empty()) {
    t.key_limit =
        (std::min)(t.key_limit, static_cast<Index>(in.lengths[static_cast<std::size_t>(b)]));
  }
  t.first_query = task.first_query, t.queries = task.queries;
  t.query_ids = task.query_ids >= 0 ? ids + task.query_ids : nullptr;
  t.first_key = task.first_key, t.keys = task.keys;
  t.key_ids = task.key_ids >= 0 ? ids + task.key_ids : nullptr;
  if (t.key_ids == nullptr && t.first_key + t.keys > t.key_limit) {
    t.keys = (std::max)(Index{0}, static_cast<Index>(t.key_limit) - task.first_key);
  }
  t.scratch = scratch;
  return t;
}

/// Tasks that one block of parallel_for takes: enough that handing them out costs nothing.
inline constexpr Index block_tasks = 4;
/// Heads below this share their tasks out in this many parts, each with gradients of its own.
inline constexpr Index block_parts = 4;

/// Forward: out (batch, heads, queries, value_dim), largest and total (batch, heads, queries).
/// plan(b, h) gives the rounds.
template <class T, class Plan>
void block_attention_forward(const BlockInputs<T>& in, const Plan& plan, NdView<T, 4> out,
                             NdView<T, 3> largest, NdView<T, 3> total) {
  const Index batch = in.batch(), heads = in.heads(), queries = in.q.extent(2);
  if (batch == 0 || heads == 0 || queries == 0) return;
  const Index scratch = kernels::block_attention_scratch(in.q.extent(3), in.v.extent(3), false);
  core::Buffer<T> memory(static_cast<std::size_t>(scratch * worker_count(in.threads)));
  std::size_t rounds = 0;
  Index most_tasks = 0;
  for (Index u = 0; u < batch * heads; ++u) {
    const BlockPlan<T> p = plan(u / heads, u % heads);
    rounds = (std::max)(rounds, p.rounds->size());
    for (const SparseRound& r : *p.rounds)
      most_tasks = (std::max)(most_tasks, static_cast<Index>(r.tasks.size()));
  }
  const Index parts = (most_tasks + block_tasks - 1) / block_tasks;
  for (std::size_t r = 0; r < rounds; ++r) {
    parallel_for(
        batch * heads * parts,
        [&](Index unit) {
          const Index b = unit / parts / heads, h = unit / parts % heads, part = unit % parts;
          const BlockPlan<T> p = plan(b, h);
          if (r >= p.rounds->size()) return;
          const SparseRound& round = (*p.rounds)[r];
          const Index end =
              (std::min)((part + 1) * block_tasks, static_cast<Index>(round.tasks.size()));
          kernels::BlockAttentionSums<T> sums{
              &largest(b, h, 0), &total(b, h, 0), &out(b, h, 0, 0),
              out.stride(2),     r == 0,          p.rounds->size() == 1};
          for (Index t = part * block_tasks; t < end; ++t) {
            const SparseTask& task = round.tasks[static_cast<std::size_t>(t)];
            run_block_attention(
                kernel_task(in, round, task, p.ids, b, h, memory.data() + this_worker() * scratch),
                sums);
          }
        },
        in.threads);
  }
  if (rounds < 2) return;
  parallel_for(
      batch * heads,
      [&](Index unit) {
        const Index b = unit / heads, h = unit % heads;
        if (plan(b, h).rounds->size() < 2) return;
        for (Index i = 0; i < queries; ++i) {
          const T sum = total(b, h, i);
          scale_row(sum != T{0} ? T{1} / sum : T{0}, &out(b, h, i, 0), out.extent(3));
        }
      },
      in.threads);
}

/// Gradients of all inputs, overwritten; null views are left out. `out`, largest and total are the
/// forward pass's.
template <class T, class Plan>
class BlockBackward {
 public:
  BlockBackward(const BlockInputs<T>& in, const Plan& plan, NdView<const T, 4> out,
                NdView<const T, 3> largest, NdView<const T, 3> total, NdView<const T, 4> dout,
                NdView<T, 4> dq, NdView<T, 4> dk, NdView<T, 4> dv)
      : in_(in),
        plan_(plan),
        largest_(largest),
        total_(total),
        dout_(dout),
        dq_(dq),
        dk_(dk),
        dv_(dv) {
    for (const NdView<T, 4>* g : {&dq_, &dk_, &dv_})
      if (!g->is_null()) fill(*g);
    if (in.batch() == 0 || in.heads() == 0 || in.q.extent(2) == 0 || in.k.extent(2) == 0) return;
    delta_ = NdArray<T, 3>({in.batch(), in.heads(), in.q.extent(2)}, core::Fill::none);
    parallel_for(
        in.batch() * in.heads(),
        [&](Index u) {
          const Index b = u / in.heads(), h = u % in.heads();
          row_products<T>(out.subview(b).subview(h), dout.subview(b).subview(h), &delta_(b, h, 0));
        },
        in.threads);
    run();
  }

 private:
  void fill(const NdView<T, 4>& g) const {
    for (Index b = 0; b < g.extent(0); ++b)
      for (Index h = 0; h < g.extent(1); ++h)
        for (Index i = 0; i < g.extent(2); ++i)
          std::fill_n(g.data() + b * g.stride(0) + h * g.stride(1) + i * g.stride(2), g.extent(3),
                      T{0});
  }

  void run() {
    const Index heads = in_.k.extent(1), batch = in_.batch();
    // Follows from the shape alone, as the order of sums does.
    parts_ = batch * heads >= block_parts ? 1 : block_parts;
    scratch_ = kernels::block_attention_scratch(in_.q.extent(3), in_.v.extent(3), true);
    memory_ = core::Buffer<T>(static_cast<std::size_t>(scratch_ * worker_count(in_.threads)));
    if (parts_ > 1) {
      if (!dk_.is_null())
        part_dk_ = NdArray<T, 3>({batch * heads * parts_, in_.k.extent(2), in_.k.extent(3)});
      if (!dv_.is_null())
        part_dv_ = NdArray<T, 3>({batch * heads * parts_, in_.v.extent(2), in_.v.extent(3)});
    }
    std::size_t rounds = 0;
    for (Index u = 0; u < batch * in_.heads(); ++u) {
      rounds = (std::max)(rounds, plan_(u / in_.heads(), u % in_.heads()).rounds->size());
    }
    for (std::size_t r = 0; r < rounds; ++r) {
      parallel_for(
          batch * heads * parts_, [&](Index unit) { run_part(r, unit); }, in_.threads);
    }
    if (parts_ == 1) return;
    for (Index u = 0; u < batch * heads; ++u) {
      if (!dk_.is_null()) add_parts(part_dk_, u, dk_.subview(u / heads).subview(u % heads));
      if (!dv_.is_null()) add_parts(part_dv_, u, dv_.subview(u / heads).subview(u % heads));
    }
  }

  /// A part of the tasks of one head of k and v, for all heads of q that look at it.
  void run_part(std::size_t r, Index unit) {
    const Index heads = in_.k.extent(1), u = unit / parts_, part = unit % parts_;
    const Index b = u / heads, kv = u % heads;
    T* const scratch = memory_.data() + this_worker() * scratch_;
    for (Index h = kv * in_.group(); h < (kv + 1) * in_.group(); ++h) {
      const BlockPlan<T> p = plan_(b, h);
      if (r >= p.rounds->size()) continue;
      const SparseRound& round = (*p.rounds)[r];
      const Index tasks = static_cast<Index>(round.tasks.size());
      const kernels::BlockAttentionGradients<T> g = gradients(b, h, kv, unit);
      for (Index t = tasks * part / parts_; t < tasks * (part + 1) / parts_; ++t) {
        const SparseTask& task = round.tasks[static_cast<std::size_t>(t)];
        run_block_attention_gradients(kernel_task(in_, round, task, p.ids, b, h, scratch), g);
      }
    }
  }

  kernels::BlockAttentionGradients<T> gradients(Index b, Index h, Index kv, Index unit) {
    kernels::BlockAttentionGradients<T> g;
    g.largest = &largest_(b, h, 0), g.total = &total_(b, h, 0), g.delta = &delta_(b, h, 0);
    g.dout = &dout_(b, h, 0, 0), g.dout_stride = dout_.stride(2);
    if (!dq_.is_null()) g.dq = &dq_(b, h, 0, 0), g.dq_stride = dq_.stride(2);
    if (!dk_.is_null()) {
      g.dk = parts_ > 1 ? &part_dk_(unit, 0, 0) : &dk_(b, kv, 0, 0);
      g.dk_stride = parts_ > 1 ? dk_.extent(3) : dk_.stride(2);
    }
    if (!dv_.is_null()) {
      g.dv = parts_ > 1 ? &part_dv_(unit, 0, 0) : &dv_(b, kv, 0, 0);
      g.dv_stride = parts_ > 1 ? dv_.extent(3) : dv_.stride(2);
    }
    return g;
  }

  void add_parts(const NdArray<T, 3>& parts, Index u, MatrixView<T> to) const {
    parallel_for(
        block_count(to.rows(), 256),
        [&](Index block) {
          const BlockRange range = block_range(to.rows(), 256, block);
          for (Index part = 0; part < parts_; ++part)
            for (Index i = range.begin; i < range.end; ++i)
              add_to_row(&parts(u * parts_ + part, i, 0), to.cols(), to.row_data(i));
        },
        in_.threads);
  }

  const BlockInputs<T>& in_;
  const Plan& plan_;
  NdView<const T, 3> largest_, total_;
  NdView<const T, 4> dout_;
  NdView<T, 4> dq_, dk_, dv_;
  NdArray<T, 3> delta_, part_dk_, part_dv_;
  Index parts_ = 1;
  Index scratch_ = 0;
  core::Buffer<T> memory_;
};

}  // namespace detail
}  // namespace attention
QUERN_NAMESPACE_END

#endif  // QUERN_ATTENTION_DETAIL_BLOCK_ATTENTION_HPP
