#include "cpu/products.h"

#include <ggml-backend.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "cpu/panel.h"
#include "denoise/vec_math.h"

namespace dgemma {
namespace {

const uint8_t* bytes(const ggml_tensor* t) { return static_cast<const uint8_t*>(t->data); }

/// 32 rows of matrix `matrix` of a weight.
PanelRows panel_rows(const ggml_tensor* weight, int64_t matrix, int64_t first_row) {
    const auto stride = static_cast<int64_t>(weight->nb[1]);
    const uint8_t* rows = bytes(weight) + matrix * static_cast<int64_t>(weight->nb[2]) + first_row * stride;
    return {rows, stride, weight->ne[0], weight->type};
}

/// A place for 32 values of each of n columns.
class Block {
  public:
    explicit Block(int64_t n) : values_(static_cast<size_t>(n * kPanelRows)) {}
    using Row = float[kPanelRows];
    Row* rows() { return reinterpret_cast<Row*>(values_.data()); }

  private:
    std::vector<float> values_;
};

/// Calls visit(i) for 0 … n - 1, shared among the threads in pieces of neighbours.
template <typename Visit>
void share_units(void* pieces, int64_t n, int nth, Visit visit) {
    const int64_t size = piece_size(n, nth);
    static_cast<Pieces*>(pieces)->share((n + size - 1) / size, nth, [&](int64_t piece) {
        for (int64_t i = piece * size; i < std::min((piece + 1) * size, n); ++i) visit(i);
    });
}

void quantise_rows(ggml_tensor* dst, int /*ith*/, int nth, void* pieces) {
    const ggml_tensor* x = dst->src[0];
    const int64_t k = x->ne[0];
    share_units(pieces, ggml_nrows(x), nth, [&](int64_t row) {
        const auto* from = reinterpret_cast<const float*>(bytes(x) + row * static_cast<int64_t>(x->nb[1]));
        quantise_row(from, static_cast<uint8_t*>(dst->data) + row * int8_row_bytes(k), k);
    });
}

void multiply(ggml_tensor* dst, int /*ith*/, int nth, void* pieces) {
    const ggml_tensor *weight = dst->src[0], *rows = dst->src[1];
    const int64_t k = weight->ne[0], n_rows = weight->ne[1], n = rows->ne[1];
    std::vector<Int8Row> columns;
    for (int64_t i = 0; i < n; ++i) columns.push_back(int8_row(bytes(rows) + i * static_cast<int64_t>(rows->nb[1]), k));
    Block block(n);
    auto* out = static_cast<float*>(dst->data);
    share_units(pieces, n_rows / kPanelRows, nth, [&](int64_t panel) {
        const int64_t first = panel * kPanelRows, next = std::min(first + kPanelRows, n_rows - kPanelRows);
        multiply_panel(panel_rows(weight, 0, first), panel_rows(weight, 0, next), columns.data(), n, block.rows());
        for (int64_t i = 0; i < n; ++i) std::copy_n(block.rows()[i], kPanelRows, out + i * n_rows + first);
    });
}

// -------------------------------------------------------------------------------------------- experts

/// Which of the (token, choice) pairs, numbered token * used + choice, each expert computes, in rising order.
struct Assignment {
    std::vector<int64_t> first;  // [experts + 1] into pairs
    std::vector<int64_t> pairs;
};

Assignment assign(const ggml_tensor* experts, int64_t n_experts) {
    const int64_t used = experts->ne[0], n = experts->ne[1];
    const auto expert_of = [&](int64_t pair) {
        const uint8_t* row = bytes(experts) + pair / used * static_cast<int64_t>(experts->nb[1]);
        return reinterpret_cast<const int32_t*>(row)[pair % used];
    };
    Assignment to{std::vector<int64_t>(static_cast<size_t>(n_experts + 1), 0),
                  std::vector<int64_t>(static_cast<size_t>(n * used))};
    for (int64_t pair = 0; pair < n * used; ++pair) ++to.first[static_cast<size_t>(expert_of(pair) + 1)];
    for (size_t e = 0; e < static_cast<size_t>(n_experts); ++e) to.first[e + 1] += to.first[e];
    std::vector<int64_t> next(to.first.begin(), to.first.end() - 1);
    for (int64_t pair = 0; pair < n * used; ++pair) {
        to.pairs[static_cast<size_t>(next[static_cast<size_t>(expert_of(pair))]++)] = pair;
    }
    return to;
}

/// The most pairs that one expert has.
int64_t most_pairs(const Assignment& assignment) {
    int64_t most = 0;
    for (size_t e = 0; e + 1 < assignment.first.size(); ++e) {
        most = std::max(most, assignment.first[e + 1] - assignment.first[e]);
    }
    return most;
}

/// Calls visit(expert, next, pairs, count) for every expert with work from `from` to before `end`; `next` is the one
/// with work after it, or the last again.
template <typename Visit>
void for_each_expert(const Assignment& assignment, int64_t from, int64_t end, Visit visit) {
    const auto n_experts = static_cast<int64_t>(assignment.first.size()) - 1;
    const auto first_pair = [&](int64_t expert) { return assignment.first[static_cast<size_t>(expert)]; };
    const auto with_work = [&](int64_t expert) {
        while (expert < n_experts && first_pair(expert) == first_pair(expert + 1)) ++expert;
        return expert;
    };
    for (int64_t expert = with_work(from); expert < end;) {
        const int64_t next = with_work(expert + 1), first = first_pair(expert);
        visit(expert, next < n_experts ? next : expert, assignment.pairs.data() + first,
              first_pair(expert + 1) - first);
        expert = next;
    }
}

/// gelu_tanh(gate) * up of 32 values, in place of gate.
void gate_values(float* gate, const float* up) {
    for (int64_t i = 0; i < kPanelRows; ++i) {
        const float x = gate[i], z = 1.5957691216057308f * (x + 0.044715f * x * x * x);
        gate[i] = x / (1.0f + fast_exp(-z)) * up[i];
    }
}

/// dst: 8-bit rows [int8_row_bytes(ffn), used, n]. A tile is 32 values of the gated product, one group of such a row;
/// a piece is a tile of some experts.
void gate_up_experts(ggml_tensor* dst, int /*ith*/, int nth, void* pieces) {
    const ggml_tensor *weight = dst->src[0], *rows = dst->src[1], *experts = dst->src[2];
    const int64_t k = weight->ne[0], ffn = weight->ne[1] / 2, used = experts->ne[0];
    const Assignment assignment = assign(experts, weight->ne[2]);
    const int64_t most = most_pairs(assignment);
    Block gate(most), up(most);
    std::vector<Int8Row> columns(static_cast<size_t>(most));
    const int64_t n_experts = weight->ne[2], tiles = ffn / kPanelRows, size = piece_size(tiles * n_experts, nth);
    const int64_t in_piece = std::min(size, n_experts), slices = (n_experts + in_piece - 1) / in_piece;
    static_cast<Pieces*>(pieces)->share(tiles * slices, nth, [&](int64_t piece) {
        const int64_t tile = piece / slices, from = piece % slices * in_piece,
                      end = std::min(from + in_piece, n_experts);
        for_each_expert(assignment, from, end, [&](int64_t expert, int64_t next, const int64_t* pairs, int64_t count) {
            for (int64_t i = 0; i < count; ++i) {
                columns[static_cast<size_t>(i)] =
                    int8_row(bytes(rows) + pairs[i] / used * static_cast<int64_t>(rows->nb[1]), k);
            }
            const int64_t first = tile * kPanelRows;
            const PanelRows up_rows = panel_rows(weight, expert, ffn + first);
            multiply_panel(panel_rows(weight, expert, first), up_rows, columns.data(), count, gate.rows());
            multiply_panel(up_rows, panel_rows(weight, next, first), columns.data(), count, up.rows());
            for (int64_t i = 0; i < count; ++i) {
                gate_values(gate.rows()[i], up.rows()[i]);
                uint8_t* row = static_cast<uint8_t*>(dst->data) + pairs[i] * int8_row_bytes(ffn);
                quantise_group(gate.rows()[i], row, ffn, tile);
            }
        });
    });
}

/// dst [hidden, n] = the sum over a token's experts of weight * (down times its gated row). A tile is 32 values of
/// every token, so no two threads add to the same place.
void down_experts(ggml_tensor* dst, int /*ith*/, int nth, void* pieces) {
    const ggml_tensor *weight = dst->src[0], *gated = dst->src[1], *experts = dst->src[2], *shares = dst->src[3];
    const int64_t k = weight->ne[0], hidden = weight->ne[1], used = experts->ne[0], n = experts->ne[1];
    const Assignment assignment = assign(experts, weight->ne[2]);
    const auto* share = reinterpret_cast<const float*>(shares->data);
    const int64_t most = most_pairs(assignment);
    Block product(most);
    std::vector<Int8Row> columns(static_cast<size_t>(most));
    static_cast<Pieces*>(pieces)->share(hidden / kPanelRows, nth, [&](int64_t tile) {
        float* out = static_cast<float*>(dst->data) + tile * kPanelRows;
        for (int64_t token = 0; token < n; ++token) std::fill_n(out + token * hidden, kPanelRows, 0.0f);
        const auto add = [&](int64_t expert, int64_t next, const int64_t* pairs, int64_t count) {
            for (int64_t i = 0; i < count; ++i)
                columns[static_cast<size_t>(i)] = int8_row(bytes(gated) + pairs[i] * int8_row_bytes(k), k);
            const int64_t first = tile * kPanelRows;
            multiply_panel(panel_rows(weight, expert, first), panel_rows(weight, next, first), columns.data(), count,
                           product.rows());
            for (int64_t i = 0; i < count; ++i) {
                float* to = out + pairs[i] / used * hidden;
                for (int64_t j = 0; j < kPanelRows; ++j) to[j] += share[pairs[i]] * product.rows()[i][j];
            }
        };
        for_each_expert(assignment, 0, weight->ne[2], add);
    });
}

ggml_tensor* build_int8_node(ggml_context* ctx, int64_t k, int64_t n1, int64_t n2, ggml_tensor** args, int n_args,
                             ggml_custom_op_t function, Pieces& pieces) {
    return ggml_custom_4d(ctx, GGML_TYPE_I8, int8_row_bytes(k), n1, n2, 1, args, n_args, function, GGML_N_TASKS_MAX,
                          &pieces);
}

}  // namespace

bool has_cpu_product(const ggml_tensor* weight) {
    return can_multiply_panels(weight->type) && weight->ne[1] % kPanelRows == 0 && weight->ne[0] % kGroup == 0 &&
           weight->buffer != nullptr && ggml_backend_buffer_is_host(weight->buffer);
}

ggml_tensor* build_int8_rows(ggml_context* ctx, ggml_tensor* x, Pieces& pieces) {
    return build_int8_node(ctx, x->ne[0], x->ne[1], x->ne[2], &x, 1, quantise_rows, pieces);
}

ggml_tensor* build_cpu_product(ggml_context* ctx, ggml_tensor* weight, ggml_tensor* rows, Pieces& pieces) {
    ggml_tensor* args[] = {weight, rows};
    return ggml_custom_4d(ctx, GGML_TYPE_F32, weight->ne[1], rows->ne[1], 1, 1, args, 2, multiply, GGML_N_TASKS_MAX,
                          &pieces);
}

ggml_tensor* build_cpu_experts(ggml_context* ctx, ggml_tensor* gate_up, ggml_tensor* down, ggml_tensor* rows,
                               ggml_tensor* experts, ggml_tensor* weights, Pieces& pieces) {
    const int64_t ffn = down->ne[0], used = experts->ne[0], n = experts->ne[1];
    ggml_tensor* gate_up_args[] = {gate_up, rows, experts};
    ggml_tensor* gated = build_int8_node(ctx, ffn, used, n, gate_up_args, 3, gate_up_experts, pieces);
    ggml_tensor* down_args[] = {down, gated, experts, weights};
    return ggml_custom_4d(ctx, GGML_TYPE_F32, down->ne[1], n, 1, 1, down_args, 4, down_experts, GGML_N_TASKS_MAX,
                          &pieces);
}

}  // namespace dgemma
