// dgemma: DiffusionGemma on ggml. The whole public surface of the engine.
//
//     dgemma::Engine engine("model.gguf", {});
//     auto session = engine.session();
//     session->prefill({2, 10, 11});                              // encoder pass: appends to the key/value cache
//     dgemma::Generation answer(session, {});                     // denoising, block after block
//     while (auto event = answer.next()) { ... }                  // StepEvent, BlockEvent, DoneEvent
//
// Nothing here prints, and nothing here knows Python. Every failure is an exception of the Error family whose text is
// one sentence for a person. An Engine runs all of its work on one thread of its own; its methods may be called from
// any thread, one call at a time per session.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace dgemma {

// ---------------------------------------------------------------------------------------------------- errors

struct Error : std::runtime_error {
    using std::runtime_error::runtime_error;
};
/// A GGUF file cannot be used; names the file, the field and the likely cause.
struct FileError : Error {
    using Error::Error;
};
/// A saved session cannot be written or used.
struct SessionFileError : FileError {
    using FileError::FileError;
};
/// An argument that cannot be honoured.
struct RequestError : Error {
    using Error::Error;
};
/// More tokens than the context holds, or positions that the cache no longer has.
struct ContextError : RequestError {
    using RequestError::RequestError;
};
/// ggml or a device failed.
struct BackendError : Error {
    using Error::Error;
};
/// The computation was stopped from outside (EngineOptions::interrupted).
struct Cancelled : Error {
    using Error::Error;
};

// ---------------------------------------------------------------------------------------------------- ggml's version

/// The ggml that this build was compiled against, and the one found at run time ("0.25.3").
std::string ggml_built_version();
std::string ggml_found_version();
/// Finds ggml's devices; `backend_dir` is where plug-in backends would lie (only read when none is linked in).
void load_backends(const std::string& backend_dir);

// ---------------------------------------------------------------------------------------------------- devices

struct DeviceInfo {
    std::string name, description;     // "CUDA0", "NVIDIA GeForce RTX 4090"
    uint64_t free_bytes, total_bytes;  // 0: the device does not say
    bool is_gpu;
};

/// The GPUs in ggml's order (integrated ones only where there is no other), then the CPU.
std::vector<DeviceInfo> list_devices();

/// Why no GPU is among them, and what would help: one sentence; empty where there is one.
std::string why_no_gpu();

/// The threads that an engine computes with unless told otherwise: one for each core that this process may use, but for
/// efficiency cores beside others, and no more than a container's share of the time. `sysfs` and `processors` (by
/// number; empty: those that the process may run on) stand in for the machine's, on Linux.
int usable_cores(const std::string& sysfs = "/sys", std::vector<int> processors = {});

/// How threads are bound on machines with several memory nodes: llama.cpp's "distribute" (over all nodes), "isolate"
/// (to the node that the process began on) or "numactl" (as numactl was told). For the whole process, before its first
/// engine; what came first stays. RequestError for another word or a ggml that cannot.
void use_numa(const std::string& strategy);

/// Which weights go where. Names and meanings are llama.cpp's, but for main_gpu.
struct DeviceRequest {
    int n_gpu_layers = -1;  // the head and this many less one of the last layers go to GPUs; -1: what fits
    int n_cpu_moe = 0;      // the experts of this many of the first layers stay on the CPU; -1: of all
    std::vector<std::string> override_tensor;  // "PATTERN=DEVICE": matrices whose name a regular expression finds
    std::vector<float> tensor_split;           // how many layers each GPU gets, as proportions; empty: as memory allows
    int main_gpu = -1;                         // the one GPU to use; -1: all
};

// ---------------------------------------------------------------------------------------------------- files

using MetadataValue =
    std::variant<bool, int64_t, uint64_t, double, std::string, std::vector<bool>, std::vector<int64_t>,
                 std::vector<uint64_t>, std::vector<double>, std::vector<std::string>>;

struct TensorInfo {
    std::string name;
    std::string type;            // ggml's name: "f32", "q4_K", ...
    std::vector<int64_t> shape;  // GGUF order: columns first
    uint64_t n_bytes;
};

struct GgufInfo {
    uint32_t version;
    uint64_t n_bytes;                // of all files of the set
    std::vector<std::string> paths;  // one file, or the split set in order
    std::vector<std::pair<std::string, MetadataValue>> metadata;
    std::vector<TensorInfo> tensors;
};

/// Reads the header of a GGUF file or of a split set (any member's path); checks every offset against the file's size.
GgufInfo read_gguf(const std::string& path);

