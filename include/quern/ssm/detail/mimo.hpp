// SPDX-License-Identifier: Apache-2.0

/// \file
/// State spaces of many inputs, many outputs and a diagonal complex transition, x_t = a_t x_{t-1} +
/// f_t (B u_t), y_t = scale Re(C x_t) + D u_t: the scan that S5 and the LRU are, fused with both
/// products by blocks of time, so that states stay in the cache.

#ifndef QUERN_SSM_DETAIL_MIMO_HPP
#define QUERN_SSM_DETAIL_MIMO_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/core/parallel.hpp"
#include "quern/kernels/gemm.hpp"
#include "quern/kernels/kernels.hpp"
#include "quern/kernels/scan_types.hpp"
#include "quern/ssm/sequence.hpp"

#include <algorithm>
#include <complex>
#include <cstddef>
#include <optional>
#include <string>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace ssm {
namespace detail {

/// Multipliers and input factors of every state: one row for all time, or a row a step.
template <class T>
struct MimoSteps {
  NdArray<std::complex<T>, 2> a;      ///< (1 or length, states)
  NdArray<std::complex<T>, 2> a_low;  ///< what rounding took from a
  NdArray<std::complex<T>, 2> f;      ///< (length, states); empty: in B already

  MimoSteps() = default;
  MimoSteps(Index rows, Index states, bool factors) : a({rows, states}), a_low({rows, states}) {
    if (factors) f.resize({rows, states});
  }
  void set(Index row, Index state, std::complex<double> value) {
    // Volatile: g++ 12 at -O2 makes a vector of both parts and takes its rounding for nothing.
    const volatile T re = static_cast<T>(value.real()), im = static_cast<T>(value.imag());
    a(row, state) = {re, im};
    a_low(row, state) = {static_cast<T>(value.real() - static_cast<double>(re)),
                         static_cast<T>(value.imag() - static_cast<double>(im))};
  }
  [[nodiscard]] bool varies() const { return !f.empty(); }
};

/// The matrices of a model as real ones: B (inputs, 2 states), C (2 states, outputs).
template <class T>
struct MimoMatrices {
  NdArray<T, 2> b;
  NdArray<T, 2> c;

  /// `factor`(state): of the rows of b, unless steps have their own.
  template <class Factor>
  MimoMatrices(const NdView<const std::complex<T>, 2>& b_in,
               const NdView<const std::complex<T>, 2>& c_in, double scale, Factor&& factor)
      : b({b_in.extent(1), 2 * b_in.extent(0)}), c({2 * c_in.extent(1), c_in.extent(0)}) {
    for (Index p = 0; p < b_in.extent(0); ++p) {
      const std::complex<double> f = factor(p);
      for (Index h = 0; h < b_in.extent(1); ++h) {
        const std::complex<double> v = f * std::complex<double>(b_in(p, h));
        b(h, 2 * p) = static_cast<T>(v.real());
        b(h, 2 * p + 1) = static_cast<T>(v.imag());
      }
      for (Index h = 0; h < c_in.extent(0); ++h) {
        const std::complex<double> v(c_in(h, p));
        c(2 * p, h) = static_cast<T>(scale * v.real());
        c(2 * p + 1, h) = static_cast<T>(-scale * v.imag());
      }
    }
  }
};

/// Gradients of MimoMatrices, of D, and of steps that do not vary.
template <class T>
struct MimoSums {
  NdArray<T, 2> b, c;
  NdArray<std::complex<T>, 1> a;
  NdArray<T, 1> d;
  MimoSums() = default;
  MimoSums(Index inputs, Index states, Index outputs)
      : b({inputs, 2 * states}), c({2 * states, outputs}), a({states}), d({outputs}) {}
  void add(const MimoSums& other) {
    const auto sum = [](auto& to, const auto& from) {
      for (Index i = 0; i < to.size(); ++i) to.data()[i] += from.data()[i];
    };
    sum(b, other.b);
    sum(c, other.c);
    sum(a, other.a);
    sum(d, other.d);
  }
};

/// Steps of a block: their states are 128 x 2 states numbers.
inline constexpr Index mimo_block = 128;

template <class T>
NdView<T, 2> backwards(const NdView<T, 2>& v) {
  if (v.is_null() || v.extent(0) == 0) return v;
  return {&v(v.extent(0) - 1, 0), v.extents(), {-v.stride(0), v.stride(1)}};
}

/// One sequence of a model. Views are (steps, …) and may run backwards.
template <class T>
class MimoSequence {
 public:
  using Complex = std::complex<T>;

