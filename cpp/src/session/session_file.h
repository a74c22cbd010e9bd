// A session's cache as a file.
//
//     "DGSESSN1"                            8 bytes: kind and version
//     model fingerprint                     u64
//     cache type (ggml_type)                u32
//     number of layers                      u32
//     n_past                                u64
//     first position of the sliding layers  u64
//     length of the note, note              u64, bytes: the caller's own text
//     for each layer: bytes of a row (u64), then its keys and its values, position by position: from 0 in full layers,
//     from that first position in sliding ones
//
// Numbers in the machine's own byte order: the file is for the machine that made it.
#pragma once

#include <string>

#include "model/model.h"
#include "session/kv_cache.h"

namespace dgemma {

/// Writes to a temporary name and renames. SessionFileError if the disk does not take it; nothing is left then.
void save_session(const std::string& path, const std::string& note, const Model& model, const KvCache& cache);

/// Replaces what the cache holds and returns the note. SessionFileError for a file that is damaged, of another version,
/// model or cache type, ContextError for one that is longer than the context; the cache is then as it was, or empty
/// if the file broke off in its middle.
std::string load_session(const std::string& path, const Model& model, KvCache& cache);

}  // namespace dgemma