/// Byte places, in the order of GgufInfo: of the metadata's entries (name, type and value as stored) within the first
/// file, and of each tensor's data within paths[file].
struct GgufLayout {
    struct Key {
        std::string name;
        uint64_t begin, end;
    };
    struct Tensor {
        uint64_t file, begin;
    };
    std::vector<Key> keys;
    std::vector<Tensor> tensors;
};
GgufLayout gguf_layout(const std::string& path);

// ---------------------------------------------------------------------------------------------------- quantising

/// Rows of weights as rows of another type: quantised, dequantised, or quantised anew. Types go by ggml's names.
struct RowConversion {
    std::string from, to;               // "bf16", "q4_K", ...; any case
    int64_t n_rows, n_cols;             // n_cols: a multiple of both types' blocks
    const void* source;                 // [n_rows, row_bytes(from, n_cols)]
    void* result;                       // [n_rows, row_bytes(to, n_cols)]
    const float* importance = nullptr;  // [n_cols], how much an error in each column matters; null: all the same
    int n_threads = 1;                  // any number gives the same bytes
};

/// A value that cannot be stored: infinite, not a number, or beyond the target type.
struct BadValue {
    int64_t row, col;
    float value;
};

/// Fills the result, or returns the first value that cannot be stored. RequestError for a type that is unknown, that
/// does not divide the rows, or that needs_importance() where none is given.
std::optional<BadValue> convert_rows(const RowConversion& job);
uint64_t row_bytes(const std::string& type, int64_t n_cols);
bool needs_importance(const std::string& type);

// ---------------------------------------------------------------------------------------------------- products

/// Our kernels for products with quantised weights that this processor can run, by its extensions, the fastest first,
/// which is the one that the engine uses.
std::vector<std::string> product_kernels();

/// Whether it has one for weights of a type; ggml's are used otherwise.
bool has_own_product(const std::string& type);

/// Rows of weights times columns, as the engine multiplies on such a processor: the columns rounded to 8 bits in groups
/// of 32 (cpp/src/cpu/int8_rows.h). RequestError where has_own_product() says no, the kernel is not one of
/// product_kernels(), or the sizes are not multiples of 32.
struct RowProduct {
    std::string type;
    int64_t n_rows, n_cols;  // of the weights
    const void* weights;     // [n_rows, row_bytes(type, n_cols)]
    int64_t n;
    const float* columns;  // [n, n_cols]
    float* result;         // [n, n_rows]
    std::string kernel;    // empty: the first; all give the same bits
};
void multiply_rows(const RowProduct& product);

/// What one of ggml's devices reaches: seconds of a copy of n_bytes, and of a product, each of a few runs of a graph of
/// n_nodes of them. RequestError for a device that is not there, BackendError where it cannot do this.
std::vector<double> time_copy(const std::string& device, int64_t n_bytes, int n_nodes);
/// `result` and `kernel` play no part.
std::vector<double> time_product(const std::string& device, const RowProduct& product, int n_nodes);

/// Whether this processor has a kernel of ours for attention over an F16 cache; ggml's is used otherwise.
bool has_own_attention();

/// softmax(k q + mask) v for each query and head, as the engine computes it on such a processor outside `exact`: keys
/// and values in F16, then all factors in BF16 (cpp/src/cpu/attention.h). RequestError where has_own_attention() says
/// no, head_dim is not a multiple of 32, or heads is not one of kv_heads.
struct RowAttention {
    int64_t head_dim, heads, kv_heads, n, keys;
    const float* q;      // [n, heads, head_dim]
    const float *k, *v;  // [keys, kv_heads, head_dim]
    const float* mask;   // [n, keys]: 0, or -inf for a key that is hidden
    int n_threads;
    float* result;  // [n, heads, head_dim]
};
void attend_rows(const RowAttention& rows);

/// Every row over the root of (the mean of its squares plus eps), times a weight for each column, as the engine
/// computes its norms on the CPU outside `exact`. In F32: a row whose squares add up to more than F32 holds becomes 0.
struct RowNorm {
    int64_t n, n_cols;
    const float* x;       // [n, n_cols]
    const float* weight;  // [n_cols]
    float eps;
    int n_threads;
    float* result;  // [n, n_cols]
};
void norm_rows(const RowNorm& rows);

/// softmax(z) times the rows of an embedding times sqrt(n_cols), as self-conditioning computes it.
struct SoftProduct {
    const float* z;  // [n, n_rows]
    int n;
    std::string type;
    int64_t n_rows, n_cols;  // of the embedding
    const void* embedding;   // [n_rows, row_bytes(type, n_cols)]
    float dropped_mass;      // of each softmax; 0: everything in F32
    int n_threads;
    float* result;  // [n, n_cols]
};
void multiply_soft(const SoftProduct& product);

