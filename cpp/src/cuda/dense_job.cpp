// The dense products from and to the host's memory, for comparing them with plain arithmetic.
#include "cuda/dense.h"
#include "cuda/host_copies.h"
#include "dgemma/dgemma.h"
#include "support/types.h"

namespace dgemma {
namespace {

using namespace cuda;

size_t size(int64_t n) { return static_cast<size_t>(n); }

/// Rows of 8 bits on the card.
class CardRows {
  public:
    CardRows(int n, int k) : values_(size(n) * size(k)), scales_(values_.size() / kGroupValues) {}

    ProductRows rows() const { return {Arithmetic::kInt8, reinterpret_cast<uint8_t*>(values_.data()), scales_.data()}; }

    /// What they stand for, in order.
    std::vector<float> values() const {
        const std::vector<int8_t> q = downloaded(values_.data(), values_.size());
        const std::vector<GroupScale> scales = downloaded(scales_.data(), scales_.size());
        std::vector<float> x(q.size());
        for (size_t i = 0; i < x.size(); ++i) {
            const size_t group = i / kGroupValues, v = i % kGroupValues;
            const size_t place = v / 4 % 4 * 8 + v / 16 * 4 + v % 4;
            x[i] = scales[group].d * static_cast<float>(q[group * kGroupValues + place]);
        }
        return x;
    }

  private:
    DeviceArray<int8_t> values_;
    DeviceArray<GroupScale> scales_;
};

}  // namespace

std::vector<std::vector<float>> run_dense_on_card(const DenseJob& job) {
    if (const std::string why = cuda_unavailable(); !why.empty()) throw BackendError(why);
    const auto x = uploaded<float>(job.x, size(job.n) * size(job.k));
    const CardRows rows(job.n, job.k);
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
    round_rows(x.data(), job.n, job.k, rows.rows(), stream);
    if (job.is_gated) {
        const CardRows gated(job.n, job.weights.at(0).rows);
        multiply_gated(products.at(0).weight, products.at(1).weight, rows.rows(), gated.rows(), job.n, job.k, stream);
        stream.wait();
        return {gated.values()};
    }
    multiply_dense(products.data(), static_cast<int>(products.size()), rows.rows(), job.n, job.k, stream);
    stream.wait();
    std::vector<std::vector<float>> results;
    for (const auto& out : outs) results.push_back(downloaded(out.data(), out.size()));
    return results;
}

}  // namespace dgemma
