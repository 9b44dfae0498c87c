# SPDX-License-Identifier: Apache-2.0

include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

set(_quern_cmake_dir "${CMAKE_INSTALL_DATADIR}/cmake/quern")

install(DIRECTORY "${PROJECT_SOURCE_DIR}/include/quern" DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}")

# One export a component, so that a user of quern::quern needs neither zlib nor MPI.
install(TARGETS quern EXPORT quern-targets INCLUDES DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}")
install(EXPORT quern-targets NAMESPACE quern:: DESTINATION "${_quern_cmake_dir}")
foreach(_quern_component IN ITEMS io mpi)
  if(TARGET quern_${_quern_component})
    install(TARGETS quern_${_quern_component} EXPORT quern-${_quern_component}-targets)
    install(EXPORT quern-${_quern_component}-targets NAMESPACE quern::
            DESTINATION "${_quern_cmake_dir}")
  endif()
endforeach()

configure_package_config_file(
  "${CMAKE_CURRENT_LIST_DIR}/quern-config.cmake.in" "${PROJECT_BINARY_DIR}/quern-config.cmake"
  INSTALL_DESTINATION "${_quern_cmake_dir}" NO_SET_AND_CHECK_MACRO
                      NO_CHECK_REQUIRED_COMPONENTS_MACRO)
write_basic_package_version_file("${PROJECT_BINARY_DIR}/quern-config-version.cmake"
                                 COMPATIBILITY SameMajorVersion ARCH_INDEPENDENT)
install(FILES "${PROJECT_BINARY_DIR}/quern-config.cmake"
              "${PROJECT_BINARY_DIR}/quern-config-version.cmake"
              "${CMAKE_CURRENT_LIST_DIR}/FindHighwayHeaders.cmake"
        DESTINATION "${_quern_cmake_dir}")

# The prefix follows the file, wherever `cmake --install --prefix` puts it.
set(_quern_pc_prefix "${CMAKE_INSTALL_PREFIX}")
if(NOT IS_ABSOLUTE "${CMAKE_INSTALL_DATADIR}")
  file(RELATIVE_PATH _quern_pc_up "/prefix/${CMAKE_INSTALL_DATADIR}/pkgconfig" "/prefix")
  string(REGEX REPLACE "/$" "" _quern_pc_up "${_quern_pc_up}")
  set(_quern_pc_prefix "\${pcfiledir}/${_quern_pc_up}")
endif()
configure_file("${CMAKE_CURRENT_LIST_DIR}/quern.pc.in" "${PROJECT_BINARY_DIR}/quern.pc" @ONLY)
install(FILES "${PROJECT_BINARY_DIR}/quern.pc"
        DESTINATION "${CMAKE_INSTALL_DATADIR}/pkgconfig")
install(FILES "${PROJECT_SOURCE_DIR}/LICENSE" DESTINATION "${CMAKE_INSTALL_DOCDIR}")
