#include "support/log.h"

#include <ggml.h>

namespace dgemma {
namespace {

// ggml has one log callback for the process. Ours is silent: it keeps each thread's first error line (the most specific
// one) for first_error().
thread_local std::string g_first_error;
constexpr size_t kLongest = 200;  // the line may quote a name from a forged file

void keep(ggml_log_level level, const char* text, void* /*user_data*/) {
    if (level == GGML_LOG_LEVEL_ERROR && g_first_error.empty()) g_first_error = text;
}

}  // namespace

GgmlLog::GgmlLog() {
    ggml_log_set(keep, nullptr);
    g_first_error.clear();
}

GgmlLog::~GgmlLog() { g_first_error.clear(); }

std::string GgmlLog::first_error() const {
    std::string line = g_first_error;
    while (!line.empty() && (line.back() == '\n' || line.back() == '.')) line.pop_back();
    const size_t prefix = line.find(": ");  // "gguf_init_from_reader: failed to …"
    if (prefix != std::string::npos && line.find(' ') > prefix) line = line.substr(prefix + 2);
    return line.substr(0, kLongest);
}

}  // namespace dgemma
