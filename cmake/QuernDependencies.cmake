# SPDX-License-Identifier: Apache-2.0
#
# Each dependency comes from the system, else by FetchContent at a pinned version. Set
# FETCHCONTENT_SOURCE_DIR_<NAME> (EIGEN, HIGHWAY, JSON, ZLIB, GOOGLETEST, RAPIDCHECK, BENCHMARK,
# CLI11, STB) to take a copy that is already on the machine.

include(FetchContent)
list(APPEND CMAKE_MODULE_PATH "${CMAKE_CURRENT_LIST_DIR}")

# quern_fetch_headers(name url tag subdirectory target): an imported interface target on the
# headers of a repository; its own build system is not run, so it adds nothing to the caller's.
function(quern_fetch_headers name url tag subdirectory target)
  message(STATUS "quern: ${target} not found on the system, fetching ${tag} from ${url}")
  FetchContent_Declare(
    ${name}
    GIT_REPOSITORY "${url}"
    GIT_TAG "${tag}"
    SOURCE_SUBDIR "none-of-its-own-build")
  FetchContent_MakeAvailable(${name})
  add_library(${target} INTERFACE IMPORTED GLOBAL)
  set_target_properties(${target} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES
                                             "${${name}_SOURCE_DIR}${subdirectory}")
endfunction()

# quern_fetch_built(name url tag): the same for what has to be compiled.
macro(quern_fetch_built name url tag)
  message(STATUS "quern: ${name} not found on the system, fetching ${tag} from ${url}")
  FetchContent_Declare(
    ${name}
    GIT_REPOSITORY "${url}"
    GIT_TAG "${tag}")
  FetchContent_MakeAvailable(${name})
endmacro()

macro(quern_core_dependencies)
  if(NOT TARGET Eigen3::Eigen)
    find_package(Eigen3 3.4 QUIET NO_MODULE)
  endif()
  if(NOT TARGET Eigen3::Eigen)
    quern_fetch_headers(eigen "https://gitlab.com/libeigen/eigen.git" "3.4.0" "" Eigen3::Eigen)
  endif()
  find_package(HighwayHeaders 1.0.3 QUIET)
  if(NOT TARGET HighwayHeaders::HighwayHeaders)
    quern_fetch_headers(highway "https://github.com/google/highway.git" "1.2.0" ""
                        HighwayHeaders::HighwayHeaders)
  endif()
  find_package(Threads REQUIRED)
endmacro()

macro(quern_io_dependencies)
  if(NOT TARGET ZLIB::ZLIB)
    find_package(ZLIB QUIET)
  endif()
  if(NOT TARGET ZLIB::ZLIB)
    quern_fetch_built(zlib "https://github.com/madler/zlib.git" "v1.3.1")
    add_library(ZLIB::ZLIB INTERFACE IMPORTED GLOBAL)
    target_link_libraries(ZLIB::ZLIB INTERFACE zlibstatic)
    target_include_directories(ZLIB::ZLIB INTERFACE "${zlib_SOURCE_DIR}" "${zlib_BINARY_DIR}")
  endif()
  if(NOT TARGET nlohmann_json::nlohmann_json)
    find_package(nlohmann_json 3.10 QUIET)
  endif()
  if(NOT TARGET nlohmann_json::nlohmann_json)
    quern_fetch_headers(json "https://github.com/nlohmann/json.git" "v3.11.3" "/include"
                        nlohmann_json::nlohmann_json)
  endif()
endmacro()

macro(quern_test_dependencies)
  if(NOT TARGET GTest::gtest_main)
    find_package(GTest QUIET)
  endif()
  if(NOT TARGET GTest::gtest_main)
    set(INSTALL_GTEST OFF CACHE BOOL "" FORCE)
    quern_fetch_built(googletest "https://github.com/google/googletest.git" "v1.14.0")
  endif()
  if(NOT TARGET rapidcheck)
    find_path(QUERN_RAPIDCHECK_INCLUDE rapidcheck/gtest.h)
    find_library(QUERN_RAPIDCHECK_LIBRARY rapidcheck)
    mark_as_advanced(QUERN_RAPIDCHECK_INCLUDE QUERN_RAPIDCHECK_LIBRARY)
    if(QUERN_RAPIDCHECK_INCLUDE AND QUERN_RAPIDCHECK_LIBRARY)
      add_library(rapidcheck INTERFACE IMPORTED GLOBAL)
      target_include_directories(rapidcheck INTERFACE "${QUERN_RAPIDCHECK_INCLUDE}")
      target_link_libraries(rapidcheck INTERFACE "${QUERN_RAPIDCHECK_LIBRARY}")
    else()
      quern_fetch_built(rapidcheck "https://github.com/emil-e/rapidcheck.git"
                        "ff6af6fc683159deb51c543b065eba14dfcf329b")
      target_include_directories(rapidcheck SYSTEM
                                 INTERFACE "${rapidcheck_SOURCE_DIR}/extras/gtest/include")
    endif()
  endif()
endmacro()

macro(quern_bench_dependencies)
  if(NOT TARGET benchmark::benchmark)
    find_package(benchmark QUIET)
  endif()
  if(NOT TARGET benchmark::benchmark)
    set(BENCHMARK_ENABLE_TESTING OFF CACHE BOOL "" FORCE)
    set(BENCHMARK_ENABLE_INSTALL OFF CACHE BOOL "" FORCE)
    quern_fetch_built(benchmark "https://github.com/google/benchmark.git" "v1.8.3")
  endif()
endmacro()

macro(quern_example_dependencies)
  if(NOT TARGET CLI11::CLI11)
    find_package(CLI11 QUIET)
  endif()
  if(NOT TARGET CLI11::CLI11)
    quern_fetch_headers(cli11 "https://github.com/CLIUtils/CLI11.git" "v2.4.2" "/include"
                        CLI11::CLI11)
  endif()
  if(NOT TARGET quern_stb)
    find_path(QUERN_STB_INCLUDE stb_image_write.h PATH_SUFFIXES stb)
    mark_as_advanced(QUERN_STB_INCLUDE)
    if(QUERN_STB_INCLUDE)
      add_library(quern_stb INTERFACE IMPORTED GLOBAL)
      target_include_directories(quern_stb INTERFACE "${QUERN_STB_INCLUDE}")
    else()
      quern_fetch_headers(stb "https://github.com/nothings/stb.git"
                          "31c1ad37456438565541f4919958214b6e762fb4" "" quern_stb)
    endif()
  endif()
endmacro()
