# SPDX-License-Identifier: Apache-2.0
#
# The rules of the tree that can be checked without compiling: SPDX lines, include guards, sizes,
# and an index of the documentation that misses no page.

set(problems "")
macro(problem text)
  string(APPEND problems "  ${text}\n")
endmacro()

file(GLOB_RECURSE sources RELATIVE "${SOURCE_DIR}" "${SOURCE_DIR}/include/*.hpp"
     "${SOURCE_DIR}/tests/*.cpp" "${SOURCE_DIR}/tests/*.hpp" "${SOURCE_DIR}/bench/*.cpp"
     "${SOURCE_DIR}/bench/*.hpp" "${SOURCE_DIR}/examples/*.cpp" "${SOURCE_DIR}/examples/*.hpp")
foreach(source IN LISTS sources)
  file(STRINGS "${SOURCE_DIR}/${source}" first LIMIT_COUNT 1)
  if(NOT first STREQUAL "// SPDX-License-Identifier: Apache-2.0")
    problem("${source}: the first line is not the SPDX line")
  endif()
endforeach()

file(GLOB_RECURSE headers RELATIVE "${SOURCE_DIR}/include" "${SOURCE_DIR}/include/quern/*.hpp")
foreach(header IN LISTS headers)
  file(READ "${SOURCE_DIR}/include/${header}" text)
  string(TOUPPER "${header}" guard)
  string(REGEX REPLACE "[^A-Z0-9]" "_" guard "${guard}")
  if(NOT header MATCHES "-inl\\.hpp$" AND NOT text MATCHES "#ifndef ${guard}\n#define ${guard}\n")
    problem("${header}: the include guard is not ${guard}")
  endif()
  string(REGEX MATCHALL "\n" lines "${text}")
  list(LENGTH lines count)
  if(count GREATER 550)
    problem("${header}: ${count} lines, 500 is the aim")
  endif()
  if(NOT text MATCHES "/// \\\\file")
    problem("${header}: no \\file comment")
  endif()
endforeach()

file(READ "${SOURCE_DIR}/docs/README.md" index)
file(GLOB pages RELATIVE "${SOURCE_DIR}/docs" "${SOURCE_DIR}/docs/*/*.md")
foreach(page IN LISTS pages)
  string(FIND "${index}" "(${page})" found)
  if(found EQUAL -1)
    problem("docs/${page}: docs/README.md does not link it")
  endif()
endforeach()

if(problems)
  message(FATAL_ERROR "\n${problems}")
endif()
