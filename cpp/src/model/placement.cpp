#include "model/placement.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>
#include <regex>
#include <utility>

namespace dgemma {
namespace {

struct Override {
    std::string text;
    std::regex pattern;
    int device;
};

/// "ffn_.*_exps=CPU": the device stands behind the last '=', a pattern may hold others.
Override parse_override(const std::string& text, const std::vector<std::string>& cards) {
    const auto fail = [&](const std::string& why) { throw RequestError("override_tensor: " + text + ": " + why); };
    const size_t equals = text.rfind('=');
    if (equals == std::string::npos || equals == 0) fail("must be PATTERN=DEVICE, like exps=CPU");
    const std::string name = text.substr(equals + 1);
    const auto card = std::find(cards.begin(), cards.end(), name);
    if (card == cards.end() && name != "CPU") {
        std::string known;
        for (const std::string& each : cards) known += each + ", ";
        fail("there is no device " + (name.empty() ? "of no name" : name) + ", only " + known + "CPU");
    }
    try {
        return {text, std::regex(text.substr(0, equals)), static_cast<int>(card - cards.begin())};
    } catch (const std::regex_error&) {
        fail("the pattern is not a regular expression");
        throw;  // not reached
    }
}

/// The device that a pattern names for each tensor, -1 for none; the first pattern that matches counts.
std::vector<int> forced_devices(const PlacementInput& input, const std::vector<std::string>& overrides) {
    std::vector<int> forced(input.tensors.size(), -1);
    for (const std::string& text : overrides) {
        const Override override = parse_override(text, input.cards);
        bool any = false;
        for (size_t i = 0; i < input.tensors.size(); ++i) {
            const TensorSize& tensor = input.tensors[i];
            if (!tensor.is_matrix || !std::regex_search(tensor.name, override.pattern)) continue;
            any = true;
            if (forced[i] < 0) forced[i] = override.device;
        }
        if (!any) throw RequestError("override_tensor: " + text + ": the pattern matches no matrix of the model");
    }
    return forced;
}

class Planner {
  public:
    Planner(const PlacementInput& input, const DeviceRequest& request)
        : input_(input), request_(request), forced_(forced_devices(input, request.override_tensor)) {
        check_cards();
        set_capacities();
    }

    size_t n_layer() const { return input_.kv.size(); }
    int cpu() const { return static_cast<int>(input_.cards.size()); }

    /// Devices of the units where the last `n` of them go to the cards, and the experts of the first `n_cpu_moe` layers
    /// do not; nothing where that does not fit.
    std::optional<std::vector<int>> layout(size_t n, size_t n_cpu_moe) const {
        const std::vector<uint64_t> bytes = unit_bytes(n_cpu_moe);
        const size_t first = bytes.size() - n;
        if (!request_.tensor_split.empty()) return by_proportion(bytes, first);
        // The smallest share of the cards' room with which the layers fit in a row: each card is then as full as
        // others.
        if (!filled(bytes, first, 1.0)) return std::nullopt;
        double low = 0, high = 1;
        for (int i = 0; i < 40; ++i) {
            const double middle = (low + high) / 2;
            (filled(bytes, first, middle) ? high : low) = middle;
        }
        return filled(bytes, first, high);
    }

    Placement finish(const std::vector<int>& units, size_t n_cpu_moe) const {
        Placement placement{units, {}, {}};
        // The logits go where the head's product is made, wherever a pattern put its weights.
        for (size_t i = 0; i < forced_.size(); ++i) {
            if (forced_[i] >= 0 && is_head(i)) placement.units.back() = forced_[i];
        }
        for (size_t i = 0; i < input_.tensors.size(); ++i) {
            const TensorSize& tensor = input_.tensors[i];
            const bool stays = tensor.is_expert && tensor.unit < n_cpu_moe;
            placement.tensors.push_back(forced_[i] >= 0 ? forced_[i] : stays ? cpu() : placement.units[tensor.unit]);
        }
        return placement;
    }

    /// What the last `n` units and the passes take, and what the cards have for it.
    std::pair<uint64_t, uint64_t> needed_and_there(size_t n, size_t n_cpu_moe) const {
        const std::vector<uint64_t> bytes = unit_bytes(n_cpu_moe);
        const uint64_t needed = std::accumulate(bytes.end() - static_cast<std::ptrdiff_t>(n), bytes.end(), uint64_t{0});
        return {needed, std::accumulate(capacity_.begin(), capacity_.end(), uint64_t{0})};
    }

  private:
    /// Whether a tensor is the head's matrix.
    bool is_head(size_t i) const { return input_.tensors[i].is_matrix && input_.tensors[i].unit == n_layer(); }

