#include "session/soft_embedding.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "denoise/rows.h"

namespace dgemma {
namespace {

// A task owns 256 columns of the result (whole blocks of every quantised type) and walks the vocabulary in panels of 64
// rows: it unpacks the panel's columns once and uses them for all canvas positions.
constexpr int64_t kColumns = 256, kPanel = 64;
// The register tile: positions × columns.
constexpr int64_t kTileRows = 4, kTileColumns = 64;

struct Product {
    const float* p;  // [C, V]
    int64_t n_rows, n_vocab;
    const ggml_tensor* embedding;
    float* out;  // [C, hidden]
    float scale;
};

/// acc[r][c] += sum over k of p[r][k] * panel[k][c], one register tile; `stride`: floats between the rows of p.
void multiply_tile(const float* p, int64_t stride, int64_t rows, int64_t depth, const float* panel, float* acc) {
    float tile[kTileRows][kTileColumns];
    for (int64_t r = 0; r < kTileRows; ++r) {
        std::memcpy(tile[r], acc + std::min(r, rows - 1) * kColumns, sizeof tile[r]);
    }
    for (int64_t k = 0; k < depth; ++k) {
        const float* e = panel + k * kColumns;
        for (int64_t r = 0; r < kTileRows; ++r) {
            const float weight = p[std::min(r, rows - 1) * stride + k];
            for (int64_t c = 0; c < kTileColumns; ++c) tile[r][c] += weight * e[c];
        }
    }
    for (int64_t r = 0; r < rows; ++r) std::memcpy(acc + r * kColumns, tile[r], sizeof tile[r]);
}

bool all_zero(const float* p, int64_t stride, int64_t rows, int64_t depth) {
    for (int64_t r = 0; r < rows; ++r) {
        for (int64_t k = 0; k < depth; ++k) {
            if (p[r * stride + k] != 0.0f) return false;
        }
    }
    return true;
}

/// Columns first … first + n of embedding rows `from` … `from` + count, as F32, kColumns floats a row.
void unpack_panel(const ggml_tensor* embedding, int64_t from, int64_t count, int64_t first, int64_t n, float* panel) {
    const auto* base = static_cast<const uint8_t*>(embedding->data) + ggml_row_size(embedding->type, first);
    const ggml_to_float_t to_float = ggml_get_type_traits(embedding->type)->to_float;
    for (int64_t row = 0; row < count; ++row) {
        const uint8_t* source = base + static_cast<size_t>(from + row) * embedding->nb[1];
        if (embedding->type == GGML_TYPE_F32) {
            std::memcpy(panel + row * kColumns, source, static_cast<size_t>(n) * sizeof(float));
        } else {
            to_float(source, panel + row * kColumns, n);
        }
    }
}

void multiply_columns(const Product& product, int64_t first, const std::function<bool()>& stopping) {
    const int64_t hidden = product.embedding->ne[0], n = std::min(kColumns, hidden - first);
    std::vector<float> acc(static_cast<size_t>(product.n_rows * kColumns), 0.0f);
    std::vector<float> panel(static_cast<size_t>(kPanel * kColumns), 0.0f);
    for (int64_t from = 0; from < product.n_vocab && !stopping(); from += kPanel) {
        const int64_t depth = std::min(kPanel, product.n_vocab - from);
        unpack_panel(product.embedding, from, depth, first, n, panel.data());
        for (int64_t row = 0; row < product.n_rows; row += kTileRows) {
            const int64_t rows = std::min(kTileRows, product.n_rows - row);
            const float* p = product.p + row * product.n_vocab + from;
            if (all_zero(p, product.n_vocab, rows, depth)) continue;
            for (int64_t c = 0; c < n; c += kTileColumns) {
                multiply_tile(p, product.n_vocab, rows, depth, panel.data() + c, acc.data() + row * kColumns + c);
            }
        }
    }
    for (int64_t row = 0; row < product.n_rows; ++row) {
        float* to = product.out + row * hidden + first;
        for (int64_t c = 0; c < n; ++c) to[c] = acc[static_cast<size_t>(row * kColumns + c)] * product.scale;
    }
}

}  // namespace

void soft_embedding(float* z, int canvas_length, const ggml_tensor* embedding, float* out, ThreadPool& pool,
                    const std::function<bool()>& stopping) {
    const int64_t hidden = embedding->ne[0], n_vocab = embedding->ne[1];
    pool.run(canvas_length, [&](int row) {
        if (!stopping()) softmax_row(z + row * n_vocab, n_vocab);
    });
    const Product product{z, canvas_length, n_vocab, embedding, out, std::sqrt(static_cast<float>(hidden))};
    const int n_tasks = static_cast<int>((hidden + kColumns - 1) / kColumns);
    pool.run(n_tasks, [&](int task) { multiply_columns(product, task * kColumns, stopping); });
}

}  // namespace dgemma
