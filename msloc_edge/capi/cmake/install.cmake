# What `cmake --install` copies, and how others find it: find_package(msloc_edge) or pkg-config.

include(CMakePackageConfigHelpers)

# Where an installed library looks for OpenVINO: beside itself first (a product ships both in one folder), then where it
# was when this was built, such as in a Python wheel, unless that is a folder where the loader looks anyway.
option(MSLOC_RELOCATABLE "Install a library that knows no folder of this machine" OFF)
set(rpath $ORIGIN)
if(MSLOC_WITH_OPENVINO AND NOT MSLOC_RELOCATABLE AND NOT MSLOC_SDK)
  get_target_property(openvino_library openvino::runtime LOCATION)
  get_filename_component(openvino_dir ${openvino_library} DIRECTORY)
  if(NOT openvino_dir IN_LIST CMAKE_CXX_IMPLICIT_LINK_DIRECTORIES)
    list(APPEND rpath ${openvino_dir})
  endif()
endif()
set_target_properties(msloc_edge PROPERTIES INSTALL_RPATH "${rpath}")

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/msloc_edge)
install(TARGETS msloc_edge EXPORT msloc_edge LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(FILES include/msloc_edge.h include/msloc_edge.hpp DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(FILES ${PROJECT_SOURCE_DIR}/LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(EXPORT msloc_edge FILE msloc_edgeConfig.cmake NAMESPACE msloc_edge:: DESTINATION ${package_dir})
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/msloc_edgeConfigVersion.cmake
                                 COMPATIBILITY SameMajorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/msloc_edgeConfigVersion.cmake DESTINATION ${package_dir})

# The prefix is where the file lies, so that an installed tree may be moved.
set(pkgconfig_dir ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
file(RELATIVE_PATH up_to_prefix /prefix/${pkgconfig_dir} /prefix)
configure_file(cmake/msloc_edge.pc.in msloc_edge.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/msloc_edge.pc DESTINATION ${pkgconfig_dir})
