// With AVX-512 and its dot product of unsigned and signed bytes (VNNI): 16 rows in a register, four values of each.
#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "cpu/panel.h"

namespace dgemma {
namespace {

constexpr int64_t kHalf = 16;  // rows of a register

/// 16 rows of 16 dwords (64 bytes), `stride` bytes apart, to 16 registers of one dword of every row.
void transpose(const int8_t* rows, int64_t stride, __m512i out[16]) {
    __m512i a[16], b[16];
    for (int i = 0; i < 16; ++i) a[i] = _mm512_loadu_si512(rows + i * stride);
    for (int i = 0; i < 16; i += 2) {
        b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
        b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        a[i] = _mm512_unpacklo_epi64(b[i], b[i + 2]);
        a[i + 1] = _mm512_unpackhi_epi64(b[i], b[i + 2]);
        a[i + 2] = _mm512_unpacklo_epi64(b[i + 1], b[i + 3]);
        a[i + 3] = _mm512_unpackhi_epi64(b[i + 1], b[i + 3]);
    }
    // a[4 q + d]: rows 4 q … 4 q + 3, dwords d, d + 4, d + 8, d + 12 by 128-bit lane.
    for (int d = 0; d < 4; ++d) {
        const __m512i low01 = _mm512_shuffle_i32x4(a[d], a[4 + d], 0x88),
                      low23 = _mm512_shuffle_i32x4(a[8 + d], a[12 + d], 0x88);
        const __m512i high01 = _mm512_shuffle_i32x4(a[d], a[4 + d], 0xDD),
                      high23 = _mm512_shuffle_i32x4(a[8 + d], a[12 + d], 0xDD);
        out[d] = _mm512_shuffle_i32x4(low01, low23, 0x88);
        out[d + 8] = _mm512_shuffle_i32x4(low01, low23, 0xDD);
        out[d + 4] = _mm512_shuffle_i32x4(high01, high23, 0x88);
        out[d + 12] = _mm512_shuffle_i32x4(high01, high23, 0xDD);
    }
}

/// Values of 16 unpacked rows to their places in the panel, from value `first` on.
void place_values(const Unpacked* rows, int64_t first, int64_t count, int64_t half, Panel& panel) {
    for (int64_t at = 0; at < count; at += 64) {
        __m512i dwords[16];
        transpose(rows[0].q + at, sizeof(Unpacked), dwords);
        const int64_t n = std::min<int64_t>(16, (count - at) / 4);
        int8_t* to = panel.values.data() + ((first + at) / 4 * 2 + half) * 64;
        for (int64_t i = 0; i < n; ++i) _mm512_storeu_si512(to + i * 128, dwords[i]);
    }
}

/// -128 times the sums of the values that share a scale.
void place_starts(int64_t first, int64_t count, int64_t half, Panel& panel) {
    const __m512i offset = _mm512_set1_epi8(static_cast<char>(128));
    for (int64_t at = first; at < first + count; at += panel.sub) {
        const int8_t* values = panel.values.data() + (at / 4 * 2 + half) * 64;
        __m512i sum = _mm512_setzero_si512();
        for (int64_t i = 0; i < panel.sub / 4; ++i) {
            sum = _mm512_dpbusd_epi32(sum, offset, _mm512_loadu_si512(values + i * 128));
        }
        sum = _mm512_sub_epi32(_mm512_setzero_si512(), sum);
        _mm512_storeu_si512(panel.starts.data() + at / panel.sub * kPanelRows + half * kHalf, sum);
    }
}

/// Scales, and minima where there are any, of 16 unpacked rows to their places.
void place_scales(const Unpacked* rows, int64_t first, int64_t count, int64_t half, Panel& panel) {
    __m512i floats[16];
    transpose(reinterpret_cast<const int8_t*>(rows[0].scales), sizeof(Unpacked), floats);
    const auto place = [&](const __m512i* from, int64_t n, float* to) {
        for (int64_t i = 0; i < n; ++i) _mm512_storeu_si512(to + i * kPanelRows + half * kHalf, from[i]);
    };
    place(floats, count / panel.sub, panel.scales.data() + first / panel.sub * kPanelRows);
    if (panel.has_min) place(floats + 8, count / kGroup, panel.mins.data() + first / kGroup * kPanelRows);
}

/// kColumns columns by 32 rows. kSubs: scales in a group of 32 values.
template <int kColumns, int kSubs, bool kHasMin>
void multiply_block(const Panel& panel, const Int8Row* columns, float* out, int64_t out_stride) {
    const int8_t* values = panel.values.data();
    const int32_t* starts = panel.starts.data();
    const float *scales = panel.scales.data(), *mins = panel.mins.data();
    __m512 sum[kColumns][2];
    for (auto& column : sum) column[0] = column[1] = _mm512_setzero_ps();
    for (int64_t group = 0; group < panel.k / kGroup; ++group) {
        __m512 scaled[kColumns][2];
        for (int sub = 0; sub < kSubs; ++sub) {
            __m512i dot[kColumns][2];
            const __m512i start0 = _mm512_loadu_si512(starts), start1 = _mm512_loadu_si512(starts + kHalf);
            for (auto& column : dot) {
                column[0] = start0;
                column[1] = start1;
            }
            constexpr int kDwords = static_cast<int>(kGroup) / 4 / kSubs;
#pragma GCC unroll 8
            for (int i = 0; i < kDwords; ++i) {
                const __m512i low = _mm512_loadu_si512(values), high = _mm512_loadu_si512(values + 64);
                values += 128;
#pragma GCC unroll 8
                for (int c = 0; c < kColumns; ++c) {
                    int32_t four;
                    std::memcpy(&four, columns[c].q + group * kGroup + (sub * kDwords + i) * 4, sizeof four);
                    const __m512i x = _mm512_set1_epi32(four);
                    dot[c][0] = _mm512_dpbusd_epi32(dot[c][0], x, low);
                    dot[c][1] = _mm512_dpbusd_epi32(dot[c][1], x, high);
                }
            }
            const __m512 scale0 = _mm512_loadu_ps(scales), scale1 = _mm512_loadu_ps(scales + kHalf);
#pragma GCC unroll 8
            for (int c = 0; c < kColumns; ++c) {
                const __m512 dot0 = _mm512_cvtepi32_ps(dot[c][0]), dot1 = _mm512_cvtepi32_ps(dot[c][1]);
                scaled[c][0] = sub == 0 ? _mm512_mul_ps(dot0, scale0) : _mm512_fmadd_ps(dot0, scale0, scaled[c][0]);
                scaled[c][1] = sub == 0 ? _mm512_mul_ps(dot1, scale1) : _mm512_fmadd_ps(dot1, scale1, scaled[c][1]);
            }
            starts += kPanelRows;
            scales += kPanelRows;
        }
#pragma GCC unroll 8
        for (int c = 0; c < kColumns; ++c) {
            const __m512 d = _mm512_set1_ps(columns[c].d[group]);
            sum[c][0] = _mm512_fmadd_ps(scaled[c][0], d, sum[c][0]);
            sum[c][1] = _mm512_fmadd_ps(scaled[c][1], d, sum[c][1]);
        }
        if constexpr (kHasMin) {
            const __m512 min0 = _mm512_loadu_ps(mins), min1 = _mm512_loadu_ps(mins + kHalf);
            mins += kPanelRows;
#pragma GCC unroll 8
            for (int c = 0; c < kColumns; ++c) {
                const __m512 d_sum = _mm512_set1_ps(columns[c].d_sum[group]);
                sum[c][0] = _mm512_fnmadd_ps(min0, d_sum, sum[c][0]);
                sum[c][1] = _mm512_fnmadd_ps(min1, d_sum, sum[c][1]);
            }
        }
    }
    for (int c = 0; c < kColumns; ++c) {
        _mm512_storeu_ps(out + c * out_stride, sum[c][0]);
        _mm512_storeu_ps(out + c * out_stride + kHalf, sum[c][1]);
    }
}

template <int kColumns>
void multiply_columns(const Panel& panel, const Int8Row* columns, float* out, int64_t out_stride) {
    if (panel.sub == 16) {
        multiply_block<kColumns, 2, false>(panel, columns, out, out_stride);
    } else if (panel.has_min) {
        multiply_block<kColumns, 1, true>(panel, columns, out, out_stride);
    } else {
        multiply_block<kColumns, 1, false>(panel, columns, out, out_stride);
    }
}

}  // namespace

bool can_multiply_panels(ggml_type type) {
    static const bool able =
        __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vnni");
    return able && find_unpacker(type) != nullptr;
}

void unpack_panel(const uint8_t* rows, int64_t stride, int64_t k, ggml_type type, Panel& panel) {
    const Unpacker& unpacker = *find_unpacker(type);
    panel.k = k;
    panel.sub = unpacker.sub;
    panel.has_min = unpacker.has_min;
    panel.values.resize(static_cast<size_t>(k * kPanelRows));
    panel.scales.resize(static_cast<size_t>(k / panel.sub * kPanelRows));
    panel.starts.resize(panel.scales.size());
    panel.mins.resize(static_cast<size_t>(k / kGroup * kPanelRows));
    Unpacked unpacked[kHalf];
    for (int64_t half = 0; half < 2; ++half) {
        for (int64_t first = 0; first < k; first += kUnpacked) {
            const int64_t count = std::min(kUnpacked, k - first);
            for (int64_t row = 0; row < kHalf; ++row) {
                const uint8_t* blocks = rows + (half * kHalf + row) * stride + first / unpacker.block * unpacker.bytes;
                unpacker.unpack(blocks, unpacked[row], count);
            }
            place_values(unpacked, first, count, half, panel);
            place_starts(first, count, half, panel);
            place_scales(unpacked, first, count, half, panel);
        }
    }
}

void multiply_panel(const Panel& panel, const Int8Row* columns, int64_t n_columns, float* out, int64_t out_stride) {
    // As many columns at a time as the 32 registers hold.
    while (n_columns >= 4) {
        multiply_columns<4>(panel, columns, out, out_stride);
        columns += 4, out += 4 * out_stride, n_columns -= 4;
    }
    if (n_columns == 3) multiply_columns<3>(panel, columns, out, out_stride);
    if (n_columns == 2) multiply_columns<2>(panel, columns, out, out_stride);
    if (n_columns == 1) multiply_columns<1>(panel, columns, out, out_stride);
}

}  // namespace dgemma
