// The localization map of one class, M_k = sum_s w_{k,s} up(A_{k,s}): rows of pixels, made when they are looked at.
//
// A map of knots is one layer; where the stages of a bundle have no common knots, each of them is one.
#pragma once

#include <optional>
#include <vector>

#include "bundle.h"
#include "engine.h"
#include "knots.h"
#include "resample.h"

namespace msloc {

/// Values on a grid, enlarged to the model's input linearly along both axes. Memory is made once.
class Layer {
 public:
  /// Pixels between the centres of cells, as `up` of a stage.
  static Layer of_cells(Size grid, Size input);
  /// Pixels between knots that lie from edge to edge.
  static Layer of_knots(Size grid, Size input);

  /// Takes values [grid.height, grid.width], which stay where they are, for a patch of the input.
  void set(const float* values, float weight, const Patch& patch) noexcept;

  /// No pixel of row y of the patch is higher, but for rounding.
  [[nodiscard]] float bound(int y) const noexcept;

  /// Row y of the patch, or what it adds to a row: out [patch.width].
  void write_row(int y, float* out) noexcept;
  void add_row(int y, float* out) noexcept;

 private:
  Layer(Size grid, Size input);

  template <class Store>
  void make_row(int y, const Store& store) noexcept;
  const float* line(int i) noexcept;
  void enlarge(const float* values, float* line) const noexcept;
  [[nodiscard]] const Span& rows_at(int y) const noexcept { return rows_.spans()[patch_.top + y]; }

  Size grid_;
  Axis rows_;
  Axis columns_;
  bool pairs_ = false;  // of pixels between knots: all their weights are quarters
  const float* values_ = nullptr;
  float weight_ = 0;
  Patch patch_{};
  std::vector<float> tops_;      // the highest value of each row, weighted
  std::vector<float> lines_[2];  // rows enlarged along themselves: an even and an odd one
  int held_[2]{};                // which these are
};

/// The map M_k over a patch of the model's input, logit units. Memory is made once.
class Map {
 public:
  explicit Map(const Bundle& bundle);

  /// Becomes the map of class k of the last film.
  void set(const Engine& engine, int k, const Patch& patch) noexcept;

  [[nodiscard]] int width() const noexcept { return patch_.width; }
  [[nodiscard]] int height() const noexcept { return patch_.height; }

  /// No pixel of row y is higher, but for rounding; NaN where that cannot be said.
  [[nodiscard]] float bound(int y) const noexcept;

  /// Row y: [width]. It lives until the next call.
  const float* row(int y) noexcept;

 private:
  const Bundle& bundle_;
  std::optional<Knots> knots_;
  std::vector<Layer> layers_;
  Patch patch_{};
  std::vector<float> row_;
};

}  // namespace msloc
