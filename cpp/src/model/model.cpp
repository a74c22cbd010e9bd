#include "model/model.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>

#include "model/tensor_table.h"

namespace dgemma {
namespace {

constexpr size_t kTensorsPerLayer = 32, kModelTensors = 16;  // generous: what the contexts are sized for

}  // namespace

Model::Model(const std::string& path, const Devices& devices) : file_(path), hparams_(read_hparams(file_)) {
    units_.assign(hparams_.layers.size() + 1, devices.cpu_index());
    load(devices);
    fill_info();
    file_.forget_metadata();
}

void Model::place(const Devices& devices, const Placement& placement) {
    units_ = placement.units;
    for (size_t i = 0; i < sizes_.size(); ++i) device_of_[file_.find(sizes_[i].name)] = placement.tensors[i];
    load(devices);
}

void Model::load(const Devices& devices) {
    const size_t n_tensors = hparams_.layers.size() * kTensorsPerLayer + kModelTensors;
    memory_.clear();
    for (const DeviceInfo& device : devices.info()) {
        memory_.push_back({device.name, make_tensor_context(n_tensors), {}, {}});
    }
    claim_all();
    map_cpu_weights(ggml_backend_get_device(devices.cpu()));
    for (int card = 0; card < devices.cpu_index(); ++card) {
        Memory& memory = memory_[static_cast<size_t>(card)];
        if (!memory.placed.empty()) upload_weights(devices.get(card), memory);
    }
}

std::vector<uint64_t> Model::device_bytes(size_t n_devices, const Placement& placement) const {
    std::vector<uint64_t> bytes(n_devices, 0);
    for (size_t i = 0; i < sizes_.size(); ++i) bytes[static_cast<size_t>(placement.tensors[i])] += sizes_[i].bytes;
    // Beside what is placed: the embedding for looking rows up, unless the head is there too, and what the full layers
    // read on each of their devices.
    if (placement.tensors.front() + 1 < static_cast<int>(n_devices)) bytes.back() += ggml_nbytes(weights_.token_embd);
    std::set<int> with_full_layers;
    for (size_t i = 0; i < hparams_.layers.size(); ++i) {
        const ggml_tensor* rope_freqs = weights_.layers[i].rope_freqs;
        const int device = placement.units[i];
        if (rope_freqs == nullptr || !with_full_layers.insert(device).second) continue;
        bytes[static_cast<size_t>(device)] += ggml_nbytes(rope_freqs);
    }
    return bytes;
}

void Model::claim_all() {
    const size_t first = 0, head = hparams_.layers.size();
    weights_ = {};
    weights_.token_embd = put(claim_tensor(file_, hparams_, tensor_rule("token_embd.weight"), head), cpu_index());
    weights_.head = claim("token_embd.weight", head);
    weights_.output_norm = claim("output_norm.weight", head);
    weights_.self_cond_pre_norm = claim("self_cond_pre_norm.weight", first);
    weights_.self_cond_gate = claim("self_cond_gate.weight", first);
    weights_.self_cond_up = claim("self_cond_up.weight", first);
    weights_.self_cond_down = claim("self_cond_down.weight", first);
    for (size_t i = 0; i < head; ++i) weights_.layers.push_back(claim_layer(i));
}

LayerWeights Model::claim_layer(size_t i) {
    const auto take = [&](const char* pattern) { return claim(pattern, i); };
    const bool sliding = hparams_.layers[i].sliding;
    LayerWeights w{};
    w.device = units_[i];
    w.attn_norm = take("blk.{i}.attn_norm.weight");
    w.attn_q = take("blk.{i}.attn_q.weight");
    w.attn_k = take("blk.{i}.attn_k.weight");
    w.attn_v = sliding ? take("blk.{i}.attn_v.weight") : nullptr;
    w.attn_output = take("blk.{i}.attn_output.weight");
    w.attn_q_norm = take("blk.{i}.attn_q_norm.weight");
    w.attn_k_norm = take("blk.{i}.attn_k_norm.weight");
    // What all full layers read is put once on each of their devices.
    w.rope_freqs =
        sliding ? nullptr : put(claim_tensor(file_, hparams_, tensor_rule("rope_freqs.weight"), i), w.device);
    w.post_attention_norm = take("blk.{i}.post_attention_norm.weight");
    w.ffn_norm = take("blk.{i}.ffn_norm.weight");
    w.ffn_gate = take("blk.{i}.ffn_gate.weight");
    w.ffn_up = take("blk.{i}.ffn_up.weight");
    w.ffn_down = take("blk.{i}.ffn_down.weight");
    w.post_ffw_norm_1 = take("blk.{i}.post_ffw_norm_1.weight");
    w.pre_ffw_norm_2 = take("blk.{i}.pre_ffw_norm_2.weight");
    w.router = take("blk.{i}.ffn_gate_inp.weight");
    w.router_scale = take("blk.{i}.ffn_gate_inp.scale");
    w.gate_up_exps = take("blk.{i}.ffn_gate_up_exps.weight");
    w.down_exps = take("blk.{i}.ffn_down_exps.weight");
    w.expert_scale = take("blk.{i}.ffn_down_exps.scale");
    w.post_ffw_norm_2 = take("blk.{i}.post_ffw_norm_2.weight");
    w.post_ffw_norm = take("blk.{i}.post_ffw_norm.weight");
    w.decoder_scale = claim_scalar("blk.{i}.layer_output_scale.weight", i);
    w.encoder_scale = claim_scalar("blk.{i}.enc_layer_output_scale.weight", i);
    return w;
}

ggml_tensor* Model::claim(const char* pattern, size_t unit) {
    const TensorData& source = claim_tensor(file_, hparams_, tensor_rule(pattern), unit);
    if (const auto placed = device_of_.find(&source); placed != device_of_.end()) return put(source, placed->second);
    const bool is_expert = source.name.find("_exps.weight") != std::string::npos;
    sizes_.push_back({source.name, source.n_bytes, unit, is_expert, /*is_matrix=*/source.ne[1] > 1});
    device_of_[&source] = cpu_index();
    return put(source, cpu_index());
}

ggml_tensor* Model::put(const TensorData& source, int device) {
    Memory& memory = memory_[static_cast<size_t>(device)];
    for (const Placed& placed : memory.placed) {
        if (placed.source == &source) return placed.tensor;
    }
    ggml_tensor* tensor = ggml_new_tensor(memory.context.get(), source.type, 4, source.ne);
    ggml_set_name(tensor, source.name.c_str());
    memory.placed.push_back({&source, tensor});
    return tensor;
}

float Model::claim_scalar(const char* pattern, size_t layer) {
    const TensorData& source = claim_tensor(file_, hparams_, tensor_rule(pattern), layer);
    float value = 0;
    std::memcpy(&value, source.data, sizeof value);
    if (!std::isfinite(value)) file_.fail("tensor " + source.name + " is not a finite number; it is damaged");
    return value;
}

void Model::map_cpu_weights(ggml_backend_dev_t cpu) {
    Memory& memory = memory_.back();
    size_t largest = 0;
    for (const Placed& placed : memory.placed) largest = std::max<size_t>(largest, placed.source->n_bytes);
    std::vector<ggml_backend_buffer_t> by_file;
    for (size_t i = 0; i < file_.paths().size(); ++i) {
        const MappedFile& mapping = file_.mapping(i);
        ggml_backend_buffer_t buffer = ggml_backend_dev_buffer_from_host_ptr(
            cpu, const_cast<uint8_t*>(mapping.data()), static_cast<size_t>(mapping.size()), largest);
        if (buffer == nullptr) throw BackendError(file_.paths()[i] + ": ggml's CPU device cannot use a mapped file");
        ggml_backend_buffer_set_usage(buffer, GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
        memory.buffers.emplace_back(buffer);
        by_file.push_back(buffer);
    }
    for (const Placed& placed : memory.placed) {
        auto* address = const_cast<uint8_t*>(placed.source->data);
        if (reinterpret_cast<uintptr_t>(address) % GGUF_DEFAULT_ALIGNMENT != 0) {
            file_.fail("tensor " + placed.source->name + " is not aligned to 32 bytes (general.alignment)",
                       placed.source->file);
        }
        if (ggml_backend_tensor_alloc(by_file[placed.source->file], placed.tensor, address) != GGML_STATUS_SUCCESS) {
            throw BackendError("ggml could not place tensor " + placed.source->name);
        }
    }
}

void Model::upload_weights(ggml_backend_t card, Memory& memory) {
    ggml_backend_buffer_t buffer = ggml_backend_alloc_ctx_tensors(memory.context.get(), card);
    if (buffer == nullptr) {
        throw BackendError(memory.name + ": not enough memory for the weights; a smaller n_gpu_layers, or a larger " +
                           "n_cpu_moe, leaves more on the CPU");
    }
    memory.buffers.emplace_back(buffer);
    ggml_backend_buffer_set_usage(buffer, GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
    for (const Placed& placed : memory.placed) {
        ggml_backend_tensor_set(placed.tensor, placed.source->data, 0, static_cast<size_t>(placed.source->n_bytes));
    }
}

void Model::add_memory(MemoryUse& use) const {
    for (const Memory& memory : memory_) {
        uint64_t total = 0;
        for (const Placed& placed : memory.placed) total += placed.source->n_bytes;
        if (total > 0) use[memory.name]["weights"] += total;
    }
}

void Model::fill_info() {
    const auto narrow = [](int64_t value) { return static_cast<int>(value); };
    info_ = {narrow(static_cast<int64_t>(hparams_.layers.size())),
             narrow(hparams_.hidden),
             narrow(hparams_.vocab),
             narrow(hparams_.heads),
             narrow(hparams_.experts),
             narrow(hparams_.experts_used),
             narrow(hparams_.canvas),
             narrow(hparams_.window),
             narrow(hparams_.context),
             hparams_.eos_ids,
             narrow(file_.integer_or("general.file_type", 0, 1 << 20, -1)),
             file_.text_or("general.name", ""),
             0,
             file_.n_bytes()};
    for (const TensorData& tensor : file_.tensors()) {
        info_.n_params += tensor.ne[0] * tensor.ne[1] * tensor.ne[2] * tensor.ne[3];
    }
}

}  // namespace dgemma
