// SPDX-License-Identifier: Apache-2.0

/// \file
/// RWKV-7's recurrence, a generalised delta rule: forward, exact gradients, one step.
///
///   S_t = S_(t-1) diag(decay_t) + v_t k_t^T + (S_(t-1) a_t) b_t^T,   o_t = S_t r_t
///
/// for each head; S is (values, keys). decay is the multiplier itself, in 0…1; a and b are taken as
/// given (RWKV-7 has a = -kappa, b = kappa times its learning rate, kappa a normalised key).
///
/// B. Peng et al., "RWKV-7 'Goose' with expressive dynamic state evolution", 2025, equation 18; the
/// reference kernel is wkv7 of BlinkDL/RWKV-LM.

#ifndef QUERN_SSM_RWKV7_HPP
#define QUERN_SSM_RWKV7_HPP

#include "quern/core/buffer.hpp"
#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/core/parallel.hpp"
#include "quern/kernels/kernels.hpp"
#include "quern/kernels/wkv_types.hpp"
#include "quern/ssm/detail/arrays.hpp"
#include "quern/ssm/detail/looks.hpp"
#include "quern/ssm/rwkv4.hpp"
#include "quern/ssm/sequence.hpp"

#include <algorithm>
#include <atomic>
#include <string>
#include <type_traits>
#include <utility>

QUERN_NAMESPACE_BEGIN
namespace ssm {

/// What it reads: (batch, heads, length, keys), v (batch, heads, length, values). Other layouts,
/// such as (batch, length, heads, keys), are strides.
template <class T>
struct Rwkv7Inputs {
  NdView<const T, 4> r, decay, k, v, a, b;
  NdView<const T, 4> initial_state{};  ///< optional, (sequences, heads, values, keys); else zeros
};

/// Gradients by the inputs of the same names, overwritten; null views are left out.
template <class T>
struct Rwkv7Gradients {
  NdView<T, 4> r{}, decay{}, k{}, v{}, a{}, b{};
  NdView<T, 4> initial_state{};
};

namespace detail {

template <class T>
class Rwkv7Job {
 public:
  Rwkv7Job(const char* function, const Rwkv7Inputs<T>& in, const RwkvOptions& options)
      : function_(function),
        in_(in),
        options_(options),
        heads_(in.r.extent(1)),
        keys_(in.r.extent(3)),
        values_(in.v.extent(3)),
        sequences_(function, options.offsets, in.r.extent(0), in.r.extent(2)),
        r_(in.r),
        k_(in.k),
        v_(in.v),
        a_(in.a),
        b_(in.b) {
    for (const auto& [name, view] : {std::pair{"decay", &in.decay}, std::pair{"k", &in.k},
                                     std::pair{"a", &in.a}, std::pair{"b", &in.b}}) {
      expect_shape(function, name, *view, in.r.extents());
    }
    expect_shape(function, "v", in.v, {in.r.extent(0), heads_, in.r.extent(2), values_});
    expect_optional(function, "initial_state", in.initial_state, state_shape());
    check_decay();
    for (Index s = 0; s < sequences_.size(); ++s) {
      longest_ = (std::max)(longest_, sequences_[s].length);
    }
  }
  Rwkv7Job(const Rwkv7Job&) = delete;
  Rwkv7Job& operator=(const Rwkv7Job&) = delete;

  [[nodiscard]] Shape<4> state_shape() const { return {sequences_.size(), heads_, values_, keys_}; }
  [[nodiscard]] Shape<4> value_shape() const { return in_.v.extents(); }

  /// States as kernels have them, (sequences, heads, keys, values).
  [[nodiscard]] NdArray<T, 4> states_of(const NdView<const T, 4>& given) const {
    if (given.is_null()) return NdArray<T, 4>({sequences_.size(), heads_, keys_, values_});
    return NdArray<T, 4>(given.permuted({0, 1, 3, 2}));
  }
  [[nodiscard]] NdArray<T, 4> first_states() const { return states_of(in_.initial_state); }
  static NdView<T, 4> turned(NdArray<T, 4>& state) { return state.view().permuted({0, 1, 3, 2}); }

