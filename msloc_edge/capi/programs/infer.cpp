// msloc-infer: films to result lines and overlays, without Python. Exit status: 0 all films localized, 1 some refused
// (each named on stderr with its reason), 2 usage.
#include <getopt.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <msloc_edge.hpp>
#include <tuple>

#include "film_file.h"
#include "installed.h"
#include "overlay.h"
#include "result_line.h"
#include "sha256.h"

namespace {

using msloc_edge::Error;
using msloc_edge::Expected;
using msloc_edge::Result;

constexpr const char* kUsage = R"(usage: msloc-infer [OPTION]... FILM...
A film is a DICOM file, a binary PGM, or with --raw a frame without a header. One line of JSON for each on stdout.

  --bundle DIR            the model; otherwise the SDK's own
  --profile NAME          which thresholds decide; otherwise the bundle's default
  --engine NAME           openvino (default) or tensorrt
  --device NAME           as the engine names it
  --cache DIR             where the engine keeps, or finds, compiled models
  --threads N             for all that is computed; otherwise one for each core
  --out DIR               write DIR/FILM.overlay.png, too
  --all-classes           boxes also of negative classes
  --raw WIDTHxHEIGHT:BITS little-endian samples in packed rows, of one byte up to 8 bits, else of two: 2500x3000:12
  --window CENTER,WIDTH   of raw frames and PGM (DICOM PS3.3 C.11.2.1.2.1); otherwise the full range of the bits
  --monochrome1           raw frames and PGM: the lowest value is white
)";

/// The command line.
struct Arguments {
  msloc_edge::Options options;
  msloc_edge::Request request;
  std::string out;
  std::optional<RawShape> raw;
  std::optional<std::pair<double, double>> window;
  bool monochrome1 = false;
  std::vector<std::string> films;
};

std::optional<std::pair<double, double>> parse_window(const char* text) {
  std::pair<double, double> window;
  char rest = 0;
  if (std::sscanf(text, "%lf,%lf%c", &window.first, &window.second, &rest) != 2) return {};
  return window;
}

/// Whether an option's value could be taken.
bool take(Arguments& arguments, char option, const char* value) {
  switch (option) {
    case 'b': return arguments.options.bundle = value, true;
    case 'p': return arguments.options.profile = value, true;
    case 'e': return arguments.options.engine = value, true;
    case 'd': return arguments.options.device = value, true;
    case 'c': return arguments.options.cache_folder = value, true;
    case 't': return std::sscanf(value, "%u", &arguments.options.threads) == 1;
    case 'o': return arguments.out = value, true;
    case 'a': return arguments.request.all_classes = true;
    case 'r': return (arguments.raw = RawShape::parse(value)).has_value();
    case 'w': return (arguments.window = parse_window(value)).has_value();
    case 'm': return arguments.monochrome1 = true;
    default: return false;
  }
}

std::optional<Arguments> parse(int argc, char** argv) {
  constexpr int value = required_argument;
  static const option known[] = {{"bundle", value, nullptr, 'b'},
                                 {"profile", value, nullptr, 'p'},
                                 {"engine", value, nullptr, 'e'},
                                 {"device", value, nullptr, 'd'},
                                 {"cache", value, nullptr, 'c'},
                                 {"threads", value, nullptr, 't'},
                                 {"out", value, nullptr, 'o'},
                                 {"raw", value, nullptr, 'r'},
                                 {"window", value, nullptr, 'w'},
                                 {"all-classes", no_argument, nullptr, 'a'},
                                 {"monochrome1", no_argument, nullptr, 'm'},
                                 {}};
  Arguments arguments;
  arguments.options.bundle = installed_bundle();
  for (int found; (found = getopt_long(argc, argv, "", known, nullptr)) != -1;)
    if (!take(arguments, static_cast<char>(found), optarg)) return {};
  arguments.films.assign(argv + optind, argv + argc);
  if (arguments.films.empty()) return {};
  return arguments;
}

Expected<std::string> content_of(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  std::string content{std::istreambuf_iterator<char>(stream), {}};
  std::error_code unknown;
  if (!stream.is_open() || stream.bad() || !std::filesystem::is_regular_file(path, unknown))
    return Error{MSLOC_UNREADABLE, "expected a readable file, got none; check the path"};
  return content;
}

Expected<Result> localize(msloc_edge::Localizer& localizer, const Arguments& arguments, const std::string& path,
                          const std::string& content) {
  if (!arguments.raw && !is_pgm(content)) return localizer.localize_dicom(path, arguments.request);
  const auto film = arguments.raw ? read_raw(content, *arguments.raw) : read_pgm(content);
  if (!film) return film.error();
  msloc_pixels pixels = film->pixels();
  if (arguments.monochrome1) pixels.photometric = MSLOC_MONOCHROME1;
  if (arguments.window) {
    pixels.voi = MSLOC_VOI_LINEAR;
    std::tie(pixels.window_center, pixels.window_width) = *arguments.window;
  }
  return localizer.localize(pixels, arguments.request);
}

/// One film, with what is written of it.
Expected<bool> infer(msloc_edge::Localizer& localizer, const Run& run, const Arguments& arguments,
                     const std::string& path) {
  const auto content = content_of(path);
  if (!content) return content.error();
  const auto result = localize(localizer, arguments, path, *content);
  if (!result) return result.error();
  std::puts(result_line(run, path, msloc::sha256(*content), *result).c_str());
  std::fflush(stdout);
  if (arguments.out.empty()) return true;
  std::error_code exists;
  std::filesystem::create_directories(arguments.out, exists);
  const std::string name = std::filesystem::path(path).stem().string() + ".overlay.png";
  return write_overlay(localizer, *result, (std::filesystem::path(arguments.out) / name).string());
}

Expected<Run> run_of(msloc_edge::Localizer& localizer) {
  const auto model = localizer.model();
  if (!model) return model.error();
  Run run{*model, {}};
  for (std::uint32_t k = 0; k < model->classes; ++k) {
    auto weights = localizer.relevance(k);
    if (!weights) return weights.error();
    run.relevance.push_back(*std::move(weights));
  }
  return run;
}

int report(const std::string& what, const Error& error) {
  std::fprintf(stderr, "%s: %s: %s\n", what.c_str(), error.name(), error.sentence.c_str());
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  const auto arguments = parse(argc, argv);
  if (!arguments) return std::fputs(kUsage, stderr), 2;
  auto localizer = msloc_edge::Localizer::open(arguments->options);
  if (!localizer) return report(arguments->options.bundle, localizer.error());
  const auto run = run_of(*localizer);
  if (!run) return report(arguments->options.bundle, run.error());
  int status = 0;
  for (const std::string& film : arguments->films)
    if (const auto done = infer(*localizer, *run, *arguments, film); !done) status = report(film, done.error());
  return status;
}
