// What is multiplied by which kernel, and together with what.
#include "cuda/dense.h"

#include <string>

#include "cuda/dense_batch.h"
#include "dgemma/dgemma.h"

namespace dgemma::cuda {
namespace {

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

    void add(const DenseProduct& product) {
        const int more = tiles(product.weight.rows, kLeastTileRows);
        if (count_ == kMostTogether || n_tiles_ + more > UINT16_MAX) launch();
        products_[count_++] = product;
        n_tiles_ += more;
    }

    void launch() {
        if (count_ > 0 && x_.arithmetic == Arithmetic::kInt8) {
            launch_int8(products_, count_, x_, n_, k_, stream_);
        } else if (count_ > 0) {
            launch_bf16(products_, count_, x_, n_, k_, stream_);
        }
        count_ = n_tiles_ = 0;
    }

  private:
    const ProductRows x_;
    const int n_, k_;
    const Stream& stream_;
    DenseProduct products_[kMostTogether];
    int count_ = 0, n_tiles_ = 0;
};

}  // namespace

DenseBatch batch_of(const DenseProduct* products, int count, int tile_rows) {
    DenseBatch batch{};
    for (int i = 0; i < kMostTogether; ++i) {
        batch.products[i] = products[i < count ? i : 0];
        batch.begins[i] = i < count ? batch.n_tiles : INT_MAX;
        if (i < count) batch.n_tiles += tiles(products[i].weight.rows, tile_rows);
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
            if (type(i) == type(first)) together.add(products[i]);
        }
        together.launch();
    }
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
