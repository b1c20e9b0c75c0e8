# Read by cpack for each form of package: a .deb has one place, an archive has none.
if(CPACK_GENERATOR STREQUAL DEB)
  set(CPACK_PACKAGING_INSTALL_PREFIX /opt/msloc-edge)
endif()
