// The tensor cores' product of BF16 values with F32 sums, and arithmetic of two BF16 values in a word.
#pragma once

#include <cstdint>

namespace dgemma::cuda {

/// sums += a b by a warp: a [16, 16] times b [16, 8], two BF16 to a word. The lane 4g + t has of a row g, columns 2t
/// and 2t + 1, row g + 8, the same columns, then rows g and g + 8, columns 8 + 2t and 9 + 2t; of b column g, rows 2t
/// and 2t + 1, then 8 + 2t and 9 + 2t; of the sums rows g (the first two) and g + 8, columns 2t and 2t + 1. (PTX ISA,
/// mma.m16n8k16.)
__device__ inline void multiply_bf16(const unsigned (&a)[4], uint2 b, float (&sums)[4]) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b.x), "r"(b.y));
}

/// a times the low half of `row` plus its high half, of each of the two, rounded once. Subnormal numbers are
/// numbers like others to it (PTX ISA, fma).
__device__ inline unsigned scale_bf16_pair(unsigned a, unsigned row) {
    unsigned result;  // the halves cost nothing: the instruction takes either half of a register for both
    asm("{ .reg .b16 low, high; .reg .b32 scale, offset; mov.b32 {low, high}, %2; mov.b32 scale, {low, low}; "
        "mov.b32 offset, {high, high}; fma.rn.bf16x2 %0, %1, scale, offset; }"
        : "=r"(result)
        : "r"(a), "r"(row));
    return result;
}

/// Both as BF16, rounded to the nearest; `low` in the lower half.
__device__ inline unsigned bf16_pair(float low, float high) {
    unsigned pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}

}  // namespace dgemma::cuda
