# SPDX-License-Identifier: Apache-2.0
#
# What only those who work on quern itself need: warnings, ccache, the shape of test programs.

# Warnings are for this target alone, which is never exported; they are errors where quern itself is
# tested, not where somebody with another compiler builds an example.
option(QUERN_WARNINGS_ARE_ERRORS "Stop at the first warning" OFF)
add_library(quern_dev_flags INTERFACE)
target_compile_options(quern_dev_flags INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wconversion)
if(QUERN_WARNINGS_ARE_ERRORS)
  target_compile_options(quern_dev_flags INTERFACE -Werror)
endif()
# g++ 12 warns of its own AVX-512 intrinsics, which leave a register undefined on purpose (GCC bug
# 105593), wherever Eigen's decompositions are compiled for such a machine.
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13 AND
   CMAKE_CXX_FLAGS MATCHES "-march=")
  target_compile_options(quern_dev_flags INTERFACE -Wno-uninitialized -Wno-maybe-uninitialized)
endif()

# A kernel is compiled once for every SIMD level, which costs time. `quern_room_levels` is for
# programs whose question is another: with "two" they know AVX2 and what the compiler's flags allow,
# with "native" this machine's best level alone.
set(QUERN_ROOM_LEVELS "all" CACHE STRING "SIMD levels of what does not test kernels: all|two|native")
set(quern_two_levels "")
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  # Bits of Highway's detect_targets.h for x86: all but AVX2 (bit 9) and the portable targets.
  set(quern_two_levels HWY_DISABLED_TARGETS=32255)
endif()
add_library(quern_room_levels INTERFACE)
if(QUERN_ROOM_LEVELS STREQUAL "two")
  target_compile_definitions(quern_room_levels INTERFACE ${quern_two_levels})
elseif(QUERN_ROOM_LEVELS STREQUAL "native")
  target_compile_definitions(quern_room_levels INTERFACE QUERN_STATIC_SIMD)
  target_compile_options(quern_room_levels INTERFACE -march=native)
elseif(NOT QUERN_ROOM_LEVELS STREQUAL "all")
  message(FATAL_ERROR "QUERN_ROOM_LEVELS: expected all, two or native, got ${QUERN_ROOM_LEVELS}")
endif()

# What a user types is -std=c++20, so that is what is tested.
if(PROJECT_IS_TOP_LEVEL)
  set(CMAKE_CXX_EXTENSIONS OFF)
endif()

if(PROJECT_IS_TOP_LEVEL AND NOT DEFINED CMAKE_CXX_COMPILER_LAUNCHER)
  find_program(QUERN_CCACHE ccache)
  mark_as_advanced(QUERN_CCACHE)
  if(QUERN_CCACHE)
    set(CMAKE_CXX_COMPILER_LAUNCHER "${QUERN_CCACHE}")
  endif()
endif()

# quern_rooms(variable base): the folders under base that mirror a room of include/quern.
function(quern_rooms variable base)
  file(GLOB entries RELATIVE "${PROJECT_SOURCE_DIR}/include/quern" CONFIGURE_DEPENDS
       "${PROJECT_SOURCE_DIR}/include/quern/*")
  set(rooms "")
  foreach(entry IN LISTS entries)
    if(IS_DIRECTORY "${PROJECT_SOURCE_DIR}/include/quern/${entry}" AND IS_DIRECTORY
                                                                       "${base}/${entry}")
      list(APPEND rooms "${entry}")
    endif()
  endforeach()
  set(${variable} "${rooms}" PARENT_SCOPE)
endfunction()

# quern_room_target(room variable): what the sources of a room link.
function(quern_room_target room variable)
  # The references of these rooms are files, which their tests read.
  if(room MATCHES "^(io|detection|nn)$")
    set(${variable} quern::io PARENT_SCOPE)
  elseif(room STREQUAL "mpi")
    set(${variable} quern::mpi PARENT_SCOPE)
  else()
    set(${variable} quern::quern PARENT_SCOPE)
  endif()
endfunction()
