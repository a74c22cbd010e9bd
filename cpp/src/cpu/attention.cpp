#include "cpu/attention.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "cpu/attention_tile.h"

namespace dgemma {
namespace {

constexpr ggml_fp16_t kSeen = 0x0000, kHidden = 0xFC00;  // 0 and -inf

/// Memory for `Value`s that starts where vectors like it best and is not cleared.
template <typename Value>
class Scratch {
  public:
    explicit Scratch(int64_t n) : memory_(new Line[(n * sizeof(Value) + sizeof(Line) - 1) / sizeof(Line)]), n_(n) {}
    Value* at(int64_t i) { return reinterpret_cast<Value*>(memory_.get()) + i; }
    uint64_t bytes() const { return static_cast<uint64_t>(n_) * sizeof(Value); }

  private:
    struct alignas(64) Line {
        uint8_t bytes[64];
    };
    std::unique_ptr<Line[]> memory_;
    int64_t n_;
};

/// The rows that share a KV head: row r is query r / group of head first_head + r % group.
struct Rows {
    const AttentionOperands& a;
    int64_t kv_head;

    int64_t group() const { return a.heads / a.kv_heads; }
    int64_t count() const { return a.n * group(); }
    /// Where a row's values lie in q and in out: the heads of a group are neighbours.
    int64_t offset(int64_t row) const {
        return (row / group() * a.heads + kv_head * group() + row % group()) * a.head_dim;
    }
};

/// How a chunk of 32 rows sees a tile of keys.
enum class View { kAll, kNothing, kMasked };

View view_of(const AttentionOperands& a, int64_t first_query, int64_t end_query, int64_t first_key, int64_t n) {
    unsigned any = 0, all = 0xffff;
    for (int64_t query = first_query; query < end_query; ++query) {
        const ggml_fp16_t* mask = a.mask + query * a.keys + first_key;
        for (int64_t key = 0; key < n; ++key) {
            any |= mask[key];
            all &= mask[key];
        }
    }
    if (any == kSeen) return View::kAll;
    return any == kHidden && all == kHidden ? View::kNothing : View::kMasked;
}

/// Some chunks of 32 rows of one KV head, taken over all keys together.
class Block {
  public:
    Block(const AttentionOperands& a, int64_t most_chunks)
        : a_(a),
          keys_(kTileKeys * a.head_dim / 2),
          values_(kTileKeys * a.head_dim / 2),
          scores_(kTileKeys * kTileRows),
          weights_(kTileKeys / 2 * kTileRows),
          mask_(kTileRows * kTileKeys),
          queries_(most_chunks * chunk_words()),
          sums_(most_chunks * chunk_sums()),
          softmax_(static_cast<size_t>(most_chunks)),
          views_(static_cast<size_t>(most_chunks)) {}

    uint64_t bytes() const {
        return keys_.bytes() + values_.bytes() + scores_.bytes() + weights_.bytes() + mask_.bytes() + queries_.bytes() +
               sums_.bytes() + softmax_.size() * sizeof(RunningSoftmax);
    }

    void attend(int64_t kv_head, int64_t first_row, int64_t chunks) {
        const Rows rows{a_, kv_head};
        for (int64_t chunk = 0; chunk < chunks; ++chunk) start(rows, first_row + chunk * kTileRows, chunk);
        for (int64_t first = 0; first < a_.keys; first += kTileKeys) add_tile(rows, first_row, chunks, first);
        for (int64_t chunk = 0; chunk < chunks; ++chunk) finish(rows, first_row + chunk * kTileRows, chunk);
    }

  private:
    int64_t chunk_words() const { return kTileRows * a_.head_dim / 2; }
    int64_t chunk_sums() const { return kTileRows * a_.head_dim; }
    static int64_t end_row(const Rows& rows, int64_t first) { return std::min(first + kTileRows, rows.count()); }

    void start(const Rows& rows, int64_t first, int64_t chunk) {
        const float* queries[kTileRows];
        const int64_t end = end_row(rows, first);
        for (int64_t row = first; row < end; ++row) queries[row - first] = a_.q + rows.offset(row);
        pack_queries(queries, end - first, a_.head_dim, queries_.at(chunk * chunk_words()));
        start_softmax(softmax_[static_cast<size_t>(chunk)]);
        std::fill_n(sums_.at(chunk * chunk_sums()), chunk_sums(), 0.0f);
    }

    void add_tile(const Rows& rows, int64_t first_row, int64_t chunks, int64_t first_key) {
        const int64_t n = std::min(kTileKeys, a_.keys - first_key), group = rows.group();
        bool seen = false;
        for (int64_t chunk = 0; chunk < chunks; ++chunk) {
            const int64_t first = first_row + chunk * kTileRows, end = end_row(rows, first);
            View& view = views_[static_cast<size_t>(chunk)];
            view = view_of(a_, first / group, (end - 1) / group + 1, first_key, n);
            if (view == View::kAll && n < kTileKeys) view = View::kMasked;  // to hide what fills the last tile up
            seen = seen || view != View::kNothing;
        }
        if (!seen) return;
        const int64_t from = rows.kv_head * a_.head_stride + first_key * a_.key_stride;
        pack_keys({a_.k + from, a_.key_stride, n, a_.head_dim}, keys_.at(0));
        pack_values({a_.v + from, a_.key_stride, n, a_.head_dim}, values_.at(0));
        for (int64_t chunk = 0; chunk < chunks; ++chunk) {
            const View view = views_[static_cast<size_t>(chunk)];
            if (view == View::kNothing) continue;
            if (view == View::kMasked) copy_mask(rows, first_row + chunk * kTileRows, first_key, n);
            RunningSoftmax& softmax = softmax_[static_cast<size_t>(chunk)];
            score_tile(keys_.at(0), n, queries_.at(chunk * chunk_words()), a_.head_dim, scores_.at(0));
            weigh_tile(scores_.at(0), n, view == View::kMasked ? mask_.at(0) : nullptr, softmax, weights_.at(0));
            add_values(weights_.at(0), softmax, values_.at(0), n, a_.head_dim, sums_.at(chunk * chunk_sums()));
        }
    }

