#include "session/soft_embedding.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "cpu/bf16_product.h"
#include "cpu/panel.h"
#include "cpu/unpack.h"
#include "denoise/rows.h"
#include "dgemma/dgemma.h"
#include "model/devices.h"
#include "support/types.h"

namespace dgemma {
namespace {

// A task owns 256 columns of the result (whole blocks of every quantised type) and walks the vocabulary in panels of 64
// rows: it unpacks the panel's columns once and uses them for all canvas positions.
constexpr int64_t kColumns = 256, kPanel = 64;
// The register tile, positions × columns: in F32, and where the processor multiplies BF16.
constexpr int64_t kTileRows = 4, kTileColumns = 64;
static_assert(kTileColumns == kBf16Columns && kTileRows <= kBf16Rows && kPanel <= kBf16Depth);

struct Product {
    const float* p;             // [C, V]
    std::vector<uint8_t> mass;  // [C, panels], see find_mass
    int64_t n_rows, n_vocab;
    const ggml_tensor* embedding;
    float* out;  // [C, hidden]
    float scale;
    bool bf16;  // round both factors
};

/// acc[r][c] += sum over k of p[r][k] * panel[k][c], one register tile of `rows` rows.
void multiply_tile(const float* const* p, int64_t rows, int64_t depth, const float* panel, float* const* acc) {
    float tile[kTileRows][kTileColumns];
    for (int64_t r = 0; r < kTileRows; ++r) std::memcpy(tile[r], acc[std::min(r, rows - 1)], sizeof tile[r]);
    for (int64_t k = 0; k < depth; ++k) {
        const float* e = panel + k * kColumns;
        for (int64_t r = 0; r < kTileRows; ++r) {
            const float weight = p[std::min(r, rows - 1)][k];
            for (int64_t c = 0; c < kTileColumns; ++c) tile[r][c] += weight * e[c];
        }
    }
    for (int64_t r = 0; r < rows; ++r) std::memcpy(acc[r], tile[r], sizeof tile[r]);
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

/// n values of a row as F32. `unpacker`: ours, faster than ggml's; null where there is none.
void unpack_row(ggml_type type, const Unpacker* unpacker, const uint8_t* row, int64_t n, float* to) {
    if (unpacker != nullptr) return unpack_floats(*unpacker, row, n, to);
    if (type != GGML_TYPE_F32) return ggml_get_type_traits(type)->to_float(row, to, n);
    std::memcpy(to, row, static_cast<size_t>(n) * sizeof(float));
}

/// Columns first … first + n of embedding rows `from` … `from` + count, as F32, kColumns floats a row.
void unpack_panel(const ggml_tensor* embedding, int64_t from, int64_t count, int64_t first, int64_t n, float* panel) {
    const auto* base = static_cast<const uint8_t*>(embedding->data) + ggml_row_size(embedding->type, first);
    const Unpacker* unpacker = can_multiply_panels(embedding->type) ? find_unpacker(embedding->type) : nullptr;
    for (int64_t row = 0; row < count; ++row) {
        const uint8_t* source = base + static_cast<size_t>(from + row) * embedding->nb[1];
        unpack_row(embedding->type, unpacker, source, n, panel + row * kColumns);
    }
}

/// One task's scratch: 256 columns of a panel, and of the result.
struct Columns {
    std::vector<float> acc, panel;
    std::vector<uint32_t> pairs;

    explicit Columns(int64_t n_rows)
        : acc(static_cast<size_t>(n_rows * kColumns), 0.0f),
          panel(static_cast<size_t>(kPanel * kColumns), 0.0f),
          pairs(static_cast<size_t>(kPanel / 2 * kColumns), 0) {}
};

/// Adds panel `index` for those of the rows that have mass there, gathered tile by tile.
void multiply_rows(const Product& product, int64_t index, const std::vector<int64_t>& rows, int64_t n, Columns& work) {
    const int64_t from = index * kPanel, depth = std::min(kPanel, product.n_vocab - from);
    const auto tile = static_cast<size_t>(product.bf16 ? kBf16Rows : kTileRows);
    if (product.bf16) pack_bf16_pairs(work.panel.data(), depth, kColumns, work.pairs.data());
    // Columns outside: a tile's part of the panel stays in the first-level cache for all rows.
    for (int64_t c = 0; c < n; c += kTileColumns) {
        for (size_t first = 0; first < rows.size(); first += tile) {
            const size_t count = std::min(tile, rows.size() - first);
            const float* p[kBf16Rows];
            float* acc[kBf16Rows];
            for (size_t r = 0; r < count; ++r) {
                p[r] = product.p + rows[first + r] * product.n_vocab + from;
                acc[r] = work.acc.data() + rows[first + r] * kColumns + c;
            }
            if (product.bf16) {
                multiply_bf16_pairs(p, static_cast<int64_t>(count), depth, work.pairs.data() + c, kColumns, acc);
            } else {
                multiply_tile(p, static_cast<int64_t>(count), depth, work.panel.data() + c, acc);
            }
        }
    }
}

void multiply_columns(const Product& product, int64_t first, const std::function<bool()>& stopping) {
    const int64_t hidden = product.embedding->ne[0], n = std::min(kColumns, hidden - first);
    const int64_t n_panels = (product.n_vocab + kPanel - 1) / kPanel;
    Columns work(product.n_rows);
    std::vector<int64_t> rows;
    for (int64_t index = 0; index < n_panels && !stopping(); ++index) {
        rows.clear();
        for (int64_t row = 0; row < product.n_rows; ++row) {
            if (product.mass[static_cast<size_t>(row * n_panels + index)]) rows.push_back(row);
        }
        if (rows.empty()) continue;
        const int64_t from = index * kPanel, depth = std::min(kPanel, product.n_vocab - from);
        unpack_panel(product.embedding, from, depth, first, n, work.panel.data());
        multiply_rows(product, index, rows, n, work);
    }
    for (int64_t row = 0; row < product.n_rows; ++row) {
        float* to = product.out + row * hidden + first;
        for (int64_t c = 0; c < n; ++c) to[c] = work.acc[static_cast<size_t>(row * kColumns + c)] * product.scale;
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
                          std::sqrt(static_cast<float>(hidden)),
                          /*bf16=*/dropped_mass > 0 && embedding->type != GGML_TYPE_F32 && has_bf16_product()};
    const int n_tasks = static_cast<int>((hidden + kColumns - 1) / kColumns);
    pool.run(n_tasks, [&](int task) { multiply_columns(product, task * kColumns, stopping); });
}

void multiply_soft(const SoftProduct& product) {
    const ContextPtr context = make_tensor_context(1);
    ggml_tensor* embedding =
        ggml_new_tensor_2d(context.get(), weight_type(product.type), product.n_cols, product.n_rows);
    embedding->data = const_cast<void*>(product.embedding);
    std::vector<float> z(product.z, product.z + product.n * product.n_rows);
    ThreadPool pool(product.n_threads);
    soft_embedding(z.data(), product.n, embedding, product.dropped_mass, product.result, pool, [] { return false; });
}

}  // namespace dgemma
