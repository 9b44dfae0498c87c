# SPDX-License-Identifier: Apache-2.0
#
# Fails when a public header is not reached from quern/quern.hpp. The compiler says what is
# reached, so no list has to be kept (-M, since -MM hides what Highway includes for us).

string(REPLACE "|" ";" dirs "${SYSTEM_DIRS}")
set(flags "-I${INCLUDE_DIR}")
foreach(dir IN LISTS dirs)
  if(dir AND NOT dir STREQUAL "/usr/include")
    list(APPEND flags -isystem "${dir}")
  endif()
endforeach()
execute_process(
  COMMAND "${CXX}" -std=c++20 -M ${flags} "${INCLUDE_DIR}/quern/quern.hpp"
  OUTPUT_VARIABLE reached
  RESULT_VARIABLE result)
if(NOT result EQUAL 0)
  message(FATAL_ERROR "the preprocessor failed on quern/quern.hpp")
endif()

file(GLOB_RECURSE headers RELATIVE "${INCLUDE_DIR}" "${INCLUDE_DIR}/quern/*.hpp")
# These need more than Eigen and Highway and are included by who needs them.
list(FILTER headers EXCLUDE REGEX "^quern/(io|mpi)/|^quern/core/openmp\\.hpp$")
set(missing "")
foreach(header IN LISTS headers)
  if(NOT reached MATCHES "${header}[ \n]" AND NOT reached MATCHES "${header}$")
    list(APPEND missing "${header}")
  endif()
endforeach()
if(missing)
  list(JOIN missing "\n  " text)
  message(FATAL_ERROR "not included by quern/quern.hpp:\n  ${text}")
endif()
