# SPDX-License-Identifier: Apache-2.0
#
# Finds the headers of Google Highway and makes HighwayHeaders::HighwayHeaders. Highway's own
# package config links its library, which quern does not need, so it is not used.

find_path(HighwayHeaders_INCLUDE_DIR NAMES hwy/highway.h)
mark_as_advanced(HighwayHeaders_INCLUDE_DIR)

set(HighwayHeaders_VERSION "")
if(HighwayHeaders_INCLUDE_DIR)
  # The version moved from highway.h to base.h after 1.0.3.
  foreach(_hwy_header IN ITEMS base.h highway.h)
    if(EXISTS "${HighwayHeaders_INCLUDE_DIR}/hwy/${_hwy_header}")
      file(STRINGS "${HighwayHeaders_INCLUDE_DIR}/hwy/${_hwy_header}" _hwy_lines
           REGEX "^#define HWY_(MAJOR|MINOR|PATCH) [0-9]+$")
      if(_hwy_lines MATCHES
         "HWY_MAJOR ([0-9]+);#define HWY_MINOR ([0-9]+);#define HWY_PATCH ([0-9]+)")
        set(HighwayHeaders_VERSION "${CMAKE_MATCH_1}.${CMAKE_MATCH_2}.${CMAKE_MATCH_3}")
      endif()
    endif()
  endforeach()
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(
  HighwayHeaders
  REQUIRED_VARS HighwayHeaders_INCLUDE_DIR
  VERSION_VAR HighwayHeaders_VERSION)

if(HighwayHeaders_FOUND AND NOT TARGET HighwayHeaders::HighwayHeaders)
  add_library(HighwayHeaders::HighwayHeaders INTERFACE IMPORTED)
  set_target_properties(
    HighwayHeaders::HighwayHeaders PROPERTIES INTERFACE_INCLUDE_DIRECTORIES
                                              "${HighwayHeaders_INCLUDE_DIR}")
endif()
unset(_hwy_header)
unset(_hwy_lines)
