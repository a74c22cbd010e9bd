#include <immintrin.h>

#include <algorithm>
#include <iterator>

#include "cpu/attention_tile.h"

namespace dgemma {
namespace {

constexpr int kLanes = 16;
constexpr int kFactors = 8;  // rows of the first factor at a time: with 32 columns 16 sums, and each load serves 8 or 2

__m512 load_floats(const ggml_fp16_t* x) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(x)));
}
__m512 load_floats(const float* x) { return _mm512_loadu_ps(x); }

/// 16 floats and the 16 that follow, as 16 words of two neighbours.
__m512i pair_neighbours(__m512 first, __m512 second) {
    return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(second, first));
}

/// Two times 16 floats as 16 words: a's values in the low halves, b's in the high ones.
__m512i pair_rows(__m512 a, __m512 b) {
    alignas(64) static constexpr uint16_t kOrder[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                                        8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    return _mm512_permutexvar_epi16(_mm512_load_si512(kOrder), pair_neighbours(a, b));
}

/// sum[i][…] += over `depth` words: factors[i * row + k * step] times the 32 columns of columns[k].
__attribute__((always_inline)) inline void multiply_words(const uint32_t* factors, int64_t row, int64_t step,
                                                          const uint32_t* columns, int64_t depth,
                                                          __m512 (&sum)[kFactors][2]) {
    for (int64_t k = 0; k < depth; ++k) {
        __m512i c[2];
#pragma GCC unroll 2
        for (int j = 0; j < 2; ++j) {
            c[j] = _mm512_loadu_si512(columns + k * kTileDims + j * kLanes);
            asm("" : "+v"(c[j]));  // kept in a register, as in panel_avx512.cpp
        }
#pragma GCC unroll 8
        for (int i = 0; i < kFactors; ++i) {
            const auto x = reinterpret_cast<__m512bh>(_mm512_set1_epi32(static_cast<int>(factors[i * row + k * step])));
#pragma GCC unroll 2
            for (int j = 0; j < 2; ++j) {
                sum[i][j] = _mm512_dpbf16_ps(sum[i][j], x, reinterpret_cast<__m512bh>(c[j]));
            }
        }
    }
}

/// e^x for x <= 0, within 2e-7 relative; a NaN stays one.
__m512 exp_of(__m512 x) {
    const __m512 t = _mm512_mul_ps(_mm512_max_ps(_mm512_set1_ps(-110), x), _mm512_set1_ps(1.44269504f));
    const __m512 n = _mm512_roundscale_ps(t, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m512 r = _mm512_sub_ps(t, n);  // |r| <= 1/2
    // 2^r: the Taylor terms of e^(r ln 2).
    __m512 p = _mm512_set1_ps(1.54035304e-4f);
    for (const float term : {1.33335581e-3f, 9.61812911e-3f, 5.55041087e-2f, 2.40226507e-1f, 6.93147181e-1f, 1.0f}) {
        p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(term));
    }
    return _mm512_scalef_ps(p, n);
}

/// Adds a mask's columns of two keys to 16 rows' scores of them. mask: the first row's.
void add_mask(float* scores, const ggml_fp16_t* mask) {
    const __m512i rows = _mm512_mullo_epi32(_mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0),
                                            _mm512_set1_epi32(kTileKeys * sizeof(ggml_fp16_t)));
    const __m512i pairs = _mm512_i32gather_epi32(rows, mask, 1);
    const __m512i values[] = {pairs, _mm512_srli_epi32(pairs, 16)};
    for (int i = 0; i < 2; ++i) {
        float* to = scores + i * kTileRows;
        const __m512 hidden = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(values[i]));
        _mm512_storeu_ps(to, _mm512_add_ps(_mm512_loadu_ps(to), hidden));
    }
}

/// weigh_tile for the 16 rows from `lane` on.
void weigh_lanes(float* scores, int64_t n, const ggml_fp16_t* mask, RunningSoftmax& softmax, int64_t lane,
                 uint32_t* weights) {
    if (mask != nullptr) {
        for (int64_t key = 0; key < n; key += 2) {
            add_mask(scores + key * kTileRows + lane, mask + lane * kTileKeys + key);
        }
    }
    const __m512 before = _mm512_loadu_ps(softmax.highest + lane);
    __m512 highest = before, other = before;  // of a score that is no number and a number the latter
    for (int64_t key = 0; key < n; key += 2) {
        highest = _mm512_max_ps(_mm512_loadu_ps(scores + key * kTileRows + lane), highest);
        other = _mm512_max_ps(_mm512_loadu_ps(scores + (key + 1) * kTileRows + lane), other);
    }
    highest = _mm512_max_ps(highest, other);

    const auto ones = reinterpret_cast<__m512bh>(_mm512_set1_epi32(0x3f803f80));
    __m512 total = _mm512_setzero_ps();
    for (int64_t key = 0; key < n; key += 2) {
        const float* from = scores + key * kTileRows + lane;
        const __m512 a = exp_of(_mm512_sub_ps(_mm512_loadu_ps(from), highest));
        const __m512 b = exp_of(_mm512_sub_ps(_mm512_loadu_ps(from + kTileRows), highest));
        const __m512i pairs = pair_rows(a, b);
        // The rounded weights are what is summed: the average of equal values is that value.
        total = _mm512_dpbf16_ps(total, reinterpret_cast<__m512bh>(pairs), ones);
        _mm512_storeu_si512(weights + key / 2 * kTileRows + lane, pairs);
    }
    const __m512 kept = exp_of(_mm512_sub_ps(before, highest));
    _mm512_storeu_ps(softmax.highest + lane, highest);
    _mm512_storeu_ps(softmax.total + lane, _mm512_fmadd_ps(_mm512_loadu_ps(softmax.total + lane), kept, total));
    _mm512_storeu_ps(softmax.kept + lane, kept);
}

}  // namespace

