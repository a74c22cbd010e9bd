// As much of the CUDA runtime as the host side asks, on cards that a test makes up. It writes down what is asked of
// streams and events.
#pragma once

#include <map>
#include <string>
#include <vector>

#define __global__
#define CUDART_VERSION 13000

enum cudaError_t {
    cudaSuccess,
    cudaErrorMemoryAllocation,
    cudaErrorInsufficientDriver,
    cudaErrorNoDevice,
    cudaErrorInvalidDevice,
    cudaErrorNoKernelImageForDevice
};
enum cudaMemoryType { cudaMemoryTypeUnregistered, cudaMemoryTypeHost, cudaMemoryTypeDevice, cudaMemoryTypeManaged };
enum cudaDeviceAttr { cudaDevAttrComputeCapabilityMajor, cudaDevAttrComputeCapabilityMinor };
enum cudaMemcpyKind { cudaMemcpyDefault };
constexpr unsigned cudaStreamNonBlocking = 1, cudaEventDisableTiming = 2;

struct cudaFuncAttributes {};
struct cudaPointerAttributes {
    cudaMemoryType type;
    int device;
};
using cudaStream_t = struct FakeStream*;
using cudaEvent_t = struct FakeEvent*;

namespace fake {

struct Card {
    bool has_code;
    size_t free_bytes;
    int major = 8, minor = 6;  // compute capability
};
inline std::vector<Card> cards;
inline cudaError_t driver = cudaSuccess;  // what it says to whoever counts the cards
inline std::map<const void*, cudaPointerAttributes> memory;
inline int current = 0;
inline cudaError_t last = cudaSuccess;
inline std::string calls;

inline cudaError_t result(cudaError_t status) {
    if (status != cudaSuccess) last = status;
    return status;
}
inline cudaError_t call(const std::string& name) {
    calls += (calls.empty() ? "" : ", ") + name;
    return cudaSuccess;
}

}  // namespace fake

inline cudaError_t cudaGetLastError() {
    const cudaError_t status = fake::last;
    fake::last = cudaSuccess;
    return status;
}
inline const char* cudaGetErrorString(cudaError_t status) {
    return status == cudaErrorNoDevice ? "no CUDA-capable device is detected" : "an error";
}
inline cudaError_t cudaGetDeviceCount(int* n) {
    *n = static_cast<int>(fake::cards.size());
    return fake::result(fake::driver);
}
inline cudaError_t cudaGetDevice(int* card) {
    *card = fake::current;
    return cudaSuccess;
}
inline cudaError_t cudaSetDevice(int card) {
    if (card < 0 || card >= static_cast<int>(fake::cards.size())) return fake::result(cudaErrorInvalidDevice);
    fake::current = card;
    return cudaSuccess;
}
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int card) {
    const fake::Card& asked = fake::cards[static_cast<size_t>(card)];
    *value = attribute == cudaDevAttrComputeCapabilityMajor ? asked.major : asked.minor;
    return cudaSuccess;
}
inline fake::Card& current_card() { return fake::cards[static_cast<size_t>(fake::current)]; }
inline cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* /*attributes*/, void (* /*kernel*/)()) {
    return fake::result(current_card().has_code ? cudaSuccess : cudaErrorNoKernelImageForDevice);
}
inline cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* pointer) {
    const auto found = fake::memory.find(pointer);
    *attributes = found == fake::memory.end() ? cudaPointerAttributes{} : found->second;
    return cudaSuccess;
}
inline cudaError_t cudaMalloc(void** memory, size_t n_bytes) {
    if (n_bytes > current_card().free_bytes) return fake::result(cudaErrorMemoryAllocation);
    *memory = ::operator new(n_bytes);
    return cudaSuccess;
}
inline cudaError_t cudaFree(void* memory) {
    ::operator delete(memory);
    return fake::call("free");
}
inline cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* most) {
    *least = 0;
    *most = -5;
    return cudaSuccess;
}
inline cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned /*flags*/, int priority) {
    *stream = nullptr;
    return priority == 0 ? cudaSuccess : fake::call("urgent");
}
inline cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned /*flags*/) {
    *event = reinterpret_cast<cudaEvent_t>(&fake::current);
    return cudaSuccess;
}
inline cudaError_t cudaEventDestroy(cudaEvent_t /*event*/) { return fake::call("destroy event"); }
inline cudaError_t cudaStreamSynchronize(cudaStream_t /*stream*/) { return fake::call("synchronise"); }
inline cudaError_t cudaStreamDestroy(cudaStream_t /*stream*/) { return fake::call("destroy"); }
inline cudaError_t cudaMemcpyAsync(void*, const void*, size_t, cudaMemcpyKind, cudaStream_t) {
    return fake::call("copy");
}
inline cudaError_t cudaMemsetAsync(void*, int, size_t, cudaStream_t) { return fake::call("fill"); }
inline cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t /*stream*/) {
    return fake::call(event == nullptr ? "record nothing" : "record");
}
inline cudaError_t cudaStreamWaitEvent(cudaStream_t /*stream*/, cudaEvent_t event, unsigned /*flags*/) {
    return fake::call(event == nullptr ? "wait for nothing" : "wait");
}
