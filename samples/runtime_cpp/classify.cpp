// classify BUNDLE FILE...: proves a bundle of edgeft, then prints one line of JSON for each file: a binary PPM (P6) of
// the model's own size, or of a text model token ids with white space between. The contract is in docs/runtime.md.
#include <onnxruntime_cxx_api.h>
#include <iostream>

#include "input.hpp"

// The highest score, or the thresholds on badness = 1 - score of the class of good parts.
static Json decide(const float* scores, const Json& classes, const Json& rule) {
  const bool threshold = rule.at("method") == "threshold";
  const size_t good = threshold ? std::find(classes.begin(), classes.end(), rule.at("ok")) - classes.begin() : -1;
  size_t best = good == 0;
  Json by_class;
  for (size_t i = 0; i < classes.size(); ++i) {
    by_class[classes[i].get<std::string>()] = scores[i];
    if (i != good && scores[i] > scores[best]) best = i;
  }
  const double badness = threshold ? 1.0 - double(scores[good]) : 1.0;
  const bool passes = threshold && badness < rule.at("stop_at");
  const bool review = threshold && !passes && badness < rule.at("sure_at");
  const size_t index = passes ? good : best;
  return {{"label", classes[index]}, {"index", index}, {"score", scores[index]}, {"review", review}, {"scores", by_class}};
}

static Json classify(Ort::Session& session, const Json& manifest, Input input) {
  static const auto memory = Ort::MemoryInfo::CreateCpu(OrtDeviceAllocator, OrtMemTypeDefault);
  const Json &want = manifest.at("input"), &classes = manifest.at("classes");
  std::vector<int64_t> ones(input.ids.size(), 1), zeros(input.ids.size(), 0);
  std::vector<const char*> names{"pixels"};
  std::vector<Ort::Value> feeds;
  if (want.value("kind", "") != "text") {
    const int64_t shape[]{1, want.at("height"), want.at("width"), 3};
    feeds.push_back(Ort::Value::CreateTensor(memory, input.pixels.data(), input.pixels.size(), shape, 4));
  } else {
    const int64_t shape[]{1, int64_t(input.ids.size())};
    names = {"input_ids", "attention_mask", "token_type_ids"};
    names.resize(want.at("types") ? 3 : 2);
    for (auto* tokens : {&input.ids, &ones, &zeros})
      feeds.push_back(Ort::Value::CreateTensor(memory, tokens->data(), tokens->size(), shape, 2));
  }
  const char* output = "scores";
  const auto found = session.Run({}, names.data(), feeds.data(), names.size(), &output, 1);
  const size_t count = found[0].GetTensorTypeAndShapeInfo().GetElementCount();
  if (count != classes.size()) throw std::runtime_error("expected one score for each class");
  return decide(found[0].GetTensorData<float>(), classes, manifest.at("decision"));
}

int main(int count, char** arguments) try {
  if (count < 3) throw std::runtime_error("usage: classify BUNDLE FILE...");
  const Bundle bundle = open_bundle(arguments[1]);
  Ort::Env environment(ORT_LOGGING_LEVEL_ERROR, "edgeft");
  Ort::SessionOptions options;
  options.SetIntraOpNumThreads(1);
  Ort::Session session(environment, bundle.model.data(), bundle.model.size(), options);
  for (int i = 2; i < count; ++i)
    std::cout << classify(session, bundle.manifest, parse(read(arguments[i]), bundle.manifest.at("input"))) << "\n";
} catch (const std::exception& error) {
  std::cerr << "classify: " << error.what() << "\n";
  return 1;
}
