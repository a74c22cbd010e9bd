// The vocabulary is walked in batches of 32 groups of 32 tokens, those groups in which some row has mass. A batch is
// converted to 8 bits, tokens and probabilities, and multiplied strip by strip of the result's columns: so what is held
// in 8 bits is small, and a group is converted once for all rows.
#include <algorithm>

#include "cpu/group_product.h"
#include "session/soft_product.h"

namespace dgemma {
namespace {

constexpr int64_t kBatch = 32;     // groups
constexpr int64_t kColumns = 256;  // unpacked at a time: whole blocks of every quantised type

struct HeavyToken {
    int64_t token;
    float p;
};

/// The groups [from, from + n) of `used`, in 8 bits.
struct Batch {
    int64_t from, n;
    std::vector<TokenGroup> tokens;          // [kBatch, strips]
    std::vector<std::vector<int32_t>> rows;  // [kBatch], of those with mass in a group
    std::vector<uint8_t> q;                  // [kBatch, C, 32]
    std::vector<float> d;                    // [kBatch, C]
};

class Int8Product {
  public:
    explicit Int8Product(const ProbabilityProduct& product);

    void run();

  private:
    void take_heavy(int64_t row);
    void find_used();
    void convert_tokens(int64_t i);
    void convert_row(int64_t row);
    void multiply_strip(int64_t strip);
    void finish_row(int64_t row);

    uint8_t has_mass(int64_t row, int64_t group) const { return mass_[static_cast<size_t>(row * n_groups_ + group)]; }

