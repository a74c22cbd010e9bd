// One layer's experts, timed: our kernels beside ggml's graph of them, on the same weights in the same memory.
#include <ggml.h>

#include "cuda/expert_launches.h"
#include "cuda/timing.h"
#include "support/types.h"

namespace dgemma {
namespace {

using namespace cuda;

constexpr size_t kMostTensors = 128;

/// What graph/experts.cpp builds where the experts are on a card, from the router's logits on.
class Layer {
  public:
    Layer(const ExpertJob& job, ggml_backend_t backend)
        : job_(job), context_(timed_context(kMostTensors)), graph_(ggml_new_graph(context_.get())) {
        ggml_context* ctx = context_.get();
        logits_ = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, job.n_experts, job.n_tokens);
        scale_ = ggml_new_tensor_1d(ctx, GGML_TYPE_F32, job.n_experts);
        x_ = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, job.hidden, job.n_tokens);
        gate_up_ = ggml_new_tensor_3d(ctx, weight_type(job.gate_up_type), job.hidden, 2 * job.ffn, job.n_experts);
        down_ = ggml_new_tensor_3d(ctx, weight_type(job.down_type), job.ffn, job.hidden, job.n_experts);
        sums_ = build();
        ggml_build_forward_expand(graph_, sums_);
        buffer_.reset(ggml_backend_alloc_ctx_tensors(ctx, backend));
        if (!buffer_) throw BackendError("not enough memory on the card for one layer's experts");
        const auto fill = [](ggml_tensor* to, const void* from) {
            ggml_backend_tensor_set(to, from, 0, ggml_nbytes(to));
        };
        fill(logits_, job.logits);
        fill(scale_, job.expert_scale);
        fill(x_, job.x);
        fill(gate_up_, job.gate_up);
        fill(down_, job.down);
    }

    ggml_cgraph* graph() const { return graph_; }
    const void* memory() const { return x_->data; }
    ExpertPass pass(const ExpertShape& shape, const ProductRows& rows, float* sums) const {
        const auto floats = [](const ggml_tensor* t) { return static_cast<const float*>(t->data); };
        const auto weights = [](const ggml_tensor* t) {
            return ExpertWeights{t->type, static_cast<const uint8_t*>(t->data), static_cast<int64_t>(t->nb[1]),
                                 static_cast<int64_t>(t->nb[2])};
        };
        return {shape, job_.n_tokens, floats(logits_), floats(scale_), weights(gate_up_), weights(down_), floats(x_),
                rows,  sums};
    }
    std::vector<float> sums() const {
        std::vector<float> values(static_cast<size_t>(ggml_nelements(sums_)));
        ggml_backend_tensor_get(sums_, values.data(), 0, ggml_nbytes(sums_));
        return values;
    }

  private:
    ggml_tensor* build() const {
        ggml_context* ctx = context_.get();
        const int64_t n = job_.n_tokens, used = job_.n_used, ffn = job_.ffn;
        ggml_tensor* probs = ggml_soft_max(ctx, logits_);
        ggml_tensor* experts = ggml_argsort_top_k(ctx, probs, job_.n_used);
        const auto chosen = [&](ggml_tensor* values) {
            ggml_tensor* rows = ggml_reshape_3d(ctx, values, 1, job_.n_experts, n);
            return ggml_reshape_2d(ctx, ggml_get_rows(ctx, rows, experts), used, n);
        };
        ggml_tensor* total = ggml_sum_rows(ctx, chosen(probs));
        ggml_tensor* weights = ggml_div(ctx, chosen(ggml_mul(ctx, probs, scale_)), total);
        ggml_tensor* x = ggml_reshape_3d(ctx, x_, job_.hidden, 1, n);
        ggml_tensor* both = ggml_mul_mat_id(ctx, gate_up_, x, experts);
        const auto half = [&](int64_t first) {
            return ggml_view_3d(ctx, both, ffn, used, n, both->nb[1], both->nb[2],
                                static_cast<size_t>(first) * sizeof(float));
        };
        ggml_tensor* down = ggml_mul_mat_id(ctx, down_, ggml_geglu_split(ctx, half(0), half(ffn)), experts);
        down = ggml_mul(ctx, down, ggml_reshape_3d(ctx, weights, 1, used, n));
        ggml_tensor* sum = nullptr;
        for (int64_t k = 0; k < used; ++k) {
            const size_t offset = static_cast<size_t>(k) * down->nb[1];
            ggml_tensor* one = ggml_view_2d(ctx, down, job_.hidden, n, down->nb[2], offset);
            sum = sum == nullptr ? one : ggml_add(ctx, sum, one);
        }
        return ggml_cont(ctx, sum);
    }

    const ExpertJob& job_;
    ContextPtr context_;
    ggml_cgraph* graph_;
    ggml_tensor *logits_, *scale_, *x_, *gate_up_, *down_, *sums_;
    BufferPtr buffer_;
};

}  // namespace

ExpertTimes time_experts(const ExpertJob& job, int n_runs) {
    const ExpertShape shape{job.n_experts, job.n_used, job.hidden, job.ffn};
    check_fits(shape, job.n_tokens, weight_type(job.gate_up_type), weight_type(job.down_type));
    const FirstCard card;
    const Layer layer(job, card.backend());
    ExpertTimes times{card.name(), {}, card.time(layer.graph(), n_runs), {}, 0};
    use_card_of(layer.memory());
    const Arithmetic arithmetic = job.is_bf16 ? Arithmetic::kBf16 : Arithmetic::kInt8;
    const CardExperts experts(shape, job.n_tokens, arithmetic);
    const CardRows rows(arithmetic, job.n_tokens, job.hidden);
    const DeviceArray<float> sums(static_cast<size_t>(job.n_tokens) * static_cast<size_t>(job.hidden));
    const cuda::Stream stream;
    const std::vector<ExpertLaunch> launches = launches_of(experts, layer.pass(shape, rows.get(), sums.data()));
    const auto run = [&] {
        for (const ExpertLaunch& launch : launches) launch.queue(stream);
    };
    const auto wait = [&] { stream.wait(); };
    times.ours = time_runs(n_runs, run, wait);
    for (const ExpertLaunch& launch : launches) {
        times.kernels.emplace_back(launch.kernel, time_runs(n_runs, [&] { launch.queue(stream); }, wait));
    }
    stream.copy(job.sums, sums.data(), sums.n_bytes());
    stream.wait();
    times.distance = distance(job.sums, layer.sums());
    return times;
}

}  // namespace dgemma
