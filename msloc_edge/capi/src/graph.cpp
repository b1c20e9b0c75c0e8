#include "graph.h"

#include <cstdint>

namespace msloc {
namespace {

enum class Kind { model, graph, node, attribute, sparse, tensor };

/// A field of a message of onnx.proto: the message in it, or why it is refused where it is not 0.
struct Rule {
  Kind message;
  std::uint32_t number;
  Kind inside;
  const char* refused;
};

constexpr const char* kOutside = "weights in another file";
constexpr Rule kRules[] = {
    {Kind::model, 7, Kind::graph, nullptr},       {Kind::model, 25, Kind::graph, "functions"},
    {Kind::graph, 1, Kind::node, nullptr},        {Kind::graph, 5, Kind::tensor, nullptr},
    {Kind::graph, 15, Kind::sparse, nullptr},     {Kind::node, 5, Kind::attribute, nullptr},
    {Kind::attribute, 5, Kind::tensor, nullptr},  {Kind::attribute, 6, Kind::graph, "a graph inside a node"},
    {Kind::attribute, 10, Kind::tensor, nullptr}, {Kind::attribute, 11, Kind::graph, "graphs inside a node"},
    {Kind::attribute, 22, Kind::sparse, nullptr}, {Kind::attribute, 23, Kind::sparse, nullptr},
    {Kind::sparse, 1, Kind::tensor, nullptr},     {Kind::sparse, 2, Kind::tensor, nullptr},
    {Kind::tensor, 13, Kind::tensor, kOutside},   {Kind::tensor, 14, Kind::tensor, kOutside},
};
constexpr std::uint64_t kDomain = 7;  // of a node
constexpr const char* kNoOnnx = "something that is no ONNX";
constexpr const char* kForeign = "operators that are not standard";
constexpr std::uint64_t kMaxTag = std::uint64_t{1} << 32;
enum Wire : std::uint64_t { varint = 0, fixed64 = 1, length = 2, fixed32 = 5 };

/// Takes a number of seven bits a byte off the front.
bool take_varint(std::string_view& rest, std::uint64_t& value) noexcept {
  value = 0;
  for (unsigned shift = 0; shift < 70 && !rest.empty(); shift += 7) {
    const auto byte = static_cast<unsigned char>(rest.front());
    rest.remove_prefix(1);
    value |= static_cast<std::uint64_t>(byte & 127U) << shift;
    if (byte < 128) return true;
  }
  return false;
}

/// A field as it lies in a message: a number, or bytes.
struct Field {
  std::uint64_t number;
  std::uint64_t value;  // of a varint; else the length of the bytes
  std::string_view content;
  bool bytes;
};

/// Takes a field off the front.
bool take_field(std::string_view& rest, Field& field) noexcept {
  std::uint64_t tag = 0;
  field = {};
  if (!take_varint(rest, tag) || tag >= kMaxTag) return false;
  field.number = tag >> 3U;
  switch (tag & 7U) {
    case varint: return take_varint(rest, field.value);
    case length:
      if (!take_varint(rest, field.value)) return false;
      break;
    case fixed32: field.value = 4; break;
    case fixed64: field.value = 8; break;
    default: return false;
  }
  if (field.value > rest.size()) return false;
  field.bytes = true;
  field.content = rest.substr(0, field.value);
  rest.remove_prefix(field.value);
  return true;
}

const char* refused_in(Kind kind, std::string_view rest) noexcept;

const char* refused_by(Kind kind, const Field& field) noexcept {
  if (kind == Kind::node && field.number == kDomain &&
      !(field.bytes && (field.content.empty() || field.content == "ai.onnx")))
    return kForeign;
  for (const Rule& rule : kRules) {
    if (rule.message != kind || rule.number != field.number) continue;
    if (rule.refused != nullptr) return field.bytes || field.value != 0 ? rule.refused : nullptr;
    return field.bytes ? refused_in(rule.inside, field.content) : nullptr;
  }
  return nullptr;
}

/// Messages of one kind are never inside each other, so that this goes no deeper than there are kinds.
const char* refused_in(Kind kind, std::string_view rest) noexcept {  // NOLINT(misc-no-recursion)
  while (!rest.empty()) {
    Field field{};
    if (!take_field(rest, field)) return kNoOnnx;
    if (const char* what = refused_by(kind, field)) return what;
  }
  return nullptr;
}

}  // namespace

const char* refused_in_graph(std::string_view model) noexcept { return refused_in(Kind::model, model); }

}  // namespace msloc