  MimoSequence(const MimoSteps<T>& steps, const MimoMatrices<T>& m,
               const kernels::PackedMatrix<T>& b, const kernels::PackedMatrix<T>& c, int threads)
      : steps_(steps), m_(m), b_(b), c_(c), threads_(threads), states_(m.c.extent(0) / 2) {}

  /// Row of the steps that the first position has (0 where they do not vary); -1 runs backwards.
  void place(Index row, Index direction) {
    row_ = row;
    direction_ = direction;
  }

  /// y += C x, and the last state; `state` (states) holds the one before. `keep`, unless null, gets
  /// every state, (steps, states).
  void forward(const NdView<const T, 2>& u, const NdView<T, 2>& y, Complex* state,
               const NdView<Complex, 2>& keep) {
    NdArray<Complex, 2> own;
    if (keep.is_null()) own.resize({(std::min)(mimo_block, u.extent(0)), states_});
    for (Index t = 0; t < u.extent(0); t += mimo_block) {
      const Index n = (std::min)(mimo_block, u.extent(0) - t);
      const NdView<Complex, 2> x = keep.is_null() ? own.view().slice(0, 0, n) : keep.slice(0, t, n);
      states_of(u.slice(0, t, n), t, state, x);
      if (y.is_null()) continue;
      kernels::gemm<T>(real(x), c_, y.slice(0, t, n), {.beta = T{1}, .threads = threads_});
    }
  }

  /// Gradients, from the last block to the first. x: the states that forward kept; carry (states):
  /// gradient of the last state, then of the initial one. du, da and df (steps, …; null: left out)
  /// are added to and overwritten, respectively.
  void backward(const NdView<const T, 2>& u, const NdView<const Complex, 2>& x,
                const Complex* initial, const NdView<const T, 2>& dy, Complex* carry,
                const NdView<T, 2>& du, const NdView<Complex, 2>& da, const NdView<Complex, 2>& df,
                MimoSums<T>& sums) {
    const Index blocks = (u.extent(0) + mimo_block - 1) / mimo_block;
    NdArray<Complex, 2> g({(std::min)(mimo_block, u.extent(0)), states_}, core::Fill::none), v;
    if (steps_.varies()) v.resize(g.extents(), core::Fill::none);
    for (Index b = blocks; b-- > 0;) {
      const Index t = b * mimo_block, n = (std::min)(mimo_block, u.extent(0) - t);
      const NdView<Complex, 2> gx = g.view().slice(0, 0, n);
      const NdView<const T, 2> u_now = u.slice(0, t, n), dy_now = dy.slice(0, t, n);
      const NdView<const Complex, 2> x_now = x.slice(0, t, n);
      const kernels::GemmOptions<T> add{.beta = T{1}, .threads = threads_};
      kernels::gemm<T>(dy_now, m_.c.view().transposed(), real(gx), {.threads = threads_});
      kernels::gemm<T>(real(x_now).transposed(), dy_now, sums.c.view(), add);
      states_vjp(t, x_now, t > 0 ? &x(t - 1, 0) : initial, gx, carry,
                 da.is_null() ? da : da.slice(0, t, n), sums);
      if (steps_.varies()) {
        const NdView<Complex, 2> now = v.view().slice(0, 0, n);
        kernels::gemm<T>(u_now, b_, real(now), {.threads = threads_});
        for (Index i = 0; i < n; ++i) {
          if (!df.is_null()) multiply(&now(i, 0), &gx(i, 0), true, &df(t + i, 0));
          multiply(factor(t + i), &gx(i, 0), true, &gx(i, 0));
        }
      }
      kernels::gemm<T>(u_now.transposed(), real(NdView<const Complex, 2>(gx)), sums.b.view(), add);
      if (du.is_null()) continue;
      kernels::gemm<T>(real(NdView<const Complex, 2>(gx)), m_.b.view().transposed(),
                       du.slice(0, t, n), add);
    }
  }