    void check_cards() const {
        const size_t n_cards = input_.cards.size();
        const std::string there = n_cards == 1 ? "1 GPU" : std::to_string(n_cards) + " GPUs";
        const std::vector<float>& split = request_.tensor_split;
        if (split.size() > n_cards) {
            throw RequestError("tensor_split has " + std::to_string(split.size()) + " entries, and there " +
                               (n_cards == 1 ? "is " : "are ") + there);
        }
        const bool sound = std::all_of(split.begin(), split.end(), [](float x) { return std::isfinite(x) && x >= 0; });
        if (!split.empty() && !(sound && std::accumulate(split.begin(), split.end(), 0.0f) > 0)) {
            throw RequestError("tensor_split must be proportions, none below 0 and one above");
        }
        if (request_.main_gpu < 0) return;
        if (static_cast<size_t>(request_.main_gpu) >= n_cards) {
            throw RequestError("main_gpu is " + std::to_string(request_.main_gpu) + ", and there " +
                               (n_cards == 1 ? "is " : "are ") + there + ", counted from 0");
        }
        if (!split.empty())
            throw RequestError("main_gpu names the one GPU to use, and tensor_split shares out several");
    }

    /// A card's free memory less the reserve, the passes, and what patterns put there.
    void set_capacities() {
        std::vector<uint64_t> fixed(input_.cards.size() + 1, 0);
        for (size_t i = 0; i < forced_.size(); ++i) {
            if (forced_[i] < 0) continue;
            fixed[static_cast<size_t>(forced_[i])] += input_.tensors[i].bytes + (is_head(i) ? input_.logits : 0);
        }
        for (size_t card = 0; card < input_.cards.size(); ++card) {
            const uint64_t taken = kCardReserve + input_.compute + fixed[card];
            if (fixed[card] > 0 && taken > input_.free[card]) {
                throw RequestError("override_tensor puts " + size_text(fixed[card]) + " on " + input_.cards[card] +
                                   ", which with the passes' buffers and the reserve takes " + size_text(taken) +
                                   " of the " + size_text(input_.free[card]) + " that are free there");
            }
            const bool unused = request_.main_gpu >= 0 && static_cast<size_t>(request_.main_gpu) != card;
            capacity_.push_back(unused || taken >= input_.free[card] ? 0 : input_.free[card] - taken);
        }
    }

    std::vector<uint64_t> unit_bytes(size_t n_cpu_moe) const {
        std::vector<uint64_t> bytes = input_.kv;
        bytes.push_back(input_.logits);
        for (size_t i = 0; i < input_.tensors.size(); ++i) {
            const TensorSize& tensor = input_.tensors[i];
            const bool stays = tensor.is_expert && tensor.unit < n_cpu_moe;
            if (forced_[i] < 0 && !stays) bytes[tensor.unit] += tensor.bytes;
            if (forced_[i] >= 0 && is_head(i)) bytes[tensor.unit] -= input_.logits;
        }
        return bytes;
    }

    /// Card after card takes units in a row until `share` of its room is full.
    std::optional<std::vector<int>> filled(const std::vector<uint64_t>& bytes, size_t first, double share) const {
        std::vector<int> units(bytes.size(), cpu());
        size_t card = 0;
        uint64_t taken = 0;
        for (size_t unit = first; unit < bytes.size(); ++unit) {
            const auto room = [&] { return static_cast<uint64_t>(static_cast<double>(capacity_[card]) * share); };
            while (card < capacity_.size() && taken + bytes[unit] > room()) {
                ++card;
                taken = 0;
            }
            if (card == capacity_.size()) return std::nullopt;
            taken += bytes[unit];
            units[unit] = static_cast<int>(card);
        }
        return units;
    }

    /// As llama.cpp shares out layers: by their number, not their size.
    std::optional<std::vector<int>> by_proportion(const std::vector<uint64_t>& bytes, size_t first) const {
        std::vector<float> until;
        for (const float part : request_.tensor_split) until.push_back((until.empty() ? 0 : until.back()) + part);
        for (float& end : until) end /= until.back();
        std::vector<int> units(bytes.size(), cpu());
        std::vector<uint64_t> taken(until.size(), 0);
        for (size_t unit = first; unit < bytes.size(); ++unit) {
            const float place = static_cast<float>(unit - first) / static_cast<float>(bytes.size() - first);
            const auto card = static_cast<size_t>(std::upper_bound(until.begin(), until.end(), place) - until.begin());
            taken[card] += bytes[unit];
            units[unit] = static_cast<int>(card);
            if (taken[card] > capacity_[card]) return std::nullopt;
        }
        return units;
    }

