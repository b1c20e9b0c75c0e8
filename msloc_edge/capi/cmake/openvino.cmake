# The OpenVINO engine. OpenVINO is looked for where OpenVINO_DIR or CMAKE_PREFIX_PATH say, then in the system, then inside
# the wheel of the Python that was found.

if(NOT MSLOC_WITH_OPENVINO)
  target_sources(msloc_engines PRIVATE src/engine_openvino_missing.cpp)
  return()
endif()
find_package(OpenVINO QUIET COMPONENTS Runtime)
if(NOT OpenVINO_FOUND)
  execute_process(
    COMMAND ${Python3_EXECUTABLE} -c
            "from importlib.util import find_spec; print(find_spec('openvino').submodule_search_locations[0], end='')"
    OUTPUT_VARIABLE openvino_wheel
    ERROR_QUIET)
  find_package(OpenVINO QUIET COMPONENTS Runtime PATHS ${openvino_wheel}/cmake NO_DEFAULT_PATH)
endif()
if(NOT OpenVINO_FOUND)
  message(FATAL_ERROR "MSLOC_WITH_OPENVINO needs OpenVINO: pip install openvino and set Python3_EXECUTABLE, or set "
                      "OpenVINO_DIR; or switch it off.")
endif()
set_target_properties(openvino::runtime PROPERTIES IMPORTED_GLOBAL TRUE) # for msloc_bench, too

target_sources(msloc_engines PRIVATE src/engine_openvino.cpp)
target_link_libraries(msloc_engines PRIVATE openvino::runtime)