 private:
  template <class U>
  static auto real(const NdView<U, 2>& v) {
    using R = std::conditional_t<std::is_const_v<U>, const T, T>;
    return NdView<R, 2>(reinterpret_cast<R*>(v.data()), {v.extent(0), 2 * v.extent(1)},
                        {2 * v.stride(0), 1});
  }
  static const T* scalars(const Complex* x) { return reinterpret_cast<const T*>(x); }
  static T* scalars(Complex* x) { return reinterpret_cast<T*>(x); }
  void multiply(const Complex* a, const Complex* b, bool conjugate, Complex* out) const {
    QUERN_DISPATCH(multiply_complex<T>(static_cast<std::size_t>(states_), scalars(a), scalars(b),
                                       conjugate, scalars(out)));
  }
  [[nodiscard]] Index row_of(Index t) const { return steps_.varies() ? row_ + direction_ * t : 0; }
  [[nodiscard]] const Complex* factor(Index t) const { return &steps_.f(row_of(t), 0); }

  template <class Task>
  void set_multipliers(Task& task, Index t, Index n) const {
    task.steps = static_cast<std::size_t>(n);
    task.channels = static_cast<std::size_t>(states_);
    task.a = scalars(&steps_.a(row_of(t), 0));
    task.a_low = scalars(&steps_.a_low(row_of(t), 0));
    task.a_stride = steps_.varies() ? direction_ * states_ : 0;
  }

  /// x = states of a block, from the one before, which moves on.
  void states_of(const NdView<const T, 2>& u, Index t, Complex* state,
                 const NdView<Complex, 2>& x) const {
    kernels::gemm<T>(u, b_, real(x), {.threads = threads_});
    for (Index i = 0; steps_.varies() && i < u.extent(0); ++i) {
      multiply(factor(t + i), &x(i, 0), false, &x(i, 0));
    }
    kernels::ScanTask<T> task;
    set_multipliers(task, t, u.extent(0));
    task.b = task.out = scalars(x.data());
    task.b_stride = task.out_stride = x.stride(0);
    task.state = scalars(state);
    QUERN_DISPATCH(scan_rows_complex<T>(task));
  }

  void states_vjp(Index t, const NdView<const Complex, 2>& x, const Complex* before,
                  const NdView<Complex, 2>& g, Complex* carry, const NdView<Complex, 2>& da,
                  MimoSums<T>& sums) const {
    kernels::ScanVjpTask<T> task;
    set_multipliers(task, t, x.extent(0));
    task.h = scalars(x.data());
    task.h_stride = x.stride(0);
    task.initial = scalars(before);
    task.dout = task.db = scalars(g.data());
    task.dout_stride = task.db_stride = g.stride(0);
    task.carry = scalars(carry);
    if (steps_.varies()) {
      if (!da.is_null()) task.da = scalars(da.data()), task.da_stride = da.stride(0);
    } else {
      task.da = scalars(sums.a.data());
    }
    QUERN_DISPATCH(scan_rows_complex_vjp<T>(task));
  }