    const PlacementInput& input_;
    const DeviceRequest& request_;
    std::vector<int> forced_;
    std::vector<uint64_t> capacity_;  // by card, for units
};

/// The same request with layers shared out by free memory.
DeviceRequest without_split(DeviceRequest request) {
    request.tensor_split.clear();
    return request;
}

uint64_t bytes_on_cpu(const PlacementInput& input, const Placement& placement) {
    uint64_t bytes = 0;
    for (size_t i = 0; i < input.tensors.size(); ++i) {
        if (placement.tensors[i] == static_cast<int>(input.cards.size())) bytes += input.tensors[i].bytes;
    }
    return bytes;
}

/// An n_gpu_layers that was asked for and does not fit.
[[noreturn]] void refuse(const Planner& planner, size_t n, size_t n_cpu_moe) {
    const auto [needed, there] = planner.needed_and_there(n, n_cpu_moe);
    std::string text = "n_gpu_layers=" + std::to_string(n) + " does not fit: it needs " + size_text(needed) +
                       " on the GPU beside the passes' buffers and the reserve, and " + size_text(there) + " are free";
    size_t fewer = n - 1, more = n_cpu_moe + 1;
    while (fewer > 0 && !planner.layout(fewer, n_cpu_moe)) --fewer;
    while (more <= planner.n_layer() && !planner.layout(n, more)) ++more;
    text += "; n_gpu_layers=" + std::to_string(fewer) + (fewer == 0 ? " (the CPU alone) does" : " fits");
    if (more <= planner.n_layer()) text += ", and so does n_cpu_moe=" + std::to_string(more);
    throw RequestError(text);
}

Placement place_what_fits(const Planner& planner, size_t n_cpu_moe) {
    const size_t n_layer = planner.n_layer();
    for (size_t moved = n_cpu_moe; moved <= n_layer; ++moved) {
        if (const auto units = planner.layout(n_layer + 1, moved)) return planner.finish(*units, moved);
    }
    for (size_t n = n_layer; n > 0; --n) {
        if (const auto units = planner.layout(n, n_layer)) return planner.finish(*units, n_layer);
    }
    Placement placement = planner.finish(std::vector<int>(n_layer + 1, planner.cpu()), n_cpu_moe);
    placement.notes.push_back("not even the head fits on a GPU: everything runs on the CPU");
    return placement;
}

/// Cards of different sizes: proportions may give the smaller one more than it holds, and the CPU the rest.
void note_tight_split(const PlacementInput& input, const DeviceRequest& request, size_t n_cpu_moe,
                      Placement& placement) {
    const DeviceRequest by_memory = without_split(request);
    const uint64_t least = bytes_on_cpu(input, place_what_fits(Planner(input, by_memory), n_cpu_moe));
    const uint64_t now = bytes_on_cpu(input, placement);
    if (now <= least) return;
    placement.notes.push_back("tensor_split gives a GPU more than it holds, so that " + size_text(now) +
                              " of weights stay on the CPU; without it, shared by free memory, " +
                              (least == 0 ? "none" : size_text(least)) + " would");
}

}  // namespace

bool Placement::uses(int device) const {
    return std::count(units.begin(), units.end(), device) + std::count(tensors.begin(), tensors.end(), device) > 0;
}

Placement place(const PlacementInput& input, const DeviceRequest& request) {
    const Planner planner(input, request);
    const size_t n_layer = input.kv.size();
    const auto count = [&](int asked, size_t all) { return asked < 0 ? all : std::min<size_t>(asked, all); };
    const size_t n_cpu_moe = count(request.n_cpu_moe, n_layer), n = count(request.n_gpu_layers, n_layer + 1);
    if (input.cards.empty() || n == 0) {
        return planner.finish(std::vector<int>(n_layer + 1, planner.cpu()), n_cpu_moe);
    }
    if (request.n_gpu_layers < 0) {
        Placement placement = place_what_fits(planner, n_cpu_moe);
        if (!request.tensor_split.empty()) note_tight_split(input, request, n_cpu_moe, placement);
        return placement;
    }
    if (const auto units = planner.layout(n, n_cpu_moe)) return planner.finish(*units, n_cpu_moe);
    const DeviceRequest by_memory = without_split(request);
    if (!request.tensor_split.empty() && Planner(input, by_memory).layout(n, n_cpu_moe)) {
        throw RequestError("tensor_split gives a GPU more of n_gpu_layers=" + std::to_string(n) +
                           " than it holds; without it, shared by free memory, they fit");
    }
    refuse(planner, n, n_cpu_moe);
}

std::string size_text(uint64_t bytes) {
    const bool large = bytes >= 1'000'000'000;
    const uint64_t tenth = large ? 100'000'000 : 100'000, tenths = (bytes + tenth - 1) / tenth;
    return std::to_string(tenths / 10) + "." + std::to_string(tenths % 10) + (large ? " GB" : " MB");
}

}  // namespace dgemma