  /// `state` (sequences, heads, keys, values), adjacent values, moves on.
  void run(const NdView<T, 4>& out, const NdView<T, 4>& state) const {
    const simd::Level level = simd::active_level();
    const auto room = static_cast<Index>(QUERN_DISPATCH_AT(level, wkv7_scratch<T>(keys_)));
    core::Buffer<T> scratch(static_cast<std::size_t>(room * workers()));
    std::atomic<bool> finite{true};
    parallel_for(
        sequences_.size() * heads_,
        [&](Index work) {
          const Index s = work / heads_, h = work % heads_;
          kernels::Wkv7Task<T> task = forward_task(s, h);
          task.state = {state.subview(s).subview(h).data(), state.stride(2)};
          task.y = rows_of(out, s, h);
          task.scratch = scratch.data() + this_worker() * room;
          if (!QUERN_DISPATCH_AT(level, wkv7<T>(task))) finite = false;
        },
        options_.threads);
    if (!finite) explain();
  }

  void run_back(const NdView<const T, 4>& dout, const NdView<const T, 4>& dfinal,
                const Rwkv7Gradients<T>& g) const;

 private:
  /// Where something entered that is not finite.
  [[noreturn]] void explain() const {
    expect_finite_values(function_, "r", in_.r);
    expect_finite_values(function_, "k", in_.k);
    expect_finite_values(function_, "v", in_.v);
    expect_finite_values(function_, "a", in_.a);
    expect_finite_values(function_, "b", in_.b);
    expect_finite_values(function_, "initial_state", in_.initial_state);
    throw ValueError(error_text(function_, "a, b", "states that do not overflow", "an overflow"));
  }

  [[nodiscard]] int workers() const {
    const Index work = (std::max)(Index{1}, sequences_.size() * heads_);
    return static_cast<int>((std::min)(work, Index{worker_count(options_.threads)}));
  }
  void check_decay() {
    decay_ = in_.decay;
    bool copied = !decay_.last_stride_is_one();
    const simd::Level level = simd::active_level();
    const bool fine =
        look_in_parallel(decay_, options_.threads, [level](const T* x, std::size_t n) {
          return QUERN_DISPATCH_AT(level, every_in_unit<T>(x, n));
        });
    if (fine && !copied) return;
    if (copied) decay_copy_ = NdArray<T, 4>(in_.decay);
    for (Index b = 0; b < in_.decay.extent(0); ++b) {
      for (Index h = 0; h < heads_; ++h) {
        for (Index t = 0; t < in_.decay.extent(2); ++t) {
          for (Index i = 0; i < keys_; ++i) {
            const T x = in_.decay(b, h, t, i);
            if (x >= T{0} && x <= T{1} && is_finite_bits(x)) continue;
            if (!options_.clip_decay || !is_finite_bits(x) || x < T{0}) bad_decay(b, h, t, i);
            if (!copied) decay_copy_ = NdArray<T, 4>(in_.decay);
            copied = true;
            decay_copy_(b, h, t, i) = T{1};
          }
        }
      }
    }
    if (copied) decay_ = decay_copy_.view();
  }
  [[noreturn]] void bad_decay(Index b, Index h, Index t, Index i) const {
    std::string got = quern::detail::text_of(in_.decay(b, h, t, i)) + " at (";
    got += std::to_string(b) + ", " + std::to_string(h) + ", " + std::to_string(t) + ", " +
           std::to_string(i) + ")";
    throw ValueError(error_text(function_, "decay", "multipliers in 0..1", got));
  }

  template <class U>
  kernels::ScanRows<U> rows_of(const NdView<U, 4>& v, Index s, Index h) const {
    const Sequence q = sequences_[s];
    return {v.data() + q.batch * v.stride(0) + h * v.stride(1) + q.begin * v.stride(2),
            v.stride(2)};
  }
  [[nodiscard]] kernels::Wkv7Task<T> forward_task(Index s, Index h) const {
    kernels::Wkv7Task<T> task;
    task.steps = sequences_[s].length;
    task.keys = keys_;
    task.values = values_;
    task.r = rows_of(r_.view(), s, h);
    task.decay = rows_of(decay_, s, h);
    task.k = rows_of(k_.view(), s, h);
    task.a = rows_of(a_.view(), s, h);
    task.b = rows_of(b_.view(), s, h);
    task.v = rows_of(v_.view(), s, h);
    return task;
  }

