// Tables and checks of films against values worked by hand from DICOM PS3.3; as tests/imaging/test_dicom.py.
#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <vector>

#include "check.h"
#include "failure.h"
#include "film.h"
#include "window.h"

namespace {

using namespace msloc;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

msloc_pixels film(int voi = MSLOC_VOI_FULL_RANGE, double center = 0, double width = 0) {
  msloc_pixels pixels = MSLOC_PIXELS_INIT;
  pixels.bits_allocated = 16;
  pixels.bits_stored = 12;
  pixels.voi = static_cast<std::uint32_t>(voi);
  pixels.window_center = center;
  pixels.window_width = width;
  return pixels;
}

/// Expected brightness by stored value, perhaps negative.
void expect(const msloc_pixels& pixels, int bits, const std::map<int, double>& expected, const std::string& what) {
  std::vector<float> table(std::size_t{1} << bits);
  make_table(pixels, bits, table.data());
  for (const auto& [value, brightness] : expected) {
    const auto entry = static_cast<std::size_t>(value & ((1 << bits) - 1));
    check(std::abs(static_cast<double>(table[entry]) - brightness) < 1e-6, what + " at " + std::to_string(value));
  }
}

msloc_status status_of(const std::function<void()>& work) {
  try {
    work();
    return MSLOC_OK;
  } catch (const Failure& failure) {
    return failure.status();
  }
}

void test_windows() {
  expect(film(MSLOC_VOI_LINEAR, 100, 200), 12, {{0, 0}, {50, 50 / 199.}, {100, 100 / 199.}, {199, 1}, {200, 1}},
         "LINEAR");
  expect(film(MSLOC_VOI_LINEAR_EXACT, 100, 200), 12, {{0, 0}, {50, 0.25}, {100, 0.5}, {200, 1}}, "LINEAR_EXACT");
  expect(film(MSLOC_VOI_SIGMOID, 100, 200), 12, {{0, 0.1192029}, {50, 0.2689414}, {100, 0.5}, {200, 0.8807971}},
         "SIGMOID");
  expect(film(MSLOC_VOI_LINEAR, 100, 1), 12, {{99, 0}, {100, 1}}, "a window of one value");
  expect(film(MSLOC_VOI_LINEAR_EXACT, 100, 0.5), 12, {{99, 0}, {100, 0.5}, {101, 1}}, "a window below one value");
  expect(film(), 12, {{0, 0}, {819, 0.2}, {4095, 1}}, "full range");
  expect(film(), 1, {{0, 0}, {1, 1}}, "one bit");
}

void test_sign_rescale_and_polarity() {
  msloc_pixels pixels = film();
  pixels.is_signed = 1;
  expect(pixels, 12, {{-2048, 0}, {0, 2048 / 4095.}, {2047, 1}}, "signed full range");
  pixels.photometric = MSLOC_MONOCHROME1;
  expect(pixels, 12, {{-2048, 1}, {2047, 0}}, "negative full range");

  pixels = film(MSLOC_VOI_LINEAR, 0.5, 2001);
  pixels.rescale_slope = 2;
  pixels.rescale_intercept = -1000;
  expect(pixels, 12, {{0, 0}, {500, 0.5}, {750, 0.75}, {1000, 1}, {4095, 1}}, "rescale");
  pixels = film();
  pixels.rescale_slope = -1;
  expect(pixels, 12, {{0, 1}, {4095, 0}}, "a negative slope turns the film over");
  pixels = film(MSLOC_VOI_LINEAR, 100.5, 201);
  pixels.photometric = MSLOC_MONOCHROME1;
  expect(pixels, 12, {{0, 1}, {50, 0.75}, {100, 0.5}, {200, 0}}, "inverted after the window");
}

void test_refused_windows() {
  std::vector<float> table(4096);
  const auto refused = [&](msloc_pixels pixels) {
    return status_of([&] { make_table(pixels, 12, table.data()); }) == MSLOC_BAD_WINDOW;
  };
  check(refused(film(MSLOC_VOI_LINEAR, kNan, 100)), "NaN as center");
  check(refused(film(MSLOC_VOI_SIGMOID, 5, kNan)), "NaN as width");
  check(refused(film(MSLOC_VOI_LINEAR, 5, HUGE_VAL)), "an endless window");
  check(refused(film(MSLOC_VOI_LINEAR, 5, 0.5)), "LINEAR below 1");
  check(refused(film(MSLOC_VOI_LINEAR_EXACT, 5, 0)), "a width of 0");
  check(refused(film(MSLOC_VOI_TABLE)), "no table");
  msloc_pixels pixels = film();
  pixels.rescale_slope = 0;
  check(refused(pixels), "a slope of 0");
  pixels.rescale_slope = kNan;
  check(refused(pixels), "NaN as slope");

  std::vector<float> own(4096, 0.5F);
  pixels = film(MSLOC_VOI_TABLE);
  pixels.table = own.data();
  pixels.table_size = 4095;
  check(refused(pixels), "a table that is too short");
  pixels.table_size = 4096;
  check(!refused(pixels) && table[17] == 0.5F, "a table of the caller's");
  own[4095] = 1.01F;
  check(refused(pixels), "brighter than white");
  own[4095] = std::numeric_limits<float>::quiet_NaN();
  check(refused(pixels), "NaN in a table");
}

void test_films() {
  std::vector<std::uint16_t> samples(std::size_t{40} * 50 + 1);
  msloc_pixels good = film();
  good.width = 40;
  good.height = 50;
  good.data = samples.data();
  good.data_size = 2 * 40 * 50;
  const auto status = [&](const std::function<void(msloc_pixels&)>& change, std::uint64_t max_pixels = 2000) {
    msloc_pixels pixels = good;
    change(pixels);
    return status_of([&] { check_film(pixels, max_pixels); });
  };
  check(status([](auto&) {}) == MSLOC_OK, "a good film");
  check(status([](auto&) {}, 1999) == MSLOC_TOO_LARGE, "more than max_pixels");
  check(status([](auto& p) { p.width = p.height = UINT32_MAX; }) == MSLOC_TOO_LARGE, "sizes that overflow");
  check(status([](auto& p) { p.width = 0; }) == MSLOC_TOO_SMALL, "no width");
  check(status([](auto& p) { p.height = 31; }) == MSLOC_TOO_SMALL, "31 rows");
  check(status([](auto& p) { p.data = nullptr; }) == MSLOC_ARGUMENT, "no pixels");
  check(status([](auto& p) { p.data = reinterpret_cast<const char*>(p.data) + 1; }) == MSLOC_ARGUMENT, "odd address");
  check(status([](auto& p) { p.data_size -= 1; }) == MSLOC_ARGUMENT, "a byte is missing");
  check(status([](auto& p) { p.row_stride = 79; }) == MSLOC_ARGUMENT, "a stride below one row");
  check(status([](auto& p) { p.row_stride = 81; }) == MSLOC_ARGUMENT, "half a sample in the stride");
  check(status([](auto& p) { p.row_stride = 82; }) == MSLOC_ARGUMENT, "a stride that does not fit the data");
  check(status([](auto& p) { p.row_stride = UINT64_MAX - 1; }) == MSLOC_ARGUMENT, "a stride that overflows");
  check(status([](auto& p) { p.bits_allocated = 12; }) == MSLOC_ARGUMENT, "12 bits allocated");
  check(status([](auto& p) { p.bits_stored = 17; }) == MSLOC_ARGUMENT, "17 bits stored");
  check(status([](auto& p) { p.voi = 5; }) == MSLOC_ARGUMENT, "an unknown window function");
  check(status([](auto& p) { p.photometric = 2; }) == MSLOC_ARGUMENT, "an unknown photometric interpretation");
  check(status([](auto& p) { p.is_signed = 2; }) == MSLOC_ARGUMENT, "neither signed nor unsigned");
  msloc_pixels last = good;  // the last row needs no padding behind it
  last.height = 40;
  last.row_stride = 96;
  last.data_size = 39 * 96 + 80;
  check(check_film(last, 2000).stride == 96, "the last row may end the data");
}

}  // namespace

int main() {
  test_windows();
  test_sign_rescale_and_polarity();
  test_refused_windows();
  test_films();
  return finish();
}
