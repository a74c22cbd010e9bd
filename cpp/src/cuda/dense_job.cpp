// The dense products from and to the host's memory, for comparing them with plain arithmetic.
#include <cstring>

#include "cuda/card_rows.h"
#include "cuda/dense.h"
#include "cuda/host_copies.h"
#include "dgemma/card_jobs.h"
#include "support/types.h"

namespace dgemma {
namespace {

using namespace cuda;

size_t size(int64_t n) { return static_cast<size_t>(n); }

/// What rows on the card stand for, in order.
std::vector<float> values_of(const ProductRows& rows, int n, int k) {
    std::vector<float> x(size(n) * size(k));
    const std::vector<uint8_t> bytes =
        downloaded(rows.values, x.size() * static_cast<size_t>(value_bytes(rows.arithmetic)));
    const bool is_int8 = rows.arithmetic == Arithmetic::kInt8;
    std::vector<GroupScale> scales;
    if (is_int8) scales = downloaded(rows.scales, x.size() / kGroupValues);
    for (size_t i = 0; i < x.size(); ++i) {
        const size_t group = i / kGroupValues, v = i % kGroupValues;
        const size_t place = group * kGroupValues + v / 4 % 4 * 8 + v / 16 * 4 + v % 4;
        if (is_int8) {
            x[i] = scales[group].d * static_cast<float>(static_cast<int8_t>(bytes[place]));
        } else {
            uint16_t bits;
            std::memcpy(&bits, &bytes[2 * place], sizeof bits);
            x[i] = ggml_bf16_to_fp32({bits});
        }
    }
    return x;
}

std::vector<float> summed(const DenseProduct& product, const ProductRows& rows, const DenseJob& job,
                          const cuda::Stream& stream) {
    std::vector<float> sums(size(job.n) * size(product.weight.rows));
    const DeviceArray<float> parts(sums.size() * size(most_shares(rows.arithmetic)));
    const SharedSums shared = multiply_shared(product.weight, parts.data(), rows, job.n, job.k, stream);
    stream.wait();
    for (int i = 0; i < shared.shares; ++i) {
        const std::vector<float> part = downloaded(shared.parts + size(i) * sums.size(), sums.size());
        for (size_t v = 0; v < sums.size(); ++v) sums[v] += part[v];
    }
    return sums;
}

}  // namespace

std::vector<std::vector<float>> run_dense_on_card(const DenseJob& job) {
    if (const std::string why = cuda_unavailable(); !why.empty()) throw BackendError(why);
    const auto x = uploaded<float>(job.x, size(job.n) * size(job.k));
    const Arithmetic arithmetic = job.is_bf16 ? Arithmetic::kBf16 : Arithmetic::kInt8;
    const CardRows rows(arithmetic, job.n, job.k);
    std::vector<DeviceArray<uint8_t>> weights;
    std::vector<DeviceArray<float>> outs;
    std::vector<DenseProduct> products;
    for (const DenseMatrix& matrix : job.weights) {
        const size_t n_bytes = row_bytes(matrix.type, job.k);
        weights.push_back(uploaded<uint8_t>(matrix.data, n_bytes * size(matrix.rows)));
        outs.emplace_back(size(job.n) * size(matrix.rows));
        products.push_back(
            {{weight_type(matrix.type), weights.back().data(), static_cast<int64_t>(n_bytes), matrix.rows},
             outs.back().data()});
    }
    const cuda::Stream stream;  // ends before what it works on
    round_rows(x.data(), job.n, job.k, rows.get(), stream);
    if (job.is_gated) {
        const CardRows gated(job.gated_is_bf16 ? Arithmetic::kBf16 : Arithmetic::kInt8, job.n, job.weights.at(0).rows);
        multiply_gated(products.at(0).weight, products.at(1).weight, rows.get(), gated.get(), job.n, job.k, stream);
        stream.wait();
        return {values_of(gated.get(), job.n, job.weights[0].rows)};
    }
    if (job.is_shared) return {summed(products.at(0), rows.get(), job, stream)};
    multiply_dense(products.data(), static_cast<int>(products.size()), rows.get(), job.n, job.k, stream);
    stream.wait();
    std::vector<std::vector<float>> results;
    for (const auto& out : outs) results.push_back(downloaded(out.data(), out.size()));
    return results;
}

}  // namespace dgemma
