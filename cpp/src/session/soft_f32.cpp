#include <algorithm>
#include <cstring>

#include "session/soft_product.h"

namespace dgemma {
namespace {

// A task owns 256 columns of the result (whole blocks of every quantised type) and walks the vocabulary in panels of 64
// rows: it unpacks the panel's columns once and uses them for all canvas positions.
constexpr int64_t kColumns = 256, kPanel = 64;
// The register tile, positions × columns.
constexpr int64_t kTileRows = 4, kTileColumns = 64;

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

/// One task's scratch: 256 columns of a panel, and of the result.
struct Columns {
    std::vector<float> acc, panel;

    explicit Columns(int64_t n_rows)
        : acc(static_cast<size_t>(n_rows * kColumns), 0.0f), panel(static_cast<size_t>(kPanel * kColumns), 0.0f) {}
};

/// Adds the panel that begins at token `from` for those of the rows that have mass there, gathered tile by tile.
void multiply_rows(const ProbabilityProduct& product, int64_t from, const std::vector<int64_t>& rows, int64_t n,
                   Columns& work) {
    const int64_t depth = std::min(kPanel, product.n_vocab - from);
    constexpr auto kTile = static_cast<size_t>(kTileRows);
    // Columns outside: a tile's part of the panel stays in the first-level cache for all rows.
    for (int64_t c = 0; c < n; c += kTileColumns) {
        for (size_t first = 0; first < rows.size(); first += kTile) {
            const size_t count = std::min(kTile, rows.size() - first);
            const float* p[kTileRows];
            float* acc[kTileRows];
            for (size_t r = 0; r < count; ++r) {
                p[r] = product.p + rows[first + r] * product.n_vocab + from;
                acc[r] = work.acc.data() + rows[first + r] * kColumns + c;
            }
            multiply_tile(p, static_cast<int64_t>(count), depth, work.panel.data() + c, acc);
        }
    }
}

void multiply_columns(const ProbabilityProduct& product, const std::vector<uint8_t>& mass, int64_t first) {
    const int64_t n = std::min(kColumns, product.hidden() - first);
    const int64_t n_panels = (product.n_vocab + kPanel - 1) / kPanel;
    Columns work(product.n_rows);
    std::vector<int64_t> rows;
    for (int64_t index = 0; index < n_panels && !product.stopping(); ++index) {
        rows.clear();
        for (int64_t row = 0; row < product.n_rows; ++row) {
            if (mass[static_cast<size_t>(row * n_panels + index)]) rows.push_back(row);
        }
        if (rows.empty()) continue;
        const int64_t from = index * kPanel, depth = std::min(kPanel, product.n_vocab - from);
        unpack_tokens(product.embedding, from, depth, first, n, work.panel.data(), kColumns);
        multiply_rows(product, from, rows, n, work);
    }
    for (int64_t row = 0; row < product.n_rows; ++row) {
        float* to = product.out + row * product.hidden() + first;
        for (int64_t c = 0; c < n; ++c) to[c] = work.acc[static_cast<size_t>(row * kColumns + c)] * product.scale;
    }
}

}  // namespace

uint64_t f32_scratch(const ProbabilityShape& shape, int n_threads) {
    const int64_t mass = shape.n_rows * ((shape.n_vocab + kPanel - 1) / kPanel);
    const int64_t columns = (shape.n_rows + kPanel) * kColumns * static_cast<int64_t>(sizeof(float));
    return static_cast<uint64_t>(mass + n_threads * columns);
}

void multiply_f32(const ProbabilityProduct& product) {
    const std::vector<uint8_t> mass = find_mass(product, kPanel);
    const int n_tasks = static_cast<int>((product.hidden() + kColumns - 1) / kColumns);
    product.pool.run(n_tasks, [&](int task) { multiply_columns(product, mass, task * kColumns); });
}

}  // namespace dgemma
