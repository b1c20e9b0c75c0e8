#include "map.h"

#include <algorithm>

#include "highest.h"

namespace msloc {

Layer::Layer(Size grid, Size input)
    : grid_(grid), rows_(input.height), columns_(input.width), tops_(static_cast<std::size_t>(grid.height)) {
  for (std::vector<float>& line : lines_) line.resize(static_cast<std::size_t>(input.width));
}

Layer Layer::of_cells(Size grid, Size input) {
  Layer layer(grid, input);
  layer.rows_.set_linear(grid.height, input.height);
  layer.columns_.set_linear(grid.width, input.width);
  return layer;
}

Layer Layer::of_knots(Size grid, Size input) {
  Layer layer(grid, input);
  layer.rows_.set_knots(grid.height, input.height);
  layer.columns_.set_knots(grid.width, input.width);
  layer.pairs_ = input.width == 2 * (grid.width - 1);
  return layer;
}

void Layer::set(const float* values, float weight, const Patch& patch) noexcept {
  values_ = values;
  weight_ = weight;
  patch_ = patch;
  std::fill(held_, held_ + 2, -1);
  const Span* across = columns_.spans() + patch.left;
  const int first = across[0].first;
  const int count = across[patch.width - 1].last + 1 - first;
  for (int i = rows_at(0).first; i <= rows_at(patch.height - 1).last; ++i)
    tops_[static_cast<std::size_t>(i)] = weight * highest(values + i * grid_.width + first, count);
}

float Layer::bound(int y) const noexcept {
  const Span& span = rows_at(y);
  return span.first_weight * tops_[static_cast<std::size_t>(span.first)] +
         span.last_weight * tops_[static_cast<std::size_t>(span.last)];
}

void Layer::write_row(int y, float* out) noexcept {
  make_row(y, [out](int x, float value) noexcept { out[x] = value; });
}

void Layer::add_row(int y, float* out) noexcept {
  make_row(y, [out](int x, float value) noexcept { out[x] += value; });
}

/// Calls store(x, value) for each pixel of row y.
template <class Store>
void Layer::make_row(int y, const Store& store) noexcept {
  const Span& span = rows_at(y);
  const float* above = line(span.first);
  const float* below = line(span.last);
  const float first = span.first_weight;
  const float last = span.last_weight;
  for (int x = 0; x < patch_.width; ++x) store(x, first * above[x] + last * below[x]);
}

/// Row i of the values, enlarged along itself.
const float* Layer::line(int i) noexcept {
  float* line = lines_[i & 1].data();
  if (held_[i & 1] != i) {
    held_[i & 1] = i;
    enlarge(values_ + i * grid_.width, line);
  }
  return pairs_ ? line + (patch_.left & 1) : line;
}

void Layer::enlarge(const float* values, float* line) const noexcept {
  if (pairs_) {
    const int begin = patch_.left / 2;
    const int end = (patch_.left + patch_.width + 1) / 2;
    const float near = 0.75F * weight_;
    const float far = 0.25F * weight_;
    for (int i = begin; i < end; ++i, line += 2) {
      line[0] = near * values[i] + far * values[i + 1];
      line[1] = far * values[i] + near * values[i + 1];
    }
  } else {
    const Span* across = columns_.spans() + patch_.left;
    for (int x = 0; x < patch_.width; ++x)
      line[x] = weight_ * (across[x].first_weight * values[across[x].first] +
                           across[x].last_weight * values[across[x].last]);
  }
}

Map::Map(const Bundle& bundle) : bundle_(bundle), row_(static_cast<std::size_t>(bundle.input.width)) {
  if (Knots::suit(bundle)) {
    knots_.emplace(bundle);
    layers_.push_back(Layer::of_knots(Knots::size(bundle), bundle.input));
  } else {
    for (const Stage& stage : bundle.stages) layers_.push_back(Layer::of_cells(stage, bundle.input));
  }
}

void Map::set(const Engine& engine, int k, const Patch& patch) noexcept {
  patch_ = patch;
  if (knots_) {
    layers_.front().set(knots_->add_stages(engine, k), 1, patch);
  } else {
    const float* weights = &bundle_.relevance[static_cast<std::size_t>(k) * bundle_.stages.size()];
    for (std::size_t s = 0; s < layers_.size(); ++s) {
      const Stage& grid = bundle_.stages[s];
      const float* cells = engine.cams(static_cast<int>(s)) + static_cast<std::ptrdiff_t>(k) * grid.width * grid.height;
      layers_[s].set(cells, weights[s], patch);
    }
  }
}

float Map::bound(int y) const noexcept {
  float sum = 0;
  for (const Layer& layer : layers_) sum += layer.bound(y);
  return sum;
}

const float* Map::row(int y) noexcept {
  layers_.front().write_row(y, row_.data());
  for (std::size_t s = 1; s < layers_.size(); ++s) layers_[s].add_row(y, row_.data());
  return row_.data();
}

}  // namespace msloc