// ---------------------------------------------------------------------------------------------------- engine

struct EngineOptions {
    int n_ctx = 0;        // positions that the key/value cache holds; 0 = 8192, or the model's own where it has fewer
    int n_threads = 0;    // 0 = usable_cores()
    int n_batch = 0;      // tokens of one encoder pass; 0 = 384 where our own products encode on the CPU, else 256
    bool kv_f32 = false;  // F32 key/value cache instead of F16
    bool exact = false;   // F32 cache and nothing approximate: for comparing with a reference
    /// The layers but for their attention, and the head, in our CUDA kernels, where one card holds the whole model;
    /// false: in ggml's, until a card has shown where ours are faster (docs/cuda.md).
    bool own_card_layers = false;
    DeviceRequest devices;
    /// Called a few times a second on the thread that waits for a result; true stops the computation (Cancelled).
    std::function<bool()> interrupted;
};

struct ModelInfo {
    int n_layer, n_embd, n_vocab, n_head, n_expert, n_expert_used, canvas_length, sliding_window, context_length;
    std::vector<int32_t> eos_ids;
    int file_type;  // general.file_type
    std::string name;
    int64_t n_params;
    uint64_t n_bytes;
};

/// device -> purpose ("weights", "kv", "compute", "sampler", in plans "reserve") -> bytes
using MemoryUse = std::map<std::string, std::map<std::string, uint64_t>>;

/// What an Engine with one session would use with all layers on the CPU, from the file's header alone.
MemoryUse plan_memory(const std::string& path, const EngineOptions& options);

/// Where an Engine with one session puts the model, by the devices' names. `memory` is exact but for "compute", which
/// on GPUs, and on a CPU that has only a part, is what the whole passes would take there; "reserve" is left to a GPU's
/// driver.
struct DevicePlan {
    struct Layer {
        std::string device;   // of its vectors and its keys and values
        std::string experts;  // of its mixture: gate and up, if a pattern parts them from down
    };
    std::vector<DeviceInfo> devices;
    MemoryUse memory;
    std::vector<Layer> layers;
    std::string head;
    bool own_card_layers = false;    // as in EngineOptions, where it can be had
    std::vector<std::string> notes;  // what was asked for and cannot be had, a sentence each
};

/// The plan from the file's header alone. `cards`: free bytes of GPUs to plan for ("GPU0", "GPU1", …) in place of this
/// machine's. RequestError as from Engine.
DevicePlan plan_devices(const std::string& path, const EngineOptions& options,
                        const std::optional<std::vector<uint64_t>>& cards);

class EngineCore;
class Session;

class Engine {
  public:
    Engine(const std::string& path, const EngineOptions& options);
    const ModelInfo& info() const;
    /// The options with every default filled in.
    const EngineOptions& options() const;
    /// What the weights and every living session use, or would with one session where there is none yet.
    MemoryUse memory() const;
    const DevicePlan& plan() const;
    std::shared_ptr<Session> session();

  private:
    std::shared_ptr<EngineCore> core_;
};

class SessionCore;
struct RingSnapshot;

/// The inputs of the products with one weight, squared and summed by column over the rows seen. Divided, they say how
/// much an error in each of the weight's columns matters.
struct InputSums {
    std::string name;  // of the weight
    int64_t n_cols;
    std::vector<double> sums;   // [n_matrices, n_cols]; one matrix, or one for each expert
    std::vector<int64_t> rows;  // [n_matrices]: for an expert, the rows routed to it
};

/// A point of a session that can be gone back to; host memory.
struct Snapshot {
    int n_past;
    uint64_t n_bytes;
    std::shared_ptr<const RingSnapshot> rings;
};

/// One conversation: a key/value cache and the two passes over it.
class Session {
  public:
    explicit Session(std::shared_ptr<EngineCore> core);
    ~Session();

    int n_past() const;
    /// Encoder pass over `tokens`, appended to the cache. ContextError if they do not fit; nothing changes then.
    void prefill(const std::vector<int32_t>& tokens);
    /// Decoder pass over a canvas of canvas_length ids. `previous`: [canvas_length, n_vocab] logits of the previous
    /// step already divided by its temperature, or null on the first step. Writes the logits, [canvas_length, n_vocab],
    /// after the soft-cap and before any temperature, to `logits`.
    void denoise(const std::vector<int32_t>& canvas, const float* previous, float* logits);
    /// Forgets positions >= n. ContextError where the ring of a sliding layer no longer holds what lies before n.
    void truncate(int n);

