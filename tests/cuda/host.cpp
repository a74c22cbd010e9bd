// The host side of the kernels as a card would have it (nvidia/card.cu, nvidia/ggml_order.cu), on a CUDA runtime and a
// ggml that are made up: `cuda_host NAME` does one thing and says what came of it.
#include <ggml-backend.h>
#include <ggml.h>

#include <cstdint>
#include <cstdio>
#include <functional>
#include <string>

#include "cuda/card.h"
#include "cuda/ggml_order.h"
#include "cuda/nvidia/check.h"
#include "dgemma/dgemma.h"

namespace {

struct Event {
    ggml_backend_dev_t device;
    void* context;
};
Event event{nullptr, &event};
std::string version = "0.25.3", registry = "CUDA";
char buffer;  // of ggml's, on card 1

ggml_backend_t backend() { return reinterpret_cast<ggml_backend_t>(&buffer); }

}  // namespace

extern "C" {
const char* ggml_version(void) { return version.c_str(); }
ggml_backend_dev_t ggml_backend_get_device(ggml_backend_t) { return nullptr; }
ggml_backend_reg_t ggml_backend_dev_backend_reg(ggml_backend_dev_t) { return nullptr; }
const char* ggml_backend_reg_name(ggml_backend_reg_t) { return registry.c_str(); }
const char* ggml_backend_name(ggml_backend_t) { return "CUDA1"; }
ggml_backend_buffer_t ggml_backend_alloc_buffer(ggml_backend_t, size_t) {
    return reinterpret_cast<ggml_backend_buffer_t>(&buffer);
}
void* ggml_backend_buffer_get_base(ggml_backend_buffer_t) { return &buffer; }
void ggml_backend_buffer_free(ggml_backend_buffer_t) {}
ggml_backend_event_t ggml_backend_event_new(ggml_backend_dev_t) {
    return reinterpret_cast<ggml_backend_event_t>(&event);
}
void ggml_backend_event_free(ggml_backend_event_t) {}
void ggml_backend_event_record(ggml_backend_event_t, ggml_backend_t) { fake::call("ggml records"); }
void ggml_backend_event_wait(ggml_backend_t, ggml_backend_event_t) { fake::call("ggml waits"); }
void ggml_backend_synchronize(ggml_backend_t) { fake::call("synchronise ggml"); }
}

namespace dgemma::cuda {
namespace {

std::string text(bool answer) { return answer ? "yes" : "no"; }

/// What is said, or that nothing is and which card is the current one.
std::string availability() {
    const std::string why = why_unavailable();
    return why.empty() ? "available, at card " + std::to_string(fake::current) : why;
}

std::string on_cards(std::vector<fake::Card> cards, cudaError_t driver = cudaSuccess) {
    fake::cards = std::move(cards);
    fake::driver = driver;
    const std::string said = availability();
    return fake::last == cudaSuccess ? said : said + "; and an error is left";
}

std::string card_of(cudaMemoryType type) {
    fake::cards = {{true, 0}, {true, 0}};
    if (type != cudaMemoryTypeUnregistered) fake::memory[&buffer] = {type, 1};
    use_card_of(&buffer);
    return std::to_string(fake::current);
}

std::string runs(bool first_has_code, bool second_has_code, const std::string& of = "CUDA") {
    registry = of;
    fake::cards = {{first_has_code, 0}, {second_has_code, 0}};
    fake::memory[&buffer] = {cudaMemoryTypeDevice, 1};
    return text(runs_on(backend()));
}

/// Of the second card.
std::string fast_bf16(int major, int minor) {
    fake::cards = {{true, 0}, {true, 0, major, minor}};
    fake::memory[&buffer] = {cudaMemoryTypeDevice, 1};
    return text(has_fast_bf16(backend()));
}

/// Of what an allocation that does not fit leaves for the next launch.
std::string after_a_full_card() {
    fake::cards = {{true, 1 << 20}};
    std::string said;
    try {
        allocate(2 << 20);
    } catch (const BackendError& error) {
        said = error.what();
    }
    check(cudaGetLastError(), "a kernel could not be launched");
    return said;
}

std::string after_a_failed_call() {
    fake::result(cudaErrorInvalidDevice);
    try {
        check(cudaErrorInvalidDevice, "the card could not be selected");
    } catch (const BackendError&) {
    }
    check(cudaGetLastError(), "a kernel could not be launched");
    return "launched";
}

std::string order() {
    const cuda::Stream stream;
    const GgmlOrder order(backend());
    order.after_ggml(stream);
    order.before_ggml(stream);
    return fake::calls;
}

std::string order_with(const std::string& ggml) {
    version = ggml;
    return order();
}

std::string two_streams() {
    const cuda::Stream first(/*is_urgent=*/true), second;
    second.after(first);
    return fake::calls;
}

std::string end_of_a_stream() {
    {
        const cuda::Stream stream;
    }
    return fake::calls;
}

const std::map<std::string, std::function<std::string()>> things{
    {"a_gpu", [] { return on_cards({{true, 0}}); }},
    {"no_driver", [] { return on_cards({}, cudaErrorInsufficientDriver); }},
    {"no_gpu", [] { return on_cards({}, cudaErrorNoDevice); }},
    {"no_code", [] { return on_cards({{false, 0}, {false, 0}}); }},
    {"code_for_the_second", [] { return on_cards({{false, 0}, {true, 0}}); }},
    {"device_of_memory", [] { return card_of(cudaMemoryTypeDevice); }},
    {"device_of_managed_memory", [] { return card_of(cudaMemoryTypeManaged); }},
    {"device_of_the_hosts_memory", [] { return card_of(cudaMemoryTypeHost); }},
    {"device_of_no_memory", [] { return card_of(cudaMemoryTypeUnregistered); }},
    {"runs_on_both", [] { return runs(true, true); }},
    {"runs_on_the_second", [] { return runs(false, true); }},
    {"runs_on_the_first", [] { return runs(true, false); }},
    {"runs_on_another_make", [] { return runs(true, true, "ROCm"); }},
    {"bf16_a100", [] { return fast_bf16(8, 0); }},
    {"bf16_rtx_3090", [] { return fast_bf16(8, 6); }},
    {"bf16_rtx_4090", [] { return fast_bf16(8, 9); }},
    {"bf16_h200", [] { return fast_bf16(9, 0); }},
    {"bf16_b200", [] { return fast_bf16(10, 0); }},
    {"bf16_rtx_5090", [] { return fast_bf16(12, 0); }},
    {"after_a_full_gpu", after_a_full_card},
    {"after_a_failed_call", after_a_failed_call},
    {"order", order},
    {"order_with_another_ggml", [] { return order_with("0.25.4"); }},
    {"two_streams", two_streams},
    {"end_of_a_stream", end_of_a_stream},
};

}  // namespace
}  // namespace dgemma::cuda

int main(int /*argc*/, char** argv) {
    try {
        std::printf("%s", dgemma::cuda::things.at(argv[1])().c_str());
    } catch (const dgemma::Error& error) {
        std::printf("%s", error.what());
    }
}
