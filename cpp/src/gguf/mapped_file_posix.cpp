#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "dgemma/dgemma.h"
#include "gguf/mapped_file.h"

namespace dgemma {

MappedFile::MappedFile(const std::string& path) {
    const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // opening a pipe must not wait
    if (fd < 0) throw FileError(path + ": cannot be opened: " + std::strerror(errno));
    struct stat status{};
    const bool regular = fstat(fd, &status) == 0 && S_ISREG(status.st_mode);
    if (!regular || status.st_size == 0) {
        close(fd);
        throw FileError(path + (regular ? ": is empty; perhaps an interrupted download" : ": is not a file"));
    }
    size_ = static_cast<uint64_t>(status.st_size);
    void* mapping = mmap(nullptr, size_, PROT_READ, MAP_SHARED, fd, 0);
    const int error = errno;
    close(fd);
    if (mapping == MAP_FAILED) throw FileError(path + ": cannot be mapped into memory: " + std::strerror(error));
    data_ = static_cast<const uint8_t*>(mapping);
}

MappedFile::~MappedFile() {
    if (data_ != nullptr) munmap(const_cast<uint8_t*>(data_), size_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

}  // namespace dgemma