  const MimoSteps<T>& steps_;
  const MimoMatrices<T>& m_;
  const kernels::PackedMatrix<T>& b_;
  const kernels::PackedMatrix<T>& c_;
  int threads_;
  Index states_;
  Index row_ = 0;
  Index direction_ = 1;
};

/// A model over a batch. Steps that vary have a row for each position of the whole batch.
template <class T>
struct MimoJob {
  using Complex = std::complex<T>;
  NdView<const T, 3> u = {};
  NdView<const T, 1> d = {};  ///< null: 0
  NdView<const Complex, 2> initial = {};
  NdView<T, 3> y = {};
  NdView<Complex, 2> last = {};
  NdView<const T, 3> dy = {};
  NdView<const Complex, 2> dlast = {};
  NdView<T, 3> du = {};
  NdView<Complex, 2> dinitial = {};
  NdView<Complex, 2> da = {};  ///< (batch length, states) where steps vary
  NdView<Complex, 2> df = {};
  Sequences sequences;
  Index length = 0;
  bool reverse = false;
  bool add = false;  ///< to y, or to du, which another direction has written
  int threads = 0;
};

template <class T>
NdView<T, 2> rows_of(const NdView<T, 3>& v, const Sequence& s, bool reverse) {
  if (v.is_null()) return {};
  const NdView<T, 2> rows = v.subview(s.batch).slice(0, s.begin, s.length);
  return reverse ? backwards(rows) : rows;
}
template <class T>
NdView<T, 2> step_rows_of(const NdView<T, 2>& v, const Sequence& s, Index length, bool reverse) {
  if (v.is_null()) return {};
  const NdView<T, 2> rows = v.slice(0, s.batch * length + s.begin, s.length);
  return reverse ? backwards(rows) : rows;
}

/// Calls body(sequence number, threads for its products): many sequences share the threads out, few
/// use them within.
template <class Body>
void for_each_sequence(Index count, int threads, Body&& body) {
  if (count >= 4) {
    parallel_for(
        count, [&](Index s) { body(s, 1); }, threads);
  } else {
    for (Index s = 0; s < count; ++s) body(s, threads);
  }
}

template <class T>
void set_place(MimoSequence<T>& run, const MimoSteps<T>& steps, const Sequence& s, Index length,
               bool reverse) {
  if (!steps.varies()) return;
  const Index first = s.batch * length + s.begin;
  run.place(reverse ? first + s.length - 1 : first, reverse ? -1 : 1);
}

template <class T>
void mimo_forward(const MimoJob<T>& job, const MimoSteps<T>& steps, const MimoMatrices<T>& m) {
  using Complex = std::complex<T>;
  const Index states = m.c.extent(0) / 2;
  const kernels::PackedMatrix<T> b(m.b.view(), job.threads), c(m.c.view(), job.threads);
  for_each_sequence(job.sequences.size(), job.threads, [&](Index k, int threads) {
    const Sequence s = job.sequences[k];
    const NdView<const T, 2> u = rows_of(job.u, s, job.reverse);
    const NdView<T, 2> y = rows_of(job.y, s, job.reverse);
    for (Index t = 0; !job.add && t < s.length; ++t) {
      for (Index h = 0; h < y.extent(1); ++h) y(t, h) = job.d.is_null() ? T{0} : job.d(h) * u(t, h);
    }
    NdArray<Complex, 1> state({states});
    for (Index p = 0; p < states && !job.initial.is_null(); ++p) state(p) = job.initial(k, p);
    MimoSequence<T> run(steps, m, b, c, threads);
    set_place(run, steps, s, job.length, job.reverse);
    run.forward(u, y, state.data(), {});
    for (Index p = 0; p < states && !job.last.is_null(); ++p) job.last(k, p) = state(p);
  });
}

/// Gradients of mimo_forward; du and dinitial are overwritten (du added to, with `add`).
template <class T>
MimoSums<T> mimo_vjp(const MimoJob<T>& job, const MimoSteps<T>& steps, const MimoMatrices<T>& m) {
  using Complex = std::complex<T>;
  const Index states = m.c.extent(0) / 2, inputs = m.b.extent(0), outputs = m.c.extent(1);
  const kernels::PackedMatrix<T> b(m.b.view(), job.threads), c(m.c.view(), job.threads);
  // Groups of sequences have sums of their own, added in order: the same bits for any threads.
  const Index all = job.sequences.size();
  const Index groups = (std::max)(Index{1}, all >= 4 ? (std::min)(all, Index{8}) : Index{1});
  std::vector<MimoSums<T>> sums(static_cast<std::size_t>(groups));
  for (MimoSums<T>& each : sums) each = MimoSums<T>(inputs, states, outputs);
  const auto one = [&](Index k, int threads, MimoSums<T>& sum) {
    const Sequence s = job.sequences[k];
    const NdView<const T, 2> u = rows_of(job.u, s, job.reverse);
    const NdView<const T, 2> dy = rows_of(job.dy, s, job.reverse);
    const NdView<T, 2> du = rows_of(job.du, s, job.reverse);
    for (Index t = 0; !job.add && t < s.length; ++t) {
      for (Index h = 0; h < inputs && !du.is_null(); ++h) {
        du(t, h) = job.d.is_null() ? T{0} : job.d(h) * dy(t, h);
      }
      for (Index h = 0; h < outputs && !job.d.is_null(); ++h) sum.d(h) += dy(t, h) * u(t, h);
    }
    NdArray<Complex, 1> start({states}), state({states}), carry({states});
    for (Index p = 0; p < states; ++p) {
      if (!job.initial.is_null()) start(p) = state(p) = job.initial(k, p);
      if (!job.dlast.is_null()) carry(p) = job.dlast(k, p);
    }
    MimoSequence<T> run(steps, m, b, c, threads);
    set_place(run, steps, s, job.length, job.reverse);
    NdArray<Complex, 2> x({s.length, states}, core::Fill::none);
    run.forward(u, {}, state.data(), x.view());
    run.backward(u, x.view(), start.data(), dy, carry.data(), du,
                 step_rows_of(job.da, s, job.length, job.reverse),
                 step_rows_of(job.df, s, job.length, job.reverse), sum);
    for (Index p = 0; p < states && !job.dinitial.is_null(); ++p) job.dinitial(k, p) = carry(p);
  };
  if (groups == 1) {
    for (Index k = 0; k < all; ++k) one(k, job.threads, sums[0]);
  } else {
    parallel_for(
        groups,
        [&](Index g) {
          for (Index k = all * g / groups; k < all * (g + 1) / groups; ++k) {
            one(k, 1, sums[static_cast<std::size_t>(g)]);
          }
        },
        job.threads);
  }
  for (std::size_t g = 1; g < sums.size(); ++g) sums[0].add(sums[g]);
  return std::move(sums[0]);
}

/// db += what the gradient of the real matrix says, conj(factor) times; and the gradient of the
/// factor itself (where it is part of the matrix).
template <class T, class Factor>
void add_input_gradient(const NdArray<T, 2>& g, const NdView<const std::complex<T>, 2>& b,
                        Factor&& factor, const NdView<std::complex<T>, 2>& db,
                        NdArray<std::complex<double>, 1>& dfactor) {
  using Complex = std::complex<double>;
  for (Index p = 0; p < b.extent(0); ++p) {
    const Complex f = factor(p);
    Complex sum = 0;
    for (Index h = 0; h < b.extent(1); ++h) {
      const Complex mine(g(h, 2 * p), g(h, 2 * p + 1));
      sum += std::conj(Complex(b(p, h))) * mine;
      if (!db.is_null()) db(p, h) += std::complex<T>(std::conj(f) * mine);
    }
    dfactor(p) = sum;
  }
}

template <class T>
void add_output_gradient(const NdArray<T, 2>& g, double scale,
                         const NdView<std::complex<T>, 2>& dc) {
  if (dc.is_null()) return;
  for (Index h = 0; h < dc.extent(0); ++h) {
    for (Index p = 0; p < dc.extent(1); ++p) {
      dc(h, p) += std::complex<T>(static_cast<T>(scale) * g(2 * p, h),
                                  -static_cast<T>(scale) * g(2 * p + 1, h));
    }
  }
}

}  // namespace detail
}  // namespace ssm
QUERN_NAMESPACE_END

#endif  // QUERN_SSM_DETAIL_MIMO_HPP
