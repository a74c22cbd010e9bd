// The kernels between a layer's products from and to the host's memory, for comparing them with their twin.
#include "cuda/layer_rows.h"
#include "dgemma/card_jobs.h"

namespace dgemma {
namespace {

using namespace cuda;

/// The arrays of one job on the card, by the names of layer_rows.h.
class Arrays {
  public:
    explicit Arrays(const LayerRowsJob& job) : job_(job) {
        for (const auto& [name, values] : job.inputs) {
            DeviceArray<float>& memory = floats_.try_emplace(name, values.size()).first->second;
            stream_.copy(memory.data(), values.data(), memory.n_bytes());
        }
    }

    const cuda::Stream& stream() const { return stream_; }

    float* given(const std::string& name, size_t n) {
        const auto found = floats_.find(name);
        if (found == floats_.end() || found->second.size() != n) throw RequestError(name + " has another size");
        return found->second.data();
    }
    float* rows(const std::string& name) { return given(name, size(job_.n) * size(job_.hidden)); }
    float* weight(const std::string& name) { return given(name, size(job_.hidden)); }
    /// As many shares as were given.
    SharedSums shared_sums(const std::string& name) {
        const size_t n = size(job_.n) * size(job_.hidden),
                     all = job_.inputs.count(name) > 0 ? job_.inputs.at(name).size() : 0;
        if (all == 0 || all % n != 0) throw RequestError(name + " has another size");
        return {given(name, all), static_cast<int>(all / n)};
    }
    float* made(const std::string& name, size_t n) { return floats_.try_emplace(name, n).first->second.data(); }
    float* made_rows(const std::string& name) { return made(name, size(job_.n) * size(job_.hidden)); }

    ProductRows product_rows(const std::string& name) {
        const Arithmetic arithmetic = job_.is_bf16 ? Arithmetic::kBf16 : Arithmetic::kInt8;
        const size_t n = size(job_.n) * size(job_.hidden);
        const auto& values = bytes_.try_emplace(name, n * size(value_bytes(arithmetic))).first->second;
        float* scales = job_.is_bf16 ? nullptr : made(name + "_scales", n / kGroupValues * 2);
        return {arithmetic, values.data(), reinterpret_cast<GroupScale*>(scales)};
    }

    LayerRowsResult result() const {
        LayerRowsResult result;
        for (const auto& [name, memory] : floats_) {
            auto& values = result.floats[name];
            values.resize(memory.size());
            stream_.copy(values.data(), memory.data(), memory.n_bytes());
        }
        for (const auto& [name, memory] : bytes_) {
            auto& values = result.bytes[name];
            values.resize(memory.size());
            stream_.copy(values.data(), memory.data(), memory.n_bytes());
        }
        stream_.wait();
        return result;
    }

    static size_t size(int64_t n) { return static_cast<size_t>(n); }

  private:
    const LayerRowsJob& job_;
    std::map<std::string, DeviceArray<float>> floats_;
    std::map<std::string, DeviceArray<uint8_t>> bytes_;
    cuda::Stream stream_;  // ends before the memory that its work uses
};

void run_end_attention(const LayerRowsJob& job, Arrays& arrays) {
    // Without an x of its own, the residual is read and written.
    float* residual = job.inputs.count("x") > 0 ? arrays.made_rows("residual") : arrays.rows("residual");
    const float* x = job.inputs.count("x") > 0 ? arrays.rows("x") : residual;
    end_attention({x, arrays.shared_sums("attention"), arrays.weight("post_norm"), arrays.weight("router_scale"),
                   arrays.weight("dense_norm"), arrays.weight("expert_norm"), residual, arrays.made_rows("router_rows"),
                   arrays.product_rows("dense"), arrays.product_rows("experts")},
                  job.eps, job.n, job.hidden, arrays.stream());
}

void run_end_layer(const LayerRowsJob& job, Arrays& arrays) {
    const size_t n_pairs = Arrays::size(job.n) * Arrays::size(job.used);
    end_layer({arrays.shared_sums("dense"), arrays.given("products", n_pairs * Arrays::size(job.hidden)),
               arrays.given("weights", n_pairs), arrays.weight("dense_norm"), arrays.weight("expert_norm"),
               arrays.weight("ffn_norm"), arrays.weight("next_norm"), job.used, job.scale, arrays.rows("residual"),
               arrays.product_rows("next")},
              job.eps, job.n, job.hidden, arrays.stream());
}

void run(const LayerRowsJob& job, Arrays& arrays) {
    const int n = job.n, hidden = job.hidden;
    const cuda::Stream& stream = arrays.stream();
    if (job.function == "norm_rows") {
        norm_rows(arrays.rows("x"), arrays.weight("weight"), job.eps, arrays.product_rows("rows"), n, hidden, stream);
    } else if (job.function == "begin_decoder") {
        begin_decoder(arrays.rows("embedded"), arrays.shared_sums("soft"), arrays.weight("next_norm"), job.eps,
                      arrays.made_rows("residual"), arrays.product_rows("next"), n, hidden, stream);
    } else if (job.function == "end_attention") {
        run_end_attention(job, arrays);
    } else if (job.function == "multiply_router") {
        const size_t experts = Arrays::size(job.experts);
        multiply_router(arrays.given("router", experts * Arrays::size(hidden)), arrays.rows("rows"),
                        arrays.made("logits", experts * Arrays::size(n)), n, job.experts, hidden, stream);
    } else if (job.function == "end_layer") {
        run_end_layer(job, arrays);
    } else {
        throw RequestError("no function of layer_rows.h is called " + job.function);
    }
}

}  // namespace

LayerRowsResult run_layer_rows_on_card(const LayerRowsJob& job) {
    if (const std::string why = cuda_unavailable(); !why.empty()) throw BackendError(why);
    if (!fits_rows(job.hidden) || job.n < 1 || job.n > kMaxPassRows)
        throw RequestError("rows outside the kernels' bounds");
    if (job.experts < 1 || job.experts > kMostRouted || job.used < 1) throw RequestError("experts outside the bounds");
    Arrays arrays(job);
    run(job, arrays);
    return arrays.result();
}

}  // namespace dgemma
