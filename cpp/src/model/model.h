// The weights: a mapped GGUF, each tensor claimed with the shape the metadata asks for and placed on its device.
#pragma once

#include <ggml.h>

#include <memory>
#include <string>
#include <vector>

#include "gguf/gguf_file.h"
#include "model/devices.h"
#include "model/hparams.h"

namespace dgemma {

/// Shapes are ggml's: columns first. hd: the layer's head dimension, kv: its key/value heads.
struct LayerWeights {
    bool on_gpu;
    ggml_tensor* attn_norm;              // [hidden]
    ggml_tensor* attn_q;                 // [hidden, heads * hd]
    ggml_tensor* attn_k;                 // [hidden, kv * hd]
    ggml_tensor* attn_v;                 // [hidden, kv * hd]; null in full layers, whose values are their keys' product
    ggml_tensor* attn_output;            // [heads * hd, hidden]
    ggml_tensor* attn_q_norm;            // [hd]
    ggml_tensor* attn_k_norm;            // [hd]
    ggml_tensor* rope_freqs;             // [full hd / 2]; null in sliding layers
    ggml_tensor* post_attention_norm;    // [hidden]
    ggml_tensor* ffn_norm;               // [hidden]
    ggml_tensor* ffn_gate;               // [hidden, ffn]
    ggml_tensor* ffn_up;                 // [hidden, ffn]
    ggml_tensor* ffn_down;               // [ffn, hidden]
    ggml_tensor* post_ffw_norm_1;        // [hidden]
    ggml_tensor* pre_ffw_norm_2;         // [hidden]
    ggml_tensor* router;                 // [hidden, experts]
    ggml_tensor* router_scale;           // [hidden]
    ggml_tensor* gate_up_exps;           // [hidden, 2 * expert_ffn, experts], gate rows first
    ggml_tensor* down_exps;              // [expert_ffn, hidden, experts]
    ggml_tensor* expert_scale;           // [experts]
    ggml_tensor* post_ffw_norm_2;        // [hidden]
    ggml_tensor* post_ffw_norm;          // [hidden]
    float decoder_scale, encoder_scale;  // the layer's output times one of them, by pass
};

struct ModelWeights {
    ggml_tensor* token_embd;          // [hidden, vocab], on the CPU: rows are looked up there
    ggml_tensor* head;                // the same rows as the LM head's device holds them
    ggml_tensor* output_norm;         // [hidden]
    ggml_tensor* self_cond_pre_norm;  // [hidden]
    ggml_tensor* self_cond_gate;      // [hidden, ffn]
    ggml_tensor* self_cond_up;        // [hidden, ffn]
    ggml_tensor* self_cond_down;      // [ffn, hidden]
    std::vector<LayerWeights> layers;
};

class Model {
  public:
    /// `n_gpu_layers`: as llama.cpp counts: the head first, then layers from the last; -1 = all. FileError,
    /// BackendError.
    Model(const std::string& path, const Devices& devices, int n_gpu_layers);

    const Hparams& hparams() const { return hparams_; }
    const ModelWeights& weights() const { return weights_; }
    const ModelInfo& info() const { return info_; }
    bool head_on_gpu() const { return head_on_gpu_; }
    /// Which file this is (GgufFile::fingerprint).
    uint64_t fingerprint() const { return file_.fingerprint(); }
    /// Adds what the weights take on each device.
    void add_memory(MemoryUse& use) const;

  private:
    struct Placed {
        const TensorData* source;
        ggml_tensor* tensor;
    };

    void claim_all(bool has_gpu, int n_gpu_layers);
    void claim_layer(size_t i, bool on_gpu);
    ggml_tensor* claim(const char* pattern, size_t layer, bool on_gpu);
    float claim_scalar(const char* pattern, size_t layer);
    void map_cpu_weights(ggml_backend_dev_t cpu);
    void upload_gpu_weights(ggml_backend_t gpu);
    void fill_info();

    GgufFile file_;
    Hparams hparams_;
    ModelWeights weights_{};
    ModelInfo info_;
    bool head_on_gpu_ = false;
    ContextPtr contexts_[2];  // by device: CPU, GPU
    std::vector<Placed> placed_[2];
    std::vector<BufferPtr> buffers_;
    std::string gpu_name_;
};

}  // namespace dgemma
