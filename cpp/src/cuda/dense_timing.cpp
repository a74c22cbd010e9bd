// Dense products, timed: our kernels in 8 bits and in BF16 beside ggml's graph, on the same weights in the same memory.
#include <ggml.h>

#include "cuda/card_rows.h"
#include "cuda/dense.h"
#include "cuda/timing.h"
#include "support/types.h"

namespace dgemma {
namespace {

using namespace cuda;

constexpr size_t kMostTensors = 32;

class Products {
  public:
    Products(const DenseJob& job, ggml_backend_t backend)
        : job_(job), context_(timed_context(kMostTensors)), graph_(ggml_new_graph(context_.get())) {
        ggml_context* ctx = context_.get();
        x_ = ggml_new_tensor_2d(ctx, GGML_TYPE_F32, job.k, job.n);
        for (const DenseMatrix& matrix : job.weights) {
            weights_.push_back(ggml_new_tensor_2d(ctx, weight_type(matrix.type), job.k, matrix.rows));
            results_.push_back(ggml_mul_mat(ctx, weights_.back(), x_));
        }
        if (job.is_gated) results_ = {ggml_geglu_split(ctx, results_.at(0), results_.at(1))};
        for (ggml_tensor* result : results_) ggml_build_forward_expand(graph_, result);
        buffer_.reset(ggml_backend_alloc_ctx_tensors(ctx, backend));
        if (!buffer_) throw BackendError("not enough memory on the card for these products");
        ggml_backend_tensor_set(x_, job.x, 0, ggml_nbytes(x_));
        for (size_t i = 0; i < weights_.size(); ++i) {
            ggml_backend_tensor_set(weights_[i], job.weights[i].data, 0, ggml_nbytes(weights_[i]));
        }
    }

    ggml_cgraph* graph() const { return graph_; }
    const float* x() const { return static_cast<const float*>(x_->data); }
    DenseWeight weight(size_t i) const {
        const ggml_tensor* w = weights_.at(i);
        return {w->type, static_cast<const uint8_t*>(w->data), static_cast<int64_t>(w->nb[1]),
                static_cast<int>(w->ne[1])};
    }
    std::vector<float> result(size_t i) const {
        std::vector<float> values(static_cast<size_t>(ggml_nelements(results_.at(i))));
        ggml_backend_tensor_get(results_[i], values.data(), 0, ggml_nbytes(results_[i]));
        return values;
    }

  private:
    const DenseJob& job_;
    ContextPtr context_;
    ggml_cgraph* graph_;
    ggml_tensor* x_;
    std::vector<ggml_tensor*> weights_, results_;
    BufferPtr buffer_;
};

/// The products alone: their input's rounding belongs to the kernel before them.
std::vector<double> time_ours(const DenseJob& job, const Products& given, Arithmetic arithmetic, int n_runs) {
    use_card_of(given.x());
    const CardRows rows(arithmetic, job.n, job.k), gated(arithmetic, job.n, given.weight(0).rows);
    std::vector<DeviceArray<float>> outs;
    std::vector<DenseProduct> products;
    for (size_t i = 0; i < job.weights.size(); ++i) {
        outs.emplace_back(static_cast<size_t>(job.n) * static_cast<size_t>(given.weight(i).rows));
        products.push_back({given.weight(i), outs.back().data()});
    }
    const cuda::Stream stream;  // ends before what it works on
    round_rows(given.x(), job.n, job.k, rows.get(), stream);
    const auto run = [&] {
        if (job.is_gated) {
            multiply_gated(given.weight(0), given.weight(1), rows.get(), gated.get(), job.n, job.k, stream);
        } else {
            multiply_dense(products.data(), static_cast<int>(products.size()), rows.get(), job.n, job.k, stream);
        }
    };
    return time_runs(n_runs, run, [&] { stream.wait(); });
}

double distance_of(DenseJob job, const Products& given, bool is_bf16) {
    job.is_bf16 = job.gated_is_bf16 = is_bf16;
    return distance(run_dense_on_card(job).at(0).data(), given.result(0));
}

}  // namespace

DenseTimes time_dense(const DenseJob& job, int n_runs) {
    const FirstCard card;
    const Products products(job, card.backend());
    DenseTimes times{card.name(), card.time(products.graph(), n_runs), {}, {}, 0, 0};
    times.int8 = time_ours(job, products, Arithmetic::kInt8, n_runs);
    times.bf16 = time_ours(job, products, Arithmetic::kBf16, n_runs);
    times.int8_distance = distance_of(job, products, /*is_bf16=*/false);
    times.bf16_distance = distance_of(job, products, /*is_bf16=*/true);
    return times;
}

}  // namespace dgemma
