// What the example classifies: RGB pixels of a binary PPM (P6, 255 levels), else token ids with white space between.
#pragma once

#include <sstream>

#include "bundle.hpp"

struct Input {
  std::vector<uint8_t> pixels;
  std::vector<int64_t> ids;
};

inline Input parse(const std::string& bytes, const Json& want) {
  std::istringstream input(bytes);
  Input found;
  if (want.value("kind", "") == "text") {
    if (want.at("pair")) throw std::runtime_error("this program knows no pairs of texts");
    found.ids.assign(std::istream_iterator<int64_t>(input), {});
    return found;
  }
  const int64_t height = want.at("height"), width = want.at("width");
  std::string magic, columns, rows, levels;
  input >> magic >> columns >> rows >> levels;
  input.get();  // one white space ends the head
  found.pixels.assign(std::istreambuf_iterator<char>(input), {});
  if (magic + " " + levels != "P6 255" || columns != std::to_string(width) || rows != std::to_string(height) ||
      int64_t(found.pixels.size()) != height * width * 3)
    throw std::runtime_error("expected a binary PPM of " + std::to_string(width) + " x " + std::to_string(height));
  return found;
}
