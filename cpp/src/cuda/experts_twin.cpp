// The mixture of experts in plain C++, one pair after the other: what the kernels of experts.h are compared with.
#include <ggml.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "cpu/int8_rows.h"
#include "cuda/experts.h"
#include "dgemma/card_jobs.h"
#include "support/types.h"

namespace dgemma {
namespace {

size_t size(int64_t n) { return static_cast<size_t>(n); }

/// Rows of one tensor of all experts as floats, one at a time.
class WeightRows {
  public:
    WeightRows(const std::string& type, const void* data, int64_t rows, int64_t columns)
        : to_float_(ggml_get_type_traits(weight_type(type))->to_float),
          data_(static_cast<const uint8_t*>(data)),
          rows_(rows),
          row_bytes_(static_cast<int64_t>(row_bytes(type, columns))),
          values_(size(columns)) {}

    /// Row `row` of an expert times x.
    double times(int expert, int64_t row, const std::vector<double>& x) {
        to_float_(data_ + (expert * rows_ + row) * row_bytes_, values_.data(), static_cast<int64_t>(values_.size()));
        return std::inner_product(x.begin(), x.end(), values_.begin(), 0.0);
    }

  private:
    ggml_to_float_t to_float_;
    const uint8_t* data_;
    int64_t rows_, row_bytes_;
    std::vector<float> values_;
};

/// x as BF16 and back.
std::vector<double> rounded_to_bf16(const std::vector<float>& x) {
    std::vector<double> values;
    for (const float value : x) values.push_back(ggml_bf16_to_fp32(ggml_fp32_to_bf16(value)));
    return values;
}

/// x as 8 bits and back.
std::vector<double> rounded_to_int8(const std::vector<float>& x) {
    const auto k = static_cast<int64_t>(x.size());
    std::vector<uint8_t> bytes(size(int8_row_bytes(k)));
    quantise_row(x.data(), bytes.data(), k);
    const Int8Row row = int8_row(bytes.data(), k);
    std::vector<double> values(x.size());
    for (int64_t i = 0; i < k; ++i) values[size(i)] = static_cast<double>(row.d[i / kGroup]) * (row.q[i] - 128);
    return values;
}

std::vector<double> rounded(const ExpertJob& job, const std::vector<float>& x) {
    return job.is_bf16 ? rounded_to_bf16(x) : rounded_to_int8(x);
}

void route(const ExpertJob& job, int token, ExpertJobResult& result) {
    const float* logits = job.logits + static_cast<int64_t>(token) * job.n_experts;
    std::vector<double> p(logits, logits + job.n_experts);
    const double most = *std::max_element(p.begin(), p.end());
    for (double& x : p) x = std::exp(x - most);
    const double total = std::accumulate(p.begin(), p.end(), 0.0);
    for (double& x : p) x /= total;
    std::vector<int32_t> experts(size(job.n_experts));
    std::iota(experts.begin(), experts.end(), 0);
    std::stable_sort(experts.begin(), experts.end(), [&](int32_t a, int32_t b) { return p[size(a)] > p[size(b)]; });
    experts.resize(size(job.n_used));
    double chosen = 0;
    for (const int32_t expert : experts) chosen += p[size(expert)];
    for (const int32_t expert : experts) {
        result.experts.push_back(expert);
        result.weights.push_back(static_cast<float>(p[size(expert)] * job.expert_scale[expert] / chosen));
    }
}

void sort_by_expert(const ExpertJob& job, ExpertJobResult& result) {
    result.pairs.resize(result.experts.size());
    std::iota(result.pairs.begin(), result.pairs.end(), 0);
    const auto expert_of = [&](int32_t pair) { return result.experts[size(pair)]; };
    std::stable_sort(result.pairs.begin(), result.pairs.end(),
                     [&](int32_t a, int32_t b) { return expert_of(a) < expert_of(b); });
    int first = 0;
    for (int expert = 0; expert < job.n_experts; ++expert) {
        int left = static_cast<int>(std::count(result.experts.begin(), result.experts.end(), expert));
        for (; left > 0; left -= cuda::kTilePairs) {
            const int count = std::min(left, cuda::kTilePairs);
            result.tiles.insert(result.tiles.end(), {expert, first, count});
            first += count;
        }
    }
}

double gelu(double x) { return x / (1 + std::exp(-1.5957691216057308 * (x + 0.044715 * x * x * x))); }

/// What an expert says of a token's row, [hidden].
class Expert {
  public:
    explicit Expert(const ExpertJob& job)
        : job_(job),
          gate_up_(job.gate_up_type, job.gate_up, 2 * job.ffn, job.hidden),
          down_(job.down_type, job.down, job.hidden, job.ffn) {}

    std::vector<double> operator()(int expert, const std::vector<double>& x) {
        std::vector<float> gated;
        for (int i = 0; i < job_.ffn; ++i) {
            gated.push_back(
                static_cast<float>(gelu(gate_up_.times(expert, i, x)) * gate_up_.times(expert, job_.ffn + i, x)));
        }
        const std::vector<double> values = rounded(job_, gated);
        std::vector<double> products;
        for (int i = 0; i < job_.hidden; ++i) products.push_back(down_.times(expert, i, values));
        return products;
    }

  private:
    const ExpertJob& job_;
    WeightRows gate_up_, down_;
};

}  // namespace

ExpertJobResult define_experts(const ExpertJob& job) {
    ExpertJobResult result;
    for (int token = 0; token < job.n_tokens; ++token) route(job, token, result);
    sort_by_expert(job, result);
    Expert say(job);
    for (int token = 0; token < job.n_tokens; ++token) {
        const float* x = job.x + static_cast<int64_t>(token) * job.hidden;
        const std::vector<double> values = rounded(job, {x, x + job.hidden});
        std::vector<double> sums(size(job.hidden), 0.0);
        for (int k = 0; k < job.n_used; ++k) {
            const size_t pair = size(token * job.n_used + k);
            const std::vector<double> products = say(result.experts[pair], values);
            for (size_t i = 0; i < sums.size(); ++i) sums[i] += result.weights[pair] * products[i];
        }
        std::copy(sums.begin(), sums.end(), job.sums + static_cast<int64_t>(token) * job.hidden);
    }
    return result;
}

}  // namespace dgemma
