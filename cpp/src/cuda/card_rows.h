// The card's memory of ProductRows.
#pragma once

#include <optional>

#include "cuda/product_rows.h"

namespace dgemma::cuda {

class CardRows {
  public:
    /// n rows of k values, k a multiple of 32.
    CardRows(Arithmetic arithmetic, int64_t n, int64_t k)
        : arithmetic_(arithmetic), values_(static_cast<size_t>(n * k * value_bytes(arithmetic))) {
        if (arithmetic == Arithmetic::kInt8) scales_.emplace(static_cast<size_t>(n * k / kGroupValues));
    }

    ProductRows get() const { return {arithmetic_, values_.data(), scales_ ? scales_->data() : nullptr}; }

    static uint64_t n_bytes(Arithmetic arithmetic, int64_t n, int64_t k) {
        const bool has_scales = arithmetic == Arithmetic::kInt8;
        const int64_t scales = has_scales ? n * k / kGroupValues * static_cast<int64_t>(sizeof(GroupScale)) : 0;
        return static_cast<uint64_t>(n * k * value_bytes(arithmetic) + scales);
    }

  private:
    Arithmetic arithmetic_;
    DeviceArray<uint8_t> values_;
    std::optional<DeviceArray<GroupScale>> scales_;
};

}  // namespace dgemma::cuda
