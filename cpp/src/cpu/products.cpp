#include "cpu/products.h"

#include <ggml-backend.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "cpu/panel.h"
#include "denoise/vec_math.h"

namespace dgemma {
namespace {

// Columns gathered for one call of the kernel; a block of this many stays in the second-level cache.
constexpr int64_t kColumns = 64;

const uint8_t* bytes(const ggml_tensor* t) { return static_cast<const uint8_t*>(t->data); }

/// A panel of 32 rows of matrix `matrix` of a weight.
void unpack_rows(const ggml_tensor* weight, int64_t matrix, int64_t first_row, Panel& panel) {
    const auto stride = static_cast<int64_t>(weight->nb[1]);
    const uint8_t* rows = bytes(weight) + matrix * static_cast<int64_t>(weight->nb[2]) + first_row * stride;
    unpack_panel(rows, stride, weight->ne[0], weight->type, panel);
}

void quantise_rows(ggml_tensor* dst, int ith, int nth, void* /*userdata*/) {
    const ggml_tensor* x = dst->src[0];
    const int64_t n = ggml_nrows(x), k = x->ne[0];
    for (int64_t row = ith; row < n; row += nth) {
        const auto* from = reinterpret_cast<const float*>(bytes(x) + row * static_cast<int64_t>(x->nb[1]));
        quantise_row(from, static_cast<uint8_t*>(dst->data) + row * int8_row_bytes(k), k);
    }
}

void multiply(ggml_tensor* dst, int ith, int nth, void* /*userdata*/) {
    const ggml_tensor *weight = dst->src[0], *rows = dst->src[1];
    const int64_t k = weight->ne[0], n_rows = weight->ne[1], n = rows->ne[1];
    std::vector<Int8Row> columns;
    for (int64_t i = 0; i < n; ++i) columns.push_back(int8_row(bytes(rows) + i * static_cast<int64_t>(rows->nb[1]), k));
    Panel panel;
    auto* out = static_cast<float*>(dst->data);
    for (int64_t first = ith * kPanelRows; first < n_rows; first += nth * kPanelRows) {
        unpack_rows(weight, 0, first, panel);
        multiply_panel(panel, columns.data(), n, out + first, n_rows);
    }
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

/// Calls visit(expert, pairs, count) for every expert with work, at most kColumns pairs at a time; `begin(expert)`
/// first.
template <typename Begin, typename Visit>
void for_each_expert(const Assignment& assignment, Begin begin, Visit visit) {
    for (size_t expert = 0; expert + 1 < assignment.first.size(); ++expert) {
        const int64_t first = assignment.first[expert], last = assignment.first[expert + 1];
        if (first == last) continue;
        begin(static_cast<int64_t>(expert));
        for (int64_t i = first; i < last; i += kColumns) {
            visit(assignment.pairs.data() + i, std::min(kColumns, last - i));
        }
    }
}

/// gelu_tanh(gate) * up of 32 values, in place of gate.
void gate_values(float* gate, const float* up) {
    for (int64_t i = 0; i < kPanelRows; ++i) {
        const float x = gate[i], z = 1.5957691216057308f * (x + 0.044715f * x * x * x);
        gate[i] = x / (1.0f + fast_exp(-z)) * up[i];
    }
}

/// dst: 8-bit rows [int8_row_bytes(ffn), used, n]. A tile is 32 values of the gated product, one group of such a row.
void gate_up_experts(ggml_tensor* dst, int ith, int nth, void* /*userdata*/) {
    const ggml_tensor *weight = dst->src[0], *rows = dst->src[1], *experts = dst->src[2];
    const int64_t k = weight->ne[0], ffn = weight->ne[1] / 2, used = experts->ne[0];
    const Assignment assignment = assign(experts, weight->ne[2]);
    const int64_t n_tiles = ffn / kPanelRows;
    Panel gate_panel, up_panel;
    Int8Row columns[kColumns];
    float gate[kColumns * kPanelRows], up[kColumns * kPanelRows];
    for (int64_t tile = ith; tile < n_tiles; tile += nth) {
        for_each_expert(
            assignment,
            [&](int64_t expert) {
                unpack_rows(weight, expert, tile * kPanelRows, gate_panel);
                unpack_rows(weight, expert, ffn + tile * kPanelRows, up_panel);
            },
            [&](const int64_t* pairs, int64_t count) {
                for (int64_t i = 0; i < count; ++i) {
                    columns[i] = int8_row(bytes(rows) + pairs[i] / used * static_cast<int64_t>(rows->nb[1]), k);
                }
                multiply_panel(gate_panel, columns, count, gate, kPanelRows);
                multiply_panel(up_panel, columns, count, up, kPanelRows);
                for (int64_t i = 0; i < count; ++i) {
                    gate_values(gate + i * kPanelRows, up + i * kPanelRows);
                    uint8_t* row = static_cast<uint8_t*>(dst->data) + pairs[i] * int8_row_bytes(ffn);
                    quantise_group(gate + i * kPanelRows, row, ffn, tile);
                }
            });
    }
}

/// dst [hidden, n] = the sum over a token's experts of weight * (down times its gated row). A tile is 32 values of
/// every token, so no two threads add to the same place.
void down_experts(ggml_tensor* dst, int ith, int nth, void* /*userdata*/) {
    const ggml_tensor *weight = dst->src[0], *gated = dst->src[1], *experts = dst->src[2], *shares = dst->src[3];
    const int64_t k = weight->ne[0], hidden = weight->ne[1], used = experts->ne[0], n = experts->ne[1];
    const Assignment assignment = assign(experts, weight->ne[2]);
    const auto* share = reinterpret_cast<const float*>(shares->data);
    Panel panel;
    Int8Row columns[kColumns];
    float product[kColumns * kPanelRows];
    for (int64_t tile = ith; tile < hidden / kPanelRows; tile += nth) {
        float* out = static_cast<float*>(dst->data) + tile * kPanelRows;
        for (int64_t token = 0; token < n; ++token) std::fill_n(out + token * hidden, kPanelRows, 0.0f);
        for_each_expert(
            assignment, [&](int64_t expert) { unpack_rows(weight, expert, tile * kPanelRows, panel); },
            [&](const int64_t* pairs, int64_t count) {
                for (int64_t i = 0; i < count; ++i)
                    columns[i] = int8_row(bytes(gated) + pairs[i] * int8_row_bytes(k), k);
                multiply_panel(panel, columns, count, product, kPanelRows);
                for (int64_t i = 0; i < count; ++i) {
                    float* to = out + pairs[i] / used * hidden;
                    const float* from = product + i * kPanelRows;
                    for (int64_t j = 0; j < kPanelRows; ++j) to[j] += share[pairs[i]] * from[j];
                }
            });
    }
}

ggml_tensor* build_int8_node(ggml_context* ctx, int64_t k, int64_t n1, int64_t n2, ggml_tensor** args, int n_args,
                             ggml_custom_op_t function) {
    return ggml_custom_4d(ctx, GGML_TYPE_I8, int8_row_bytes(k), n1, n2, 1, args, n_args, function, GGML_N_TASKS_MAX,
                          nullptr);
}

}  // namespace

bool has_cpu_product(const ggml_tensor* weight) {
    return can_multiply_panels(weight->type) && weight->ne[1] % kPanelRows == 0 && weight->ne[0] % kGroup == 0 &&
           weight->buffer != nullptr && ggml_backend_buffer_is_host(weight->buffer);
}

ggml_tensor* build_int8_rows(ggml_context* ctx, ggml_tensor* x) {
    return build_int8_node(ctx, x->ne[0], x->ne[1], x->ne[2], &x, 1, quantise_rows);
}

ggml_tensor* build_cpu_product(ggml_context* ctx, ggml_tensor* weight, ggml_tensor* rows) {
    ggml_tensor* args[] = {weight, rows};
    return ggml_custom_4d(ctx, GGML_TYPE_F32, weight->ne[1], rows->ne[1], 1, 1, args, 2, multiply, GGML_N_TASKS_MAX,
                          nullptr);
}

ggml_tensor* build_cpu_experts(ggml_context* ctx, ggml_tensor* gate_up, ggml_tensor* down, ggml_tensor* rows,
                               ggml_tensor* experts, ggml_tensor* weights) {
    const int64_t ffn = down->ne[0], used = experts->ne[0], n = experts->ne[1];
    ggml_tensor* gate_up_args[] = {gate_up, rows, experts};
    ggml_tensor* gated = build_int8_node(ctx, ffn, used, n, gate_up_args, 3, gate_up_experts);
    ggml_tensor* down_args[] = {down, gated, experts, weights};
    return ggml_custom_4d(ctx, GGML_TYPE_F32, down->ne[1], n, 1, 1, down_args, 4, down_experts, GGML_N_TASKS_MAX,
                          nullptr);
}

}  // namespace dgemma
