// What the C library keeps of freed memory.
#pragma once

namespace dgemma {

/// Gives the pages of freed memory back to the system, where the C library would keep them for later: a header in many
/// small pieces would otherwise stay resident for the engine's life.
void release_freed_memory();

}  // namespace dgemma
