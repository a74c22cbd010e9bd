#include <memory>

#include "check.h"
#include "cuda/card.h"
#include "dgemma/dgemma.h"

namespace dgemma::cuda {
namespace {

__global__ void nothing() {}

/// The runtime keeps a failed call's error for the next cudaGetLastError(): a launch that has nothing to do with it
/// would be taken for the one that failed.
void forget_error() { cudaGetLastError(); }

/// Whether this build has code for the current card.
bool has_code() {
    cudaFuncAttributes attributes{};
    const bool found = cudaFuncGetAttributes(&attributes, nothing) == cudaSuccess;
    forget_error();
    return found;
}

/// Whether it has for any of them; the current one, which is asked first, stays the current one.
bool has_code_for_any(int n_cards) {
    if (has_code()) return true;
    int current = 0;
    cudaGetDevice(&current);
    bool found = false;
    for (int card = 0; card < n_cards && !found; ++card) found = cudaSetDevice(card) == cudaSuccess && has_code();
    cudaSetDevice(current);
    forget_error();
    return found;
}

struct FreeBuffer {
    void operator()(ggml_backend_buffer_t buffer) const { ggml_backend_buffer_free(buffer); }
};

/// Selects a ggml device's card by where its memory is: nothing public says which card it is.
void use_card_of_backend(ggml_backend_t backend) {
    const std::unique_ptr<ggml_backend_buffer, FreeBuffer> buffer(ggml_backend_alloc_buffer(backend, 256));
    if (!buffer) throw BackendError(std::string(ggml_backend_name(backend)) + ": not enough memory for anything");
    use_card_of(ggml_backend_buffer_get_base(buffer.get()));
}

}  // namespace

void check(cudaError_t status, const char* what) {
    if (status == cudaSuccess) return;
    forget_error();
    throw BackendError(std::string("CUDA: ") + what + " (" + cudaGetErrorString(status) +
                       "); n_gpu_layers=0 runs on the CPU alone");
}

std::string why_unavailable() {
    int n_cards = 0;
    const cudaError_t status = cudaGetDeviceCount(&n_cards);
    forget_error();
    if (status == cudaSuccess && n_cards > 0) {
        return has_code_for_any(n_cards)
                   ? ""
                   : "dgemma's CUDA kernels were not built for this card (-DCMAKE_CUDA_ARCHITECTURES=native)";
    }
    if (status == cudaErrorInsufficientDriver) {
        return "the NVIDIA driver is missing, or older than the CUDA " + std::to_string(CUDART_VERSION / 1000) +
               " that dgemma's kernels were built with";
    }
    return std::string("no NVIDIA card can be used (") + cudaGetErrorString(status) + ")";
}

bool runs_on(ggml_backend_t backend) {
    ggml_backend_dev_t device = ggml_backend_get_device(backend);
    const std::string name = ggml_backend_reg_name(ggml_backend_dev_backend_reg(device));
    if (name != "CUDA" || !why_unavailable().empty()) return false;
    use_card_of_backend(backend);
    return has_code();
}

bool has_fast_bf16(ggml_backend_t backend) {
    use_card_of_backend(backend);
    int card = 0, major = 0, minor = 0;
    check(cudaGetDevice(&card), "the card could not be looked up");
    check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, card), "the card could not be looked up");
    check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, card), "the card could not be looked up");
    return (major == 8 && minor == 0) || major == 9 || major == 10;
}

bool would_run_on(const std::string& device) {
    const auto starts_with = [&](const char* text) { return device.rfind(text, 0) == 0; };
    return starts_with("GPU") || (starts_with("CUDA") && why_unavailable().empty());
}

void use_card_of(const void* pointer) {
    cudaPointerAttributes attributes{};
    check(cudaPointerGetAttributes(&attributes, pointer), "an address could not be looked up");
    // Managed: ggml's with GGML_CUDA_ENABLE_UNIFIED_MEMORY.
    if (attributes.type != cudaMemoryTypeDevice && attributes.type != cudaMemoryTypeManaged) {
        throw BackendError("CUDA: what the kernels read is not in a card's memory");
    }
    check(cudaSetDevice(attributes.device), "the card could not be selected");
}

void* allocate(size_t n_bytes) {
    void* memory = nullptr;
    const cudaError_t status = cudaMalloc(&memory, n_bytes);
    if (status == cudaErrorMemoryAllocation) {
        forget_error();
        throw BackendError("CUDA: not enough memory on the card for " + std::to_string((n_bytes >> 20) + 1) +
                           " MiB of the kernels' buffers; a larger n_cpu_moe leaves more on the CPU");
    }
    check(status, "memory could not be allocated");
    return memory;
}

void release(void* memory) noexcept {
    cudaFree(memory);
    forget_error();
}

Stream::Stream(bool is_urgent) {
    int least = 0, most = 0;  // by CUDA's numbers: the most urgent is the lowest
    check(cudaDeviceGetStreamPriorityRange(&least, &most), "a stream could not be made");
    cudaStream_t stream = nullptr;
    check(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, is_urgent ? most : least),
          "a stream could not be made");
    handle_ = stream;
    cudaEvent_t event = nullptr;
    check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "an event could not be made");
    event_ = event;
}

Stream::~Stream() {
    cudaStreamSynchronize(static_cast<cudaStream_t>(handle_));  // what failed is told by wait() alone
    cudaEventDestroy(static_cast<cudaEvent_t>(event_));
    cudaStreamDestroy(static_cast<cudaStream_t>(handle_));
    forget_error();
}

void Stream::copy(void* to, const void* from, size_t n_bytes) const {
    check(cudaMemcpyAsync(to, from, n_bytes, cudaMemcpyDefault, static_cast<cudaStream_t>(handle_)), "a copy failed");
}

void Stream::fill(void* memory, int value, size_t n_bytes) const {
    check(cudaMemsetAsync(memory, value, n_bytes, static_cast<cudaStream_t>(handle_)), "memory could not be filled");
}

void Stream::after(const Stream& other) const {
    const auto event = static_cast<cudaEvent_t>(other.event_);
    check(cudaEventRecord(event, static_cast<cudaStream_t>(other.handle_)), "two queues could not be ordered");
    check(cudaStreamWaitEvent(static_cast<cudaStream_t>(handle_), event, 0), "two queues could not be ordered");
}

void Stream::wait() const { check(cudaStreamSynchronize(static_cast<cudaStream_t>(handle_)), "a kernel failed"); }

}  // namespace dgemma::cuda
