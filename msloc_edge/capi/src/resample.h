// Separable resampling, the one operation behind the letterbox and behind the maps.
//
//     out(y, x) += sum_{i, j} v_{y,i} w_{x,j} source(i, j)
//
// v and w are the weights of rows and columns. Along one axis the source pixels of an output pixel are neighbours: one
// with a weight of its own, `middles` of equal weight, and two more with weights of their own. With the same number of
// middles for all output pixels the processor never guesses wrong where a sum ends.
#pragma once

#include <cstddef>
#include <vector>

namespace msloc {

/// The source pixels of one output pixel: first, first + 1 .. first + middles, next, last.
struct Span {
  int first;
  int next;
  int last;
  float first_weight;
  float middle_weight;
  float next_weight;
  float last_weight;
};

/// The spans of one axis; memory for the longest is made once.
class Axis {
 public:
  explicit Axis(int longest) : spans_(static_cast<std::size_t>(longest)) {}

  /// cv2's INTER_AREA: the overlap of [i, i + 1) and [j s, (j + 1) s), over s = source / target >= 1.
  void set_area(int source, int target) noexcept;
  /// cv2's INTER_LINEAR: half-pixel centres, clamped at the edge.
  void set_linear(int source, int target) noexcept;
  /// Linear between source points that lie from edge to edge of the target.
  void set_knots(int source, int target) noexcept;

  [[nodiscard]] int middles() const noexcept { return middles_; }
  [[nodiscard]] const Span* spans() const noexcept { return spans_.data(); }

 private:
  void set_between(int source, int target, double scale, double shift) noexcept;

  std::vector<Span> spans_;
  int middles_ = 0;
};

/// Weighted sum of value(i) over a span.
template <class Value>
inline float weigh(const Span& span, int middles, const Value& value) noexcept {
  float middle = 0;
  for (int i = 1; i <= middles; ++i) middle += value(span.first + i);
  return span.first_weight * value(span.first) + span.middle_weight * middle + span.next_weight * value(span.next) +
         span.last_weight * value(span.last);
}

/// The part of an output that one call makes.
struct Patch {
  int left;
  int top;
  int width;
  int height;
};

/// Adds a patch of the output to `out`, which is the patch's top-left pixel and whose rows lie `stride` floats apart.
///
/// row(i)   source row i: a function from column to value
/// scratch  2 * patch.width floats. A source row that two output rows share is summed up once.
template <class Row>
void resample(const Row& row, const Axis& rows, const Axis& columns, const Patch& patch, float* out,
              std::ptrdiff_t stride, float* scratch) noexcept {
  const Span* across = columns.spans() + patch.left;
  int held[2] = {-1, -1};
  for (int y = 0; y < patch.height; ++y) {
    float* target = out + y * stride;
    const auto add = [&](int i, float weight) noexcept {
      if (weight == 0) return;
      float* line = scratch + (i & 1) * patch.width;
      if (held[i & 1] != i) {
        held[i & 1] = i;
        const auto value = row(i);
        for (int x = 0; x < patch.width; ++x) line[x] = weigh(across[x], columns.middles(), value);
      }
      for (int x = 0; x < patch.width; ++x) target[x] += weight * line[x];
    };
    const Span& span = rows.spans()[patch.top + y];
    add(span.first, span.first_weight);
    int i = span.first + 1;
    const int end = i + rows.middles();
    for (; i + 4 <= end; i += 4) {  // rows of equal weight are added up before they are weighed: a fifth faster
      const auto value = [a = row(i), b = row(i + 1), c = row(i + 2), d = row(i + 3)](int j) noexcept {
        return (a(j) + b(j)) + (c(j) + d(j));
      };
      for (int x = 0; x < patch.width; ++x)
        target[x] += span.middle_weight * weigh(across[x], columns.middles(), value);
    }
    for (; i < end; ++i) add(i, span.middle_weight);
    add(span.next, span.next_weight);
    add(span.last, span.last_weight);
  }
}

}  // namespace msloc
