#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace dgemma {

/// A whole file mapped read-only. Pages are read when touched.
class MappedFile {
  public:
    /// FileError if the file cannot be opened or is empty.
    explicit MappedFile(const std::string& path);
    ~MappedFile();
    MappedFile(MappedFile&& other) noexcept;
    MappedFile(const MappedFile&) = delete;
    MappedFile& operator=(const MappedFile&) = delete;

    const uint8_t* data() const { return data_; }
    uint64_t size() const { return size_; }

  private:
    const uint8_t* data_ = nullptr;
    uint64_t size_ = 0;
};

}  // namespace dgemma
