// Kernels that were compiled ahead of time: kernels.json, and the files that it names. As msloc_edge/cuda/compiled.py.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "geometry.h"

namespace msloc {

/// The reason why kernels cannot be used: what was expected, what came, what to do.
struct KernelUnusable : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// A number that a launch has by name: an address on the device, a whole number of 32 bits, or a part of a grid rule.
struct Value {
  const char* name;
  std::uint64_t number;
};
using Values = std::initializer_list<Value>;

/// The value of a name. Throws KernelUnusable where there is none.
std::uint64_t value_of(const std::string& name, Values values);

/// Rule for tile_h, the rows of a map that one program computes: the first of `heights` that makes `min_programs`
/// programs, else the last.
struct TileRule {
  std::vector<int> heights;
  int min_programs;

  /// tile_h for a number of maps, by programs of `columns` columns.
  [[nodiscard]] int tile_h(int maps, Size map, int columns) const noexcept;
};

/// An entry of kernels.json with the verified bytes of its best file for one device: a cubin, or PTX.
struct Compiled {
  std::string name;                    // operation and variant: fuse_cams.peaks
  std::string entry;                   // name of the function in the image
  std::vector<std::string> arguments;  // names, in the order of the launch: pointers, and whole numbers of 32 bits
  std::array<std::string, 3> grid;     // rules for blocks along x, y, z
  unsigned block;                      // threads
  unsigned shared;                     // bytes of dynamic shared memory
  std::optional<TileRule> tile;
  std::string image;
};

/// The fp32 kernels of a folder that `python -m msloc_edge.kernels.aot` has filled.
class KernelFolder {
 public:
  /// Throws KernelUnusable where kernels.json cannot be read.
  explicit KernelFolder(std::string folder);

  /// A kernel by its name for a device: the cubin of exactly its compute capability, else the portable PTX.
  /// Throws KernelUnusable.
  [[nodiscard]] Compiled pick(const std::string& name, int sm) const;

 private:
  /// An entry whose file is not read yet.
  struct Listed {
    Compiled kernel;
    int sm;
    bool portable;
    std::string file, sha256;
  };

  [[nodiscard]] const Listed& best(const std::string& name, int sm) const;

  std::string folder_;
  std::vector<Listed> kernels_;
};

/// The blocks along one axis by a grid rule: names, whole numbers, + - * // and cdiv(a, b), which rounds up. Throws
/// KernelUnusable for anything else.
std::uint32_t blocks(const std::string& rule, Values values);

}  // namespace msloc
