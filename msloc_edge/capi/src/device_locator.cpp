#include "device_locator.h"

#include <algorithm>
#include <cstdint>
#include <utility>

namespace msloc {
namespace {

constexpr std::size_t kMaxRegions = 64;  // that the table of a map can hold
constexpr unsigned kWarp = 32;           // threads that give one key of a peak
constexpr unsigned kPair = 2;            // columns of a thread

/// A row of the table, in pixels of the model's input: kernels/regions/README.md.
struct Row {
  std::int32_t first;  // pixel, counted in reading order
  std::int32_t left, top, right, bottom, area;
  float peak;
  std::int32_t unused;
};
static_assert(sizeof(Row) == 8 * sizeof(std::int32_t), "as the kernel writes it");

std::size_t count(int number) { return static_cast<std::size_t>(number); }
std::size_t divided_up(std::size_t dividend, std::size_t divisor) { return (dividend + divisor - 1) / divisor; }
std::size_t area(const Size& size) { return count(size.width) * count(size.height); }

}  // namespace

DeviceLocator::DeviceLocator(const Bundle& bundle, LocateKernels kernels, cuda::Stream stream, bool shared)
    : kernels_(std::move(kernels)),
      input_(bundle.input),
      classes_(bundle.class_count()),
      maps_(cuda::allocate(count(classes_) * area(input_))),
      keys_(cuda::allocate(count(classes_) * parts() * sizeof(std::int64_t) / sizeof(float))),
      runs_(cuda::allocate(count(classes_) * (4 * divided_up(count(input_.width), 2) + 1) * count(input_.height))),
      relevance_(bundle.relevance.size(), shared),
      thresholds_(count(classes_), shared),
      content_(4, shared),
      values_(count(classes_), shared),
      positions_(2 * count(classes_), shared),
      counts_(count(classes_), shared),
      table_(count(classes_) * kMaxRegions * sizeof(Row) / sizeof(float), shared),
      located_(count(classes_)) {
  for (Located& located : located_) located.regions.reserve(kMaxRegions);
  std::copy(bundle.relevance.begin(), bundle.relevance.end(), relevance_.host());
  std::transform(bundle.profile.map.begin(), bundle.profile.map.end(), thresholds_.host(),
                 [](double threshold) { return static_cast<float>(threshold); });
  relevance_.copy_in(stream);
  thresholds_.copy_in(stream);
  cuda::synchronize(stream);
  set_place(Geometry::fit(input_, input_));
}

void DeviceLocator::set_place(const Geometry& geometry) noexcept {
  place_ = geometry;
  const std::array<std::int32_t, 4> part{geometry.top, geometry.left, geometry.height, geometry.width};
  std::copy(part.begin(), part.end(), content_.host<std::int32_t>());
}

void DeviceLocator::enqueue(const std::array<const void*, 4>& cams, cuda::Stream stream) {
  const std::uint64_t classes = count(classes_);
  const Values values = {{"cams_1", address(cams[0])},
                         {"cams_2", address(cams[1])},
                         {"cams_3", address(cams[2])},
                         {"cams_4", address(cams[3])},
                         {"relevance", address(relevance_.device())},
                         {"content", address(content_.device())},
                         {"thresholds", address(thresholds_.device())},
                         {"B", 1},
                         {"J", classes},
                         {"K", classes},
                         {"H", count(input_.height)},
                         {"W", count(input_.width)},
                         {"tile_h", count(tile_h())},
                         {"parts", parts()},
                         {"max_regions", kMaxRegions},
                         {"maps", address(maps_.get())},
                         {"peaks", address(keys_.get())},
                         {"runs", address(runs_.get())},
                         {"values", address(values_.device())},
                         {"positions", address(positions_.device())},
                         {"counts", address(counts_.device())},
                         {"table", address(table_.device())}};
  content_.copy_in(stream);
  for (const DeviceKernel* kernel : {&kernels_.maps, &kernels_.peaks, &kernels_.runs, &kernels_.regions})
    kernel->launch(values, stream);
  for (const cuda::Buffer* found : {&values_, &positions_, &counts_, &table_}) found->copy_out(stream);
}

void DeviceLocator::read() noexcept {
  for (std::size_t k = 0; k < located_.size(); ++k) {
    Located& located = located_[k];
    const std::int32_t* const yx = positions_.host<std::int32_t>() + 2 * k;
    located.peak = {yx[1] - place_.left, yx[0] - place_.top, values_.host()[k]};
    Row* const rows = table_.host<Row>() + k * kMaxRegions;
    Row* const end = rows + std::min(count(counts_.host<std::int32_t>()[k]), kMaxRegions);
    std::sort(rows, end, [](const Row& a, const Row& b) { return a.first < b.first; });
    located.regions.clear();
    for (const Row* row = rows; row != end; ++row)
      located.regions.push_back({row->left - place_.left, row->top - place_.top, row->right - place_.left,
                                 row->bottom - place_.top, row->area, row->peak});
  }
}

const Located* DeviceLocator::located(int k) const noexcept {
  return count(counts_.host<std::int32_t>()[k]) <= kMaxRegions ? &located_[count(k)] : nullptr;
}

int DeviceLocator::tile_h() const noexcept {
  const Compiled& kernel = kernels_.maps.facts();
  return kernel.tile ? kernel.tile->tile_h(classes_, input_, static_cast<int>(kPair * kernel.block)) : input_.height;
}

/// Keys of a map.
std::size_t DeviceLocator::parts() const noexcept {
  const unsigned block = kernels_.maps.facts().block;
  const std::size_t tiles =
      divided_up(count(input_.height), count(tile_h())) * divided_up(count(input_.width), kPair * block);
  return tiles * (block / kWarp);
}

}  // namespace msloc
