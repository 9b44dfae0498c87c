// SPDX-License-Identifier: Apache-2.0
//
// Eigen's matrix product as a peer, at the flags that a user has: plain -O2 here, -march=native in
// eigen_native_driver.cpp, which includes this file. Threads come from OpenMP where it is linked.

#include "peers/protocol.hpp"

#include <Eigen/Core>

namespace {

template <class T>
using Matrix = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

class EigenDriver : public peers::Driver {
 public:
  EigenDriver() { Eigen::setNbThreads(peers::threads()); }

  [[nodiscard]] std::string describe() const override {
    return "Eigen " + std::to_string(EIGEN_WORLD_VERSION) + "." +
           std::to_string(EIGEN_MAJOR_VERSION) + "." + std::to_string(EIGEN_MINOR_VERSION) + " (" +
           Eigen::SimdInstructionSetsInUse() + ")";
  }

  peers::Reply run(const peers::Command& command) override {
    if (command.name() != "gemm") throw std::runtime_error("no case " + command.name());
    return command.text("type") == "f64" ? product<double>(command) : product<float>(command);
  }

  [[nodiscard]] const peers::Array& output() const override { return out_; }

 private:
  template <class T>
  peers::Reply product(const peers::Command& command) {
    const peers::Array& a = array("a");
    const peers::Array& b = array("b");
    const std::vector<std::int64_t> shape = {a.extent(0), b.extent(1)};
    if (out_.shape() != shape || out_.type() != a.type()) out_ = peers::Array(a.type(), shape);
    const Eigen::Map<const Matrix<T>> left(a.data<T>(), a.extent(0), a.extent(1));
    const Eigen::Map<const Matrix<T>> right(b.data<T>(), b.extent(0), b.extent(1));
    Eigen::Map<Matrix<T>> product(out_.data<T>(), shape[0], shape[1]);
    return {{"seconds",
             peers::seconds_per_call(command.inner(), [&] { product.noalias() = left * right; })}};
  }

  peers::Array out_;
};

}  // namespace

int main() {
  EigenDriver driver;
  return peers::serve(driver);
}
