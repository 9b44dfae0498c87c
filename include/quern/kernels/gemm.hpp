// SPDX-License-Identifier: Apache-2.0

/// \file
/// Products of matrices of any size, strides and order, on all cores: gemm, gemm_batched, products
/// with a bias and an activation, and the nearest code (arg-min of a product's rows).
///
/// Transposition is a property of a view: `gemm<float>(a.transposed(), b, c)`. Every element is one
/// chain of fused multiply-adds within fixed blocks of 256 products, blocks added in order, so its
/// bits depend on its row, its column and the SIMD level alone: not on the other rows and columns
/// that it is computed along with, nor on threads, strides or packing.

#ifndef QUERN_KERNELS_GEMM_HPP
#define QUERN_KERNELS_GEMM_HPP

#include "quern/core/buffer.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/core/parallel.hpp"
#include "quern/kernels/gemm_types.hpp"
#include "quern/kernels/kernels.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <type_traits>

QUERN_NAMESPACE_BEGIN
namespace kernels {

/// Options of a product.
template <class T>
struct GemmOptions {
  T alpha = T{1};   ///< factor of the product
  T beta = T{0};    ///< factor of what c held; 0 does not even read it
  int threads = 0;  ///< 0: the default, see parallel_for
};

namespace detail {

template <class T>
using InputMatrix = std::type_identity_t<MatrixView<const T>>;

constexpr Index round_up(Index n, Index multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

template <class T>
GemmOperand<T> operand(const MatrixView<const T>& view) {
  return {view.data(), view.row_stride(), view.col_stride()};
}
template <class T>
GemmOperand<T> transposed(const GemmOperand<T>& x) {
  return {x.data, x.col_stride, x.row_stride};
}
template <class T>
StoreScaled<T> transposed(const StoreScaled<T>& e) {
  return {e.c, e.col_stride, e.row_stride, e.alpha, e.beta};
}
template <class T, class F>
StoreActivated<T, F> transposed(const StoreActivated<T, F>& e) {
  return {e.c, e.col_stride, e.row_stride, e.alpha, e.col_bias, e.row_bias, e.f};
}

/// How one product is cut and whether its operands are copied. Follows from shapes only.
struct GemmPlan {
  Index rows = 1;  ///< of a task
  Index cols = 1;  ///< of a task, a multiple of the tile's
  Index row_blocks = 1;
  Index col_blocks = 1;
  bool pack_a = false;
  bool pack_b = false;
  bool serial = false;
};

/// A product below this many multiply-adds takes less time than waking a thread.
inline constexpr double gemm_serial_work = 5e5;
/// A task's block of A should stay in an L2 of 256 KiB together with what passes by.
inline constexpr Index gemm_a_bytes = 144 * 1024;
/// Packed copies of B beyond this are made in pieces.
inline constexpr Index gemm_b_bytes = 64 * 1024 * 1024;

template <class T>
GemmPlan plan_gemm(const GemmLayout& l, Index m, Index n, Index k, const GemmOperand<T>& b,
                   bool packed, bool split_cols) {
  GemmPlan plan;
  const double work = static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
  plan.serial = work < gemm_serial_work;
  // A panel of B is read once for every tile of rows: copying it pays from a few tiles on.
  const bool small_b = k * n * static_cast<Index>(sizeof(T)) <= 32 * 1024;
  plan.pack_b =
      !packed && k > 0 && n >= l.cols && (b.col_stride != 1 || (m > 4 * l.rows && !small_b));
  plan.pack_a = n >= 4 * l.cols;
  const Index fits =
      (std::max)(l.rows, gemm_a_bytes / static_cast<Index>(sizeof(T)) /
                             (std::min)(l.depth, (std::max)(k, Index{1})) / l.rows * l.rows);
  Index row_blocks = (std::max)(Index{1}, (m + fits - 1) / fits);
  Index col_blocks = 1;
  if (!plan.serial) {
    // Even counts, so that two cores end together; few rows make thin tasks, so columns are cut.
    const Index wanted = work < 1e8 ? 4 : 16;
    row_blocks = round_up((std::max)(row_blocks, (std::min)(wanted, m / 48)), 2);
    if (split_cols) {
      col_blocks =
          (std::clamp)(wanted / row_blocks, Index{1}, (std::max)(Index{1}, n / (8 * l.cols)));
    }
  }
  plan.rows = round_up((m + row_blocks - 1) / row_blocks, l.rows);
  plan.row_blocks = (m + plan.rows - 1) / plan.rows;
  // Sums of unfinished tiles are kept for all of a task's columns.
  if (k > l.depth && split_cols) col_blocks = (std::max)(col_blocks, (n + 2047) / 2048);
  plan.cols = round_up((n + col_blocks - 1) / col_blocks, l.cols);
  plan.col_blocks = (n + plan.cols - 1) / plan.cols;
  return plan;
}

/// Elements of scratch memory that one worker needs, and where in it things are.
template <class T>
struct GemmScratch {
  Index a = 0, edge = 0, partial = 0, state = 0;

  GemmScratch(const GemmLayout& l, const GemmPlan& plan, Index n, Index k, bool packed,
              bool keeps_state) {
    if (plan.pack_a) a = plan.rows * (std::min)(k, l.depth);
    if (!packed && n % l.cols != 0) edge = k * l.cols;
    if (k > l.depth) partial = plan.rows * (std::min)(plan.cols, round_up(n, l.cols));
    if (keeps_state) state = plan.rows * 3 * l.lanes;
    for (Index* part : {&a, &edge, &partial, &state}) *part = round_up(*part, 16);
  }
  [[nodiscard]] Index size() const { return a + edge + partial + state; }

  void assign(T* memory, GemmTask<T>& task) const {
    if (a > 0) task.a_scratch = memory;
    if (edge > 0) task.edge_scratch = memory + a;
    if (partial > 0) task.partial_scratch = memory + a + edge;
    if (state > 0) task.state_scratch = memory + a + edge + partial;
  }
};

/// Packs columns of B in parallel. `out` holds k * round_up(n, l.cols) elements.
template <class T>
void pack_b(simd::Level level, const GemmLayout& l, const GemmOperand<T>& b, Index k, Index n,
            T* out, int threads) {
  const Index padded = round_up(n, l.cols);
  // At least 32 K elements a block.
  const Index panels = (std::max)(Index{1}, 32768 / (std::max)(Index{1}, k * l.cols));
  const Index step = panels * l.cols;
  parallel_for(
      block_count(n, step),
      [&](Index block) {
        const Index begin = block * step;
        const Index end = (std::min)(begin + step, padded);
        QUERN_DISPATCH_AT(level, gemm_pack_b<T>(b, k, n, begin, end, padded, out));
      },
      threads);
}

/// The product once all is decided: `packed` is B in the level's layout, or null.
template <class T, class E>
void run_tasks(simd::Level level, const GemmLayout& l, const GemmPlan& plan,
               const GemmTask<T>& whole, Index m, Index n, const E& epilogue, int threads) {
  const bool packed = whole.packed_b != nullptr;
  const GemmScratch<T> scratch(l, plan, n, whole.depth, packed, E::keeps_state);
  const auto run = [&](Index block, T* memory) {
    GemmTask<T> task = whole;
    task.row_begin = block % plan.row_blocks * plan.rows;
    task.row_end = (std::min)(task.row_begin + plan.rows, m);
    task.col_begin = block / plan.row_blocks * plan.cols;
    task.col_end = (std::min)(task.col_begin + plan.cols, n);
    scratch.assign(memory, task);
    QUERN_DISPATCH_AT(level, gemm_task<T>(task, epilogue));
  };
  const Index blocks = plan.row_blocks * plan.col_blocks;
  constexpr Index on_stack = 8192 / static_cast<Index>(sizeof(T));
  if (plan.serial && scratch.size() <= on_stack) {
    alignas(core::buffer_alignment) T memory[static_cast<std::size_t>(on_stack)];
    for (Index block = 0; block < blocks; ++block) run(block, memory);
    return;
  }
  const Index workers = plan.serial ? 1 : (std::min)(blocks, Index{worker_count(threads)});
  core::Buffer<T> memory(static_cast<std::size_t>(scratch.size() * workers));
  if (plan.serial) {
    for (Index block = 0; block < blocks; ++block) run(block, memory.data());
    return;
  }
  parallel_for(
      blocks, [&](Index block) { run(block, memory.data() + this_worker() * scratch.size()); },
      threads);
}

/// The same epilogue for columns from `first` on.
template <class T>
StoreScaled<T> from_column(StoreScaled<T> e, Index first) {
  e.c += first * e.col_stride;
  return e;
}
template <class T, class F>
StoreActivated<T, F> from_column(StoreActivated<T, F> e, Index first) {
  e.c += first * e.col_stride;
  if (e.col_bias != nullptr) e.col_bias += first;
  return e;
}

template <class T, class E>
void run_gemm(GemmOperand<T> a, GemmOperand<T> b, Index m, Index n, Index k, const E& epilogue,
              int threads) {
  constexpr bool split_cols = !E::keeps_state;
  const simd::Level level = simd::active_level();
  const GemmLayout l = QUERN_DISPATCH_AT(level, gemm_layout<T>());
  const GemmPlan plan = plan_gemm(l, m, n, k, b, false, split_cols);
  GemmTask<T> task;
  task.a = a;
  task.b = b;
  task.depth = k;
  task.pack_a = plan.pack_a;
  if (!plan.pack_b) return run_tasks(level, l, plan, task, m, n, epilogue, threads);
  const Index bytes_a_column = k * static_cast<Index>(sizeof(T));
  Index piece = n;
  if constexpr (split_cols) {
    const Index fits = gemm_b_bytes / bytes_a_column / l.cols * l.cols;
    piece = (std::min)(n, (std::max)(fits, 16 * l.cols));
  }
  core::Buffer<T> packed(static_cast<std::size_t>(k * round_up(piece, l.cols)));
  for (Index first = 0; first < n; first += piece) {
    const Index count = (std::min)(piece, n - first);
    GemmOperand<T> part = b;
    part.data += first * b.col_stride;
    pack_b(level, l, part, k, count, packed.data(), plan.serial ? 1 : threads);
    task.packed_b = packed.data();
    task.packed_cols = round_up(count, l.cols);
    const GemmPlan part_plan =
        count == n ? plan : plan_gemm(l, m, count, k, part, true, split_cols);
    task.pack_a = part_plan.pack_a;
    if constexpr (split_cols) {
      run_tasks(level, l, part_plan, task, m, count, from_column(epilogue, first), threads);
    } else {
      run_tasks(level, l, part_plan, task, m, count, epilogue, threads);
    }
  }
}

/// A row of vectors wants columns side by side; where C's columns are, the transposed product runs.
template <class T, class E>
void run_either_way(const GemmOperand<T>& a, const GemmOperand<T>& b, Index m, Index n, Index k,
                    const E& epilogue, int threads) {
  if (m == 0 || n == 0) return;
  const bool rows_together = epilogue.row_stride == 1 && epilogue.col_stride != 1;
  const bool narrow = n < 8 && m >= 4 * n;
  const bool narrow_other_way = m < 8 && n >= 4 * m;
  if ((rows_together && !narrow_other_way) || narrow) {
    run_gemm(transposed(b), transposed(a), n, m, k, transposed(epilogue), threads);
  } else {
    run_gemm(a, b, m, n, k, epilogue, threads);
  }
}

inline std::string product_text(Index m, Index k, Index k2, Index n) {
  return shape_text(Shape<2>{m, k}) + " times " + shape_text(Shape<2>{k2, n});
}

template <class T>
void check_inner(const char* function, const MatrixView<const T>& a, Index b_rows, Index b_cols) {
  if (a.cols() != b_rows) {
    throw ShapeError(error_text(function, "b", "as many rows as a has columns",
                                product_text(a.rows(), a.cols(), b_rows, b_cols)));
  }
}

template <class T>
void check_output(const char* function, Index m, Index n, const MatrixView<T>& c) {
  if (c.rows() != m || c.cols() != n) {
    throw ShapeError(
        error_text(function, "c", shape_text(Shape<2>{m, n}), shape_text(c.extents())));
  }
}

template <class T>
void check_apart(const char* function, const char* argument, const MatrixView<const T>& in,
                 const MatrixView<T>& c) {
  if (overlaps(in, c)) {
    throw ShapeError(
        error_text(function, "c", "memory of its own", std::string("an overlap with ") + argument));
  }
}

}  // namespace detail

/// c = alpha a b + beta c. Shapes m x k, k x n, m x n; any strides, any size, also 0 (a sum over
/// nothing is 0). With beta = 0, c may hold anything before. ShapeError where shapes do not fit or
/// c overlaps a or b. Call it as gemm<float>(a, b, c), or let c's type decide.
template <class T>
void gemm(detail::InputMatrix<T> a, detail::InputMatrix<T> b, MatrixView<T> c,
          const std::type_identity_t<GemmOptions<T>>& options = {}) {
  constexpr const char* function = "quern::kernels::gemm";
  detail::check_inner<T>(function, a, b.rows(), b.cols());
  detail::check_output(function, a.rows(), b.cols(), c);
  detail::check_apart<T>(function, "a", a, c);
  detail::check_apart<T>(function, "b", b, c);
  const StoreScaled<T> store{c.data(), c.row_stride(), c.col_stride(), options.alpha, options.beta};
  detail::run_either_way(detail::operand(a), detail::operand(b), c.rows(), c.cols(), a.cols(),
                         store, options.threads);
}

/// c = f(a b + bias): `row_bias` has one value a row of c, `col_bias` one a column; an empty span
/// leaves it out. F is a name of functors.hpp, applied within the product's registers.
template <class T, class F>
void gemm_activated(detail::InputMatrix<T> a, detail::InputMatrix<T> b, MatrixView<T> c,
                    std::type_identity_t<std::span<const T>> row_bias,
                    std::type_identity_t<std::span<const T>> col_bias, F f, int threads = 0) {
  constexpr const char* function = "quern::kernels::gemm_activated";
  detail::check_inner<T>(function, a, b.rows(), b.cols());
  detail::check_output(function, a.rows(), b.cols(), c);
  detail::check_apart<T>(function, "a", a, c);
  detail::check_apart<T>(function, "b", b, c);
  if (!row_bias.empty() && static_cast<Index>(row_bias.size()) != c.rows()) {
    throw ShapeError(error_text(function, "row_bias", std::to_string(c.rows()) + " values or none",
                                row_bias.size()));
  }
  if (!col_bias.empty() && static_cast<Index>(col_bias.size()) != c.cols()) {
    throw ShapeError(error_text(function, "col_bias", std::to_string(c.cols()) + " values or none",
                                col_bias.size()));
  }
  const StoreActivated<T, F> store{c.data(),
                                   c.row_stride(),
                                   c.col_stride(),
                                   T{1},
                                   row_bias.empty() ? nullptr : row_bias.data(),
                                   col_bias.empty() ? nullptr : col_bias.data(),
                                   f};
  detail::run_either_way(detail::operand(a), detail::operand(b), c.rows(), c.cols(), a.cols(),
                         store, threads);
}

/// The right-hand matrix of many products (weights, a codebook), copied once into the order that
/// the product reads. Belongs to the SIMD level that was active when it was made, and products with
/// it run on that level. Gives the same bits as the matrix itself does there.
template <class T>
class PackedMatrix {
 public:
  PackedMatrix() = default;
  explicit PackedMatrix(MatrixView<const T> b, int threads = 0)
      : level_(simd::active_level()), rows_(b.rows()), cols_(b.cols()) {
    layout_ = QUERN_DISPATCH_AT(level_, gemm_layout<T>());
    padded_ = detail::round_up(cols_, layout_.cols);
    values_ = core::Buffer<T>(static_cast<std::size_t>(rows_ * padded_));
    detail::pack_b(level_, layout_, detail::operand(b), rows_, cols_, values_.data(), threads);
  }