    /// What going back to this point will need, copied to host memory: about the window of each sliding layer.
    Snapshot snapshot();
    /// Back to a snapshot of this session. ContextError if something was encoded before it since.
    void restore(const Snapshot& snapshot);

    /// The cache as a file, with a text of the caller's; load() returns the text. SessionFileError, ContextError.
    void save(const std::string& path, const std::string& note);
    std::string load(const std::string& path);

    /// From here on every pass, whoever asks for it, adds to the sums of each weight it multiplies with. RequestError
    /// unless the engine is exact: other graphs have products that cannot be looked into.
    void collect_inputs();
    /// What came in since collect_inputs() or the last call; sorted by name.
    std::vector<InputSums> take_inputs();

    /// From here on every pass and step adds its time to its parts: embedding, self_conditioning, attention, router,
    /// experts, dense_ffn, head, sampler. Ends collect_inputs(), which would look on in its place.
    void time_parts();
    /// Seconds by part since time_parts() or the last call.
    std::map<std::string, double> take_parts();

    SessionCore& core() { return *impl_; }
    EngineCore& engine() { return *engine_; }
    /// Counts what changed the cache or the step's buffers: an answer in the making must be the only one to do so.
    uint64_t n_uses() const { return n_uses_; }
    uint64_t begin_use() { return ++n_uses_; }

  private:
    uint64_t n_uses_ = 0;
    std::shared_ptr<EngineCore> engine_;
    std::unique_ptr<SessionCore> impl_;
};

// ---------------------------------------------------------------------------------------------------- denoising

/// The entropy-bound sampler's numbers (generation_diffusion_gemma.py).
struct SamplerConfig {
    int max_denoising_steps = 48;
    double t_min = 0.4, t_max = 0.8;
    double entropy_bound = 0.1;
    int stability_threshold = 1;
    double confidence_threshold = 0.005;
};

struct GenerationRequest {
    std::vector<int32_t> prompt;  // encoded first, after what the session already holds
    int max_new_tokens = 256;
    uint64_t seed = 0;
    SamplerConfig sampler;
};

struct StepEvent {
    int block, step;  // step counts from 1 within its block
    double temperature;
    std::vector<int32_t> canvas;  // what the next step will see: accepted samples and noise
    std::vector<int32_t> argmax;  // the draft of the answer
    std::vector<uint8_t> accepted;
    std::vector<float> entropy;  // nats
};

struct BlockEvent {
    int block;
    std::vector<int32_t> tokens;  // cut before the end token and at max_new_tokens
};

struct GenerationStats {
    int prompt_tokens = 0, new_tokens = 0, blocks = 0, steps = 0;
    double encode_seconds = 0, denoise_seconds = 0, wall_seconds = 0;
};

enum class DoneReason { kStop, kLength, kContext };

struct DoneEvent {
    DoneReason reason;
    std::optional<int32_t> end_token;  // which end token stopped the answer
    GenerationStats stats;
};

using Event = std::variant<StepEvent, BlockEvent, DoneEvent>;

class DenoiseLoop;

/// An answer in the making, continuing from what the session's cache holds. Pull one event at a time.
class Generation {
  public:
    Generation(std::shared_ptr<Session> session, const GenerationRequest& request);
    ~Generation();
    /// The next event; after the DoneEvent, nothing. RequestError if the session did something else in between: its
    /// buffers are no longer this answer's. Cancelled, or what else a step throws, ends the answer.
    std::optional<Event> next();

  private:
    std::shared_ptr<Session> session_;
    uint64_t last_use_ = 0;  // the session's count after this answer's last event; 0: not begun
    std::unique_ptr<DenoiseLoop> loop_;
};

/// One step of the sampler as a pure function (see Python's dgemma.entropy_bound_step). Shapes: logits [C, V], u [C],
/// noise [C]; the results are [C].
struct SamplerStep {
    std::vector<int32_t> argmax, sampled, next_canvas;
    std::vector<float> entropy;
    std::vector<uint8_t> accepted;
};
SamplerStep entropy_bound_step(const float* logits, int canvas_length, int n_vocab, double temperature,
                               double entropy_bound, const double* u, const int32_t* noise);

// ---------------------------------------------------------------------------------------------------- CUDA

/// Empty where dgemma's own CUDA kernels can run; otherwise the sentence that says why not.
std::string cuda_unavailable();

}  // namespace dgemma