bool has_attention_tile() {
    static const bool able =
        __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512bf16");
    return able;
}

void pack_keys(const KeyRows& keys, uint32_t* words) {
    const int64_t row = keys.width / 2;
    for (int64_t key = 0; key < keys.n; ++key) {
        const ggml_fp16_t* from = keys.data + key * keys.stride;
        for (int64_t c = 0; c < keys.width; c += 2 * kLanes) {
            const __m512i pairs = pair_neighbours(load_floats(from + c), load_floats(from + c + kLanes));
            _mm512_storeu_si512(words + key * row + c / 2, pairs);
        }
    }
    std::fill(words + keys.n * row, words + (keys.n + kFactors - 1) / kFactors * kFactors * row, 0);
}

void pack_values(const KeyRows& values, uint32_t* words) {
    for (int64_t key = 0; key < values.n; key += 2) {
        const ggml_fp16_t *a = values.data + key * values.stride, *b = a + values.stride;
        const bool alone = key + 1 == values.n;
        uint32_t* to = words + key / 2 * kTileDims;
        for (int64_t c = 0; c < values.width; c += kLanes) {
            const __m512 second = alone ? _mm512_setzero_ps() : load_floats(b + c);
            uint32_t* chunk = to + c / kTileDims * (kTileKeys / 2 * kTileDims);
            _mm512_storeu_si512(chunk + c % kTileDims, pair_rows(load_floats(a + c), second));
        }
    }
}

void pack_queries(const float* const* rows, int64_t n, int64_t width, uint32_t* words) {
    std::fill_n(words, width / 2 * kTileRows, 0);
    for (int64_t row = 0; row < n; ++row) {
        for (int64_t c = 0; c < width; c += 2 * kLanes) {
            alignas(64) uint32_t pairs[kLanes];
            const float* from = rows[row] + c;
            _mm512_store_si512(pairs, pair_neighbours(load_floats(from), load_floats(from + kLanes)));
            for (int64_t i = 0; i < kLanes; ++i) words[(c / 2 + i) * kTileRows + row] = pairs[i];
        }
    }
}

void score_tile(const uint32_t* keys, int64_t n, const uint32_t* queries, int64_t width, float* scores) {
    for (int64_t key = 0; key < n; key += kFactors) {
        __m512 sum[kFactors][2] = {};
        multiply_words(keys + key * (width / 2), width / 2, 1, queries, width / 2, sum);
        for (int i = 0; i < kFactors; ++i) {
            for (int j = 0; j < 2; ++j) _mm512_storeu_ps(scores + (key + i) * kTileRows + j * kLanes, sum[i][j]);
        }
    }
}

void start_softmax(RunningSoftmax& softmax) {
    // Not -inf: the difference of two of these must be a number.
    std::fill(std::begin(softmax.highest), std::end(softmax.highest), -1e38f);
    std::fill(std::begin(softmax.total), std::end(softmax.total), 0.0f);
}

void weigh_tile(float* scores, int64_t n, const ggml_fp16_t* mask, RunningSoftmax& softmax, uint32_t* weights) {
    for (int64_t lane = 0; lane < kTileRows; lane += kLanes) {
        weigh_lanes(scores, n, mask, softmax, lane, weights);
    }
}

void add_values(const uint32_t* weights, const RunningSoftmax& softmax, const uint32_t* values, int64_t n,
                int64_t width, float* sums) {
    for (int64_t c = 0; c < width; c += kTileDims) {
        const uint32_t* columns = values + c * (kTileKeys / 2);
        for (int64_t row = 0; row < kTileRows; row += kFactors) {
            float* to = sums + row * width + c;
            __m512 sum[kFactors][2];
            for (int i = 0; i < kFactors; ++i) {
                const __m512 kept = _mm512_set1_ps(softmax.kept[row + i]);
                for (int j = 0; j < 2; ++j) {
                    sum[i][j] = _mm512_mul_ps(kept, _mm512_loadu_ps(to + i * width + j * kLanes));
                }
            }
            multiply_words(weights + row, 1, kTileRows, columns, (n + 1) / 2, sum);
            for (int i = 0; i < kFactors; ++i) {
                for (int j = 0; j < 2; ++j) _mm512_storeu_ps(to + i * width + j * kLanes, sum[i][j]);
            }
        }
    }
}

}  // namespace dgemma
