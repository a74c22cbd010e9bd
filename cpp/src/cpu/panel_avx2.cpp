// With AVX2: 8 rows in a register, four values of each.
#include "cpu/panel_avx2.h"

#include <algorithm>
#include <cstring>

#include "cpu/prefetch.h"

namespace dgemma::avx2 {
namespace {

Placer find_placer(ggml_type type) {
    const Placer placer = find_placer_32(type);
    return placer != nullptr ? placer : find_placer_256(type);
}

void fill_panel(const PanelRows& rows, int64_t first, int64_t count, Placer place, Panel& panel) {
    const uint8_t* blocks = rows.data + ggml_row_size(rows.type, first);
    for (int quarter = 0; quarter < kQuarters; ++quarter) {
        place(blocks + quarter * kLanes * rows.stride, rows.stride, count, quarter, panel);
    }
}

__m256i load(const void* p) { return _mm256_load_si256(static_cast<const __m256i*>(p)); }

/// Keeps a value in a register, as in panel_avx512.cpp: compilers read weights from memory again in each instruction,
/// and add in another order, for which they keep every product of a group in memory.
__m256i held(__m256i value) {
    asm("" : "+x"(value));
    return value;
}

/// Adds kChunk dwords of a panel, from `first` on, times the columns' values from `at` on, in pairs.
template <int kChunk, int kColumns>
void add_pairs(const Panel& panel, int64_t first, int half, const Int8Row* columns, int64_t at,
               __m256i (&pairs)[kColumns][2]) {
#pragma GCC unroll 8
    for (int i = 0; i < kChunk; ++i) {
        const __m256i low = held(load(panel.values[first + i][2 * half]));
        const __m256i high = held(load(panel.values[first + i][2 * half + 1]));
#pragma GCC unroll 8
        for (int c = 0; c < kColumns; ++c) {
            int32_t four;
            std::memcpy(&four, columns[c].q + at + 4 * i, sizeof four);
            const __m256i x = _mm256_set1_epi32(four);
            pairs[c][0] = held(_mm256_add_epi16(pairs[c][0], _mm256_maddubs_epi16(x, low)));
            pairs[c][1] = held(_mm256_add_epi16(pairs[c][1], _mm256_maddubs_epi16(x, high)));
        }
    }
}

/// The dot products of scale `sub` of the panel's group g, which is `group` of the columns, with half its rows.
template <typename Form, int kColumns>
void multiply_sub(const Panel& panel, int64_t g, int sub, int half, const Int8Row* columns, int64_t group,
                  __m256i (&dot)[kColumns][2]) {
    constexpr int kDwords = kGroupDwords / Form::kSubs;
    for (int c = 0; c < kColumns; ++c) {
        for (int r = 0; r < 2; ++r) dot[c][r] = load(panel.starts[g * Form::kSubs + sub][2 * half + r]);
    }
#pragma GCC unroll 8
    for (int digit = 0; digit < Form::kDigits; ++digit) {
        const bool last = digit == Form::kDigits - 1;
        const __m256i from = _mm256_set1_epi16(Form::kUnsigned || digit > 0 ? -32768 : 0);
        const __m256i times = _mm256_set1_epi16(last ? 1 : 16);
#pragma GCC unroll 8
        for (int i = sub * kDwords; i < (sub + 1) * kDwords; i += Form::kChunk) {
            __m256i pairs[kColumns][2];
            for (int c = 0; c < kColumns; ++c) pairs[c][0] = pairs[c][1] = from;
            const int64_t first = (g * Form::kDigits + digit) * kGroupDwords + i;
            add_pairs<Form::kChunk, kColumns>(panel, first, half, columns, group * kGroup + 4 * i, pairs);
            for (int c = 0; c < kColumns; ++c) {
                for (int r = 0; r < 2; ++r) {
                    dot[c][r] = _mm256_add_epi32(dot[c][r], _mm256_madd_epi16(pairs[c][r], times));
                }
            }
        }
    }
}

/// Adds to kColumns columns by half a panel's rows. n_groups: of the panel, which are the columns' groups from `group`
/// on. The operations in F32 are those of panel_avx512.cpp, in the same order.
template <typename Form, int kColumns>
void multiply_block(const Panel& panel, int half, const Int8Row* columns, int64_t group, int64_t n_groups,
                    float (*out)[kPanelRows]) {
    __m256 sum[kColumns][2];
    for (int c = 0; c < kColumns; ++c) {
        for (int r = 0; r < 2; ++r) sum[c][r] = _mm256_loadu_ps(out[c] + (2 * half + r) * kLanes);
    }
    for (int64_t g = 0; g < n_groups; ++g) {
        __m256 scaled[kColumns][2];
#pragma GCC unroll 2
        for (int sub = 0; sub < Form::kSubs; ++sub) {
            __m256i dot[kColumns][2];
            multiply_sub<Form, kColumns>(panel, g, sub, half, columns, group + g, dot);
            for (int r = 0; r < 2; ++r) {
                const __m256 scale = _mm256_load_ps(panel.scales[g * Form::kSubs + sub][2 * half + r]);
                for (int c = 0; c < kColumns; ++c) {
                    const __m256 value = _mm256_cvtepi32_ps(dot[c][r]);
                    scaled[c][r] = sub == 0 ? _mm256_mul_ps(value, scale) : _mm256_fmadd_ps(value, scale, scaled[c][r]);
                }
            }
        }
        for (int c = 0; c < kColumns; ++c) {
            const __m256 d = _mm256_set1_ps(columns[c].d[group + g]);
            for (int r = 0; r < 2; ++r) sum[c][r] = _mm256_fmadd_ps(scaled[c][r], d, sum[c][r]);
        }
        if constexpr (Form::kUnsigned) {
            for (int r = 0; r < 2; ++r) {
                const __m256 min = _mm256_load_ps(panel.mins[g][2 * half + r]);
                for (int c = 0; c < kColumns; ++c) {
                    sum[c][r] = _mm256_fnmadd_ps(min, _mm256_set1_ps(columns[c].d_sum[group + g]), sum[c][r]);
                }
            }
        }
    }
    for (int c = 0; c < kColumns; ++c) {
        for (int r = 0; r < 2; ++r) _mm256_storeu_ps(out[c] + (2 * half + r) * kLanes, sum[c][r]);
    }
}

using MultiplyBlock = void (*)(const Panel& panel, int half, const Int8Row* columns, int64_t group, int64_t n_groups,
                               float (*out)[kPanelRows]);

/// By the number of columns, from one: at most four, which is what the 16 registers hold.
constexpr int64_t kMostColumns = 4;
using Blocks = MultiplyBlock[kMostColumns];
template <typename Form>
constexpr Blocks kBlocks = {multiply_block<Form, 1>, multiply_block<Form, 2>, multiply_block<Form, 3>,
                            multiply_block<Form, 4>};

/// Null for a type that there are none for.
const Blocks* find_blocks(ggml_type type) {
    switch (type) {
        case GGML_TYPE_Q4_0:
            return &kBlocks<FourSigned>;
        case GGML_TYPE_Q4_1:
        case GGML_TYPE_Q4_K:
            return &kBlocks<FourUnsigned>;
        case GGML_TYPE_Q5_0:
            return &kBlocks<FiveSigned>;
        case GGML_TYPE_Q5_1:
        case GGML_TYPE_Q5_K:
            return &kBlocks<FiveUnsigned>;
        case GGML_TYPE_Q6_K:
            return &kBlocks<SixSigned>;
        case GGML_TYPE_Q8_0:
        case GGML_TYPE_IQ4_NL:
            return &kBlocks<EightSigned>;
        default:
            return nullptr;
    }
}

void add_panel(const Panel& panel, const Blocks& blocks, const Int8Row* columns, int64_t n, int64_t group,
               int64_t n_groups, Prefetch next, float (*out)[kPanelRows]) {
    int64_t left = (n + kMostColumns - 1) / kMostColumns;
    const int64_t rows = (kPanelRows + left - 1) / left;
    for (; left > 0; --left) {
        const int64_t count = (n + left - 1) / left;
        next.ask(rows);
        for (int half = 0; half < 2; ++half) blocks[count - 1](panel, half, columns, group, n_groups, out);
        columns += count;
        out += count;
        n -= count;
    }
}

bool supported() {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}

bool can_multiply(ggml_type type) { return find_blocks(type) != nullptr; }

void multiply(const PanelRows& rows, const PanelRows& next, const Int8Row* columns, int64_t n,
              float (*out)[kPanelRows]) {
    const Blocks& blocks = *find_blocks(rows.type);
    const Placer place = find_placer(rows.type);
    std::fill_n(out[0], n * kPanelRows, 0.0f);
    Panel panel;
    for (int64_t first = 0; first < rows.k; first += kPanelValues) {
        const int64_t count = std::min(kPanelValues, rows.k - first);
        fill_panel(rows, first, count, place, panel);
        add_panel(panel, blocks, columns, n, first / kGroup, count / kGroup, after_panel(rows, next, first), out);
    }
}

}  // namespace
}  // namespace dgemma::avx2

namespace dgemma {

const PanelKernel kAvx2Panels{"AVX2", avx2::supported, avx2::can_multiply, avx2::multiply};

}  // namespace dgemma
