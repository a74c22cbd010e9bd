#include "gguf/gguf_file.h"

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "support/log.h"

namespace dgemma {
namespace {

// More than any real header: the Gemma 4 vocabulary with its merges takes 15 MB. Caps what a forged length can ask for.
constexpr uint64_t kMaxHeaderBytes = 1ull << 30;
constexpr int64_t kMaxTensors = 1 << 20;
constexpr int kMaxSplits = 1000;

constexpr char kMixed[] = "; files of different sets were mixed, or one was renamed";

size_t read_mapping(void* user_data, void* output, uint64_t offset, size_t length) {
    const auto& mapping = *static_cast<const MappedFile*>(user_data);
    if (offset >= mapping.size()) return 0;
    const size_t n = static_cast<size_t>(std::min<uint64_t>(length, mapping.size() - offset));
    std::memcpy(output, mapping.data() + offset, n);
    return n;
}

/// "name-00002-of-00003.gguf" -> {"name", 2, 3}; count 0 if the name is not a split's.
struct SplitName {
    std::string stem;
    int index = 0, count = 0;
};

SplitName parse_split_name(const std::string& path) {
    constexpr size_t kSuffix = 20;  // "-00002-of-00003.gguf"
    if (path.size() <= kSuffix) return {};
    const std::string suffix = path.substr(path.size() - kSuffix);
    SplitName split;
    int read = 0;
    if (std::sscanf(suffix.c_str(), "-%5d-of-%5d.gguf%n", &split.index, &split.count, &read) != 2) return {};
    if (read != static_cast<int>(kSuffix)) return {};
    split.stem = path.substr(0, path.size() - kSuffix);
    return split;
}

std::string split_path(const std::string& stem, int index, int count) {
    char suffix[32];
    std::snprintf(suffix, sizeof suffix, "-%05d-of-%05d.gguf", index, count);
    return stem + suffix;
}

}  // namespace

GgufFile::GgufFile(const std::string& path) {
    const SplitName split = parse_split_name(path);
    open_part(split.count > 1 ? split_path(split.stem, 1, split.count) : path);
    open_rest(path);
    for (size_t file = 0; file < parts_.size(); ++file) collect_tensors(file);
    check_tensor_count();
}

void GgufFile::open_part(const std::string& path) {
    MappedFile mapping(path);
    if (mapping.size() < 24 || std::memcmp(mapping.data(), GGUF_MAGIC, 4) != 0) {
        throw FileError(path + ": is not a GGUF file: it does not begin with \"GGUF\"" +
                        (mapping.size() < 24 ? "; perhaps an interrupted download" : ""));
    }
    GgmlLog log;
    gguf_init_params params{/*no_alloc=*/true, /*ctx=*/nullptr};
    const uint64_t cap = std::min<uint64_t>(mapping.size(), kMaxHeaderBytes);
    std::unique_ptr<gguf_context, FreeHeader> header(
        gguf_init_from_callback(read_mapping, &mapping, /*max_chunk_read=*/0, cap, params));
    if (!header) {
        const std::string cause = log.first_error();
        throw FileError(path + ": the GGUF header cannot be read" + (cause.empty() ? "" : " (" + cause + ")") +
                        "; the file is damaged, cut off, or made for another version of ggml");
    }
    paths_.push_back(path);
    const uint64_t data_offset = gguf_get_data_offset(header.get());
    parts_.push_back({std::move(mapping), std::move(header), data_offset});
}

void GgufFile::open_rest(const std::string& given_path) {
    const int count = static_cast<int>(integer_or("split.count", 0, kMaxSplits, 0));
    if (count <= 1 && given_path == path()) return;
    const SplitName split = parse_split_name(path());
    if (split.count != count || split.index != 1) {
        fail("split.count is " + std::to_string(count) +
             ", which the name does not fit: a set's first file ends in \"" + split_path("", 1, std::max(count, 2)) +
             "\"; it was perhaps renamed");
    }
    for (int i = 2; i <= count; ++i) open_part(split_path(split.stem, i, count));
    for (size_t file = 0; file < parts_.size(); ++file) check_member(file, count);
}

void GgufFile::check_member(size_t file, int64_t n_files) const {
    const int64_t number = integer("split.no", 0, kMaxSplits, file);
    const int64_t count = integer("split.count", 0, kMaxSplits, file);
    if (number == static_cast<int64_t>(file) && count == n_files) return;
    fail("split.no is " + std::to_string(number) + " and split.count is " + std::to_string(count) +
             ", but the name says " + std::to_string(file) + " and " + std::to_string(n_files) + kMixed,
         file);
}

void GgufFile::check_tensor_count() const {
    const auto n_tensors = static_cast<int64_t>(tensors_.size());
    const int64_t expected = integer_or("split.tensors.count", 0, kMaxTensors, n_tensors);
    if (expected != n_tensors) {
        fail("split.tensors.count is " + std::to_string(expected) + ", but the set holds " + std::to_string(n_tensors) +
             " tensors" + kMixed);
    }
}

void GgufFile::collect_tensors(size_t file) {
    const gguf_context* header = parts_[file].header.get();
    const MappedFile& mapping = parts_[file].mapping;
    const int64_t n = gguf_get_n_tensors(header);
    if (n > kMaxTensors) throw FileError(paths_[file] + ": names " + std::to_string(n) + " tensors; it is damaged");
    const uint64_t start = parts_[file].data_offset;
    for (int64_t i = 0; i < n; ++i) {
        TensorData tensor{};
        tensor.name = gguf_get_tensor_name(header, i);
        tensor.type = gguf_get_tensor_type(header, i);
        tensor.n_bytes = gguf_get_tensor_size(header, i);
        tensor.file = file;
        std::memcpy(tensor.ne, gguf_get_tensor_ne(header, i), sizeof tensor.ne);
        const uint64_t offset = gguf_get_tensor_offset(header, i);
        const uint64_t size = mapping.size();
        if (start > size || offset > size - start || tensor.n_bytes > size - start - offset) {
            throw FileError(paths_[file] + ": tensor " + tensor.name + " ends beyond the end of the file (" +
                            std::to_string(size) + " bytes); the download was probably interrupted");
        }
        tensor.data = mapping.data() + start + offset;
        if (!by_name_.emplace(tensor.name, tensors_.size()).second) {
            throw FileError(paths_[file] + ": tensor " + tensor.name + " is there twice");
        }
        tensors_.push_back(std::move(tensor));
    }
}

const TensorData* GgufFile::find(const std::string& name) const {
    const auto found = by_name_.find(name);
    return found == by_name_.end() ? nullptr : &tensors_[found->second];
}

uint64_t GgufFile::n_bytes() const {
    uint64_t total = 0;
    for (const Part& part : parts_) total += part.mapping.size();
    return total;
}

uint64_t GgufFile::fingerprint() const {
    uint64_t hash = 0xcbf29ce484222325u;
    const auto add = [&](const uint8_t* data, uint64_t n) {
        for (uint64_t i = 0; i < n; ++i) hash = (hash ^ data[i]) * 0x100000001b3u;
    };
    for (const Part& part : parts_) add(part.mapping.data(), part.data_offset);
    constexpr uint64_t kPieces = 8, kPieceBytes = 1024;
    for (const TensorData& tensor : tensors_) {
        if (tensor.n_bytes <= kPieces * kPieceBytes) {
            add(tensor.data, tensor.n_bytes);
            continue;
        }
        const uint64_t stride = (tensor.n_bytes - kPieceBytes) / (kPieces - 1);
        for (uint64_t i = 0; i < kPieces; ++i) add(tensor.data + i * stride, kPieceBytes);
    }
    return hash;
}

void GgufFile::forget_metadata() {
    for (Part& part : parts_) part.header.reset();
}

void GgufFile::fail(const std::string& what, size_t file) const { throw FileError(paths_[file] + ": " + what); }

GgufInfo read_gguf(const std::string& path) {
    const GgufFile file(path);
    GgufInfo info{file.version(), file.n_bytes(), file.paths(), file.metadata(), {}};
    for (const TensorData& tensor : file.tensors()) {
        int n_dims = 4;
        while (n_dims > 1 && tensor.ne[n_dims - 1] == 1) --n_dims;
        info.tensors.push_back(
            {tensor.name, ggml_type_name(tensor.type), {tensor.ne, tensor.ne + n_dims}, tensor.n_bytes});
    }
    return info;
}

}  // namespace dgemma
