#include <malloc.h>

#include "support/heap.h"

namespace dgemma {

void release_freed_memory() { malloc_trim(/*pad=*/0); }

}  // namespace dgemma
