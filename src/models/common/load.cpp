// SPDX-License-Identifier: Apache-2.0
#include "ashlar/models/load.hpp"

#include "src/models/common/model.hpp"

namespace ashlar {
inline namespace v0 {

std::unique_ptr<DecoderLm<CpuExec>> load_decoder_lm(const Value& config, const Parameters& parameters,
                                                    CpuExec& exec) {
  const std::string type = config.get_string("model_type", "");
  for (const Model* model : models())
    if (model->decoder_lm != nullptr && model->is(type)) return model->decoder_lm(config, parameters, exec);
  std::string known;
  for (const std::string& name : decoder_lm_types()) known.append(known.empty() ? "" : ", ").append(name);
  throw Error("UnknownModel", concat("config: \"model_type\" is \"", type,
                                     "\", expected one of the known language models: ", known));
}

std::vector<std::string> decoder_lm_types() {
  std::vector<std::string> types;
  for (const Model* model : models())
    if (model->decoder_lm != nullptr) {
      types.emplace_back(model->type);
      for (std::string_view other : model->other_types)
        if (!other.empty()) types.emplace_back(other);
    }
  return types;
}

}  // namespace v0
}  // namespace ashlar
