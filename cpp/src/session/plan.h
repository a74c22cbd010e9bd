// The plan of an engine: its options checked, what a session takes measured, and a device for every tensor.
#pragma once

#include "dgemma/dgemma.h"
#include "model/model.h"
#include "model/placement.h"
#include "session/kv_cache.h"

namespace dgemma {

/// The options with their defaults, all but n_ctx and n_batch. RequestError for one that cannot be honoured.
EngineOptions checked_options(EngineOptions options);
/// n_ctx, or its default for this model. RequestError.
int checked_context(int n_ctx, const Hparams& h);

/// n_batch, or its default. Our products take a panel of weights apart once for all of a chunk's tokens: a larger chunk
/// spends less time on each, and 384 are planned at 67 MB more for the released shapes, within what the CPU is promised
/// to need (docs/engine.md). Elsewhere the memory counts for more: ggml's products take as long for each token, and
/// 18 GB on a card have no room. `model` is still where the file maps it.
int checked_batch(const EngineOptions& options, const Model& model, const std::vector<DeviceInfo>& there);

/// Tokens of one encoder pass, and of the largest of both passes.
int64_t chunk_of(const EngineOptions& options);
int64_t max_tokens(const EngineOptions& options, const Hparams& h);

/// How much of each softmax self-conditioning may leave out.
float dropped_mass(const EngineOptions& options);

KvShape cache_shape(const Model& model, const EngineOptions& options);

/// What attention takes on the CPU while a layer is computed, beside its graph's memory: the most of any layer whose
/// unit (placement.h) is the device `cpu`.
uint64_t attention_scratch(const Model& model, const EngineOptions& options, const std::vector<int>& units, int cpu);

struct EnginePlan {
    Placement placement;
    DevicePlan shown;
};

/// `model` is still where the file maps it, and `devices` has only to have its CPU started. `there`: the devices to
/// plan for, the CPU last. RequestError where they cannot do what the options ask.
EnginePlan plan_engine(const Model& model, const Devices& devices, const EngineOptions& options,
                       const std::vector<DeviceInfo>& there);

}  // namespace dgemma
