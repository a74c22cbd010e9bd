#include "graph/passes.h"

#include <numeric>
#include <utility>

#include "graph/parts.h"

namespace dgemma {
namespace {

/// Nodes and leafs that one layer takes at most, besides 3 for each expert used.
constexpr size_t kNodesPerLayer = 96, kNodesOutside = 128, kInputsPerDevice = 5;

size_t max_nodes(const Hparams& h, size_t n_devices) {
    const size_t in_layers = h.layers.size() * (kNodesPerLayer + 3 * static_cast<size_t>(h.experts_used));
    return in_layers + kNodesOutside + n_devices * kInputsPerDevice;
}

ggml_tensor* new_input(ggml_context* ctx, ggml_type type, int64_t columns, int64_t rows, const char* name) {
    ggml_tensor* tensor = ggml_new_tensor_2d(ctx, type, columns, rows);
    ggml_set_name(tensor, name);
    ggml_set_input(tensor);
    return tensor;
}

/// An input whose memory no later node takes over, so that it can stay from run to run.
ggml_tensor* new_lasting_input(ggml_context* ctx, ggml_type type, int64_t columns, int64_t rows, const char* name) {
    ggml_tensor* tensor = new_input(ctx, type, columns, rows, name);
    ggml_set_output(tensor);
    return tensor;
}

LayerInputs new_layer_inputs(ggml_context* ctx, const PassShape& shape) {
    const int64_t n = shape.n_tokens, queries = padded_queries(n);
    LayerInputs inputs{};
    inputs.positions = new_lasting_input(ctx, GGML_TYPE_I32, n, 1, "positions");
    inputs.full_cells = new_lasting_input(ctx, GGML_TYPE_I64, n, 1, "full_cells");
    inputs.ring_cells = new_lasting_input(ctx, GGML_TYPE_I64, n, 1, "ring_cells");
    inputs.full_mask = new_lasting_input(ctx, GGML_TYPE_F16, shape.full_keys, queries, "full_mask");
    inputs.ring_mask = new_lasting_input(ctx, GGML_TYPE_F16, shape.ring_keys, queries, "ring_mask");
    return inputs;
}

PassInputs new_inputs(ggml_context* ctx, const PassShape& shape, int64_t hidden, size_t n_devices) {
    const int64_t n = shape.n_tokens;
    PassInputs inputs{};
    inputs.tokens.rows = new_input(ctx, GGML_TYPE_F32, hidden, n, "token_rows");
    if (shape.pass == Pass::kDecoder) inputs.tokens.soft = new_input(ctx, GGML_TYPE_F32, hidden, n, "soft_embedding");
    for (size_t i = 0; i < n_devices; ++i) inputs.layers.push_back(new_layer_inputs(ctx, shape));
    return inputs;
}

/// Inputs that no layer reads (a model without sliding layers, a device without layers) have no memory.
template <typename T>
void set_input(ggml_tensor* tensor, const std::vector<T>& values) {
    if (tensor->buffer != nullptr) ggml_backend_tensor_set(tensor, values.data(), 0, values.size() * sizeof(T));
}

template <typename Rows>
void set_mask(ggml_tensor* mask, Rows rows) {
    if (mask->buffer == nullptr) return;
    for (int64_t first = 0; first < mask->ne[1]; first += kMaskRows) {
        const std::vector<ggml_fp16_t> some = rows(first);
        ggml_backend_tensor_set(mask, some.data(), static_cast<size_t>(first) * mask->nb[1],
                                some.size() * sizeof(ggml_fp16_t));
    }
}

}  // namespace

PassRunner::PassRunner(Pass pass, const Model& model, const Devices& devices, const KvCache& cache, ggml_tensor* logits,
                       OwnLayers* layers, bool exact)
    : pass_(pass), model_(model), devices_(devices), cache_(cache), logits_(logits), exact_(exact) {
    std::vector<ggml_backend_t> backends = devices.started();
    sched_.reset(ggml_backend_sched_new(backends.data(), /*bufts=*/nullptr, static_cast<int>(backends.size()),
                                        max_nodes(model.hparams(), devices.count()), /*parallel=*/false,
                                        /*op_offload=*/false));
    if (!sched_) throw BackendError("ggml could not make a scheduler");
    if (layers == nullptr) return;
    mixings_ = std::make_unique<MixingGraphs>(devices.get(model.head_device()), *layers, model.hparams());
}

ggml_tensor* PassRunner::build_decoder_input(const GraphScope& g) {
    const ModelWeights& w = model_.weights();
    ggml_tensor* t = build_norm(g, g.inputs.tokens.soft, w.self_cond_pre_norm);
    return build_ffn(g, w.self_cond_gate, w.self_cond_up, w.self_cond_down, t);  // [hidden, n]
}

/// The inputs of a device's layers lie there, not with the host.
void PassRunner::keep_inputs() {
    const auto keep = [&](ggml_tensor* input, ggml_backend_t device) {
        if (input != nullptr) ggml_backend_sched_set_tensor_backend(sched_.get(), input, device);
    };
    ggml_backend_t first = devices_.get(model_.units().front());
    keep(inputs_.tokens.rows, first);
    keep(inputs_.tokens.soft, first);
    for (int device = 0; device < devices_.cpu_index(); ++device) {
        ggml_backend_t card = devices_.get(device);
        if (card == nullptr) continue;
        const LayerInputs& in = inputs_.layers[static_cast<size_t>(device)];
        for (ggml_tensor* input : {in.positions, in.full_cells, in.ring_cells, in.full_mask, in.ring_mask}) {
            keep(input, card);
        }
    }
}

/// What reads the tokens' inputs does so on their device: a copy to another one would not wait for the queue that fills
/// them there.
void PassRunner::keep_readers() {
    ggml_backend_t first = devices_.get(model_.units().front());
    for (int i = 0; i < ggml_graph_n_nodes(graph_); ++i) {
        ggml_tensor* node = ggml_graph_node(graph_, i);
        for (const ggml_tensor* source : node->src) {
            const bool is_input = source != nullptr && (source == inputs_.tokens.rows || source == inputs_.tokens.soft);
            if (is_input) ggml_backend_sched_set_tensor_backend(sched_.get(), node, first);
        }
    }
}

void PassRunner::build(const PassShape& shape, bool as_card) {
    const Hparams& h = model_.hparams();
    ggml_backend_sched_reset(sched_.get());
    allocated_ = false;
    masked_past_ = -1;
    shape_ = shape;

    const size_t nodes = max_nodes(h, devices_.count());
    const size_t graphs =
        mixings_ ? h.layers.size() * MixingGraphs::graph_bytes() : ggml_graph_overhead_custom(nodes, /*grads=*/false);
    graph_memory_.resize(nodes * ggml_tensor_overhead() + graphs);
    context_.reset(ggml_init({graph_memory_.size(), graph_memory_.data(), /*no_alloc=*/true}));
    ggml_context* ctx = context_.get();
    graph_ = mixings_ ? nullptr : ggml_new_graph_custom(ctx, nodes, /*grads=*/false);
    inputs_ = new_inputs(ctx, shape, h.hidden, devices_.count());
    const GraphScope scope{ctx, graph_, h, shape_, inputs_, cache_, devices_, sched_.get(), pieces_, as_card, exact_};
    if (mixings_) return build_mixings(scope);
    keep_inputs();
    build_whole(scope);
    keep_readers();
}

/// Only how attention mixes values: what else a layer does, our kernels do.
void PassRunner::build_mixings(const GraphScope& g) {
    const LayerInputs& in = inputs_.layers[static_cast<size_t>(model_.head_device())];
    mixings_->begin(g.ctx, shape_, inputs_.tokens, in, logits_);
    const std::vector<LayerWeights>& layers = model_.weights().layers;
    // Nothing reads the encoder's output: of its last layer only the keys and values are wanted.
    const size_t n_mixings = layers.size() - (pass_ == Pass::kEncoder ? 1 : 0);
    for (size_t i = 0; i < n_mixings; ++i) {
        mixings_->add_graph(build_mixing(g, layers[i], i, mixings_->queries(), cache_.layer(i)));
    }
}

void PassRunner::build_whole(const GraphScope& g) {
    const ModelWeights& w = model_.weights();
    ggml_tensor* x = g.inputs.tokens.rows;
    if (pass_ == Pass::kDecoder) {
        x = end_part(build_norm(g, ggml_add(g.ctx, x, build_decoder_input(g)), nullptr), "embedding");
    }
    const size_t last = w.layers.size() - 1;
    for (size_t i = 0; i < last; ++i) x = build_layer(g, w.layers[i], i, x);
    if (pass_ == Pass::kEncoder) {
        // Nothing reads the encoder's output: of the last layer only the keys and values are wanted.
        const KvCache::Layer kv = build_kv_write(g, w.layers[last], last, build_projections(g, w.layers[last], x));
        ggml_build_forward_expand(graph_, kv.k);
        ggml_build_forward_expand(graph_, end_part(kv.v, "attention"));
        return;
    }
    x = build_norm(g, build_layer(g, w.layers[last], last, x), w.output_norm);
    ggml_tensor* product = build_product(g, w.head, x);  // [vocab, n]
    if (ggml_backend_tensor_alloc(logits_->buffer, product, logits_->data) != GGML_STATUS_SUCCESS) {
        throw BackendError("ggml could not place the logits");
    }
    ggml_build_forward_expand(graph_, end_part(product, "head"));
}

void PassRunner::check_supported() const {
    if (mixings_) return mixings_->check_supported();
    for (int i = 0; i < ggml_graph_n_nodes(graph_); ++i) {
        const ggml_tensor* node = ggml_graph_node(graph_, i);
        bool supported = false;
        for (ggml_backend_t backend : devices_.started()) {
            supported = supported || ggml_backend_dev_supports_op(ggml_backend_get_device(backend), node);
        }
        if (supported) continue;
        const ggml_tensor* weight = node->src[0];
        throw BackendError(std::string("no device can compute ") + ggml_op_name(node->op) + " on " +
                           (weight == nullptr ? "" : std::string(weight->name) + " of type ") +
                           ggml_type_name(weight == nullptr ? node->type : weight->type));
    }
}

void PassRunner::reserve(int64_t n_tokens) {
    build(pass_shape(pass_, cache_.shape().full_cells - n_tokens, n_tokens, cache_.shape()));
    shape_ = {};  // measured only, not allocated: the first run builds its own
    check_supported();
    const bool is_there = mixings_ ? mixings_->reserve() : ggml_backend_sched_reserve(sched_.get(), graph_);
    if (!is_there) {
        throw BackendError("not enough memory for the compute buffers; a smaller n_ctx or n_batch needs less" +
                           std::string(devices_.started().size() > 1 ? ", and n_gpu_layers=0 none of a GPU" : ""));
    }
}

uint64_t PassRunner::measure(int64_t n_tokens, bool as_card) {
    build(pass_shape(pass_, cache_.shape().full_cells - n_tokens, n_tokens, cache_.shape()), as_card);
    shape_ = {};
    if (mixings_) return mixings_->measure();
    check_supported();
    std::vector<size_t> sizes(devices_.started().size());
    ggml_backend_sched_reserve_size(sched_.get(), graph_, sizes.data());
    return std::accumulate(sizes.begin(), sizes.end(), uint64_t{0});
}

void PassRunner::fill_layer_inputs() {
    const int64_t n_past = cache_.n_past(), n = shape_.n_tokens;
    // They depend on n_past alone and are still there; our layers' kernels write what their attention reads.
    if (masked_past_ == n_past || mixings_) return;

    std::vector<int32_t> positions(static_cast<size_t>(n));
    std::iota(positions.begin(), positions.end(), static_cast<int32_t>(n_past));
    std::vector<int64_t> full(positions.begin(), positions.end()), ring = full;
    for (int64_t& cell : ring) cell %= cache_.shape().ring_cells;
    for (const LayerInputs& in : inputs_.layers) {
        set_input(in.positions, positions);
        set_input(in.full_cells, full);
        set_input(in.ring_cells, ring);
        set_mask(in.full_mask, [&](int64_t first) { return full_mask_rows(shape_, n_past, first); });
        set_mask(in.ring_mask, [&](int64_t first) {
            return ring_mask_rows(shape_, n_past, first, model_.hparams().window, cache_.shape().ring_cells);
        });
    }
    masked_past_ = n_past;
}

TokenInputs PassRunner::prepare(int64_t n_tokens) {
    const PassShape shape = pass_shape(pass_, cache_.n_past(), n_tokens, cache_.shape());
    if (!(shape == shape_ && allocated_)) {
        build(shape);
        allocate();
    }
    fill_layer_inputs();
    return inputs_.tokens;
}

void PassRunner::allocate() {
    allocated_ = mixings_ ? mixings_->allocate() : ggml_backend_sched_alloc_graph(sched_.get(), graph_);
    if (!allocated_) throw BackendError("ggml could not allocate the graph's memory");
}

void PassRunner::run() {
    start();
    synchronize();
}

void PassRunner::synchronize() const {
    if (mixings_) return mixings_->synchronize();
    ggml_backend_sched_synchronize(sched_.get());
}

void PassRunner::start() {
    const ggml_status status = mixings_ ? mixings_->start(cache_.n_past(), observer_)
                                        : ggml_backend_sched_graph_compute_async(sched_.get(), graph_);
    if (status == GGML_STATUS_SUCCESS && !observer_error_) return;
    synchronize();
    if (observer_error_) std::rethrow_exception(std::exchange(observer_error_, nullptr));
    if (status == GGML_STATUS_ABORTED) throw Cancelled("the computation was stopped");
    const char* instead = devices_.started().size() > 1 ? "; n_gpu_layers=0 runs on the CPU alone" : "";
    throw BackendError("a device failed in the middle of a pass on " + started_names() + " (" +
                       ggml_status_to_string(status) + ")" + instead);
}

std::string PassRunner::started_names() const {
    std::string names;
    for (ggml_backend_t backend : devices_.started()) names += (names.empty() ? "" : ", ") + device_name(backend);
    return names;
}

void PassRunner::observe(NodeObserver* observer) {
    observer_ = observer;
    ggml_backend_sched_set_eval_callback(sched_.get(), observer == nullptr ? nullptr : &PassRunner::show, this);
}

/// The scheduler's callback, which must not throw: what the observer throws waits for the end of run().
bool PassRunner::show(ggml_tensor* node, bool ask, void* runner) {
    auto* self = static_cast<PassRunner*>(runner);
    if (self->observer_error_) return false;
    try {
        if (ask) return self->observer_->wants(node);
        self->observer_->computed(node);
        return true;
    } catch (...) {
        self->observer_error_ = std::current_exception();
        return false;
    }
}

void PassRunner::add_memory(MemoryUse& use) const {
    if (mixings_) use[device_name(devices_.get(model_.head_device()))]["compute"] += mixings_->n_bytes();
    for (ggml_backend_t backend : devices_.started()) {
        use[device_name(backend)]["compute"] += ggml_backend_sched_get_buffer_size(sched_.get(), backend);
    }
}

}  // namespace dgemma
