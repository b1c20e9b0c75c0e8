#include "camfuse_launch.h"

#include <algorithm>
#include <limits>
#include <map>
#include <mutex>
#include <string>

namespace msloc {
namespace {

constexpr std::int64_t kPlaces = std::numeric_limits<std::int32_t>::max();

/// Bytes; the kernel stores neighbours at once.
constexpr std::uintptr_t kAlignment = 16;

std::int64_t divided_up(std::int64_t dividend, std::int64_t divisor) { return (dividend + divisor - 1) / divisor; }

std::int64_t area(const Size& size) { return std::int64_t{size.height} * size.width; }

std::string text(const Size& size) { return std::to_string(size.height) + " x " + std::to_string(size.width); }

/// Rows of a map that one program computes, by the rule that kernels.json has for the image.
std::int32_t tile_h_for(const Image& image, std::int64_t planes, const Size& map, std::int32_t columns) {
  const std::int64_t tiles = planes * divided_up(map.width, columns);
  const auto* const enough = std::find_if(image.tile_h.begin(), image.tile_h.end(), [&](std::int32_t rows) {
    return tiles * divided_up(map.height, rows) >= image.min_programs;
  });
  return enough != image.tile_h.end() ? *enough : image.tile_h.back();
}

/// An image is loaded once in a process, for all devices of its kind, plugins and threads.
cuda::Kernel kernel_of(const Image& image) {
  static std::mutex mutex;
  static std::map<const Image*, cuda::Kernel> loaded;
  const std::lock_guard<std::mutex> lock(mutex);
  if (const auto known = loaded.find(&image); known != loaded.end()) {
    return known->second;
  }
  return loaded.emplace(&image, cuda::find(cuda::load(image.data), image.entry)).first->second;
}

}  // namespace

void check(const Shape& shape) {
  if (shape.batch < 1 || shape.classes < 1) {
    throw Error("CamFuse: expected at least one image and one class, got " + std::to_string(shape.batch) + " and " +
                std::to_string(shape.classes));
  }
  for (std::size_t s = 0; s < kStages; ++s) {
    const Size& stage = shape.stages.at(s);
    const std::int64_t stride = kStrides.at(s);
    if (stage.height < 1 || stage.width < 2 || stride * stage.height != shape.map.height ||
        stride * stage.width != shape.map.width) {
      throw Error("CamFuse: expected class maps of at least two columns, with cells of 4, 8, 16 and 32 pixels, got " +
                  text(stage) + " of " + std::to_string(stride) + " for a map of " + text(shape.map) +
                  "; run the plain graph for other models");
    }
  }
  if (area(shape.map) + shape.map.width > kPlaces) {
    throw Error("CamFuse: expected a smaller map, got " + text(shape.map));
  }
}

const Image& pick(Type type, int sm) {
  const auto* const own = std::find_if(images.begin(), images.end(), [&](const Image& image) {
    return image.type == type && !image.portable && image.sm == sm;
  });
  if (own != images.end()) {
    return *own;
  }
  const auto* const portable = std::find_if(images.begin(), images.end(), [&](const Image& image) {
    return image.type == type && image.portable && image.sm <= sm;
  });
  if (portable == images.end()) {
    throw Error("CamFuse: expected a device from sm_80 on, got sm_" + std::to_string(sm) +
                "; run the plain graph there");
  }
  return *portable;
}

void fuse_cams(const Shape& shape, Type type, const Buffers& buffers, cuda::Stream stream) {
  check(shape);
  if (const auto past = reinterpret_cast<std::uintptr_t>(buffers.maps) % kAlignment; past != 0) {
    throw Error("CamFuse: expected memory for the maps at a multiple of 16 bytes, got it " + std::to_string(past) +
                " past one");
  }
  const Image& image = pick(type, cuda::current_sm());
  const auto columns = static_cast<std::int32_t>(2 * image.threads);
  const std::int64_t planes = std::int64_t{shape.batch} * shape.classes;
  std::int32_t tile_h = tile_h_for(image, planes, shape.map, columns);
  const std::int64_t blocks = planes * divided_up(shape.map.height, tile_h) * divided_up(shape.map.width, columns);
  if (blocks > kPlaces) {
    throw Error("CamFuse: expected fewer images at once, got " + std::to_string(shape.batch));
  }

  Shape values = shape;
  Buffers addresses = buffers;
  std::array<void*, kStages + 7> arguments{};
  auto* next = arguments.begin();
  const auto put = [&next](auto& value) { *next++ = &value; };
  for (const void*& cams : addresses.cams) {
    put(cams);
  }
  put(addresses.relevance);
  put(values.classes);  // of the input,
  put(values.classes);  // and wanted: all
  put(values.map.height);
  put(values.map.width);
  put(tile_h);
  put(addresses.maps);
  const cuda::Grid grid{static_cast<unsigned>(blocks)};
  cuda::launch(kernel_of(image), grid, image.threads, 0, stream, arguments.data());
}

}  // namespace msloc
