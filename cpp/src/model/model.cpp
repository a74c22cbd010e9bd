#include "model/model.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "model/tensor_table.h"

namespace dgemma {
namespace {

constexpr size_t kTensorsPerLayer = 32, kModelTensors = 16;  // generous: what the contexts are sized for

}  // namespace

Model::Model(const std::string& path, const Devices& devices, int n_gpu_layers)
    : file_(path), hparams_(read_hparams(file_)) {
    const size_t n_tensors = hparams_.layers.size() * kTensorsPerLayer + kModelTensors;
    for (ContextPtr& context : contexts_) context = make_tensor_context(n_tensors);
    claim_all(devices.gpu() != nullptr, n_gpu_layers);
    map_cpu_weights(ggml_backend_get_device(devices.cpu()));
    if (devices.gpu() != nullptr) upload_gpu_weights(devices.gpu());
    fill_info();
    file_.forget_metadata();
}

void Model::claim_all(bool has_gpu, int n_gpu_layers) {
    const int n_layer = static_cast<int>(hparams_.layers.size());
    const int wanted = !has_gpu ? 0 : n_gpu_layers < 0 ? n_layer + 1 : std::min(n_gpu_layers, n_layer + 1);
    head_on_gpu_ = wanted > 0;
    const int first_gpu_layer = n_layer + 1 - std::max(wanted, 1);

    const bool first_on_gpu = first_gpu_layer == 0;
    weights_.token_embd = claim("token_embd.weight", 0, false);
    weights_.head = head_on_gpu_ ? claim("token_embd.weight", 0, true) : weights_.token_embd;
    weights_.output_norm = claim("output_norm.weight", 0, head_on_gpu_);
    weights_.self_cond_pre_norm = claim("self_cond_pre_norm.weight", 0, first_on_gpu);
    weights_.self_cond_gate = claim("self_cond_gate.weight", 0, first_on_gpu);
    weights_.self_cond_up = claim("self_cond_up.weight", 0, first_on_gpu);
    weights_.self_cond_down = claim("self_cond_down.weight", 0, first_on_gpu);
    for (int i = 0; i < n_layer; ++i) claim_layer(static_cast<size_t>(i), i >= first_gpu_layer);
}

void Model::claim_layer(size_t i, bool on_gpu) {
    const auto take = [&](const char* pattern) { return claim(pattern, i, on_gpu); };
    const bool sliding = hparams_.layers[i].sliding;
    LayerWeights w{};
    w.on_gpu = on_gpu;
    w.attn_norm = take("blk.{i}.attn_norm.weight");
    w.attn_q = take("blk.{i}.attn_q.weight");
    w.attn_k = take("blk.{i}.attn_k.weight");
    w.attn_v = sliding ? take("blk.{i}.attn_v.weight") : nullptr;
    w.attn_output = take("blk.{i}.attn_output.weight");
    w.attn_q_norm = take("blk.{i}.attn_q_norm.weight");
    w.attn_k_norm = take("blk.{i}.attn_k_norm.weight");
    w.rope_freqs = sliding ? nullptr : take("rope_freqs.weight");
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
    weights_.layers.push_back(w);
}

ggml_tensor* Model::claim(const char* pattern, size_t layer, bool on_gpu) {
    const TensorData& source = claim_tensor(file_, hparams_, tensor_rule(pattern), layer);
    // A model-wide tensor that every layer uses (rope_freqs) is placed once on each device.
    for (const Placed& placed : placed_[on_gpu]) {
        if (placed.source == &source) return placed.tensor;
    }
    ggml_tensor* tensor = ggml_new_tensor(contexts_[on_gpu].get(), source.type, 4, source.ne);
    ggml_set_name(tensor, source.name.c_str());
    placed_[on_gpu].push_back({&source, tensor});
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
    size_t largest = 0;
    for (const Placed& placed : placed_[0]) largest = std::max<size_t>(largest, placed.source->n_bytes);
    std::vector<ggml_backend_buffer_t> by_file;
    for (size_t i = 0; i < file_.paths().size(); ++i) {
        const MappedFile& mapping = file_.mapping(i);
        ggml_backend_buffer_t buffer = ggml_backend_dev_buffer_from_host_ptr(
            cpu, const_cast<uint8_t*>(mapping.data()), static_cast<size_t>(mapping.size()), largest);
        if (buffer == nullptr) throw BackendError(file_.paths()[i] + ": ggml's CPU device cannot use a mapped file");
        ggml_backend_buffer_set_usage(buffer, GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
        buffers_.emplace_back(buffer);
        by_file.push_back(buffer);
    }
    for (const Placed& placed : placed_[0]) {
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

void Model::upload_gpu_weights(ggml_backend_t gpu) {
    gpu_name_ = ggml_backend_name(gpu);
    if (placed_[1].empty()) return;
    ggml_backend_buffer_t buffer = ggml_backend_alloc_ctx_tensors(contexts_[1].get(), gpu);
    if (buffer == nullptr) {
        throw BackendError(gpu_name_ +
                           ": not enough memory for the weights; a smaller n_gpu_layers leaves more on the CPU");
    }
    buffers_.emplace_back(buffer);
    ggml_backend_buffer_set_usage(buffer, GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
    for (const Placed& placed : placed_[1]) {
        ggml_backend_tensor_set(placed.tensor, placed.source->data, 0, static_cast<size_t>(placed.source->n_bytes));
    }
}

void Model::add_memory(MemoryUse& use) const {
    for (const bool on_gpu : {false, true}) {
        uint64_t total = 0;
        for (const Placed& placed : placed_[on_gpu]) total += placed.source->n_bytes;
        if (total > 0) use[on_gpu ? gpu_name_ : "CPU"]["weights"] += total;
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
