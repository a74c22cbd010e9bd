// Stand-in cards: ggml devices of the GPU type that compute with ggml's CPU device, in memory of their own.
//
// Registered through ggml's public ggml_backend_device_register, they are to the engine what real cards are: their
// memory is not the host's, so that every tensor that crosses over has to be copied, and operations that only the CPU
// has are refused. They compute when they are waited for and not before, so that whoever reads too early reads what was
// there before. ggml's headers for backends are private: what follows declares the same layouts for one version of
// ggml, which register_cards() asks for.
#include <ggml-backend.h>
#include <ggml.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <vector>

namespace {

using Tensor = ggml_tensor;
constexpr const char* kVersion = "0.25.3";

struct TypeTable {
    const char* (*name)(ggml_backend_buffer_type_t);
    ggml_backend_buffer_t (*allocate)(ggml_backend_buffer_type_t, size_t);
    size_t (*alignment)(ggml_backend_buffer_type_t);
    void* max_size;
    void* tensor_size;
    void* is_host;  // absent: it is not
};
struct Type {
    TypeTable table;
    ggml_backend_dev_t device;
    void* context;
};

struct BufferTable {
    void (*free)(ggml_backend_buffer_t);
    void* (*base)(ggml_backend_buffer_t);
    void* init_tensor;
    void (*fill)(ggml_backend_buffer_t, Tensor*, uint8_t, size_t, size_t);
    void (*set)(ggml_backend_buffer_t, Tensor*, const void*, size_t, size_t);
    void (*get)(ggml_backend_buffer_t, const Tensor*, void*, size_t, size_t);
    void *set_2d, *get_2d, *copy;
    void (*clear)(ggml_backend_buffer_t, uint8_t);
    void* reset;
};
struct Buffer {
    BufferTable table;
    ggml_backend_buffer_type_t type;
    void* context;
    size_t size;
    ggml_backend_buffer_usage usage;
};

struct BackendTable {
    const char* (*name)(ggml_backend_t);
    void (*free)(ggml_backend_t);
    void* asynchronous[5];
    void (*synchronize)(ggml_backend_t);
    void* plans[4];
    ggml_status (*compute)(ggml_backend_t, ggml_cgraph*);
    void* events[2];
    void* optimize;
};
struct Backend {
    ggml_guid_t guid;
    BackendTable table;
    ggml_backend_dev_t device;
    void* context;
};

struct DeviceTable {
    const char* (*name)(ggml_backend_dev_t);
    const char* (*description)(ggml_backend_dev_t);
    void (*memory)(ggml_backend_dev_t, size_t*, size_t*);
    enum ggml_backend_dev_type (*type)(ggml_backend_dev_t);
    void (*properties)(ggml_backend_dev_t, ggml_backend_dev_props*);
    ggml_backend_t (*start)(ggml_backend_dev_t, const char*);
    ggml_backend_buffer_type_t (*buffer_type)(ggml_backend_dev_t);
    void *host_buffer_type, *from_host;
    bool (*supports_op)(ggml_backend_dev_t, const Tensor*);
    bool (*supports_type)(ggml_backend_dev_t, ggml_backend_buffer_type_t);
    void* offload;
    void* events[3];
};
struct Device {
    DeviceTable table;
    ggml_backend_reg_t registry;
    void* context;
};

/// Of a backend without devices, as ggml-cuda's is where it finds no card.
struct RegistryTable {
    const char* (*name)(ggml_backend_reg_t);
    size_t (*device_count)(ggml_backend_reg_t);
    void *get_device, *proc_address;
};
struct Registry {
    int api_version;
    RegistryTable table;
    void* context;
};

struct Card {
    std::string name;
    size_t total, used = 0, peak = 0;
    long passes_left = -1;  // until it is lost; -1: never
    bool starts = true;
    size_t claimed = 0;  // bytes that it says are free and does not have
    long graphs = 0;     // computed so far
    long repeated = 0;   // of them, those that were computed before with everything at the same addresses
    uint64_t moved = 0;  // bytes, to and from the host
    std::map<const Tensor*, uint64_t> seen;  // by its first node, as ggml-cuda tells graphs apart
    Type type{};
    Device device{};
    ggml_guid guid{};
};
std::vector<Card*> cards;

/// What a backend was given and has not done.
struct Queue {
    ggml_backend_t cpu;
    std::vector<ggml_cgraph*> graphs;
};

Card& card_of(ggml_backend_dev_t device) { return *static_cast<Card*>(reinterpret_cast<Device*>(device)->context); }
Buffer& as_buffer(ggml_backend_buffer_t buffer) { return *reinterpret_cast<Buffer*>(buffer); }
Card& card_of(ggml_backend_buffer_t buffer) {
    return *static_cast<Card*>(reinterpret_cast<Type*>(as_buffer(buffer).type)->context);
}
char* bytes(const Tensor* tensor) { return static_cast<char*>(tensor->data); }

void free_buffer(ggml_backend_buffer_t buffer) {
    card_of(buffer).used -= as_buffer(buffer).size;
    std::free(as_buffer(buffer).context);
}

/// In a layout of ggml's own, which frees it with `delete`.
extern "C" ggml_backend_buffer_t ggml_backend_buffer_init(ggml_backend_buffer_type_t, BufferTable, void*, size_t);

ggml_backend_buffer_t allocate(ggml_backend_buffer_type_t type, size_t size) {
    Card& card = *static_cast<Card*>(reinterpret_cast<Type*>(type)->context);
    if (card.used + size > card.total) return nullptr;
    void* memory = std::aligned_alloc(128, (size + 255) / 128 * 128);
    std::memset(memory, 0xff, size);  // whatever is read before it is written is not a number
    card.used += size;
    card.peak = card.used > card.peak ? card.used : card.peak;
    const BufferTable table{free_buffer,
                            [](ggml_backend_buffer_t buffer) { return as_buffer(buffer).context; },
                            nullptr,
                            [](ggml_backend_buffer_t, Tensor* t, uint8_t value, size_t at, size_t n) {
                                std::memset(bytes(t) + at, value, n);
                            },
                            [](ggml_backend_buffer_t buffer, Tensor* t, const void* from, size_t at, size_t n) {
                                card_of(buffer).moved += n;
                                std::memcpy(bytes(t) + at, from, n);
                            },
                            [](ggml_backend_buffer_t buffer, const Tensor* t, void* to, size_t at, size_t n) {
                                card_of(buffer).moved += n;
                                std::memcpy(to, bytes(t) + at, n);
                            },
                            nullptr,
                            nullptr,
                            nullptr,
                            [](ggml_backend_buffer_t buffer, uint8_t value) {
                                std::memset(as_buffer(buffer).context, value, as_buffer(buffer).size);
                            },
                            nullptr};
    return ggml_backend_buffer_init(type, table, memory, size);
}

Queue& queue_of(ggml_backend_t backend) { return *static_cast<Queue*>(reinterpret_cast<Backend*>(backend)->context); }

void synchronize(ggml_backend_t backend) {
    Queue& queue = queue_of(backend);
    for (ggml_cgraph* graph : queue.graphs) ggml_backend_graph_compute(queue.cpu, graph);
    queue.graphs.clear();
}

/// Of all that ggml-cuda compares before it replays what it recorded of a graph.
uint64_t fingerprint(ggml_cgraph* graph) {
    uint64_t hash = 0xcbf29ce484222325;  // FNV-1a
    const auto add = [&](const void* from, size_t n) {
        for (size_t i = 0; i < n; ++i) hash = (hash ^ static_cast<const uint8_t*>(from)[i]) * 0x100000001b3;
    };
    for (int i = 0; i < ggml_graph_n_nodes(graph); ++i) {
        const Tensor* node = ggml_graph_node(graph, i);
        add(node, sizeof *node);
        for (const Tensor* source : node->src) {
            if (source == nullptr) continue;
            add(&source->data, sizeof source->data);
            add(source->ne, sizeof source->ne);
            add(source->nb, sizeof source->nb);
        }
    }
    return hash;
}

ggml_status compute(ggml_backend_t backend, ggml_cgraph* graph) {
    Card& card = card_of(reinterpret_cast<Backend*>(backend)->device);
    if (card.passes_left == 0) return GGML_STATUS_FAILED;
    if (card.passes_left > 0) --card.passes_left;
    ++card.graphs;
    uint64_t& before = card.seen[ggml_graph_node(graph, 0)];
    const uint64_t now = fingerprint(graph);
    card.repeated += now == before ? 1 : 0;
    before = now;
    queue_of(backend).graphs.push_back(graph);
    return GGML_STATUS_SUCCESS;
}

ggml_backend_t start_cpu() {
    ggml_backend_t cpu = ggml_backend_init_by_type(GGML_BACKEND_DEVICE_TYPE_CPU, nullptr);
    ggml_backend_reg_t registry = ggml_backend_dev_backend_reg(ggml_backend_get_device(cpu));
    void* set_threads = ggml_backend_reg_get_proc_address(registry, "ggml_backend_set_n_threads");
    reinterpret_cast<ggml_backend_set_n_threads_t>(set_threads)(cpu, 1);
    return cpu;
}

ggml_backend_t start(ggml_backend_dev_t device, const char*) {
    Card& card = card_of(device);
    if (!card.starts) return nullptr;
    auto* backend = new Backend{};
    backend->guid = &card.guid;
    backend->device = device;
    backend->context = new Queue{start_cpu(), {}};
    backend->table.name = [](ggml_backend_t b) { return card_of(reinterpret_cast<Backend*>(b)->device).name.c_str(); };
    backend->table.free = [](ggml_backend_t b) {
        ggml_backend_free(queue_of(b).cpu);
        delete &queue_of(b);
        delete reinterpret_cast<Backend*>(b);
    };
    backend->table.synchronize = synchronize;
    backend->table.compute = compute;
    return reinterpret_cast<ggml_backend_t>(backend);
}

bool supports_op(ggml_backend_dev_t, const Tensor* op) {
    return op->op != GGML_OP_CUSTOM && op->op != GGML_OP_MAP_CUSTOM1 && op->op != GGML_OP_MAP_CUSTOM2 &&
           op->op != GGML_OP_MAP_CUSTOM3;
}

void memory(ggml_backend_dev_t device, size_t* free, size_t* total) {
    *total = card_of(device).total;
    *free = *total > card_of(device).used ? *total - card_of(device).used : 0;
    *free += card_of(device).claimed;
}

void fill_tables(Card& card) {
    auto* device = reinterpret_cast<ggml_backend_dev_t>(&card.device);
    card.type = {{[](ggml_backend_buffer_type_t type) {
                      return static_cast<Card*>(reinterpret_cast<Type*>(type)->context)->name.c_str();
                  },
                  allocate, [](ggml_backend_buffer_type_t) { return size_t{128}; }, nullptr, nullptr, nullptr},
                 device,
                 &card};
    card.device.context = &card;
    DeviceTable& table = card.device.table;
    table.name = [](ggml_backend_dev_t d) { return card_of(d).name.c_str(); };
    table.description = [](ggml_backend_dev_t) { return "a stand-in"; };
    table.memory = memory;
    table.type = [](ggml_backend_dev_t) { return GGML_BACKEND_DEVICE_TYPE_GPU; };
    table.properties = [](ggml_backend_dev_t d, ggml_backend_dev_props* to) {
        *to = {};
        to->name = card_of(d).name.c_str();
        to->description = "a stand-in";
        to->type = GGML_BACKEND_DEVICE_TYPE_GPU;
        memory(d, &to->memory_free, &to->memory_total);
    };
    table.start = start;
    table.buffer_type = [](ggml_backend_dev_t d) {
        return reinterpret_cast<ggml_backend_buffer_type_t>(&card_of(d).type);
    };
    table.supports_op = supports_op;
    table.supports_type = [](ggml_backend_dev_t d, ggml_backend_buffer_type_t type) {
        return reinterpret_cast<Type*>(type) == &card_of(d).type;
    };
}

}  // namespace

