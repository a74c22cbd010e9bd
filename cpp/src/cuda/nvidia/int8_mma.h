// The tensor cores' product of whole numbers, for which CUDA C++ has no name that says which thread has which value.
#pragma once

#include <cstdint>

namespace dgemma::cuda {

/// sums += a b by a warp: a [16, 32] times b [32, 8], signed bytes. The lane 4g + t has of a rows g and g + 8, columns
/// 4t … 4t + 3 (the first two words), then the same rows, columns 16 + 4t …; of b column g, rows 4t … and 16 + 4t …; of
/// the sums rows g (the first two) and g + 8, columns 2t and 2t + 1. (PTX ISA, mma.m16n8k32.)
__device__ inline void multiply_int8(const unsigned (&a)[4], uint2 b, int (&sums)[4]) {
    asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+r"(sums[0]), "+r"(sums[1]), "+r"(sums[2]), "+r"(sums[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b.x), "r"(b.y));
}

/// The same for 16 columns: a [16, 16] times b [16, 8], of each the words of columns and rows 4t … (mma.m16n8k16).
__device__ inline void multiply_int8(const unsigned (&a)[2], unsigned b, int (&sums)[4]) {
    asm("mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
        : "+r"(sums[0]), "+r"(sums[1]), "+r"(sums[2]), "+r"(sums[3])
        : "r"(a[0]), "r"(a[1]), "r"(b));
}

}  // namespace dgemma::cuda
