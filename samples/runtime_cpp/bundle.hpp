// A bundle of edgeft, proven: every file is listed, every listed file has its digest, and only then is the model used.
// The contract is in docs/runtime.md.
#pragma once

#include <openssl/sha.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>

using Json = nlohmann::json;

struct Bundle {
  Json manifest;
  std::string model;
};

inline std::string read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error(path + ": cannot be read");
  return {std::istreambuf_iterator<char>(file), {}};
}

inline void prove(const std::string& name, const std::string& bytes, const Json& digest) {
  unsigned char found[SHA256_DIGEST_LENGTH];
  SHA256(reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size(), found);
  std::string hex;
  for (unsigned char byte : found) (hex += "0123456789abcdef"[byte >> 4]) += "0123456789abcdef"[byte & 15];
  if (hex != digest) throw std::runtime_error(name + " is damaged: sha256 " + hex);
}

// The manifest without white space between its parts and without its own digest: numbers keep the spelling they have.
inline std::string canonical(const std::string& text, const std::string& digest) {
  std::string dense;
  bool quoted = false;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '"') quoted = !quoted;
    if (quoted || !std::isspace(static_cast<unsigned char>(text[i]))) dense += text[i];
    if (quoted && text[i] == '\\') dense += text[++i];
  }
  const std::string own = ",\"self_digest\":\"" + digest + "\"";
  return dense.erase(dense.find(own), own.size());
}

inline Bundle open_bundle(const std::string& folder) {
  const std::string text = read(folder + "/manifest.json");
  Bundle found{Json::parse(text), {}};
  if (found.manifest.at("schema") != 1) throw std::runtime_error("manifest.json: this program reads schema 1");
  const std::string self = found.manifest.at("self_digest");
  prove("manifest.json", canonical(text, self), self);
  Json listed = found.manifest.at("files");
  listed.update(found.manifest.at("evidence"));
  for (const auto& [name, digest] : listed.items()) {
    std::string bytes = read(folder + "/" + name);
    prove(name, bytes, digest);
    if (name == found.manifest.at("model")) found.model = std::move(bytes);
  }
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (name != "manifest.json" && name != "model.sig" && !listed.contains(name))
      throw std::runtime_error(name + " is not listed in manifest.json");
  }
  return found;
}
