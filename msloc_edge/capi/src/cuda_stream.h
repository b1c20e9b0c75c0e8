// A CUDA device for an engine: its context, a stream, memory on both sides, work that is captured once.
//
// Everything but PrimaryContext is made, used and ended while a context is current.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <type_traits>

#include "cuda_driver.h"

namespace msloc::cuda {

using Context = struct ContextHandle*;
using Graph = struct GraphExecHandle*;
using Event = struct EventHandle*;

/// An object of the driver, with the function of the driver that ends it.
template <typename Handle>
using Owned = std::unique_ptr<std::remove_pointer_t<Handle>, Result (*)(Handle)>;

/// The primary context of a device, the one that the process's other CUDA code has as well; retained.
class PrimaryContext {
 public:
  /// Throws NoDevice, Error.
  explicit PrimaryContext(int ordinal);
  PrimaryContext(const PrimaryContext&) = delete;
  PrimaryContext& operator=(const PrimaryContext&) = delete;
  PrimaryContext(PrimaryContext&&) = delete;
  PrimaryContext& operator=(PrimaryContext&&) = delete;
  ~PrimaryContext() { release_(device_); }

  [[nodiscard]] Context handle() const noexcept { return context_; }
  [[nodiscard]] int sm() const { return sm_of(device_); }
  /// Whether the device has no memory of its own, as on a Jetson.
  [[nodiscard]] bool integrated() const;

 private:
  Device device_;
  Result (*release_)(Device);
  Context context_ = nullptr;
};

/// Makes a context current for this thread as long as this lives; then the one before is current again.
class Current {
 public:
  explicit Current(const PrimaryContext& context);
  Current(const Current&) = delete;
  Current& operator=(const Current&) = delete;
  Current(Current&&) = delete;
  Current& operator=(Current&&) = delete;
  ~Current();

 private:
  Result (*pop_)(Context*);
};

/// Numbers in memory of the device, which nobody but the device reads.
Owned<void*> allocate(std::size_t count);

/// The same numbers of 4 bytes on both sides: in page-locked memory of the host, and at an address on the device.
class Buffer {
 public:
  /// One memory serves both sides where it is `shared`, and nothing is copied; for integrated devices.
  Buffer(std::size_t count, bool shared);

  template <class Number = float>
  [[nodiscard]] Number* host() const noexcept {
    return static_cast<Number*>(host_.get());
  }
  [[nodiscard]] void* device() const noexcept { return address_; }

  [[nodiscard]] std::size_t bytes() const noexcept { return bytes_; }

  /// Put a copy on a stream, and do not wait; of all, or of the first so many bytes.
  void copy_in(Stream stream) const { copy_in(stream, bytes_); }
  void copy_in(Stream stream, std::size_t bytes) const;
  void copy_out(Stream stream) const;

 private:
  std::size_t bytes_;
  Owned<void*> host_;
  Owned<void*> device_;  // empty when shared
  void* address_ = nullptr;
};

/// A stream that neither waits for the default one nor holds it up.
Owned<Stream> make_stream();

/// Waits for all that is on a stream.
void synchronize(Stream stream);

/// Waits for all that is on a stream when it ends. Declared behind the memory that the work there uses, it ends first.
class Drain {
 public:
  explicit Drain(Stream stream);
  Drain(const Drain&) = delete;
  Drain& operator=(const Drain&) = delete;
  Drain(Drain&&) = delete;
  Drain& operator=(Drain&&) = delete;
  ~Drain() { wait_(stream_); }

 private:
  Stream stream_;
  Result (*wait_)(Stream);
};

/// A mark on a stream, which holds no time.
Owned<Event> make_event();

/// Marks what is on a stream so far.
void record(Event event, Stream stream);

/// Waits until a mark is reached.
void reach(Event event);

/// Lets what comes on a stream wait for a mark; the host does not wait.
void wait(Stream stream, Event event);

/// Puts a copy of rows of `width` bytes on a stream, from one place on the device to another.
///
/// target_pitch, source_pitch  bytes from row to row
void copy_rows(void* target, std::size_t target_pitch, const void* source, std::size_t source_pitch, std::size_t width,
               std::size_t rows, Stream stream);

/// Captures the work that `work` puts on a stream, as a graph. Throws Error when it cannot be captured, and what `work`
/// throws; then the stream is as before.
Owned<Graph> capture(Stream stream, const std::function<void()>& work);

/// Puts a graph on a stream, and does not wait.
void launch(Graph graph, Stream stream);

}  // namespace msloc::cuda
