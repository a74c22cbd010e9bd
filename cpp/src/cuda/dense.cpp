// What is multiplied by which kernel, and together with what.
#include "cuda/dense.h"

#include <string>

#include "cuda/dense_batch.h"
#include "dgemma/dgemma.h"

namespace dgemma::cuda {
namespace {

/// About half of k columns, which begin like a row does: after whole blocks and a multiple of 16 bytes. 0: there are
/// none.
int half_columns(ggml_type type, int k) {
    int step = kGroupValues;
    while (step % ggml_blck_size(type) != 0 || ggml_row_size(type, step) % 16 != 0) step *= 2;
    return k / 2 / step * step;
}

void check(const DenseWeight& weight, int n, int k) {
    const bool is_whole = k >= kGroupValues && k % kGroupValues == 0 && k % ggml_blck_size(weight.type) == 0;
    const bool fits = weight.rows >= 1 && tiles(weight.rows, kLeastTileRows) <= UINT16_MAX;
    if (has_dense_product(weight.type) && n >= 1 && n <= kMaxPassRows && is_whole && fits) return;
    throw RequestError(std::string("CUDA: no kernel multiplies ") + ggml_type_name(weight.type) + " [" +
                       std::to_string(weight.rows) + ", " + std::to_string(k) + "] by " + std::to_string(n) + " rows");
}

/// Products of one type that are not launched yet.
class Together {
  public:
    Together(const ProductRows& x, int n, int k, const Stream& stream) : x_(x), n_(n), k_(k), stream_(stream) {}

    void add(const DensePart& part) {
        const int more = tiles(part.product.weight.rows, kLeastTileRows);
        if (count_ == kMostTogether || n_tiles_ + more > UINT16_MAX) launch();
        parts_[count_++] = part;
        n_tiles_ += more;
    }

    void launch() {
        if (count_ > 0 && x_.arithmetic == Arithmetic::kInt8) {
            launch_int8(parts_, count_, x_, n_, k_, stream_);
        } else if (count_ > 0) {
            launch_bf16(parts_, count_, x_, n_, k_, stream_);
        }
        count_ = n_tiles_ = 0;
    }

  private:
    const ProductRows x_;
    const int n_, k_;
    const Stream& stream_;
    DensePart parts_[kMostTogether];
    int count_ = 0, n_tiles_ = 0;
};

}  // namespace

DenseBatch batch_of(const DensePart* parts, int count, int tile_rows) {
    DenseBatch batch{};
    for (int i = 0; i < kMostTogether; ++i) {
        batch.parts[i] = parts[i < count ? i : 0];
        batch.begins[i] = i < count ? batch.n_tiles : INT_MAX;
        if (i < count) batch.n_tiles += tiles(parts[i].product.weight.rows, tile_rows);
    }
    return batch;
}

void multiply_dense(const DenseProduct* products, int count, const ProductRows& x, int n, int k, const Stream& stream) {
    for (int i = 0; i < count; ++i) check(products[i].weight, n, k);
    const auto type = [&](int i) { return products[i].weight.type; };
    for (int first = 0; first < count; ++first) {
        int same = 0;
        while (type(same) != type(first)) ++same;
        if (same < first) continue;  // launched with that one
        Together together(x, n, k, stream);
        for (int i = first; i < count; ++i) {
            if (type(i) == type(first)) together.add({products[i], 0, k});
        }
        together.launch();
    }
}

SharedSums multiply_shared(const DenseWeight& weight, float* parts, const ProductRows& x, int n, int k,
                           const Stream& stream) {
    check(weight, n, k);
    Together together(x, n, k, stream);
    const int first = most_shares(x.arithmetic) == 1 ? 0 : half_columns(weight.type, k);
    DenseWeight rest = weight;
    rest.data += ggml_row_size(weight.type, first);
    if (first > 0) together.add({{weight, parts}, 0, first});
    together.add({{rest, first > 0 ? parts + static_cast<int64_t>(n) * weight.rows : parts}, first, k - first});
    together.launch();
    return {parts, first > 0 ? 2 : 1};
}

void multiply_gated(const DenseWeight& gate, const DenseWeight& up, const ProductRows& x, const ProductRows& gated,
                    int n, int k, const Stream& stream) {
    check(gate, n, k);
    check(up, n, k);
    const bool fits = gate.rows % kGroupValues == 0 && gate.rows / kGroupValues <= UINT16_MAX;
    if (gate.type != up.type || gate.rows != up.rows || !fits) {
        throw RequestError("CUDA: no kernel multiplies a gate and up of " + std::to_string(gate.rows) + " and " +
                           std::to_string(up.rows) + " rows, or of different types");
    }
    const DenseGate both{gate, up, gated};
    if (x.arithmetic == Arithmetic::kInt8) return launch_int8(both, x, n, k, stream);
    launch_bf16(both, x, n, k, stream);
}

}  // namespace dgemma::cuda
