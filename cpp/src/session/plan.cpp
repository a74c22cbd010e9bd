#include "session/plan.h"

#include <algorithm>

#include "cpu/attention.h"
#include "cpu/products.h"
#include "cuda/card_layers.h"
#include "cuda/card_logits.h"
#include "graph/passes.h"
#include "session/logit_product.h"
#include "session/soft_embedding.h"

namespace dgemma {
namespace {

constexpr int kDefaultContext = 8192;

/// Stands for kernels of ours in graphs that are measured and never run.
class UnrunLayers final : public OwnLayers {
  public:
    void begin(const OwnPass& /*pass*/) override {}
    void go_on(const OwnPass& /*pass*/, size_t /*layer*/) override {}
    void add_memory(MemoryUse& /*use*/) const override {}
};

struct SessionBytes {
    std::vector<uint64_t> kv;            // by layer
    uint64_t cpu_compute, card_compute;  // of both passes, all of them on the one or the other
    uint64_t own_compute;                // the same on a card with the layers in our kernels; 0 unless asked for
    uint64_t rows;                       // [hidden, n] F32 of both passes
    uint64_t logits, soft_scratch;
    uint64_t pass_rows;    // [hidden, n] F32 of the larger pass: its inputs on their way to another device
    uint64_t card_logits;  // what our kernels need beside the logits at most, on any device
};

/// What our kernels need beside the logits; 0 where the host does their work.
uint64_t card_logits_bytes(const Model& model, const EngineOptions& options, const std::string& head,
                           bool is_buffered) {
    if (options.exact) return 0;
    return cuda::card_logits_bytes(model, head, max_tokens(options, model.hparams()), is_buffered);
}

SessionBytes measure_session(const Model& model, const Devices& devices, const EngineOptions& options,
                             const std::vector<DeviceInfo>& there) {
    const Hparams& h = model.hparams();
    const KvCache cache(model, devices, cache_shape(model, options), /*plan_only=*/true);
    const LogitProduct place(h, devices.cpu(), /*plan_only=*/true);
    ggml_tensor* product = place.tensor();

    PassRunner encoder(Pass::kEncoder, model, devices, cache, nullptr, nullptr, options.exact);
    PassRunner decoder(Pass::kDecoder, model, devices, cache, product, nullptr, options.exact);
    const int64_t chunk = chunk_of(options);
    const auto row = static_cast<uint64_t>(h.hidden) * sizeof(float);
    SessionBytes bytes{};
    for (size_t i = 0; i < h.layers.size(); ++i) {
        bytes.kv.push_back(ggml_nbytes(cache.layer(i).k) + ggml_nbytes(cache.layer(i).v));
    }
    bytes.cpu_compute = encoder.measure(chunk, /*as_card=*/false) + decoder.measure(h.canvas, /*as_card=*/false);
    if (options.own_card_layers) {
        UnrunLayers layers;
        PassRunner own_encoder(Pass::kEncoder, model, devices, cache, nullptr, &layers, options.exact);
        PassRunner own_decoder(Pass::kDecoder, model, devices, cache, product, &layers, options.exact);
        bytes.own_compute = own_encoder.measure(chunk, /*as_card=*/true) +
                            own_decoder.measure(h.canvas, /*as_card=*/true) +
                            cuda::card_layers_bytes(model, max_tokens(options, h));
    }
    bytes.card_compute = encoder.measure(chunk, /*as_card=*/true) + decoder.measure(h.canvas, /*as_card=*/true);
    bytes.rows = static_cast<uint64_t>(chunk + h.canvas) * row;
    bytes.logits = ggml_nbytes(product);
    bytes.pass_rows = static_cast<uint64_t>(max_tokens(options, h)) * row;
    bytes.soft_scratch = soft_embedding_bytes(static_cast<int>(h.canvas), model.weights().token_embd,
                                              dropped_mass(options), options.n_threads);
    for (const DeviceInfo& device : there) {
        const uint64_t here = card_logits_bytes(model, options, device.name, /*is_buffered=*/true);
        bytes.card_logits = std::max(bytes.card_logits, here);
    }
    return bytes;
}

/// Empty where our kernels compute the layers; otherwise why ggml does.
std::string why_ggml_layers(const Model& model, const EngineOptions& options, const Placement& placement,
                            const std::vector<DeviceInfo>& there) {
    if (options.exact) return "exact has ggml's products alone";
    if (options.kv_f32) return "their cache is F16, and F32 was asked for";
    const int head = placement.head();
    bool is_one = head + 1 != static_cast<int>(there.size());
    for (const std::vector<int>* devices : {&placement.units, &placement.tensors}) {
        for (const int device : *devices) is_one = is_one && device == head;
    }
    if (!is_one) return "no card holds the whole model";
    return cuda::why_no_card_layers(model, there[static_cast<size_t>(head)].name, max_tokens(options, model.hparams()));
}

DevicePlan show(const Model& model, const EngineOptions& options, const SessionBytes& bytes, uint64_t card_compute,
                const Placement& placement, const std::vector<DeviceInfo>& there) {
    const int cpu = static_cast<int>(there.size()) - 1;
    const auto name = [&](int device) { return there[static_cast<size_t>(device)].name; };
    DevicePlan plan;
    plan.devices = there;
    plan.notes = placement.notes;
    plan.head = name(placement.head());
    const size_t n_layer = bytes.kv.size();
    for (size_t i = 0; i < n_layer; ++i) plan.layers.push_back({name(placement.units[i]), name(placement.units[i])});
    for (size_t i = 0; i < placement.tensors.size(); ++i) {
        const TensorSize& tensor = model.tensor_sizes()[i];
        if (tensor.name.find("gate_up_exps") != std::string::npos) {
            plan.layers[tensor.unit].experts = name(placement.tensors[i]);
        }
    }
    const std::vector<uint64_t> weights = model.device_bytes(there.size(), placement);
    bool all_on_cards = placement.head() != cpu;
    for (const int device : placement.tensors) all_on_cards = all_on_cards && device != cpu;
    for (int device = 0; device <= cpu; ++device) {
        if (device != cpu && !placement.uses(device)) continue;
        auto& use = plan.memory[name(device)];
        use["weights"] = weights[static_cast<size_t>(device)];
        use["compute"] = device != cpu ? card_compute : all_on_cards ? 0 : bytes.cpu_compute;
        if (device != cpu) use["reserve"] = kCardReserve;
    }
    plan.memory[name(cpu)]["compute"] += attention_scratch(model, options, placement.units, cpu);
    for (size_t i = 0; i < n_layer; ++i) plan.memory[name(placement.units[i])]["kv"] += bytes.kv[i];
    const int first = placement.units.front(), head = placement.head();
    const uint64_t card_logits = card_logits_bytes(model, options, plan.head, /*is_buffered=*/first != head);
    plan.memory[plan.head]["sampler"] += bytes.logits + card_logits;
    if (card_logits == 0) {
        const uint64_t on_their_way = (head != cpu ? bytes.logits : 0) + (first != cpu ? bytes.pass_rows : 0);
        plan.memory[name(cpu)]["sampler"] += bytes.soft_scratch + on_their_way;
    }
    return plan;
}

}  // namespace

EngineOptions checked_options(EngineOptions options) {
    if (options.n_threads == 0) options.n_threads = usable_cores();
    if (options.n_threads < 1 || options.n_threads > 1024) throw RequestError("n_threads must be between 1 and 1024");
    if (options.n_ctx < 0) throw RequestError("n_ctx must be at least 1");
    if (options.n_batch < 0 || options.n_batch > 8192) throw RequestError("n_batch must be between 1 and 8192");
    const DeviceRequest& devices = options.devices;
    if (devices.n_gpu_layers < -1) throw RequestError("n_gpu_layers must be -1 (what fits) or a number of layers");
    if (devices.n_cpu_moe < -1) throw RequestError("n_cpu_moe must be -1 (all layers) or a number of layers");
    if (devices.main_gpu < -1) throw RequestError("main_gpu must be -1 (all GPUs) or a GPU's number, from 0 on");
    options.kv_f32 = options.kv_f32 || options.exact;
    return options;
}

int checked_context(int n_ctx, const Hparams& h) {
    if (n_ctx == 0) n_ctx = static_cast<int>(std::min<int64_t>(kDefaultContext, h.context));
    if (n_ctx > h.context) {
        throw RequestError("n_ctx is " + std::to_string(n_ctx) + "; the model was made for at most " +
                           std::to_string(h.context) + " positions");
    }
    if (n_ctx <= h.canvas) {
        throw RequestError("n_ctx is " + std::to_string(n_ctx) + "; it must be larger than the model's canvas of " +
                           std::to_string(h.canvas) + " tokens");
    }
    return n_ctx;
}

int checked_batch(const EngineOptions& options, const Model& model, const std::vector<DeviceInfo>& there) {
    if (options.n_batch != 0) return options.n_batch;
    const auto ours = [](const LayerWeights& w) {
        return has_cpu_product(w.gate_up_exps) && has_cpu_product(w.down_exps);
    };
    const std::vector<LayerWeights>& layers = model.weights().layers;
    const bool all_ours = !options.exact && std::all_of(layers.begin(), layers.end(), ours);
    const bool on_cpu = there.size() == 1 || options.devices.n_gpu_layers == 0;
    return all_ours && on_cpu ? 384 : 256;
}

int64_t chunk_of(const EngineOptions& options) { return std::min(options.n_batch, options.n_ctx); }

int64_t max_tokens(const EngineOptions& options, const Hparams& h) {
    return std::max<int64_t>(chunk_of(options), h.canvas);
}

float dropped_mass(const EngineOptions& options) { return options.exact ? 0.0f : 1e-4f; }

uint64_t attention_scratch(const Model& model, const EngineOptions& options, const std::vector<int>& units, int cpu) {
    const Hparams& h = model.hparams();
    const int64_t n = max_tokens(options, h);
    const ggml_type cache = options.kv_f32 ? GGML_TYPE_F32 : GGML_TYPE_F16;
    uint64_t most = 0;
    for (size_t i = 0; i < h.layers.size(); ++i) {
        const LayerHparams& layer = h.layers[i];
        if (options.exact || units[i] != cpu || !has_cpu_attention(layer.head_dim, cache)) continue;
        AttentionOperands sizes{};
        sizes.head_dim = layer.head_dim;
        sizes.heads = h.heads;
        sizes.kv_heads = layer.kv_heads;
        sizes.n = n;
        most = std::max(most, attend_bytes(sizes, options.n_threads));
    }
    return most;
}

KvShape cache_shape(const Model& model, const EngineOptions& options) {
    return kv_shape(model.hparams(), options.n_ctx, options.n_batch, options.kv_f32 ? GGML_TYPE_F32 : GGML_TYPE_F16);
}

EnginePlan plan_engine(const Model& model, const Devices& devices, const EngineOptions& options,
                       const std::vector<DeviceInfo>& there) {
    const SessionBytes bytes = measure_session(model, devices, options, there);
    const uint64_t with_head = bytes.logits + bytes.card_logits;
    PlacementInput input{
        model.tensor_sizes(), bytes.kv, with_head, std::max(bytes.card_compute, bytes.own_compute), {}, {}};
    for (size_t i = 0; i + 1 < there.size(); ++i) {
        const bool silent = there[i].free_bytes == 0 && there[i].total_bytes == 0;
        input.cards.push_back(there[i].name);
        input.free.push_back(silent ? uint64_t{1} << 60 : there[i].free_bytes);
    }
    // What comes from another card, or from the CPU's experts, is a copy of its own.
    if (input.cards.size() > 1) input.compute += 2 * bytes.rows;
    Placement placement = place(input, options.devices);
    if (input.cards.empty() && options.devices.n_gpu_layers > 0) {
        placement.notes.push_back("n_gpu_layers asks for a GPU, but everything runs on the CPU: " + why_no_gpu());
    }
    const std::string& head = there[static_cast<size_t>(placement.head())].name;
    if (!options.exact) {
        const std::string why = cuda::why_not_on_card(model, head, max_tokens(options, model.hparams()));
        if (!why.empty()) placement.notes.push_back(head + " sends each step's logits to the CPU: " + why);
    }
    const std::string why = options.own_card_layers ? why_ggml_layers(model, options, placement, there) : "";
    if (!why.empty()) placement.notes.push_back("card_layers is \"own\", but ggml computes the layers: " + why);
    const bool own_layers = options.own_card_layers && why.empty();
    DevicePlan shown = show(model, options, bytes, own_layers ? bytes.own_compute : input.compute, placement, there);
    shown.own_card_layers = own_layers;
    return {std::move(placement), std::move(shown)};
}

}  // namespace dgemma
