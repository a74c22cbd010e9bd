// How many threads this process can keep busy.
#pragma once

namespace dgemma {

/// The cores that this process may use; at least 1.
int usable_cores();

}  // namespace dgemma
