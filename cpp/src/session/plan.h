// The plan of an engine: its options checked, what a session takes measured, and a device for every tensor.
#pragma once

#include "dgemma/dgemma.h"
#include "model/model.h"
#include "model/placement.h"
#include "session/kv_cache.h"

namespace dgemma {

/// The options with their defaults, all but n_ctx. RequestError for one that cannot be honoured.
EngineOptions checked_options(EngineOptions options);
/// n_ctx, or its default for this model. RequestError.
int checked_context(int n_ctx, const Hparams& h);

KvShape cache_shape(const Model& model, const EngineOptions& options);

struct EnginePlan {
    Placement placement;
    DevicePlan shown;
};

/// `model` is still where the file maps it, and `devices` has only to have its CPU started. `there`: the devices to
/// plan for, the CPU last. RequestError where they cannot do what the options ask.
EnginePlan plan_engine(const Model& model, const Devices& devices, const EngineOptions& options,
                       const std::vector<DeviceInfo>& there);

}  // namespace dgemma
