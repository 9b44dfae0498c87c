// SPDX-License-Identifier: Apache-2.0
//
// quern's side of the kernels area (areas/kernels.py says what each case measures).

#include "limits.hpp"
#include "peers/protocol.hpp"

#include "quern/core/nd_view.hpp"
#include "quern/core/parallel.hpp"
#include "quern/kernels/functors.hpp"
#include "quern/kernels/gemm.hpp"
#include "quern/kernels/kernels.hpp"
#include "quern/version.hpp"

#include <functional>

namespace {

namespace kernels = quern::kernels;
using quern::Index;

/// Blocks by which a caller shares an array out: 64 KiB of floats, four of them in an L2.
constexpr Index block_size = Index{1} << 14;

template <class F, class T>
void transform(const F& f, const T* x, Index n, T* y) {
  quern::parallel_for(quern::block_count(n, block_size), [&](Index b) {
    const quern::BlockRange range = quern::block_range(n, block_size, b);
    QUERN_DISPATCH(
        transform(f, x + range.begin, static_cast<std::size_t>(range.size()), y + range.begin));
  });
}

class KernelsDriver : public peers::Driver {
 public:
  [[nodiscard]] std::string describe() const override {
    return "quern " QUERN_VERSION " (" +
           std::string(quern::simd::name(quern::simd::active_level())) + ")";
  }

  peers::Reply run(const peers::Command& command) override {
    const bool doubles = command.text("type") == "f64";
    const std::function<void()> call =
        doubles ? work<double>(command.name()) : work<float>(command.name());
    return {{"seconds", peers::seconds_per_call(command.inner(), call)}};
  }

  [[nodiscard]] const peers::Array& output() const override { return out_; }

  peers::Reply limits(const peers::Command& command) override {
    const bench::Limits l = bench::measure_limits(static_cast<int>(command.integer("threads", 1)));
    return {{"fma_f32", l.fma_f32}, {"fma_f64", l.fma_f64}, {"read", l.read}, {"copy", l.copy}};
  }

 private:
  template <class T>
  std::function<void()> work(const std::string& name) {
    if (name == "gemm") return gemm<T>();
    const peers::Array& x = array("x");
    if (name == "softmax") return softmax<T>(x);
    if (name == "sum" || name == "dot") return reduction<T>(name == "dot", x);
    out(x.type(), x.shape());
    if (name == "exp") return mapped<T>(kernels::Exp{}, x);
    if (name == "log") return mapped<T>(kernels::Log{}, x);
    if (name == "tanh") return mapped<T>(kernels::Tanh{}, x);
    if (name == "sigmoid") return mapped<T>(kernels::Sigmoid{}, x);
    if (name == "erf") return mapped<T>(kernels::Erf{}, x);
    if (name == "softplus") return mapped<T>(kernels::Softplus{}, x);
    throw std::runtime_error("no case " + name);
  }

  /// An output of that shape, kept where it is one already.
  template <class T = void>
  T* out(const std::string& type, const std::vector<std::int64_t>& shape) {
    if (out_.type() != type || out_.shape() != shape) out_ = peers::Array(type, shape);
    return static_cast<T*>(out_.raw());
  }

  template <class T>
  std::function<void()> gemm() {
    const peers::Array& a = array("a");
    const peers::Array& b = array("b");
    T* c = out<T>(a.type(), {a.extent(0), b.extent(1)});
    const quern::MatrixView<const T> left(a.data<T>(), {a.extent(0), a.extent(1)});
    const quern::MatrixView<const T> right(b.data<T>(), {b.extent(0), b.extent(1)});
    const quern::MatrixView<T> product(c, {a.extent(0), b.extent(1)});
    return [=] { kernels::gemm<T>(left, right, product); };
  }

  template <class T, class F>
  std::function<void()> mapped(F f, const peers::Array& x) {
    const T* from = x.data<T>();
    const Index n = x.size();
    T* to = out_.data<T>();
    return [=] { transform(f, from, n, to); };
  }

  template <class T>
  std::function<void()> softmax(const peers::Array& x) {
    const Index rows = x.extent(0), cols = x.extent(1), each = 32;
    const T* from = x.data<T>();
    T* to = out<T>(x.type(), x.shape());
    return [=] {
      quern::parallel_for(quern::block_count(rows, each), [&](Index b) {
        const quern::BlockRange range = quern::block_range(rows, each, b);
        const Index at = range.begin * cols;
        QUERN_DISPATCH(softmax_rows(static_cast<std::size_t>(range.size()),
                                    static_cast<std::size_t>(cols), from + at, cols, to + at,
                                    cols));
      });
    };
  }

  template <class T>
  std::function<void()> reduction(bool products, const peers::Array& x) {
    const T* a = x.data<T>();
    const T* b = products ? array("y").data<T>() : nullptr;
    const Index n = x.size();
    T* to = out<T>(x.type(), {});
    return [=] {
      const auto part = [&](Index block) {
        const quern::BlockRange range = quern::block_range(n, 4 * block_size, block);
        const auto count = static_cast<std::size_t>(range.size());
        return b == nullptr ? QUERN_DISPATCH(sum(a + range.begin, count))
                            : QUERN_DISPATCH(dot(a + range.begin, b + range.begin, count));
      };
      *to = static_cast<T>(quern::parallel_reduce(quern::block_count(n, 4 * block_size), 0.0, part,
                                                  std::plus<double>()));
    };
  }

  peers::Array out_;
};

}  // namespace

int main() {
  KernelsDriver driver;
  return peers::serve(driver);
}
