// SPDX-License-Identifier: Apache-2.0
//
// The same as eigen_driver.cpp; a file named *_native_driver.cpp is compiled with -march=native.

#include "eigen_driver.cpp"
