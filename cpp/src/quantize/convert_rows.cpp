// Rows of weights from one ggml type to another, by ggml's own quantisers.
#include <ggml.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <mutex>
#include <vector>

#include "dgemma/dgemma.h"
#include "quantize/k_quants.h"
#include "support/thread_pool.h"
#include "support/types.h"

namespace dgemma {
namespace {

constexpr int64_t kGroupValues = 32 * 512;  // what a thread takes at a time: its floats stay in the cache
// Beyond this a scale might not fit the type that stores it, so the result is looked at. No real weight comes near.
constexpr float kSuspicious = 2000;

/// What ggml's quantiser can be given without clamping it in silence (NVFP4: scale 448 times value 6) or aborting in a
/// search on its grid (IQ types, whose scales are F16). The others are judged by their result.
float largest_value(ggml_type type) {
    if (type == GGML_TYPE_NVFP4) return 448 * 6;
    if (std::strncmp(ggml_type_name(type), "iq", 2) == 0) return 65504;
    return std::numeric_limits<float>::max();
}

void to_float(ggml_type type, const uint8_t* rows, float* values, int64_t n) {
    if (type == GGML_TYPE_F32) {
        std::memcpy(values, rows, static_cast<size_t>(n) * sizeof(float));
    } else {
        ggml_get_type_traits(type)->to_float(rows, values, n);
    }
}

class Converter {
  public:
    explicit Converter(const RowConversion& job)
        : job_(job),
          from_(weight_type(job.from)),
          to_(weight_type(job.to)),
          from_bytes_(row_bytes(job.from, job.n_cols)),
          to_bytes_(row_bytes(job.to, job.n_cols)),
          group_rows_(std::max<int64_t>(1, kGroupValues / std::max<int64_t>(1, job.n_cols))) {
        if (to_ != from_ && job.importance == nullptr && ggml_quantize_requires_imatrix(to_)) {
            throw RequestError("[convert_rows] the type " + job.to + " needs an importance matrix");
        }
        if (to_ == from_) return;
        ggml_quantize_init(to_);
        if (job.importance == nullptr) fast_ = fast_quantizer(to_);
    }

    std::optional<BadValue> run() {
        const int n_groups = static_cast<int>((job_.n_rows + group_rows_ - 1) / group_rows_);
        ThreadPool pool(std::min(std::max(job_.n_threads, 1), std::max(n_groups, 1)));
        pool.run(n_groups, [this](int group) { convert_group(group); });
        return first_bad_;
    }

  private:
    void convert_group(int group) {
        const int64_t first = group * group_rows_;
        const int64_t n_rows = std::min(group_rows_, job_.n_rows - first), n = n_rows * job_.n_cols;
        const uint8_t* source = static_cast<const uint8_t*>(job_.source) + first * from_bytes_;
        uint8_t* result = static_cast<uint8_t*>(job_.result) + first * to_bytes_;
        std::vector<float> values(static_cast<size_t>(n));
        to_float(from_, source, values.data(), n);
        float largest = 0;
        if (refuse_beyond(values, first, values, largest_value(to_), largest)) return;
        if (to_ == from_) {
            std::memcpy(result, source, static_cast<size_t>(n_rows) * from_bytes_);
            return;
        }
        if (fast_ != nullptr) {
            fast_(values.data(), result, n / ggml_blck_size(to_));
        } else {
            ggml_quantize_chunk(to_, values.data(), result, 0, n_rows, job_.n_cols, job_.importance);
        }
        if (largest > kSuspicious) {
            std::vector<float> stored(values.size());
            to_float(to_, result, stored.data(), n);
            refuse_beyond(stored, first, values, std::numeric_limits<float>::max(), largest);
        }
    }

    /// Notes the first of `seen` that is no number or lies beyond `limit`, with the value that `given` has there.
    bool refuse_beyond(const std::vector<float>& seen, int64_t first_row, const std::vector<float>& given, float limit,
                       float& largest) {
        for (const float value : seen) largest = std::fabs(value) > largest ? std::fabs(value) : largest;
        const auto bad = [limit](float value) { return !(std::fabs(value) <= limit); };
        const auto found = std::find_if(seen.begin(), seen.end(), bad);
        if (found == seen.end()) return false;
        const int64_t at = found - seen.begin();
        note({first_row + at / job_.n_cols, at % job_.n_cols, given[static_cast<size_t>(at)]});
        return true;
    }

    /// The same one whichever thread comes first.
    void note(const BadValue& bad) {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (!first_bad_ || bad.row < first_bad_->row) first_bad_ = bad;
    }

    const RowConversion& job_;
    ggml_type from_, to_;
    uint64_t from_bytes_, to_bytes_;
    int64_t group_rows_;
    BlockQuantizer fast_ = nullptr;
    std::mutex mutex_;
    std::optional<BadValue> first_bad_;
};

}  // namespace

uint64_t row_bytes(const std::string& type, int64_t n_cols) {
    const ggml_type known = weight_type(type);
    if (n_cols < 1 || n_cols % ggml_blck_size(known) != 0) {
        throw RequestError("[row_bytes] rows of " + std::to_string(n_cols) +
                           " values do not divide into the blocks of " + std::to_string(ggml_blck_size(known)) +
                           " that the type " + type + " has");
    }
    return ggml_row_size(known, n_cols);
}

bool needs_importance(const std::string& type) { return ggml_quantize_requires_imatrix(weight_type(type)); }

std::optional<BadValue> convert_rows(const RowConversion& job) { return Converter(job).run(); }

}  // namespace dgemma
