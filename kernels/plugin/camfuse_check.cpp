// The plugin's launch code on a GPU, without TensorRT, against the formula in double.
//
//     msloc_camfuse_check                               four sizes in fp32 and fp16
//     msloc_camfuse_check BATCH CLASSES HEIGHT WIDTH    one of your own
//
// Exit 0: the RMS ratio of every map is below its limit; 1: one is not, or something failed; 77: no driver or no
// device.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <random>
#include <string>
#include <vector>

#include "camfuse_launch.h"

namespace {

using namespace msloc;

constexpr int kSkipped = 77;
constexpr int kRuns = 20;

std::size_t bytes_of(Type type) { return type == Type::fp16 ? 2 : 4; }
double limit_of(Type type) { return type == Type::fp16 ? 1e-3 : 1e-6; }
const char* name_of(Type type) { return type == Type::fp16 ? "fp16" : "fp32"; }

/// IEEE 754 binary16.
double from_half(std::uint16_t bits) {
  const int exponent = bits >> 10 & 31;
  const int fraction = bits & 1023;
  const double size = exponent == 31  ? (fraction != 0 ? NAN : INFINITY)
                      : exponent == 0 ? std::ldexp(fraction, -24)
                                      : std::ldexp(1024 + fraction, exponent - 25);
  return (bits & 0x8000) != 0 ? -size : size;
}

/// Numbers as they lie in memory, and what they are.
struct Numbers {
  Type type;
  std::vector<std::uint8_t> bytes;

  [[nodiscard]] double operator[](std::size_t at) const {
    if (type == Type::fp16) {
      std::uint16_t half = 0;
      std::memcpy(&half, &bytes[2 * at], sizeof half);
      return from_half(half);
    }
    float value = 0;
    std::memcpy(&value, &bytes[4 * at], sizeof value);
    return value;
  }
};

/// Of either sign, 1/8 to 8: logits of class maps.
Numbers random_numbers(Type type, std::size_t count, std::mt19937& random) {
  Numbers made{type, std::vector<std::uint8_t>(count * bytes_of(type))};
  for (std::size_t at = 0; at < count; ++at) {
    const auto bits = static_cast<std::uint32_t>(random());
    if (type == Type::fp16) {
      const auto half = static_cast<std::uint16_t>((bits & 0x83ff) | (12 + (bits >> 16) % 6) << 10);
      std::memcpy(&made.bytes[2 * at], &half, sizeof half);
    } else {
      const float value = std::ldexp(static_cast<float>(bits >> 8), -22) * ((bits & 1) != 0 ? -1.0F : 1.0F);
      std::memcpy(&made.bytes[4 * at], &value, sizeof value);
    }
  }
  return made;
}

/// Where a pixel lies between two cells: half-pixel centres, clamped at the edge.
struct Place {
  std::size_t first, second;
  double part;
};

Place place_of(std::int32_t pixel, std::int32_t pixels, std::int32_t cells) {
  const double at = (pixel + 0.5) * cells / pixels - 0.5;
  const double held = std::fmin(std::fmax(at, 0.0), cells - 1.0);
  const auto first = static_cast<std::int32_t>(held);
  return {static_cast<std::size_t>(first), static_cast<std::size_t>(first + 1 < cells ? first + 1 : first),
          held - first};
}

/// M_k at (y, x) of one plane [b, k], by the formula of ../fuse_cams/README.md.
double fused(const Shape& shape, const std::vector<Numbers>& cams, const Numbers& relevance, std::size_t plane,
             std::int32_t y, std::int32_t x) {
  const std::size_t k = plane % static_cast<std::size_t>(shape.classes);
  double sum = 0;
  for (std::size_t s = 0; s < kStages; ++s) {
    const auto width = static_cast<std::size_t>(shape.stages.at(s).width);
    const std::size_t start = plane * static_cast<std::size_t>(shape.stages.at(s).height) * width;
    const Place down = place_of(y, shape.map.height, shape.stages.at(s).height);
    const Place across = place_of(x, shape.map.width, shape.stages.at(s).width);
    const auto row = [&](std::size_t at) {
      const double left = cams[s][start + at * width + across.first];
      return left + across.part * (cams[s][start + at * width + across.second] - left);
    };
    sum += relevance[k * kStages + s] * (row(down.first) + down.part * (row(down.second) - row(down.first)));
  }
  return sum;
}

/// RMS of the difference over RMS of the reference: NaN where one pixel was not written.
double rms_ratio(const Shape& shape, const std::vector<Numbers>& cams, const Numbers& relevance, const Numbers& maps) {
  double error = 0;
  double scale = 0;
  std::size_t at = 0;
  for (std::size_t plane = 0; plane < static_cast<std::size_t>(shape.batch) * static_cast<std::size_t>(shape.classes);
       ++plane) {
    for (std::int32_t y = 0; y < shape.map.height; ++y) {
      for (std::int32_t x = 0; x < shape.map.width; ++x, ++at) {
        const double expected = fused(shape, cams, relevance, plane, y, x);
        error += (maps[at] - expected) * (maps[at] - expected);
        scale += expected * expected;
      }
    }
  }
  return std::sqrt(error / scale);
}

using Address = void*;  // a CUdeviceptr is a number of the same size
using Event = struct EventHandle*;

template <typename... Arguments>
void call(const char* name, Arguments... arguments) {
  cuda::check(cuda::function<cuda::Result(Arguments...)>(name)(arguments...), name);
}

/// The primary context of the first device, current in this thread.
void open_device() {
  const cuda::Result started = cuda::function<cuda::Result(unsigned)>("cuInit")(0);
  if (started == 100) {  // CUDA_ERROR_NO_DEVICE
    throw cuda::NoDevice("expected a CUDA device, found none");
  }
  cuda::check(started, "cuInit");
  cuda::Device device = 0;
  call("cuDeviceGet", &device, 0);
  void* context = nullptr;
  call("cuDevicePrimaryCtxRetain", &context, device);
  call("cuCtxSetCurrent", context);
}

class Memory {
 public:
  explicit Memory(const std::vector<std::uint8_t>& content) {
    call("cuMemAlloc_v2", &address_, content.size());
    call("cuMemcpyHtoD_v2", address_, static_cast<const void*>(content.data()), content.size());
  }
  Memory(Memory&& other) noexcept : address_(other.address_) { other.address_ = nullptr; }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  Memory& operator=(Memory&&) = delete;
  ~Memory() {
    if (address_ != nullptr) {
      cuda::function<cuda::Result(Address)>("cuMemFree_v2")(address_);
    }
  }

