#include "device_window.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace msloc {
namespace {

constexpr std::size_t kEntries = std::size_t{1} << 16;  // of the table of 16 bits

std::size_t power_of_two_from(std::size_t count) {
  std::size_t power = 1;
  while (power < count) power *= 2;
  return power;
}

}  // namespace

DeviceWindow::DeviceWindow(WindowKernels kernels, bool shared)
    : kernels_(std::move(kernels)), shared_(shared), table_(kEntries, shared), written_(cuda::make_event()) {}

void DeviceWindow::enqueue(const Film& film, const float* table, const Geometry& geometry, void* output,
                           cuda::Stream stream) {
  const auto u64 = [](int number) { return static_cast<std::uint64_t>(number); };
  const std::size_t entries = std::size_t{1} << film.bits;
  std::copy_n(table, entries, table_.host());
  table_.copy_in(stream, entries * sizeof(float));
  const DeviceKernel& kernel = kernels_[film.wide ? 1 : 0][geometry.enlarges() ? 1 : 0];
  kernel.launch({{"pixels", address(film.on_device ? put_on_device(film, stream) : put(film, stream))},
                 {"table", address(table_.device())},
                 {"last", entries - 1},
                 {"image_width", u64(geometry.image.width)},
                 {"image_height", u64(geometry.image.height)},
                 {"input_width", u64(geometry.input.width)},
                 {"input_height", u64(geometry.input.height)},
                 {"left", u64(geometry.left)},
                 {"top", u64(geometry.top)},
                 {"width", u64(geometry.width)},
                 {"height", u64(geometry.height)},
                 {"output", address(output)}},
                stream);
}

/// Puts the copy of the stored pixels on the stream, by way of page-locked memory; their address on the device.
const void* DeviceWindow::put(const Film& film, cuda::Stream stream) {
  const std::size_t row = film.row_bytes();
  const std::size_t bytes = row * static_cast<std::size_t>(film.size.height);
  make_room(bytes);
  char* packed = pixels_->host<char>();
  for (int y = 0; y < film.size.height; ++y, packed += row) std::memcpy(packed, film.row<char>(y), row);
  pixels_->copy_in(stream, bytes);
  return pixels_->device();
}

/// Lets the stream wait for the caller's samples; their address, or that of a copy with its rows packed.
const void* DeviceWindow::put_on_device(const Film& film, cuda::Stream stream) {
  cuda::record(written_.get(), static_cast<cuda::Stream>(film.stream));
  cuda::wait(stream, written_.get());
  const std::size_t row = film.row_bytes();
  const auto stride = static_cast<std::size_t>(film.stride);
  if (stride == row) return film.data;
  const auto rows = static_cast<std::size_t>(film.size.height);
  make_room(row * rows);
  cuda::copy_rows(pixels_->device(), row, film.data, stride, row, rows, stream);
  return pixels_->device();
}

void DeviceWindow::make_room(std::size_t bytes) {
  if (pixels_ && pixels_->bytes() >= bytes) return;
  pixels_.reset();  // before there is another: films are large
  pixels_.emplace(power_of_two_from(bytes) / sizeof(float), shared_);
}

}  // namespace msloc
