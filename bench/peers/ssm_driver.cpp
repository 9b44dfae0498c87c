// SPDX-License-Identifier: Apache-2.0

/// \file
/// quern's side of the area "ssm": convolutions, kernels, scans and online memories.

#include "limits.hpp"
#include "peers/protocol.hpp"
#include "peers/ssm_curve.hpp"
#include "peers/ssm_recurrences.hpp"

#include "quern/kernels/simd.hpp"
#include "quern/ssm/convolution.hpp"
#include "quern/ssm/hippo_memory.hpp"
#include "quern/ssm/s4d.hpp"
#include "quern/ssm/s5.hpp"
#include "quern/version.hpp"

#include <complex>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

using Complex = std::complex<float>;
using quern::Index;

class SsmDriver : public peers::Driver {
 public:
  [[nodiscard]] std::string describe() const override {
    return "quern " QUERN_VERSION " (" +
           std::string(quern::simd::name(quern::simd::active_level())) + ")";
  }
  peers::Reply limits(const peers::Command& command) override {
    const bench::Limits l = bench::measure_limits(static_cast<int>(command.integer("threads", 1)));
    return {{"read", l.read}, {"copy", l.copy}};
  }
  peers::Reply run(const peers::Command& command) override {
    const std::string& name = command.name();
    if (name == "convolution") return convolution(command, false);
    if (name == "convolution-gradient") return convolution(command, true);
    if (name == "s4d-kernel") return s4d_kernel(command);
    if (name == "complex-scan") return complex_scan(command);
    if (name == "legs") return legs(command);
    if (name == "curve") return peers::SsmCurve::run(command);
    peers::Reply reply;
    if (recurrences_.run(command, reply, output_)) return reply;
    throw std::runtime_error("no case " + name);
  }
  [[nodiscard]] const peers::Array& output() const override { return output_; }

 private:
  template <int Rank>
  quern::NdView<const float, Rank> view(const char* name) {
    const peers::Array& a = array(name);
    quern::Shape<Rank> shape{};
    for (std::size_t r = 0; r < shape.size(); ++r) shape[r] = a.extent(r);
    return {a.data<float>(), shape};
  }
  /// An array (…, 2) as complex numbers.
  quern::NdView<const Complex, 2> complex_view(const char* name) {
    const peers::Array& a = array(name);
    return {reinterpret_cast<const Complex*>(a.data<float>()), {a.extent(0), a.extent(1)}};
  }
  void keep(const float* values, std::int64_t count) {
    output_ = peers::Array("<f4", {count});
    for (std::int64_t i = 0; i < count; ++i) output_.data<float>()[i] = values[i];
  }

  /// u (batch, length, channels), k (length, channels).
  peers::Reply convolution(const peers::Command& command, bool gradient) {
    const auto u = view<3>("u");
    const auto k = view<2>("k");
    quern::NdArray<float, 3> y(u.extents(), quern::core::Fill::none);
    quern::NdArray<float, 2> dk(k.extents(), quern::core::Fill::none);
    const quern::ssm::ConvolutionOptions options{.threads = peers::threads()};
    const double seconds = peers::seconds_per_call(command.inner(), [&] {
      if (gradient) {
        quern::ssm::causal_convolution_vjp<float>(u, k, u, y.view(), dk.view(), {}, {}, options);
      } else {
        quern::ssm::causal_convolution<float>(u, k, y.view(), {}, options);
      }
    });
    keep(gradient ? dk.data() : y.data(), gradient ? dk.size() : y.size());
    return {{"seconds", seconds}};
  }

  peers::Reply s4d_kernel(const peers::Command& command) {
    const auto a = complex_view("a"), c = complex_view("c");
    const auto dt = view<1>("dt");
    quern::NdArray<float, 2> kernel({command.integer("length", 16384), a.extent(0)},
                                    quern::core::Fill::none);
    const double seconds = peers::seconds_per_call(command.inner(), [&] {
      quern::ssm::s4d_kernel<float>({.a = a, .c = c, .dt = dt}, kernel.view(),
                                    {.threads = peers::threads()});
    });
    keep(kernel.data(), kernel.size());
    return {{"seconds", seconds}};
  }

  /// u (length, inputs); lambda (states, 1), b, c as complex.
  peers::Reply complex_scan(const peers::Command& command) {
    const auto u = view<2>("u");
    const auto lambda = complex_view("lambda"), b = complex_view("b"), c = complex_view("c");
    const auto dt = view<1>("dt");
    const quern::NdView<const float, 3> inputs(u.data(), {1, u.extent(0), u.extent(1)});
    quern::NdArray<float, 3> y(inputs.extents(), quern::core::Fill::none);
    const quern::ssm::S5Parameters<float> p{
        .lambda = {lambda.data(), {lambda.extent(0)}}, .b = b, .c = c, .dt = dt};
    const double seconds = peers::seconds_per_call(command.inner(), [&] {
      quern::ssm::s5<float>(inputs, p, {}, y.view(), {},
                            {.conjugate = false, .threads = peers::threads()});
    });
    keep(y.data(), y.size());
    return {{"seconds", seconds}};
  }

  /// u (steps, channels).
  peers::Reply legs(const peers::Command& command) {
    const auto u = view<2>("u");
    const Index order = command.integer("order", 256), before = command.integer("seen", 0);
    quern::ssm::HippoMemory<float> memory(order, u.extent(1), {.threads = peers::threads()});
    const quern::NdArray<float, 2> zeros({order, u.extent(1)});
    const double seconds = peers::seconds_per_call(command.inner(), [&] {
      memory.restore(zeros.view(), before);
      memory.update(u);
    });
    keep(memory.coefficients().data(), memory.coefficients().size());
    return {{"seconds", seconds}};
  }

  peers::Array output_;
  peers::SsmRecurrences recurrences_{
      [this](const char* name) -> const peers::Array& { return array(name); }};
};

}  // namespace

int main() {
  SsmDriver driver;
  return peers::serve(driver);
}
