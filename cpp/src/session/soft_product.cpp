#include "session/soft_product.h"

#include <algorithm>
#include <cstring>

#include "cpu/unpack.h"

namespace dgemma {
namespace {

/// Whether any of n values is not zero; by their bits, so that what is not a number counts too.
bool any_mass(const float* p, int64_t n) {
    uint32_t any = 0;
    for (int64_t i = 0; i < n; ++i) {
        uint32_t bits;
        std::memcpy(&bits, p + i, sizeof bits);
        any |= bits;
    }
    return any != 0;
}

/// n values of a row as F32. `unpacker`: ours, faster than ggml's; null where there is none.
void unpack_row(ggml_type type, const Unpacker* unpacker, const uint8_t* row, int64_t n, float* to) {
    if (unpacker != nullptr) return unpack_floats(*unpacker, row, n, to);
    if (type != GGML_TYPE_F32) return ggml_get_type_traits(type)->to_float(row, to, n);
    std::memcpy(to, row, static_cast<size_t>(n) * sizeof(float));
}

}  // namespace

std::vector<uint8_t> find_mass(const ProbabilityProduct& product, int64_t piece) {
    const int64_t n_pieces = (product.n_vocab + piece - 1) / piece;
    std::vector<uint8_t> mass(static_cast<size_t>(product.n_rows * n_pieces));
    product.pool.run(static_cast<int>(product.n_rows), [&](int row) {
        for (int64_t i = 0; i < n_pieces; ++i) {
            const float* p = product.p + row * product.n_vocab + i * piece;
            mass[static_cast<size_t>(row * n_pieces + i)] = any_mass(p, std::min(piece, product.n_vocab - i * piece));
        }
    });
    return mass;
}

void unpack_tokens(const ggml_tensor* embedding, int64_t from, int64_t count, int64_t first, int64_t n, float* to,
                   int64_t stride) {
    const auto* base = static_cast<const uint8_t*>(embedding->data) + ggml_row_size(embedding->type, first);
    const Unpacker* unpacker = find_unpacker(embedding->type);
    for (int64_t row = 0; row < count; ++row) {
        const uint8_t* source = base + static_cast<size_t>(from + row) * embedding->nb[1];
        unpack_row(embedding->type, unpacker, source, n, to + row * stride);
    }
}

}  // namespace dgemma
