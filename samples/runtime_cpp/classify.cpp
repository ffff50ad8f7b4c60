// classify BUNDLE FILE...: proves a bundle of edgeft, then prints one line of JSON for each file: a binary PPM (P6) of
// the model's own size, or of a text model token ids with white space between. The contract is in docs/runtime.md.

#include <onnxruntime_cxx_api.h>
#include <openssl/sha.h>

#include <algorithm>
#include <fstream>
#include <iostream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <sstream>

using Json = nlohmann::json;

static std::string read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error(path + ": cannot be read");
  return {std::istreambuf_iterator<char>(file), {}};
}

static void prove(const std::string& name, const std::string& bytes, const Json& digest) {
  unsigned char found[SHA256_DIGEST_LENGTH];
  SHA256(reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size(), found);
  std::string hex;
  for (unsigned char byte : found) (hex += "0123456789abcdef"[byte >> 4]) += "0123456789abcdef"[byte & 15];
  if (hex != digest) throw std::runtime_error(name + " is damaged: sha256 " + hex);
}

// The highest score, or the thresholds on badness = 1 - score of the class of good parts.
static Json decide(const std::vector<float>& scores, const Json& classes, const Json& rule) {
  const bool threshold = rule.at("method") == "threshold";
  const auto ok = threshold ? std::find(classes.begin(), classes.end(), rule.at("ok")) : classes.end();
  const size_t good = ok - classes.begin();
  size_t best = good == 0;
  for (size_t i = 0; i < scores.size(); ++i)
    if (i != good && scores[i] > scores[best]) best = i;
  const double badness = threshold ? 1.0 - double(scores.at(good)) : 1.0;
  const bool passes = threshold && badness < rule.at("stop_at");
  const bool review = threshold && !passes && badness < rule.at("sure_at");
  const size_t index = passes ? good : best;
  Json by_class;
  for (size_t i = 0; i < scores.size(); ++i) by_class[classes[i].get<std::string>()] = scores[i];
  const float score = scores[index];
  return {{"label", classes[index]}, {"index", index}, {"score", score}, {"review", review}, {"scores", by_class}};
}

static Json classify(Ort::Session& session, const Json& manifest, const std::string& input) {
  static const auto memory = Ort::MemoryInfo::CreateCpu(OrtDeviceAllocator, OrtMemTypeDefault);
  const Json &want = manifest.at("input"), &classes = manifest.at("classes");
  std::istringstream stream(input);
  std::vector<const char*> names{"pixels"};
  std::vector<Ort::Value> feeds;
  std::vector<uint8_t> pixels;
  std::vector<int64_t> tokens[3];
  if (want.value("kind", "") == "text") {
    if (want.at("pair")) throw std::runtime_error("this program knows no pairs of texts");
    tokens[0].assign(std::istream_iterator<int64_t>(stream), {});
    tokens[1].assign(tokens[0].size(), 1), tokens[2].assign(tokens[0].size(), 0);
    names = {"input_ids", "attention_mask", "token_type_ids"};
    names.resize(want.at("types") ? 3 : 2);
    const int64_t shape[]{1, int64_t(tokens[0].size())};
    for (size_t i = 0; i < names.size(); ++i)
      feeds.push_back(Ort::Value::CreateTensor<int64_t>(memory, tokens[i].data(), tokens[i].size(), shape, 2));
  } else {
    std::string magic, width, height, levels;
    stream >> magic >> width >> height >> levels;
    stream.get();  // one white space ends the head
    pixels.assign(std::istreambuf_iterator<char>(stream), {});
    const int64_t shape[]{1, want.at("height"), want.at("width"), 3};
    if (magic + " " + levels != "P6 255" || std::stoll(width) != shape[2] || std::stoll(height) != shape[1] ||
        int64_t(pixels.size()) != shape[1] * shape[2] * 3)
      throw std::runtime_error("expected a binary PPM of the model's own size");
    feeds.push_back(Ort::Value::CreateTensor<uint8_t>(memory, pixels.data(), pixels.size(), shape, 4));
  }
  const char* output = "scores";
  const auto found = session.Run({}, names.data(), feeds.data(), feeds.size(), &output, 1);
  const size_t count = found[0].GetTensorTypeAndShapeInfo().GetElementCount();
  if (count != classes.size()) throw std::runtime_error("expected one score for each class");
  const float* scores = found[0].GetTensorData<float>();
  return decide({scores, scores + count}, classes, manifest.at("decision"));
}

// The manifest without white space between its parts and without its own digest: numbers keep the spelling they have.
std::string canonical(const std::string& text, const std::string& digest) {
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

int main(int count, char** arguments) try {
  if (count < 3) throw std::runtime_error("usage: classify BUNDLE FILE...");
  const std::string folder = std::string(arguments[1]) + "/";
  const std::string text = read(folder + "manifest.json");
  const Json manifest = Json::parse(text);
  if (manifest.at("schema") != 1) throw std::runtime_error("manifest.json: this program reads schema 1");
  const std::string self = manifest.at("self_digest");
  prove("manifest.json", canonical(text, self), self);
  std::string model;
  for (const char* key : {"files", "evidence"})
    for (const auto& [name, digest] : manifest.at(key).items()) {
      std::string bytes = read(folder + name);
      prove(name, bytes, digest);
      if (name == manifest.at("model")) model = std::move(bytes);
    }
  Ort::Env environment(ORT_LOGGING_LEVEL_ERROR, "edgeft");
  Ort::SessionOptions options;
  options.SetIntraOpNumThreads(1);
  Ort::Session session(environment, model.data(), model.size(), options);
  for (int i = 2; i < count; ++i) std::cout << classify(session, manifest, read(arguments[i])) << "\n";
} catch (const std::exception& error) {
  std::cerr << "classify: " << error.what() << "\n";
  return 1;
}