    void copy_mask(const Rows& rows, int64_t first_row, int64_t first_key, int64_t n) {
        for (int64_t i = 0; i < kTileRows; ++i) {
            const int64_t row = std::min(first_row + i, rows.count() - 1);
            ggml_fp16_t* to = mask_.at(i * kTileKeys);
            std::copy_n(a_.mask + row / rows.group() * a_.keys + first_key, n, to);
            std::fill(to + n, to + kTileKeys, kHidden);
        }
    }

    void finish(const Rows& rows, int64_t first, int64_t chunk) {
        for (int64_t row = first; row < end_row(rows, first); ++row) {
            const float* sums = sums_.at(chunk * chunk_sums() + (row - first) * a_.head_dim);
            const float total = softmax_[static_cast<size_t>(chunk)].total[row - first];
            const float scale = total == 0.0f ? 0.0f : 1.0f / total;
            float* out = a_.out + rows.offset(row);
            for (int64_t c = 0; c < a_.head_dim; ++c) out[c] = sums[c] * scale;
        }
    }

    const AttentionOperands& a_;
    Scratch<uint32_t> keys_, values_;
    Scratch<float> scores_;
    Scratch<uint32_t> weights_;
    Scratch<ggml_fp16_t> mask_;
    Scratch<uint32_t> queries_;
    Scratch<float> sums_;
    std::vector<RunningSoftmax> softmax_;
    std::vector<View> views_;
};

int64_t chunks_of(const AttentionOperands& a) { return (Rows{a, 0}.count() + kTileRows - 1) / kTileRows; }

/// Chunks of a block: as many as leave its memory (8 bytes for a value of a row and the tiles) in the second-level
/// cache, but for two blocks a thread at least.
int64_t block_chunks(const AttentionOperands& a, int nth) {
    constexpr int64_t kMostValues = 131072;
    const int64_t most = std::max<int64_t>(1, kMostValues / (kTileRows * a.head_dim));
    return std::clamp<int64_t>(chunks_of(a) * a.kv_heads / (2 * nth), 1, most);
}

template <typename Value>
const Value* values(const ggml_tensor* t) {
    return static_cast<const Value*>(t->data);
}

void compute(ggml_tensor* dst, int /*ith*/, int nth, void* pieces) {
    const ggml_tensor *q = dst->src[0], *k = dst->src[1], *v = dst->src[2], *mask = dst->src[3];
    const auto stride = [&](int dim) { return static_cast<int64_t>(k->nb[dim] / sizeof(ggml_fp16_t)); };
    attend({q->ne[0], q->ne[1], k->ne[2], q->ne[2], k->ne[1], values<float>(q), values<ggml_fp16_t>(k),
            values<ggml_fp16_t>(v), stride(1), stride(2), values<ggml_fp16_t>(mask), static_cast<float*>(dst->data)},
           nth, *static_cast<Pieces*>(pieces));
}

}  // namespace

bool has_cpu_attention(int64_t head_dim, ggml_type cache) {
    return has_attention_tile() && cache == GGML_TYPE_F16 && head_dim % kTileDims == 0;
}

ggml_tensor* build_cpu_attention(ggml_context* ctx, ggml_tensor* q, ggml_tensor* k, ggml_tensor* v, ggml_tensor* mask,
                                 Pieces& pieces) {
    ggml_tensor* args[] = {q, k, v, mask};
    return ggml_custom_4d(ctx, GGML_TYPE_F32, q->ne[0], q->ne[1], q->ne[2], 1, args, 4, compute, GGML_N_TASKS_MAX,
                          &pieces);
}

void attend(const AttentionOperands& a, int nth, Pieces& pieces) {
    const int64_t chunks = chunks_of(a), in_block = block_chunks(a, nth), blocks = (chunks + in_block - 1) / in_block;
    Block block(a, in_block);
    // From the last block of rows on: later rows see more keys, and what is left at the end should be small.
    pieces.share(blocks * a.kv_heads, nth, [&](int64_t i) {
        const int64_t first = (blocks - 1 - i / a.kv_heads) * in_block;
        block.attend(i % a.kv_heads, first * kTileRows, std::min(in_block, chunks - first));
    });
}

uint64_t attend_bytes(const AttentionOperands& a, int nth) {
    return static_cast<uint64_t>(nth) * Block(a, block_chunks(a, nth)).bytes();
}

}  // namespace dgemma
