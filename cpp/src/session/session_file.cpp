#include "session/session_file.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

namespace dgemma {
namespace {

constexpr char kMagic[8] = {'D', 'G', 'S', 'E', 'S', 'S', 'N', '1'};

struct Header {
    char magic[8];
    uint64_t fingerprint;
    uint32_t type;
    uint32_t n_layer;
    uint64_t n_past;
    uint64_t first;
    uint64_t note_bytes;
};

[[noreturn]] void fail(const std::string& path, const std::string& what) { throw SessionFileError(path + ": " + what); }

int64_t first_position(const Model& model, size_t layer, int64_t first) {
    return model.hparams().layers[layer].sliding ? first : 0;
}

void write_cache(std::ofstream& file, const std::string& note, const Model& model, const KvCache& cache) {
    const int64_t n_past = cache.n_past();
    const int64_t first = std::max(cache.oldest_needed(cache.n_past()), cache.oldest_held());
    Header header{{},
                  model.fingerprint(),
                  static_cast<uint32_t>(cache.shape().type),
                  static_cast<uint32_t>(model.hparams().layers.size()),
                  static_cast<uint64_t>(n_past),
                  static_cast<uint64_t>(first),
                  note.size()};
    std::memcpy(header.magic, kMagic, sizeof kMagic);
    file.write(reinterpret_cast<const char*>(&header), sizeof header);
    file.write(note.data(), static_cast<std::streamsize>(note.size()));
    std::vector<uint8_t> rows;
    for (size_t i = 0; i < model.hparams().layers.size(); ++i) {
        const int64_t from = first_position(model, i, first);
        const uint64_t row = cache.row_bytes(i);
        rows.resize(2 * row * static_cast<size_t>(n_past - from));
        cache.read_positions(i, from, n_past, rows.data());
        file.write(reinterpret_cast<const char*>(&row), sizeof row);
        file.write(reinterpret_cast<const char*>(rows.data()), static_cast<std::streamsize>(rows.size()));
    }
    file.flush();
}

uint64_t file_size(std::ifstream& file) {
    file.seekg(0, std::ios::end);
    const auto size = static_cast<uint64_t>(file.tellg());
    file.seekg(0);
    return size;
}

Header read_header(std::ifstream& file, const std::string& path, const Model& model, const KvCache& cache) {
    Header header{};
    const uint64_t size = file_size(file);
    file.read(reinterpret_cast<char*>(&header), sizeof header);
    if (!file || std::memcmp(header.magic, kMagic, 6) != 0) fail(path, "is not a saved session of dgemma");
    if (std::memcmp(header.magic, kMagic, sizeof kMagic) != 0) fail(path, "was saved by another version of dgemma");
    if (header.fingerprint != model.fingerprint() || header.n_layer != model.hparams().layers.size()) {
        fail(path, "was saved with another model file");
    }
    if (header.type != static_cast<uint32_t>(cache.shape().type)) {
        fail(path, std::string("holds a cache of another type than ") + ggml_type_name(cache.shape().type));
    }
    if (header.first > header.n_past || header.note_bytes > size) fail(path, "is damaged: its header makes no sense");
    if (header.n_past > static_cast<uint64_t>(cache.shape().n_ctx)) {
        throw ContextError(path + ": holds " + std::to_string(header.n_past) + " tokens, the context " +
                           std::to_string(cache.shape().n_ctx) + "; a larger n_ctx holds them");
    }
    if (static_cast<int64_t>(header.first) > cache.oldest_needed(static_cast<int>(header.n_past))) {
        fail(path, "is damaged: it lacks positions that the window reaches");
    }
    return header;
}

}  // namespace

void save_session(const std::string& path, const std::string& note, const Model& model, const KvCache& cache) {
    std::error_code error;
    if (std::filesystem::exists(path, error) && !std::filesystem::is_regular_file(path, error)) {
        fail(path, "cannot be written: it is no ordinary file");  // a rename would put one in its place
    }
    const std::string partial = path + ".partial";
    std::ofstream file(partial, std::ios::binary | std::ios::trunc);
    if (!file) fail(path, std::string("cannot be written: ") + std::strerror(errno));
    write_cache(file, note, model, cache);
    file.close();
    if (file) std::filesystem::rename(partial, path, error);
    if (file && !error) return;
    const std::string cause = error ? error.message() : std::strerror(errno);
    std::filesystem::remove(partial, error);
    fail(path, "could not be written (" + cause + "); perhaps the disk is full");
}

std::string load_session(const std::string& path, const Model& model, KvCache& cache) {
    std::ifstream file(path, std::ios::binary);
    if (!file) fail(path, std::string("cannot be opened: ") + std::strerror(errno));
    const Header header = read_header(file, path, model, cache);
    std::string note(header.note_bytes, '\0');
    file.read(note.data(), static_cast<std::streamsize>(note.size()));
    const auto n_past = static_cast<int64_t>(header.n_past);
    cache.truncate(0);
    cache.begin_write(static_cast<int>(n_past));
    std::vector<uint8_t> rows;
    for (size_t i = 0; i < model.hparams().layers.size(); ++i) {
        uint64_t row = 0;
        file.read(reinterpret_cast<char*>(&row), sizeof row);
        if (!file || row != cache.row_bytes(i)) fail(path, "is damaged or broke off: layer " + std::to_string(i));
        const int64_t from = first_position(model, i, static_cast<int64_t>(header.first));
        rows.resize(2 * row * static_cast<size_t>(n_past - from));
        file.read(reinterpret_cast<char*>(rows.data()), static_cast<std::streamsize>(rows.size()));
        if (!file) fail(path, "is damaged or broke off: layer " + std::to_string(i));
        cache.write_positions(i, from, n_past, rows.data());
    }
    cache.adopt(static_cast<int>(n_past), static_cast<int64_t>(header.first));
    return note;
}

}  // namespace dgemma
