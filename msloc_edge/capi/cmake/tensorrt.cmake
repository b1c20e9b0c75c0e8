# The TensorRT engine, where TENSORRT_ROOT has its headers. Its library is opened at run time, as CUDA's driver is:
# nothing of either is linked, and what is built runs on machines without them.
set(TENSORRT_ROOT "" CACHE PATH "Folder of TensorRT's include/NvInferRuntime.h, 10.3 to 11")

if(NOT TENSORRT_ROOT)
  message(STATUS "libmsloc_edge is built without its TensorRT engine: TENSORRT_ROOT is not given")
  target_sources(msloc_engines PRIVATE src/engine_tensorrt_missing.cpp)
  return()
endif()
find_path( # looked for each time: TENSORRT_ROOT may be another than before
  tensorrt_include NvInferRuntime.h REQUIRED NO_CACHE NO_DEFAULT_PATH
  PATHS ${TENSORRT_ROOT}
  PATH_SUFFIXES include include/${CMAKE_SYSTEM_PROCESSOR}-linux-gnu)
find_path(MSLOC_CUDA_INCLUDE cuda_runtime_api.h REQUIRED PATHS ENV CUDA_HOME /usr/local/cuda PATH_SUFFIXES include)
set(cuda_driver ${PROJECT_SOURCE_DIR}/kernels/plugin) # one home for it, in the plugin and here
target_sources(
  msloc_engines
  PRIVATE src/cuda_stream.cpp
          src/device_kernels.cpp
          src/device_locator.cpp
          src/device_window.cpp
          src/engine_tensorrt.cpp
          src/network.cpp
          src/nvinfer.cpp
          src/plan.cpp
          ${cuda_driver}/cuda_driver.cpp)
target_include_directories(msloc_engines PRIVATE ${cuda_driver})
target_include_directories(msloc_engines SYSTEM PRIVATE ${tensorrt_include} ${MSLOC_CUDA_INCLUDE})
target_link_libraries(msloc_engines PUBLIC ${CMAKE_DL_LIBS} PRIVATE nlohmann_json::nlohmann_json)
