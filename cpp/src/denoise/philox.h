// Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
//
// Every number of an answer is a function of (seed, stream, block, step, position), so the same seed gives the same
// tokens whatever the number of threads and the order of work:
//
//     key     = the seed's low and high 32 bits
//     counter = (position, step, block, stream)
//     word    = the first two output words, low then high, as one 64-bit number
#pragma once

#include <cstdint>

#include "support/host_device.h"

namespace dgemma {

enum class Stream : uint32_t { kCanvas = 0, kSample = 1, kNoise = 2 };

struct RandomSite {
    uint32_t position, step, block;
    Stream stream;
};

DGEMMA_HOST_DEVICE inline uint64_t philox(uint64_t seed, const RandomSite& site) {
    uint32_t c[4] = {site.position, site.step, site.block, static_cast<uint32_t>(site.stream)};
    uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
    for (int round = 0; round < 10; ++round) {
        const uint64_t a = uint64_t{0xD2511F53u} * c[0], b = uint64_t{0xCD9E8D57u} * c[2];
        const uint32_t next[4] = {static_cast<uint32_t>(b >> 32) ^ c[1] ^ k0, static_cast<uint32_t>(b),
                                  static_cast<uint32_t>(a >> 32) ^ c[3] ^ k1, static_cast<uint32_t>(a)};
        for (int i = 0; i < 4; ++i) c[i] = next[i];
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return (uint64_t{c[1]} << 32) | c[0];
}

/// Uniform in [0, 1), 53 bits.
DGEMMA_HOST_DEVICE inline double random_unit(uint64_t seed, const RandomSite& site) {
    return static_cast<double>(philox(seed, site) >> 11) * 0x1p-53;
}

/// Uniform in 0 … n - 1 (bias below n / 2^53).
DGEMMA_HOST_DEVICE inline int32_t random_token(uint64_t seed, const RandomSite& site, int n) {
    return static_cast<int32_t>(random_unit(seed, site) * n);
}

/// Where one step of an answer stands in the streams.
struct StepSite {
    uint64_t seed;
    uint32_t step, block;
};

/// Where in its cumulative distribution a position draws, in [0, 1).
DGEMMA_HOST_DEVICE inline double draw_at(const StepSite& site, int position) {
    return random_unit(site.seed, {static_cast<uint32_t>(position), site.step, site.block, Stream::kSample});
}

/// The token that a position gets if it is not accepted.
DGEMMA_HOST_DEVICE inline int32_t noise_at(const StepSite& site, int position, int n_vocab) {
    return random_token(site.seed, {static_cast<uint32_t>(position), site.step, site.block, Stream::kNoise}, n_vocab);
}

}  // namespace dgemma