  void read(std::vector<std::uint8_t>& content) const {
    call("cuMemcpyDtoH_v2", static_cast<void*>(content.data()), address_, content.size());
  }

  [[nodiscard]] Address get() const { return address_; }

 private:
  Address address_ = nullptr;
};

/// Microseconds of one launch, the mean of launches one behind the other.
double timed(const Shape& shape, Type type, const Buffers& buffers, cuda::Stream stream) {
  Event start = nullptr;
  Event end = nullptr;
  call("cuEventCreate", &start, 0U);
  call("cuEventCreate", &end, 0U);
  call("cuEventRecord", start, stream);
  for (int run = 0; run < kRuns; ++run) {
    fuse_cams(shape, type, buffers, stream);
  }
  call("cuEventRecord", end, stream);
  call("cuEventSynchronize", end);
  float milliseconds = 0;
  call("cuEventElapsedTime", &milliseconds, start, end);
  call("cuEventDestroy_v2", start);
  call("cuEventDestroy_v2", end);
  return 1000.0 * milliseconds / kRuns;
}

/// Whether the maps are right; one line on stdout.
bool checked(const Shape& shape, Type type, cuda::Stream stream) {
  check(shape);
  std::mt19937 random(1);
  const std::size_t planes = static_cast<std::size_t>(shape.batch) * static_cast<std::size_t>(shape.classes);
  std::vector<Numbers> cams;
  std::vector<Memory> held;
  Buffers buffers{};
  for (std::size_t s = 0; s < kStages; ++s) {
    const Size& stage = shape.stages.at(s);
    const std::size_t cells = static_cast<std::size_t>(stage.height) * static_cast<std::size_t>(stage.width);
    cams.push_back(random_numbers(type, planes * cells, random));
    held.emplace_back(cams.back().bytes);
    buffers.cams.at(s) = held.back().get();
  }
  const Numbers relevance = random_numbers(Type::fp32, static_cast<std::size_t>(shape.classes) * kStages, random);
  const Memory weights(relevance.bytes);
  buffers.relevance = weights.get();
  const std::size_t pixels = static_cast<std::size_t>(shape.map.height) * static_cast<std::size_t>(shape.map.width);
  Numbers maps{type, std::vector<std::uint8_t>(planes * pixels * bytes_of(type), 0xff)};  // NaN
  const Memory result(maps.bytes);
  buffers.maps = result.get();

  fuse_cams(shape, type, buffers, stream);
  call("cuStreamSynchronize", stream);
  result.read(maps.bytes);
  const double ratio = rms_ratio(shape, cams, relevance, maps);
  const bool right = ratio < limit_of(type);  // not so for NaN
  const Image& image = pick(type, cuda::current_sm());
  std::printf("%s %d x %d x %d x %d: RMS ratio %.1e (limit %.0e), %.1f us, %s of sm_%d%s\n", name_of(type), shape.batch,
              shape.classes, shape.map.height, shape.map.width, ratio, limit_of(type),
              timed(shape, type, buffers, stream), image.portable ? "PTX" : "cubin", image.sm, right ? "" : ": WRONG");
  return right;
}

Shape shape_for(std::int32_t batch, std::int32_t classes, Size map) {
  Shape shape{batch, classes, {}, map};
  for (std::size_t s = 0; s < kStages; ++s) {
    shape.stages.at(s) = {map.height / kStrides.at(s), map.width / kStrides.at(s)};
  }
  return shape;
}

std::int32_t count(const char* argument) { return static_cast<std::int32_t>(std::strtol(argument, nullptr, 10)); }

int run(const std::vector<const char*>& arguments) {
  std::vector<Shape> shapes;
  if (arguments.empty()) {
    // Programs of 32, 16 and 128 rows, and the smallest map.
    shapes = {shape_for(2, 14, {512, 512}), shape_for(1, 3, {96, 320}), shape_for(50, 4, {288, 96}),
              shape_for(1, 1, {32, 64})};
  } else if (arguments.size() == 4) {
    shapes = {shape_for(count(arguments[0]), count(arguments[1]), {count(arguments[2]), count(arguments[3])})};
  } else {
    std::fputs("expected no argument, or BATCH CLASSES HEIGHT WIDTH\n", stderr);
    return 2;
  }
  open_device();
  cuda::Stream stream = nullptr;
  call("cuStreamCreate", &stream, 1U);  // CU_STREAM_NON_BLOCKING
  bool right = true;
  for (const Shape& shape : shapes) {
    for (const Type type : {Type::fp32, Type::fp16}) {
      right = checked(shape, type, stream) && right;
    }
  }
  return right ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run({argv + 1, argv + argc});
  } catch (const cuda::NoDevice& error) {
    std::fprintf(stderr, "skipped: %s\n", error.what());
    return kSkipped;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
