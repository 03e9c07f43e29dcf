// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "ashlar/core/parameters.hpp"

namespace ashlar {
inline namespace v0 {

// The tensors of a checkpoint. `path` is a directory that holds model.safetensors, or else
// model.safetensors.index.json and its shards, or else pytorch_model.bin, or else its index and shards; or an
// index (*.json) with its shards beside it; or a file: of torch.save if its name ends in .pth, .pt, .bin or
// .ckpt, of safetensors if in .safetensors, otherwise whichever of the two its first bytes are. Of a torch
// file, the tensors that PthFile::parameters() finds. Error("FileNotFound") says what was looked for.
std::shared_ptr<const Parameters> open_checkpoint(const std::string& path);

// The tensors of an index, {"weight_map": {tensor: shard}}; `open` gives the shard of a name, and `what` is
// what messages call the index. Tensors that the index does not list are not there. Error kinds:
// InvalidIndex; InvalidShardName for a name that is not that of a file beside the index; TensorNotFound for a
// tensor that its shard lacks; DuplicateTensor for one that two shards hold.
using OpenShard = std::function<std::shared_ptr<const Parameters>(const std::string& name)>;
std::shared_ptr<const Parameters> open_sharded(std::string_view index, std::string_view what,
                                               const OpenShard& open);

}  // namespace v0
}  // namespace ashlar
