#include "device_kernels.h"

#include <utility>

namespace msloc {
namespace {

/// Pixels of a cell of each stage, as the kernel of the maps has them.
constexpr std::array<int, 4> kStrides{4, 8, 16, 32};

void check_stages(const Bundle& bundle) {
  bool fits = bundle.stages.size() == kStrides.size() && bundle.stages.back().width >= 2;
  for (std::size_t s = 0; fits && s < kStrides.size(); ++s)
    fits = bundle.stages[s].width * kStrides[s] == bundle.input.width &&
           bundle.stages[s].height * kStrides[s] == bundle.input.height;
  if (!fits)
    throw KernelUnusable("expected maps of cells of 4, 8, 16, 32 pixels and at least two columns, got those of " +
                         bundle.name + "; the host is right for it");
}

cuda::Owned<cuda::Library> loaded(const std::string& image) {
  return {cuda::load(image.c_str()), cuda::function<cuda::Result(cuda::Library)>("cuLibraryUnload")};
}

}  // namespace

DeviceKernel::DeviceKernel(Compiled facts)
    : facts_(std::move(facts)),
      library_(loaded(facts_.image)),
      kernel_(cuda::find(library_.get(), facts_.entry.c_str())) {
  facts_.image.clear();
  if (facts_.arguments.size() > kMaxArguments)
    throw KernelUnusable(facts_.name + ": expected at most " + std::to_string(kMaxArguments) + " arguments, got " +
                         std::to_string(facts_.arguments.size()) + "; compile again");
}

void DeviceKernel::launch(Values values, cuda::Stream stream) const {
  std::array<std::uint64_t, kMaxArguments> numbers{};  // the low half of one is a whole number of 32 bits
  std::array<void*, kMaxArguments> arguments{};
  for (std::size_t at = 0; at < facts_.arguments.size(); ++at) {
    numbers[at] = value_of(facts_.arguments[at], values);
    arguments[at] = &numbers[at];
  }
  const cuda::Grid grid{blocks(facts_.grid[0], values), blocks(facts_.grid[1], values), blocks(facts_.grid[2], values)};
  cuda::launch(kernel_, grid, facts_.block, facts_.shared, stream, arguments.data());
}

DeviceKernels load_kernels(const std::string& folder, const Bundle& bundle, int sm) {
  check_stages(bundle);
  const KernelFolder files(folder);
  const auto kernel = [&](const char* name) { return DeviceKernel(files.pick(name, sm)); };
  return {{{{kernel("window_resize.u8-shrink"), kernel("window_resize.u8-enlarge")},
            {kernel("window_resize.u16-shrink"), kernel("window_resize.u16-enlarge")}}},
          {kernel("fuse_cams.located"), kernel("fuse_cams.peaks"), kernel("regions.runs"), kernel("regions.regions")}};
}

}  // namespace msloc
