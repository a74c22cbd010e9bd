#include "session/engine_core.h"

#include <algorithm>
#include <thread>

#include "cpu/products.h"
#include "session/session_core.h"

namespace dgemma {
namespace {

EngineOptions checked(EngineOptions options) {
    if (options.n_threads == 0) options.n_threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
    if (options.n_threads < 1 || options.n_threads > 1024) throw RequestError("n_threads must be between 1 and 1024");
    if (options.n_ctx < 0) throw RequestError("n_ctx must be at least 1");
    if (options.n_batch < 0 || options.n_batch > 8192) throw RequestError("n_batch must be between 1 and 8192");
    if (options.n_gpu_layers < -1) throw RequestError("n_gpu_layers must be -1 (all layers) or a number of layers");
    options.kv_f32 = options.kv_f32 || options.exact;
    return options;
}

constexpr int kDefaultContext = 8192;

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

/// Our products take a panel of weights apart once for all of a chunk's tokens: a larger chunk spends less time on
/// each, and 384 are planned at 67 MB more for the released shapes, within what the CPU is promised to need
/// (docs/engine.md). Elsewhere the memory counts for more: ggml's products take as long for each token, and 18 GB on a
/// card have no room.
int default_batch(const Model& model, bool exact) {
    const auto ours = [](const LayerWeights& w) {
        return has_cpu_product(w.gate_up_exps) && has_cpu_product(w.down_exps);
    };
    const std::vector<LayerWeights>& layers = model.weights().layers;
    return !exact && std::all_of(layers.begin(), layers.end(), ours) ? 384 : 256;
}

}  // namespace

EngineCore::EngineCore(const std::string& path, const EngineOptions& options)
    : options_(checked(options)), worker_(options_.interrupted), pool_(options_.n_threads) {
    worker_.run_to_end([&] {
        const auto should_stop = [](void* worker) { return static_cast<const Worker*>(worker)->stopping(); };
        devices_ = std::make_unique<Devices>(options_.n_gpu_layers != 0, options_.n_threads, should_stop, &worker_);
        model_ = std::make_unique<Model>(path, *devices_, options_.n_gpu_layers);
        options_.n_ctx = checked_context(options_.n_ctx, model_->hparams());
        if (options_.n_batch == 0) options_.n_batch = default_batch(*model_, options_.exact);
    });
}

EngineCore::~EngineCore() {
    worker_.run_to_end([&] {
        model_.reset();
        devices_.reset();
    });
}

void EngineCore::add_session(SessionCore* session) {
    const std::lock_guard<std::mutex> lock(sessions_mutex_);
    sessions_.insert(session);
}

void EngineCore::remove_session(SessionCore* session) {
    const std::lock_guard<std::mutex> lock(sessions_mutex_);
    sessions_.erase(session);
}

MemoryUse EngineCore::memory() {
    MemoryUse use;
    model_->add_memory(use);
    const std::lock_guard<std::mutex> lock(sessions_mutex_);
    for (const SessionCore* session : sessions_) session->add_memory(use);
    if (sessions_.empty()) {
        worker_.run_to_end([&] { SessionCore(*this, /*plan_only=*/true).add_memory(use); });
    }
    return use;
}

}  // namespace dgemma
