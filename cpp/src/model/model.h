// The weights: a mapped GGUF, each tensor claimed with the shape the metadata asks for and put on its device.
#pragma once

#include <ggml.h>

#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "gguf/gguf_file.h"
#include "model/devices.h"
#include "model/hparams.h"
#include "model/placement.h"

namespace dgemma {

/// Shapes are ggml's: columns first. hd: the layer's head dimension, kv: its key/value heads.
struct LayerWeights {
    int device;                          // of the cache, and of every tensor that no pattern puts elsewhere
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
    ggml_tensor* token_embd;          // [hidden, vocab], on the CPU, where rows are looked up unless a card does it
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
    /// Maps the file: everything is on the CPU. FileError, BackendError.
    Model(const std::string& path, const Devices& devices);

    /// All that can be placed, once each.
    const std::vector<TensorSize>& tensor_sizes() const { return sizes_; }
    /// Puts the weights where `placement` of tensor_sizes() says; its devices are started. Every tensor is a new one.
    void place(const Devices& devices, const Placement& placement);
    /// Bytes of weights that place() would put on each device.
    std::vector<uint64_t> device_bytes(size_t n_devices, const Placement& placement) const;
    const std::vector<int>& units() const { return units_; }  // Placement's
    int head_device() const { return units_.back(); }

    const Hparams& hparams() const { return hparams_; }
    const ModelWeights& weights() const { return weights_; }
    const ModelInfo& info() const { return info_; }
    /// Which file this is (GgufFile::fingerprint).
    uint64_t fingerprint() const { return file_.fingerprint(); }
    /// Adds what the weights take on each device.
    void add_memory(MemoryUse& use) const;

  private:
    struct Placed {
        const TensorData* source;
        ggml_tensor* tensor;
    };

    /// What lies on one device.
    struct Memory {
        std::string name;
        ContextPtr context;
        std::vector<Placed> placed;
        std::vector<BufferPtr> buffers;
    };

    int cpu_index() const { return static_cast<int>(memory_.size()) - 1; }
    void load(const Devices& devices);
    void claim_all();
    LayerWeights claim_layer(size_t i);
    /// A tensor of a unit (see TensorSize), on the device that the placement names.
    ggml_tensor* claim(const char* pattern, size_t unit);
    ggml_tensor* put(const TensorData& source, int device);
    float claim_scalar(const char* pattern, size_t layer);
    void map_cpu_weights(ggml_backend_dev_t cpu);
    void upload_weights(ggml_backend_t card, Memory& memory);
    void fill_info();

    GgufFile file_;
    Hparams hparams_;
    ModelWeights weights_{};
    ModelInfo info_;
    std::vector<Memory> memory_;     // by device
    std::vector<TensorSize> sizes_;  // in the order of the claims
    std::vector<int> units_;         // see Placement
    std::unordered_map<const TensorData*, int> device_of_;
};

}  // namespace dgemma
