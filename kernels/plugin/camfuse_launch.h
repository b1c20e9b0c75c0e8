// fuse_cams on raw pointers and a stream, without TensorRT: M_k = sum_s w_{k,s} up(A_{k,s}), ../fuse_cams/README.md.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "camfuse_images.h"
#include "cuda_driver.h"

namespace msloc {

constexpr std::size_t kStages = 4;

/// Pixels of a cell of each stage, shallow to deep: what the kernel is compiled for.
constexpr std::array<std::int32_t, kStages> kStrides{4, 8, 16, 32};

/// In pixels, or in cells of a stage's grid.
struct Size {
  std::int32_t height, width;
};

struct Shape {
  std::int32_t batch, classes;
  std::array<Size, kStages> stages;  // shallow to deep
  Size map;
};

/// Addresses on the device, dense, rows last; `maps` at a multiple of 16 bytes, as all that TensorRT or CUDA allocates.
struct Buffers {
  std::array<const void*, kStages> cams;  // [B, K, h_s, w_s]
  const void* relevance;                  // [K, S] fp32
  void* maps;                             // [B, K, H, W]
};

/// Throws Error unless the stages are the grids of kStrides, of at least two columns, and places inside a map fit into
/// the kernel's 32 bits.
void check(const Shape& shape);

/// The cubin of exactly this device, else the portable PTX; the rule of ../compiled.py, pick. Throws Error without
/// either.
const Image& pick(Type type, int sm);

/// Puts the computation on a stream of the current context and does not wait. The first call loads the kernel.
/// From any thread. Throws Error.
void fuse_cams(const Shape& shape, Type type, const Buffers& buffers, cuda::Stream stream);

}  // namespace msloc
