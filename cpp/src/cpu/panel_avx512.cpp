// With AVX-512 and its dot product of unsigned and signed bytes (VNNI): 16 rows in a register, four values of each.
#include "cpu/panel_avx512.h"

#include <algorithm>
#include <cstring>

#include "cpu/has_avx512.h"
#include "cpu/prefetch.h"

namespace dgemma {
namespace {

Placer find_placer(ggml_type type) {
    const Placer placer = find_placer_32(type);
    return placer != nullptr ? placer : find_placer_256(type);
}

void fill_panel(const PanelRows& rows, int64_t first, int64_t count, const Unpacker& unpacker, Placer place,
                Panel& panel) {
    panel.sub = unpacker.sub;
    panel.has_min = unpacker.has_min;
    for (int half = 0; half < 2; ++half) {
        const uint8_t* blocks = rows.data + half * kHalf * rows.stride + first / unpacker.block * unpacker.bytes;
        place(blocks, rows.stride, count, half, panel);
    }
}

/// Keeps a value that was loaded in a register. Compilers rather read it from memory again in each instruction, and
/// then it is the loads that limit the rate.
__m512i held(__m512i value) {
    asm("" : "+v"(value));
    return value;
}

/// Adds to kColumns columns by 32 rows. kSubs: scales in a group of 32 values; n_groups: of the panel, which are the
/// columns' groups from `group` on.
template <int kColumns, int kSubs, bool kHasMin>
void multiply_block(const Panel& panel, const Int8Row* columns, int64_t group, int64_t n_groups,
                    float (*out)[kPanelRows]) {
    constexpr int kDwords = static_cast<int>(kGroup) / 4 / kSubs;
    __m512 sum[kColumns][2];
    for (int c = 0; c < kColumns; ++c) {
        for (int half = 0; half < 2; ++half) sum[c][half] = _mm512_loadu_ps(out[c] + half * kHalf);
    }
    for (int64_t g = 0; g < n_groups; ++g) {
        __m512 scaled[kColumns][2];
        for (int sub = 0; sub < kSubs; ++sub) {
            const int64_t s = g * kSubs + sub;
            __m512i dot[kColumns][2];
            for (int c = 0; c < kColumns; ++c) {
                for (int half = 0; half < 2; ++half) dot[c][half] = _mm512_load_si512(panel.starts[s][half]);
            }
#pragma GCC unroll 8
            for (int i = 0; i < kDwords; ++i) {
                const __m512i low = held(_mm512_load_si512(panel.values[s * kDwords + i][0]));
                const __m512i high = held(_mm512_load_si512(panel.values[s * kDwords + i][1]));
#pragma GCC unroll 8
                for (int c = 0; c < kColumns; ++c) {
                    int32_t four;
                    std::memcpy(&four, columns[c].q + (group + g) * kGroup + (sub * kDwords + i) * 4, sizeof four);
                    const __m512i x = _mm512_set1_epi32(four);
                    dot[c][0] = _mm512_dpbusd_epi32(dot[c][0], x, low);
                    dot[c][1] = _mm512_dpbusd_epi32(dot[c][1], x, high);
                }
            }
            for (int half = 0; half < 2; ++half) {
                const __m512 scale = _mm512_load_ps(panel.scales[s][half]);
#pragma GCC unroll 8
                for (int c = 0; c < kColumns; ++c) {
                    const __m512 value = _mm512_cvtepi32_ps(dot[c][half]);
                    scaled[c][half] =
                        sub == 0 ? _mm512_mul_ps(value, scale) : _mm512_fmadd_ps(value, scale, scaled[c][half]);
                }
            }
        }
#pragma GCC unroll 8
        for (int c = 0; c < kColumns; ++c) {
            const __m512 d = _mm512_set1_ps(columns[c].d[group + g]);
            for (int half = 0; half < 2; ++half) sum[c][half] = _mm512_fmadd_ps(scaled[c][half], d, sum[c][half]);
        }
        if constexpr (kHasMin) {
            for (int half = 0; half < 2; ++half) {
                const __m512 min = _mm512_load_ps(panel.mins[g][half]);
#pragma GCC unroll 8
                for (int c = 0; c < kColumns; ++c) {
                    sum[c][half] = _mm512_fnmadd_ps(min, _mm512_set1_ps(columns[c].d_sum[group + g]), sum[c][half]);
                }
            }
        }
    }
    for (int c = 0; c < kColumns; ++c) {
        for (int half = 0; half < 2; ++half) _mm512_storeu_ps(out[c] + half * kHalf, sum[c][half]);
    }
}

template <int kColumns>
void multiply_columns(const Panel& panel, const Int8Row* columns, int64_t group, int64_t n_groups,
                      float (*out)[kPanelRows]) {
    if (panel.sub == 16) {
        multiply_block<kColumns, 2, false>(panel, columns, group, n_groups, out);
    } else if (panel.has_min) {
        multiply_block<kColumns, 1, true>(panel, columns, group, n_groups, out);
    } else {
        multiply_block<kColumns, 1, false>(panel, columns, group, n_groups, out);
    }
}

/// At most four columns at a time, which is what the 32 registers hold; 5 are 3 and 2, because one column alone waits
/// for its own sums.
void add_panel(const Panel& panel, const Int8Row* columns, int64_t n, int64_t group, int64_t n_groups, Prefetch next,
               float (*out)[kPanelRows]) {
    const int64_t rows = (kPanelRows + (n + 3) / 4 - 1) / ((n + 3) / 4);
    for (int64_t blocks = (n + 3) / 4; blocks > 0; --blocks) {
        const int64_t count = (n + blocks - 1) / blocks;
        next.ask(rows);
        switch (count) {
            case 4:
                multiply_columns<4>(panel, columns, group, n_groups, out);
                break;
            case 3:
                multiply_columns<3>(panel, columns, group, n_groups, out);
                break;
            case 2:
                multiply_columns<2>(panel, columns, group, n_groups, out);
                break;
            default:
                multiply_columns<1>(panel, columns, group, n_groups, out);
        }
        columns += count;
        out += count;
        n -= count;
    }
}

bool can_multiply(ggml_type type) { return find_placer(type) != nullptr; }

void multiply(const PanelRows& rows, const PanelRows& next, const Int8Row* columns, int64_t n,
              float (*out)[kPanelRows]) {
    const Unpacker& unpacker = *find_unpacker(rows.type);
    const Placer place = find_placer(rows.type);
    std::fill_n(out[0], n * kPanelRows, 0.0f);
    Panel panel;
    for (int64_t first = 0; first < rows.k; first += kPanelValues) {
        const int64_t count = std::min(kPanelValues, rows.k - first);
        fill_panel(rows, first, count, unpacker, place, panel);
        add_panel(panel, columns, n, first / kGroup, count / kGroup, after_panel(rows, next, first), out);
    }
}

}  // namespace

const PanelKernel kAvx512Panels{"AVX-512 VNNI", has_avx512_vnni, can_multiply, multiply};

}  // namespace dgemma
