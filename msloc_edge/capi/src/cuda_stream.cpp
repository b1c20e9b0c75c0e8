#include "cuda_stream.h"

#include <string>

namespace msloc::cuda {
namespace {

using Recorded = struct GraphHandle*;

/// A side of CUDA_MEMCPY2D.
struct Place {
  std::size_t x, y;  // bytes, rows
  int type;          // CUmemorytype
  const void *host, *device, *array;
  std::size_t pitch;
};

/// CUDA_MEMCPY2D of cuda.h.
struct Copy {
  Place source, target;
  std::size_t width, height;
};

constexpr int kIntegrated = 18;         // CU_DEVICE_ATTRIBUTE_INTEGRATED
constexpr unsigned kDeviceMap = 2;      // CU_MEMHOSTALLOC_DEVICEMAP
constexpr unsigned kNonBlocking = 1;    // CU_STREAM_NON_BLOCKING
constexpr unsigned kDisableTiming = 2;  // CU_EVENT_DISABLE_TIMING
constexpr int kThreadLocal = 1;         // CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: other threads go on allocating
constexpr int kOnDevice = 2;            // CU_MEMORYTYPE_DEVICE
constexpr std::size_t kSize = sizeof(float);

// The names with _v2 are those that cuda.h gives to the plain ones: the plain symbols have older types.

Device device_at(int ordinal) {
  const auto asked = [](Result result, const char* call) {
    try {
      check(result, call);
    } catch (const Error& error) {
      throw NoDevice(error.what());
    }
  };
  asked(function<Result(unsigned)>("cuInit")(0), "cuInit");
  int count = 0;
  asked(function<Result(int*)>("cuDeviceGetCount")(&count), "cuDeviceGetCount");
  if (ordinal >= count) {
    throw NoDevice("expected one of " + std::to_string(count) + " devices, the first of which is cuda:0, got cuda:" +
                   std::to_string(ordinal) + "; choose one of these");
  }
  Device device = 0;
  asked(function<Result(Device*, int)>("cuDeviceGet")(&device, ordinal), "cuDeviceGet");
  return device;
}

Owned<void*> page_locked(std::size_t bytes, bool shared) {
  static auto* const make = function<Result(void**, std::size_t, unsigned)>("cuMemHostAlloc");
  static auto* const end = function<Result(void*)>("cuMemFreeHost");
  void* memory = nullptr;
  check(make(&memory, bytes, shared ? kDeviceMap : 0), "cuMemHostAlloc");
  return {memory, end};
}

void* address_of(void* host) {
  static auto* const get = function<Result(void**, void*, unsigned)>("cuMemHostGetDevicePointer_v2");
  void* address = nullptr;
  check(get(&address, host, 0), "cuMemHostGetDevicePointer");
  return address;
}

}  // namespace

PrimaryContext::PrimaryContext(int ordinal)
    : device_(device_at(ordinal)), release_(function<Result(Device)>("cuDevicePrimaryCtxRelease_v2")) {
  check(function<Result(Context*, Device)>("cuDevicePrimaryCtxRetain")(&context_, device_), "cuDevicePrimaryCtxRetain");
}

bool PrimaryContext::integrated() const { return attribute(kIntegrated, device_) != 0; }

Current::Current(const PrimaryContext& context) : pop_(function<Result(Context*)>("cuCtxPopCurrent_v2")) {
  static auto* const push = function<Result(Context)>("cuCtxPushCurrent_v2");
  check(push(context.handle()), "cuCtxPushCurrent");
}

Current::~Current() {
  Context popped = nullptr;
  pop_(&popped);
}

Owned<void*> allocate(std::size_t count) {
  static auto* const make = function<Result(void**, std::size_t)>("cuMemAlloc_v2");
  static auto* const end = function<Result(void*)>("cuMemFree_v2");
  void* memory = nullptr;
  check(make(&memory, count * kSize), "cuMemAlloc");
  return {memory, end};
}

Buffer::Buffer(std::size_t count, bool shared)
    : bytes_(count * kSize),
      host_(page_locked(bytes_, shared)),
      device_(shared ? Owned<void*>(nullptr, nullptr) : allocate(count)),
      address_(shared ? address_of(host_.get()) : device_.get()) {}

void Buffer::copy_in(Stream stream, std::size_t bytes) const {
  static auto* const copy = function<Result(void*, const void*, std::size_t, Stream)>("cuMemcpyHtoDAsync_v2");
  if (device_) check(copy(device_.get(), host_.get(), bytes, stream), "cuMemcpyHtoDAsync");
}

void Buffer::copy_out(Stream stream) const {
  static auto* const copy = function<Result(void*, const void*, std::size_t, Stream)>("cuMemcpyDtoHAsync_v2");
  if (device_) check(copy(host_.get(), device_.get(), bytes_, stream), "cuMemcpyDtoHAsync");
}

Owned<Stream> make_stream() {
  static auto* const make = function<Result(Stream*, unsigned)>("cuStreamCreate");
  static auto* const end = function<Result(Stream)>("cuStreamDestroy_v2");
  Stream stream = nullptr;
  check(make(&stream, kNonBlocking), "cuStreamCreate");
  return {stream, end};
}

void synchronize(Stream stream) {
  static auto* const wait = function<Result(Stream)>("cuStreamSynchronize");
  check(wait(stream), "cuStreamSynchronize");
}

Drain::Drain(Stream stream) : stream_(stream), wait_(function<Result(Stream)>("cuStreamSynchronize")) {}

Owned<Event> make_event() {
  static auto* const make = function<Result(Event*, unsigned)>("cuEventCreate");
  static auto* const end = function<Result(Event)>("cuEventDestroy_v2");
  Event event = nullptr;
  check(make(&event, kDisableTiming), "cuEventCreate");
  return {event, end};
}

void record(Event event, Stream stream) {
  static auto* const mark = function<Result(Event, Stream)>("cuEventRecord");
  check(mark(event, stream), "cuEventRecord");
}

void reach(Event event) {
  static auto* const wait = function<Result(Event)>("cuEventSynchronize");
  check(wait(event), "cuEventSynchronize");
}

void wait(Stream stream, Event event) {
  static auto* const put = function<Result(Stream, Event, unsigned)>("cuStreamWaitEvent");
  check(put(stream, event, 0), "cuStreamWaitEvent");
}

void copy_rows(void* target, std::size_t target_pitch, const void* source, std::size_t source_pitch, std::size_t width,
               std::size_t rows, Stream stream) {
  static auto* const put = function<Result(const Copy*, Stream)>("cuMemcpy2DAsync_v2");
  const Copy copy{{0, 0, kOnDevice, nullptr, source, nullptr, source_pitch},
                  {0, 0, kOnDevice, nullptr, target, nullptr, target_pitch},
                  width,
                  rows};
  check(put(&copy, stream), "cuMemcpy2DAsync");
}

Owned<Graph> capture(Stream stream, const std::function<void()>& work) {
  static auto* const begin = function<Result(Stream, int)>("cuStreamBeginCapture_v2");
  static auto* const end = function<Result(Stream, Recorded*)>("cuStreamEndCapture");
  static auto* const forget = function<Result(Recorded)>("cuGraphDestroy");
  static auto* const make = function<Result(Graph*, Recorded, unsigned long long)>("cuGraphInstantiateWithFlags");
  static auto* const destroy = function<Result(Graph)>("cuGraphExecDestroy");
  const auto finish = [&](Result& result) {
    Recorded recorded = nullptr;
    result = end(stream, &recorded);
    return Owned<Recorded>(recorded, forget);
  };
  Result ended = 0;
  check(begin(stream, kThreadLocal), "cuStreamBeginCapture");
  try {
    work();
  } catch (...) {
    finish(ended);
    throw;
  }
  const Owned<Recorded> recorded = finish(ended);
  check(ended, "cuStreamEndCapture");
  Graph graph = nullptr;
  check(make(&graph, recorded.get(), 0), "cuGraphInstantiate");
  return {graph, destroy};
}

void launch(Graph graph, Stream stream) {
  static auto* const put = function<Result(Graph, Stream)>("cuGraphLaunch");
  check(put(graph, stream), "cuGraphLaunch");
}

}  // namespace msloc::cuda
