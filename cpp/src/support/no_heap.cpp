// Other C libraries give pages back by themselves, or cannot be asked to.
#include "support/heap.h"

namespace dgemma {

void release_freed_memory() {}

}  // namespace dgemma
