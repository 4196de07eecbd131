# `cmake --install`: the program, the library, the public headers, and a CMake package, so that
# find_package(siltstone) gives the target siltstone::siltstone.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/siltstone)

install(TARGETS siltstone EXPORT siltstone_targets
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
if(TARGET siltstone_relay)
  install(TARGETS siltstone_relay EXPORT siltstone_targets
    ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}
    LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
endif()
install(DIRECTORY include/siltstone DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING
  PATTERN "*.h")
install(EXPORT siltstone_targets NAMESPACE siltstone:: DESTINATION ${package_dir}
  FILE siltstone_targets.cmake)

configure_package_config_file(cmake/siltstone-config.cmake.in siltstone-config.cmake
  INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(siltstone-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/siltstone-config.cmake
  ${CMAKE_CURRENT_BINARY_DIR}/siltstone-config-version.cmake DESTINATION ${package_dir})

if(TARGET siltstone_cli)
  install(TARGETS siltstone_cli RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()
