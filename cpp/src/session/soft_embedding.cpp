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
    const float* p;             // [C, V]
    std::vector<uint8_t> mass;  // [C, panels], see find_mass
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

/// Zeroes the probabilities below `cut` and says, for each row and each panel of the vocabulary, whether any is left.
/// Once a row is sure of its token, almost none is.
std::vector<uint8_t> find_mass(float* p, int64_t n_rows, int64_t n_vocab, float cut, ThreadPool& pool) {
    const int64_t n_panels = (n_vocab + kPanel - 1) / kPanel;
    std::vector<uint8_t> mass(static_cast<size_t>(n_rows * n_panels), 0);
    pool.run(static_cast<int>(n_rows), [&](int row) {
        for (int64_t i = 0; i < n_vocab; ++i) {
            float& value = p[row * n_vocab + i];
            value = value < cut ? 0.0f : value;
        }
        for (int64_t panel = 0; panel < n_panels; ++panel) {
            const float* first = p + row * n_vocab + panel * kPanel;
            const float* last = first + std::min(kPanel, n_vocab - panel * kPanel);
            mass[static_cast<size_t>(row * n_panels + panel)] =
                std::any_of(first, last, [](float x) { return x != 0.0f; });
        }
    });
    return mass;
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
    const int64_t n_panels = (product.n_vocab + kPanel - 1) / kPanel;
    const auto has_mass = [&](int64_t row, int64_t rows, int64_t index) {
        for (int64_t r = row; r < row + rows; ++r) {
            if (product.mass[static_cast<size_t>(r * n_panels + index)]) return true;
        }
        return false;
    };
    for (int64_t index = 0; index < n_panels && !stopping(); ++index) {
        if (!has_mass(0, product.n_rows, index)) continue;
        const int64_t from = index * kPanel, depth = std::min(kPanel, product.n_vocab - from);
        unpack_panel(product.embedding, from, depth, first, n, panel.data());
        for (int64_t row = 0; row < product.n_rows; row += kTileRows) {
            const int64_t rows = std::min(kTileRows, product.n_rows - row);
            if (!has_mass(row, rows, index)) continue;
            const float* p = product.p + row * product.n_vocab + from;
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

void soft_embedding(float* z, int canvas_length, const ggml_tensor* embedding, float dropped_mass, float* out,
                    ThreadPool& pool, const std::function<bool()>& stopping) {
    const int64_t hidden = embedding->ne[0], n_vocab = embedding->ne[1];
    pool.run(canvas_length, [&](int row) {
        if (!stopping()) softmax_row(z + row * n_vocab, n_vocab);
    });
    const float cut = dropped_mass / static_cast<float>(n_vocab);
    const Product product{z,
                          find_mass(z, canvas_length, n_vocab, cut, pool),
                          canvas_length,
                          n_vocab,
                          embedding,
                          out,
                          std::sqrt(static_cast<float>(hidden))};
    const int n_tasks = static_cast<int>((hidden + kColumns - 1) / kColumns);
    pool.run(n_tasks, [&](int task) { multiply_columns(product, task * kColumns, stopping); });
}

}  // namespace dgemma
