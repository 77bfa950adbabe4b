# Headers, libraries, command, pkg-config file, CMake package: `cmake --install build/release`.
include(CMakePackageConfigHelpers)

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/kiln)
install(TARGETS kiln_shared kiln_static EXPORT kilnTargets)
if(TARGET kiln_cli)
  install(TARGETS kiln_cli)
endif()
install(DIRECTORY include/kiln DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h")
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})

list(JOIN KILN_PC_MODULES ", " KILN_PC_REQUIRES)
list(JOIN KILN_PC_MODULES " " KILN_PC_MODULES_SPACED)
file(RELATIVE_PATH KILN_PC_TO_PREFIX /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
configure_file(cmake/kiln.pc.in kiln.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/kiln.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

configure_package_config_file(cmake/kilnConfig.cmake.in kilnConfig.cmake
  INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(kilnConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/kilnConfig.cmake ${PROJECT_BINARY_DIR}/kilnConfigVersion.cmake
  DESTINATION ${package_dir})
install(EXPORT kilnTargets NAMESPACE kiln:: DESTINATION ${package_dir})
