#include "model/hparams.h"

#include <algorithm>

namespace dgemma {
namespace {

constexpr char kArchitecture[] = "diffusion-gemma";

// Caps on what a header may ask for: far above any real model, low enough that no product of two overflows.
constexpr int64_t kMaxLayers = 1024, kMaxWidth = 1 << 20, kMaxHeads = 1024, kMaxExperts = 4096, kMaxUsed = 256,
                  kMaxCanvas = 1 << 14;
constexpr int64_t kMaxVocab = 1 << 24, kMaxContext = 1 << 26;

std::string arch_key(const std::string& name) { return std::string(kArchitecture) + "." + name; }

void check_architecture(const GgufFile& file) {
    if (!file.has("general.architecture")) {
        file.fail("metadata key general.architecture is missing; this is not a model file");
    }
    const std::string architecture = file.text("general.architecture");
    if (architecture != kArchitecture) {
        file.fail("general.architecture is \"" + architecture.substr(0, 40) + "\"; dgemma runs \"" + kArchitecture +
                  "\" models only");
    }
}

/// A key that is one integer for all layers, or an array with one for each.
std::vector<int64_t> per_layer(const GgufFile& file, const std::string& key, size_t n_layers, int64_t high) {
    std::vector<int64_t> values;
    if (file.is_array(key)) {
        values = file.integers(key, 1, high);
    } else {
        values.assign(n_layers, file.integer(key, 1, high));
    }
    if (values.size() != n_layers) {
        file.fail("metadata key " + key + " holds " + std::to_string(values.size()) + " values for " +
                  std::to_string(n_layers) + " layers");
    }
    return values;
}

LayerHparams read_layer(const GgufFile& file, size_t i, int64_t heads, int64_t kv_heads, bool sliding) {
    const std::string suffix = sliding ? "_swa" : "";
    const auto wrong = [&](const std::string& name, int64_t value, const std::string& why) {
        file.fail("metadata key " + arch_key(name) + " is " + std::to_string(value) + " for layer " +
                  std::to_string(i) + "; it must " + why);
    };
    const std::string key_length = "attention.key_length" + suffix, value_length = "attention.value_length" + suffix;
    const std::string rope_dims = "rope.dimension_count" + suffix;

    LayerHparams layer{};
    layer.sliding = sliding;
    layer.kv_heads = kv_heads;
    layer.head_dim = file.integer(arch_key(key_length), 2, kMaxWidth / heads);
    layer.rope_dims = static_cast<int>(file.integer(arch_key(rope_dims), 2, layer.head_dim));
    layer.rope_base = static_cast<float>(file.number(arch_key("rope.freq_base" + suffix), 1, 1e12));
    const int64_t value_dim = file.integer(arch_key(value_length), 2, kMaxWidth);
    if (layer.head_dim % 2 != 0) wrong(key_length, layer.head_dim, "be even");
    if (value_dim != layer.head_dim) wrong(value_length, value_dim, "be equal to " + key_length);
    if (layer.rope_dims % 2 != 0) wrong(rope_dims, layer.rope_dims, "be even");
    if (heads % kv_heads != 0) {
        wrong("attention.head_count_kv", kv_heads, "divide the " + std::to_string(heads) + " attention heads");
    }
    return layer;
}

void read_layers(const GgufFile& file, Hparams& h) {
    const size_t n = static_cast<size_t>(file.integer(arch_key("block_count"), 1, kMaxLayers));
    const std::vector<int64_t> kv_heads = per_layer(file, arch_key("attention.head_count_kv"), n, kMaxHeads);
    const std::vector<bool> sliding = file.flags(arch_key("attention.sliding_window_pattern"));
    if (sliding.size() != n) {
        file.fail("metadata key " + arch_key("attention.sliding_window_pattern") + " holds " +
                  std::to_string(sliding.size()) + " values for " + std::to_string(n) + " layers");
    }
    for (size_t i = 0; i < n; ++i) h.layers.push_back(read_layer(file, i, h.heads, kv_heads[i], sliding[i]));
}

/// The ids that end an answer: the list that dgemma's converter writes, or else the single ids that other files carry
/// and the tokens that the three of generation_config.json are spelled as.
std::vector<int32_t> read_eos_ids(const GgufFile& file, int64_t vocab) {
    std::vector<int64_t> ids;
    if (file.has("diffusion.eos_token_ids")) {
        ids = file.integers("diffusion.eos_token_ids", 0, vocab - 1);
    } else {
        for (const char* key : {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"}) {
            if (file.has(key)) ids.push_back(file.integer(key, 0, vocab - 1));
        }
        for (const int64_t id : file.find_texts("tokenizer.ggml.tokens", {"<eos>", "<turn|>", "<|tool_response>"})) {
            if (id >= 0 && id < vocab) ids.push_back(id);
        }
    }
    std::sort(ids.begin(), ids.end());
    ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
    return {ids.begin(), ids.end()};
}

int64_t read_vocab(const GgufFile& file) {
    const TensorData* embedding = file.find("token_embd.weight");
    if (embedding == nullptr) file.fail("tensor token_embd.weight is missing; this is not a complete model");
    if (embedding->ne[1] < 2 || embedding->ne[1] > kMaxVocab) {
        file.fail("tensor token_embd.weight has " + std::to_string(embedding->ne[1]) + " rows; it is damaged");
    }
    if (const int64_t n = file.length("tokenizer.ggml.tokens"); n != embedding->ne[1] && n > 0) {
        file.fail("tokenizer.ggml.tokens holds " + std::to_string(n) + " tokens, but token_embd.weight has " +
                  std::to_string(embedding->ne[1]) + " rows; the tokenizer is another model's");
    }
    return embedding->ne[1];
}

}  // namespace

bool Hparams::has_sliding() const {
    return std::any_of(layers.begin(), layers.end(), [](const LayerHparams& layer) { return layer.sliding; });
}

Hparams read_hparams(const GgufFile& file) {
    check_architecture(file);
    Hparams h{};
    h.vocab = read_vocab(file);
    h.hidden = file.integer(arch_key("embedding_length"), 2, kMaxWidth);
    h.ffn = file.integer(arch_key("feed_forward_length"), 1, kMaxWidth);
    h.heads = file.integer(arch_key("attention.head_count"), 1, kMaxHeads);
    h.experts = file.integer(arch_key("expert_count"), 1, kMaxExperts);
    h.experts_used = file.integer(arch_key("expert_used_count"), 1, std::min(h.experts, kMaxUsed));
    h.expert_ffn = file.integer(arch_key("expert_feed_forward_length"), 1, kMaxWidth);
    h.window = file.integer(arch_key("attention.sliding_window"), 1, kMaxContext);
    h.canvas = file.integer("diffusion.canvas_length", 1, kMaxCanvas);
    h.context = file.integer(arch_key("context_length"), h.canvas + 1, kMaxContext);  // a canvas follows a prompt
    h.rope_pairs = file.integer(arch_key("attention.key_length"), 2, kMaxWidth) / 2;
    h.rms_eps = static_cast<float>(file.number(arch_key("attention.layer_norm_rms_epsilon"), 1e-12, 1));
    h.logit_softcap = static_cast<float>(file.number(arch_key("final_logit_softcapping"), 1e-3, 1e6));
    read_layers(file, h);
    h.eos_ids = read_eos_ids(file, h.vocab);
    return h;
}

}  // namespace dgemma