  const char* function_;
  Rwkv7Inputs<T> in_;
  RwkvOptions options_;
  Index heads_, keys_, values_;
  Sequences sequences_;
  UnitStride<const T, 4> r_, k_, v_, a_, b_;
  NdArray<T, 4> decay_copy_;
  NdView<const T, 4> decay_;
  Index longest_ = 0;
};

/// A gradient that the kernel writes in any case: the caller's array where its last stride is 1.
template <class T>
class WantedOrNot {
 public:
  WantedOrNot(const NdView<T, 4>& wanted, const Shape<4>& shape) : target_(wanted), view_(wanted) {
    if (!wanted.is_null() && wanted.last_stride_is_one()) return;
    own_ = NdArray<T, 4>(shape, core::Fill::none);
    view_ = own_.view();
  }
  [[nodiscard]] const NdView<T, 4>& view() const { return view_; }
  void finish() const {
    if (!target_.is_null() && !own_.empty()) assign(own_.view(), target_);
  }

 private:
  NdArray<T, 4> own_;
  NdView<T, 4> target_, view_;
};

template <class T>
void Rwkv7Job<T>::run_back(const NdView<const T, 4>& dout, const NdView<const T, 4>& dfinal,
                           const Rwkv7Gradients<T>& g) const {
  const simd::Level level = simd::active_level();
  NdArray<T, 4> state = first_states();
  NdArray<T, 4> dstate = states_of(dfinal);
  const UnitStride<const T, 4> dy(dout);
  const Shape<4> shape = in_.r.extents();
  const WantedOrNot<T> dr(g.r, shape), ddecay(g.decay, shape), dk(g.k, shape), da(g.a, shape),
      db(g.b, shape), dv(g.v, value_shape());
  const auto up = [](Index n) { return (n + 15) / 16 * 16; };
  const Index forward = up(static_cast<Index>(QUERN_DISPATCH_AT(level, wkv7_scratch<T>(keys_))));
  const Index back = up(static_cast<Index>(QUERN_DISPATCH_AT(level, wkv7_vjp_scratch<T>(keys_))));
  const Index kept = up(block_count(longest_, kernels::wkv7_tile) * keys_ * values_);
  const Index room = forward + back + kept + up(longest_ * values_);
  core::Buffer<T> scratch(static_cast<std::size_t>(room * workers()));
  std::atomic<bool> finite{true};
  parallel_for(
      sequences_.size() * heads_,
      [&](Index work) {
        const Index s = work / heads_, h = work % heads_;
        T* const memory = scratch.data() + this_worker() * room;
        kernels::Wkv7VjpTask<T> task;
        task.wkv = forward_task(s, h);
        task.wkv.state = {state.view().subview(s).subview(h).data(), values_};
        task.wkv.scratch = memory;
        task.scratch = memory + forward;
        task.wkv.kept = task.scratch + back;
        task.wkv.kept_sa = task.wkv.kept + kept;
        if (!QUERN_DISPATCH_AT(level, wkv7<T>(task.wkv))) finite = false;
        task.dy = rows_of(dy.view(), s, h);
        task.dstate = {dstate.view().subview(s).subview(h).data(), values_};
        task.dr = rows_of(dr.view(), s, h);
        task.ddecay = rows_of(ddecay.view(), s, h);
        task.dk = rows_of(dk.view(), s, h);
        task.da = rows_of(da.view(), s, h);
        task.db = rows_of(db.view(), s, h);
        task.dv = rows_of(dv.view(), s, h);
        QUERN_DISPATCH_AT(level, wkv7_vjp<T>(task));
      },
      options_.threads);
  if (!finite) explain();
  for (const WantedOrNot<T>* x : {&dr, &ddecay, &dk, &da, &db, &dv}) x->finish();
  if (!g.initial_state.is_null()) assign(turned(dstate), g.initial_state);
}

}  // namespace detail

/// out (batch, heads, length, values), overwritten; `final_state` (sequences, heads, values, keys)
/// takes the states after each sequence's last step, null leaves it out. ShapeError for what does
/// not fit; ValueError for a decay outside 0…1 (above 1 may be clipped) and for what is not finite,
/// with its place.
template <class T>
void rwkv7(const Rwkv7Inputs<T>& in, std::type_identity_t<NdView<T, 4>> out,
           std::type_identity_t<NdView<T, 4>> final_state = {}, const RwkvOptions& options = {}) {
  constexpr const char* function = "quern::ssm::rwkv7";
  const detail::Rwkv7Job<T> job(function, in, options);
  expect_shape(function, "out", out, job.value_shape());
  detail::expect_optional(function, "final_state", final_state, job.state_shape());
  const detail::UnitOutput<T, 4> output(out);
  NdArray<T, 4> state = job.first_states();
  job.run(output.view(), state.view());
  output.finish();
  if (!final_state.is_null()) detail::assign(job.turned(state), final_state);
}

/// Gradients of a scalar by everything, given those by out and by the final state (null: zeros).
/// Null views of `gradients` are left out, the others overwritten.
template <class T>
void rwkv7_vjp(const Rwkv7Inputs<T>& in, std::type_identity_t<NdView<const T, 4>> dout,
               std::type_identity_t<NdView<const T, 4>> dfinal_state,
               const Rwkv7Gradients<T>& gradients, const RwkvOptions& options = {}) {
  constexpr const char* function = "quern::ssm::rwkv7_vjp";
  const detail::Rwkv7Job<T> job(function, in, options);
  expect_shape(function, "dout", dout, job.value_shape());
  detail::expect_optional(function, "dfinal_state", dfinal_state, job.state_shape());
  const Shape<4>& shape = in.r.extents();
  detail::expect_optional(function, "gradients.r", gradients.r, shape);
  detail::expect_optional(function, "gradients.decay", gradients.decay, shape);
  detail::expect_optional(function, "gradients.k", gradients.k, shape);
  detail::expect_optional(function, "gradients.v", gradients.v, job.value_shape());
  detail::expect_optional(function, "gradients.a", gradients.a, shape);
  detail::expect_optional(function, "gradients.b", gradients.b, shape);
  detail::expect_optional(function, "gradients.initial_state", gradients.initial_state,
                          job.state_shape());
  job.run_back(dout, dfinal_state, gradients);
}

/// What one step reads: (batch, heads, keys), v (batch, heads, values).
template <class T>
struct Rwkv7StepInputs {
  NdView<const T, 3> r, decay, k, v, a, b;
};

/// One step of all rows of a batch: out (batch, heads, values), overwritten; `state` (batch, heads,
/// values, keys) moves on, in place where its values are adjacent in memory. The same bits as
/// rwkv7.
template <class T>
void rwkv7_step(const Rwkv7StepInputs<T>& in, std::type_identity_t<NdView<T, 4>> state,
                std::type_identity_t<NdView<T, 3>> out, const RwkvOptions& options = {}) {
  const auto lengthened = [](const auto& x) {
    using Element = std::remove_pointer_t<decltype(x.data())>;
    return NdView<Element, 4>(x.data(), {x.extent(0), x.extent(1), 1, x.extent(2)},
                              {x.stride(0), x.stride(1), 0, x.stride(2)});
  };
  const Rwkv7Inputs<T> all{lengthened(in.r),
                           lengthened(in.decay),
                           lengthened(in.k),
                           lengthened(in.v),
                           lengthened(in.a),
                           lengthened(in.b),
                           state};
  constexpr const char* function = "quern::ssm::rwkv7_step";
  if (state.stride(2) != 1) return rwkv7(all, lengthened(out), state, options);
  const detail::Rwkv7Job<T> job(function, all, options);
  expect_shape(function, "out", lengthened(out), job.value_shape());
  const NdView<T, 4> long_out = lengthened(out);
  const detail::UnitOutput<T, 4> output(long_out);
  job.run(output.view(), state.permuted({0, 1, 3, 2}));
  output.finish();
}

}  // namespace ssm
QUERN_NAMESPACE_END

#endif  // QUERN_SSM_RWKV7_HPP
