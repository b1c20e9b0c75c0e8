// Findings of one film in C++17: localize_cpp BUNDLE FILM.pgm [PROFILE]
//
// The film is a binary PGM (Netpbm P5) of 8 bits, shown over its full range. One line for each positive class: label,
// score, and x, y, width, height of its strongest box in pixels of the film. Exit status: 0 localized, 1 refused or
// failed (the reason is on stderr), 2 usage.
#include <fstream>
#include <iostream>
#include <msloc_edge.hpp>

namespace {

int fail(const msloc_edge::Error& error) {
  std::cerr << error.name() << ": " << error.sentence << '\n';
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3 && argc != 4) return std::cerr << "usage: " << argv[0] << " BUNDLE FILM.pgm [PROFILE]\n", 2;
  msloc_edge::Options options;
  options.bundle = argv[1];
  options.profile = argc == 4 ? argv[3] : "";
  auto localizer = msloc_edge::Localizer::open(options);
  if (!localizer) return fail(localizer.error());
  if (const auto test = localizer->self_test(); !test) return fail(test.error());  // once, when a device starts

  std::ifstream file(argv[2], std::ios::binary);
  std::string magic;
  std::uint32_t width = 0, height = 0, largest = 0;
  file >> magic >> width >> height >> largest;
  if (!file || magic != "P5" || largest != 255 || width > 65535 || height > 65535) {
    std::cerr << argv[2] << ": no binary PGM of 8 bits can be read from it\n";
    return 1;
  }
  std::vector<std::uint8_t> samples(std::size_t{width} * height);
  file.ignore(1).read(reinterpret_cast<char*>(samples.data()), static_cast<std::streamsize>(samples.size()));

  msloc_edge::Request request;
  request.deadline = std::chrono::seconds(10);
  const auto result = localizer->localize(msloc_edge::pixels(samples.data(), width, height), request);
  if (!result) return fail(result.error());
  for (const msloc_edge::Finding& finding : result->findings) {
    if (!finding.positive) continue;
    const msloc_box& box = finding.boxes.front();  // a positive class has one
    std::cout << finding.label << ' ' << finding.score << ' ' << box.x << ' ' << box.y << ' ' << box.w << ' ' << box.h
              << '\n';
  }
  return 0;
}