extern "C" {

/// false: this ggml is not the version that the layouts above are of.
bool register_card(const char* name, uint64_t total) {
    if (std::strcmp(ggml_version(), kVersion) != 0) return false;
    auto* card = new Card{name, total};
    fill_tables(*card);
    cards.push_back(card);
    ggml_backend_device_register(reinterpret_cast<ggml_backend_dev_t>(&card->device));
    return true;
}

uint64_t card_used(int card) { return cards[card]->used; }
uint64_t card_peak(int card) { return cards[card]->peak; }
int64_t card_graphs(int card) { return cards[card]->graphs; }
int64_t card_repeated(int card) { return cards[card]->repeated; }
uint64_t card_moved(int card) { return cards[card]->moved; }
void resize_card(int card, uint64_t total) { cards[card]->total = total; }
void lose_card(int card, int64_t passes) { cards[card]->passes_left = passes; }
void break_card(int card) { cards[card]->starts = false; }
void overstate_card(int card, uint64_t claimed) { cards[card]->claimed = claimed; }

bool register_empty(const char* name) {
    if (std::strcmp(ggml_version(), kVersion) != 0) return false;
    static std::string known;
    static Registry registry{1, {}, nullptr};
    known = name;
    registry.table.name = [](ggml_backend_reg_t) { return known.c_str(); };
    registry.table.device_count = [](ggml_backend_reg_t) { return size_t{0}; };
    ggml_backend_register(reinterpret_cast<ggml_backend_reg_t>(&registry));
    return true;
}
}