    const ProbabilityProduct& product_;
    int64_t n_groups_, n_strips_;
    std::vector<std::vector<HeavyToken>> heavy_;  // [C]
    std::vector<uint8_t> mass_;                   // [C, groups]
    std::vector<int64_t> used_;                   // groups in which some row has mass
    Batch batch_;
    std::vector<float> sums_;  // [strips, C, kStrip]
};

Int8Product::Int8Product(const ProbabilityProduct& product)
    : product_(product),
      n_groups_((product.n_vocab + kGroup - 1) / kGroup),
      n_strips_((product.hidden() + kStrip - 1) / kStrip),
      heavy_(static_cast<size_t>(product.n_rows)),
      sums_(static_cast<size_t>(n_strips_ * product.n_rows * kStrip)) {
    batch_.tokens.resize(static_cast<size_t>(kBatch * n_strips_));
    batch_.rows.resize(kBatch);
    batch_.q.resize(static_cast<size_t>(product.n_rows * kBatch * kGroup));
    batch_.d.resize(static_cast<size_t>(product.n_rows * kBatch));
}

/// Moves a row's heavy tokens out of p.
void Int8Product::take_heavy(int64_t row) {
    float* p = product_.p + row * product_.n_vocab;
    for (int64_t first = 0; first < product_.n_vocab; first += kGroup) {
        const int64_t end = std::min(first + kGroup, product_.n_vocab);
        bool any = false;  // without a way out of the loop, so that it is vectorised
        for (int64_t i = first; i < end; ++i) any |= p[i] >= kHeavy;
        for (int64_t i = first; any && i < end; ++i) {
            if (!(p[i] >= kHeavy)) continue;
            heavy_[static_cast<size_t>(row)].push_back({i, p[i]});
            p[i] = 0;
        }
    }
}

void Int8Product::find_used() {
    for (int64_t group = 0; group < n_groups_; ++group) {
        for (int64_t row = 0; row < product_.n_rows; ++row) {
            if (!has_mass(row, group)) continue;
            used_.push_back(group);
            break;
        }
    }
}

/// Group i of the batch: its tokens, and the rows that have mass there.
void Int8Product::convert_tokens(int64_t i) {
    const int64_t group = used_[static_cast<size_t>(batch_.from + i)], hidden = product_.hidden();
    std::vector<int32_t>& rows = batch_.rows[static_cast<size_t>(i)];
    rows.clear();
    for (int32_t row = 0; row < product_.n_rows; ++row) {
        if (has_mass(row, group)) rows.push_back(row);
    }
    // What lies beyond the vocabulary stays zero. Columns beyond the last are whatever was there: nobody reads them.
    alignas(64) float values[kGroup * kColumns] = {};
    const int64_t count = std::min(kGroup, product_.n_vocab - group * kGroup);
    for (int64_t first = 0; first < hidden; first += kColumns) {
        const int64_t n = std::min(kColumns, hidden - first);
        unpack_tokens(product_.embedding, group * kGroup, count, first, n, values, kColumns);
        for (int64_t c = 0; c < n; c += kStrip) {
            TokenGroup& to = batch_.tokens[static_cast<size_t>(i * n_strips_ + (first + c) / kStrip)];
            quantise_tokens(values + c, kColumns, to);
        }
    }
}

void Int8Product::convert_row(int64_t row) {
    for (int64_t i = 0; i < batch_.n; ++i) {
        const int64_t group = used_[static_cast<size_t>(batch_.from + i)];
        if (!has_mass(row, group)) continue;
        const float* p = product_.p + row * product_.n_vocab + group * kGroup;
        const auto at = static_cast<size_t>(i * product_.n_rows + row);
        const int64_t count = std::min(kGroup, product_.n_vocab - group * kGroup);
        batch_.d[at] = quantise_probabilities(p, count, batch_.q.data() + at * kGroup);
    }
}

void Int8Product::multiply_strip(int64_t strip) {
    float* sums = sums_.data() + strip * product_.n_rows * kStrip;
    for (int64_t i = 0; i < batch_.n; ++i) {
        const TokenGroup& tokens = batch_.tokens[static_cast<size_t>(i * n_strips_ + strip)];
        const std::vector<int32_t>& rows = batch_.rows[static_cast<size_t>(i)];
        const int64_t first = i * product_.n_rows;
        const ProbabilityGroup p{batch_.q.data() + first * kGroup, batch_.d.data() + first};
        multiply_group(tokens, p, rows.data(), static_cast<int64_t>(rows.size()), sums);
    }
}

/// The sums and the heavy tokens of a row, to the result.
void Int8Product::finish_row(int64_t row) {
    const int64_t hidden = product_.hidden();
    float* out = product_.out + row * hidden;
    for (int64_t c = 0; c < hidden; c += kStrip) {
        const float* sums = sums_.data() + (c / kStrip * product_.n_rows + row) * kStrip;
        std::copy_n(sums, std::min(kStrip, hidden - c), out + c);
    }
    std::vector<float> values(static_cast<size_t>(hidden));
    for (const HeavyToken& heavy : heavy_[static_cast<size_t>(row)]) {
        unpack_tokens(product_.embedding, heavy.token, 1, 0, hidden, values.data(), hidden);
        for (int64_t c = 0; c < hidden; ++c) out[c] += heavy.p * values[static_cast<size_t>(c)];
    }
    for (int64_t c = 0; c < hidden; ++c) out[c] *= product_.scale;
}

void Int8Product::run() {
    ThreadPool& pool = product_.pool;
    const auto n_rows = static_cast<int>(product_.n_rows);
    pool.run(n_rows, [&](int row) { take_heavy(row); });
    mass_ = find_mass(product_, kGroup);
    find_used();
    const auto n_used = static_cast<int64_t>(used_.size());
    for (int64_t from = 0; from < n_used && !product_.stopping(); from += kBatch) {
        batch_.from = from;
        batch_.n = std::min(kBatch, n_used - from);
        const auto n = static_cast<int>(batch_.n);
        pool.run(n + n_rows, [&](int task) { task < n ? convert_tokens(task) : convert_row(task - n); });
        pool.run(static_cast<int>(n_strips_), [&](int strip) { multiply_strip(strip); });
    }
    pool.run(n_rows, [&](int row) { finish_row(row); });
}

}  // namespace

uint64_t int8_scratch(const ProbabilityShape& shape) {
    const int64_t groups = (shape.n_vocab + kGroup - 1) / kGroup, strips = (shape.hidden + kStrip - 1) / kStrip;
    const auto bytes = [](int64_t n, size_t size) { return static_cast<uint64_t>(n) * size; };
    return bytes(shape.n_rows * groups, sizeof(uint8_t)) + bytes(groups, sizeof(int64_t)) +
           bytes(kBatch * strips, sizeof(TokenGroup)) + bytes(shape.n_rows * kBatch, kGroup + sizeof(float)) +
           bytes(strips * shape.n_rows * kStrip, sizeof(float));
}

void multiply_int8(const ProbabilityProduct& product) { Int8Product(product).run(); }

}  // namespace dgemma
