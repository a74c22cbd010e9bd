#include <cstring>

#include "check.h"
#include "cuda/ggml_order.h"

namespace dgemma::cuda {
namespace {

// ggml's events are opaque: what follows is the layout in one version of it, and in any other the host waits. It is the
// only place here that looks behind ggml's public headers.
constexpr const char* kVersion = "0.25.3";

struct EventLayout {
    ggml_backend_dev_t device;
    void* context;  // ggml-cuda's: a cudaEvent_t
};

cudaEvent_t cuda_event(ggml_backend_event_t event) {
    return static_cast<cudaEvent_t>(reinterpret_cast<const EventLayout*>(event)->context);
}

cudaStream_t cuda_stream(const Stream& stream) { return static_cast<cudaStream_t>(stream.handle()); }

/// Null also where ggml was built without events.
ggml_backend_event_t new_event(ggml_backend_t backend) {
    if (std::strcmp(ggml_version(), kVersion) != 0) return nullptr;
    return ggml_backend_event_new(ggml_backend_get_device(backend));
}

}  // namespace

GgmlOrder::GgmlOrder(ggml_backend_t backend) : backend_(backend), event_(new_event(backend)) {}

GgmlOrder::~GgmlOrder() { ggml_backend_event_free(event_); }

void GgmlOrder::after_ggml(const Stream& stream) const {
    if (event_ == nullptr) return ggml_backend_synchronize(backend_);
    ggml_backend_event_record(event_, backend_);
    check(cudaStreamWaitEvent(cuda_stream(stream), cuda_event(event_), 0), "two queues could not be ordered");
}

void GgmlOrder::before_ggml(const Stream& stream) const {
    if (event_ == nullptr) return stream.wait();
    check(cudaEventRecord(cuda_event(event_), cuda_stream(stream)), "two queues could not be ordered");
    ggml_backend_event_wait(backend_, event_);
}

}  // namespace dgemma::cuda
