// Asking for the bytes of the next panel while this one is multiplied.
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <cstdint>

#include "cpu/panel.h"

namespace dgemma {

/// A few rows at a time: 32 rows are too many streams for the processor to see coming, and all of them at once are more
/// than it can wait for while it computes.
class Prefetch {
  public:
    /// Of the values from `first` on, as many as a panel takes.
    Prefetch(const PanelRows& rows, int64_t first)
        : stride_(rows.stride),
          bytes_(static_cast<int64_t>(ggml_row_size(rows.type, std::min(kPanelValues, rows.k - first)))),
          next_(rows.data + ggml_row_size(rows.type, first)) {}

    void ask(int64_t rows) {
        for (; rows > 0 && left_ > 0; --rows, --left_, next_ += stride_) {
            const uint8_t* line = next_ - reinterpret_cast<uintptr_t>(next_) % 64;
            for (; line < next_ + bytes_; line += 64) _mm_prefetch(line, _MM_HINT_T0);
        }
    }

  private:
    int64_t stride_, bytes_, left_ = kPanelRows;
    const uint8_t* next_;
};

/// What comes after the values from `first` on of these rows: their own next ones, or those of the next rows.
inline Prefetch after_panel(const PanelRows& rows, const PanelRows& next, int64_t first) {
    return first + kPanelValues < rows.k ? Prefetch(rows, first + kPanelValues) : Prefetch(next, 0);
}

}  // namespace dgemma