  [[nodiscard]] Index rows() const noexcept { return rows_; }
  [[nodiscard]] Index cols() const noexcept { return cols_; }
  [[nodiscard]] simd::Level level() const noexcept { return level_; }

  /// Rows of `a` times this matrix, with any epilogue of gemm_types.hpp.
  template <class E>
  void multiply(const MatrixView<const T>& a, const E& epilogue, int threads) const {
    if (a.rows() == 0 || cols_ == 0) return;
    const detail::GemmPlan plan =
        detail::plan_gemm(layout_, a.rows(), cols_, rows_, GemmOperand<T>{}, true, !E::keeps_state);
    GemmTask<T> task;
    task.a = detail::operand(a);
    // A product over nothing still has to be stored.
    static constexpr T nothing{};
    task.packed_b = values_.empty() ? &nothing : values_.data();
    task.packed_cols = padded_;
    task.depth = rows_;
    task.pack_a = plan.pack_a;
    detail::run_tasks(level_, layout_, plan, task, a.rows(), cols_, epilogue, threads);
  }

 private:
  simd::Level level_ = simd::Level::scalar;
  GemmLayout layout_;
  Index rows_ = 0;
  Index cols_ = 0;
  Index padded_ = 0;
  core::Buffer<T> values_;
};

/// c = alpha a b + beta c with b packed before.
template <class T>
void gemm(detail::InputMatrix<T> a, const PackedMatrix<T>& b, MatrixView<T> c,
          const std::type_identity_t<GemmOptions<T>>& options = {}) {
  constexpr const char* function = "quern::kernels::gemm";
  detail::check_inner<T>(function, a, b.rows(), b.cols());
  detail::check_output(function, a.rows(), b.cols(), c);
  detail::check_apart<T>(function, "a", a, c);
  b.multiply(a,
             StoreScaled<T>{c.data(), c.row_stride(), c.col_stride(), options.alpha, options.beta},
             options.threads);
}

/// For each row of a, the column of a b where offsets[column] + alpha (a b)(row, column) is least,
/// and that value: nearest code with alpha = -1 and offsets = half the codes' squared lengths. Ties
/// go to the lowest column; NaN is never least. An empty span leaves an output, or the offsets,
/// out.
template <class T>
void gemm_argmin(detail::InputMatrix<T> a, const PackedMatrix<T>& b, std::type_identity_t<T> alpha,
                 std::type_identity_t<std::span<const T>> offsets, std::span<std::int64_t> columns,
                 std::type_identity_t<std::span<T>> values = {}, int threads = 0) {
  constexpr const char* function = "quern::kernels::gemm_argmin";
  detail::check_inner<T>(function, a, b.rows(), b.cols());
  const auto check = [&](const char* what, std::size_t size, Index expected, bool may_lack) {
    if ((size == 0 && may_lack) || static_cast<Index>(size) == expected) return;
    throw ShapeError(error_text(function, what, std::to_string(expected) + " values", size));
  };
  check("offsets", offsets.size(), b.cols(), true);
  check("columns", columns.size(), a.rows(), true);
  check("values", values.size(), a.rows(), true);
  if (a.rows() > 0 && b.cols() == 0) {
    throw ShapeError(error_text(function, "b", "at least one column", 0));
  }
  b.multiply(a,
             StoreArgMin<T>{alpha, offsets.empty() ? nullptr : offsets.data(),
                            values.empty() ? nullptr : values.data(),
                            columns.empty() ? nullptr : columns.data()},
             threads);
}

/// c[i] = alpha a[i] b[i] + beta c[i] for every i of the first dimension. Many products are shared
/// out among threads whole, few are cut each; the bits are those of gemm either way.
template <class T>
void gemm_batched(std::type_identity_t<NdView<const T, 3>> a,
                  std::type_identity_t<NdView<const T, 3>> b, NdView<T, 3> c,
                  const std::type_identity_t<GemmOptions<T>>& options = {}) {
  constexpr const char* function = "quern::kernels::gemm_batched";
  const Index batch = c.extent(0);
  if (a.extent(0) != batch || b.extent(0) != batch) {
    throw ShapeError(error_text(
        function, "a, b, c", "equal first extents",
        shape_text(a.extents()) + ", " + shape_text(b.extents()) + ", " + shape_text(c.extents())));
  }
  if (batch == 0) return;
  if (overlaps(a, c) || overlaps(b, c)) {
    throw ShapeError(error_text(function, "c", "memory of its own", "an overlap with a or b"));
  }
  const auto one = [&](Index i, int threads) {
    GemmOptions<T> each = options;
    each.threads = threads;
    gemm<T>(a.subview(i), b.subview(i), c.subview(i), each);
  };
  const double work = static_cast<double>(c.size()) * static_cast<double>(a.extent(2));
  if (batch >= 8 && work >= detail::gemm_serial_work) {
    parallel_for(
        batch, [&](Index i) { one(i, 1); }, options.threads);
  } else {
    for (Index i = 0; i < batch; ++i) one(i, options.threads);
  }
}

}  // namespace kernels
QUERN_NAMESPACE_END

#endif  // QUERN_KERNELS_GEMM_HPP
