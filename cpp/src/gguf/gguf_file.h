// GGUF files as hostile input: one file or a split set, mapped, every type and offset checked before it is used.
#pragma once

#include <ggml.h>
#include <gguf.h>

#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "dgemma/dgemma.h"
#include "gguf/mapped_file.h"

namespace dgemma {

/// One tensor's place in the mapping.
struct TensorData {
    std::string name;
    ggml_type type;
    int64_t ne[4];  // GGUF order: columns first
    const uint8_t* data;
    uint64_t n_bytes;
    size_t file;  // index into GgufFile::paths()
};

class GgufFile {
  public:
    /// Opens one file, or the whole set if `path` is any member of a split set. FileError on anything wrong.
    explicit GgufFile(const std::string& path);

    const std::string& path() const { return paths_.front(); }
    const std::vector<std::string>& paths() const { return paths_; }
    const std::vector<TensorData>& tensors() const { return tensors_; }
    const TensorData* find(const std::string& name) const;
    uint64_t n_bytes() const;
    const MappedFile& mapping(size_t file) const { return parts_[file].mapping; }
    /// 64-bit FNV-1a of all headers and of eight pieces of 1 KiB of every tensor, its end among them: which file this
    /// is, without reading all of it.
    uint64_t fingerprint() const;
    /// Lets go of the metadata, which nobody may ask for from then on: a vocabulary of 262 144 tokens takes 30 MB.
    void forget_metadata();
    uint32_t version() const { return gguf_get_version(parts_.front().header.get()); }

    /// Typed metadata, of the first file unless another is named. A missing key gives the fallback, or a FileError
    /// where there is none; a value of another type or outside [low, high] is a FileError. gguf.h's own getters abort
    /// the process on a wrong type.
    bool has(const std::string& key) const;
    bool is_array(const std::string& key) const;
    int64_t integer(const std::string& key, int64_t low, int64_t high, size_t file = 0) const;
    int64_t integer_or(const std::string& key, int64_t low, int64_t high, int64_t fallback) const;
    double number(const std::string& key, double low, double high) const;
    std::string text(const std::string& key) const;
    std::string text_or(const std::string& key, const std::string& fallback) const;
    std::vector<int64_t> integers(const std::string& key, int64_t low, int64_t high) const;
    std::vector<bool> flags(const std::string& key) const;
    /// Values in an array, 0 where there is none.
    int64_t length(const std::string& key) const;
    /// Index of each of `wanted` in an array of strings, -1 where absent.
    std::vector<int64_t> find_texts(const std::string& key, const std::vector<std::string>& wanted) const;
    std::vector<std::pair<std::string, MetadataValue>> metadata() const;

    /// "path: what" as a FileError.
    [[noreturn]] void fail(const std::string& what, size_t file = 0) const;

  private:
    struct FreeHeader {
        void operator()(gguf_context* context) const { gguf_free(context); }
    };
    struct Part {
        MappedFile mapping;
        std::unique_ptr<gguf_context, FreeHeader> header;
        uint64_t data_offset;
    };

    void open_part(const std::string& path);
    void open_rest(const std::string& given_path);
    void check_member(size_t file, int64_t n_files) const;
    void check_tensor_count() const;
    void collect_tensors(size_t file);
    const gguf_context* header(size_t file = 0) const { return parts_[file].header.get(); }
    int64_t key_id(const std::string& key, size_t file = 0) const;
    /// The same, or a FileError if there is no such key.
    int64_t required_id(const std::string& key, size_t file = 0) const;

    std::vector<std::string> paths_;
    std::vector<Part> parts_;
    std::vector<TensorData> tensors_;
    std::unordered_map<std::string, size_t> by_name_;
};

}  // namespace dgemma
