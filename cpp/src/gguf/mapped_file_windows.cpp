#define WIN32_LEAN_AND_MEAN
#include <windows.h>

#include <utility>

#include "dgemma/dgemma.h"
#include "gguf/mapped_file.h"

namespace dgemma {

MappedFile::MappedFile(const std::string& path) {
    HANDLE file = CreateFileA(path.c_str(), GENERIC_READ, FILE_SHARE_READ, nullptr, OPEN_EXISTING,
                              FILE_ATTRIBUTE_NORMAL, nullptr);
    if (file == INVALID_HANDLE_VALUE) throw FileError(path + ": cannot be opened");
    LARGE_INTEGER size{};
    if (!GetFileSizeEx(file, &size) || size.QuadPart == 0) {
        CloseHandle(file);
        throw FileError(path + ": is empty; perhaps an interrupted download");
    }
    size_ = static_cast<uint64_t>(size.QuadPart);
    HANDLE mapping = CreateFileMappingA(file, nullptr, PAGE_READONLY, 0, 0, nullptr);
    CloseHandle(file);
    if (mapping == nullptr) throw FileError(path + ": cannot be mapped into memory");
    data_ = static_cast<const uint8_t*>(MapViewOfFile(mapping, FILE_MAP_READ, 0, 0, 0));
    CloseHandle(mapping);
    if (data_ == nullptr) throw FileError(path + ": cannot be mapped into memory");
}

MappedFile::~MappedFile() {
    if (data_ != nullptr) UnmapViewOfFile(data_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

}  // namespace dgemma
