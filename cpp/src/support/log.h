// What ggml says on its way to an error, for our own sentence.
#pragma once

#include <string>

namespace dgemma {

/// Keeps what ggml logs on this thread while it lives. ggml has one log for the process: from the first of these on it
/// prints nothing any more.
class GgmlLog {
  public:
    GgmlLog();
    ~GgmlLog();
    GgmlLog(const GgmlLog&) = delete;
    GgmlLog& operator=(const GgmlLog&) = delete;

    /// The first error line without its function prefix, or "".
    std::string first_error() const;
};

}  // namespace dgemma
