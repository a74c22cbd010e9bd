// Where a GGUF file's metadata and tensors lie, byte by byte, for those who copy them.
//
//     magic "GGUF" | u32 version | u64 tensors | u64 keys | key … key | tensor infos | padding | data
//     key          = u64 length, name | u32 type | value
//     value        = a number of the type's size | string: u64 length, bytes | array: u32 type, u64 count, values
#include <cstring>

#include "gguf/gguf_file.h"

namespace dgemma {
namespace {

constexpr uint64_t kHeaderBytes = 24;

/// Steps over a header that ggml has read already. The checks are for a file that changes while it is read.
class Walker {
  public:
    Walker(const GgufFile& file, uint64_t at) : file_(file), at_(at) {}

    uint64_t at() const { return at_; }

    template <typename T>
    T read() {
        T value;
        std::memcpy(&value, take(sizeof value), sizeof value);
        return value;
    }
    std::string text() {
        const auto length = read<uint64_t>();
        return std::string(reinterpret_cast<const char*>(take(length)), length);
    }
    void skip_value(uint32_t type) {
        if (type == GGUF_TYPE_STRING) {
            take(read<uint64_t>());
        } else if (type == GGUF_TYPE_ARRAY) {
            const auto of = read<uint32_t>();
            const auto count = read<uint64_t>();
            if (of != GGUF_TYPE_STRING) {
                take(count <= file_.mapping(0).size() ? count * size_of(of) : UINT64_MAX);
            } else {
                for (uint64_t i = 0; i < count; ++i) skip_value(of);
            }
        } else {
            take(size_of(type));
        }
    }

  private:
    const uint8_t* take(uint64_t n) {
        const MappedFile& mapping = file_.mapping(0);
        if (n > mapping.size() - at_) file_.fail("the GGUF header ends in the middle; the file has changed");
        at_ += n;
        return mapping.data() + (at_ - n);
    }

    uint64_t size_of(uint32_t type) const {
        switch (type) {
            case GGUF_TYPE_UINT8:
            case GGUF_TYPE_INT8:
            case GGUF_TYPE_BOOL:
                return 1;
            case GGUF_TYPE_UINT16:
            case GGUF_TYPE_INT16:
                return 2;
            case GGUF_TYPE_UINT32:
            case GGUF_TYPE_INT32:
            case GGUF_TYPE_FLOAT32:
                return 4;
            case GGUF_TYPE_UINT64:
            case GGUF_TYPE_INT64:
            case GGUF_TYPE_FLOAT64:
                return 8;
            default:
                file_.fail("a metadata value has the unknown type " + std::to_string(type));
        }
    }

    const GgufFile& file_;
    uint64_t at_;
};

}  // namespace

GgufLayout gguf_layout(const std::string& path) {
    const GgufFile file(path);
    GgufLayout layout;
    for (const TensorData& tensor : file.tensors()) {
        layout.tensors.push_back({tensor.file, static_cast<uint64_t>(tensor.data - file.mapping(tensor.file).data())});
    }
    Walker walker(file, kHeaderBytes - sizeof(uint64_t));
    const auto n_keys = walker.read<uint64_t>();
    for (uint64_t i = 0; i < n_keys; ++i) {
        const uint64_t begin = walker.at();
        std::string name = walker.text();
        walker.skip_value(walker.read<uint32_t>());
        layout.keys.push_back({std::move(name), begin, walker.at()});
    }
    return layout;
}

}  // namespace dgemma
