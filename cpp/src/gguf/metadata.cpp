// Typed access to GGUF metadata.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "gguf/gguf_file.h"

namespace dgemma {
namespace {

template <typename T>
std::vector<T> copy_array(const gguf_context* header, int64_t id) {
    const size_t n = gguf_get_arr_n(header, id);
    std::vector<T> values(n);
    if (n > 0) std::memcpy(values.data(), gguf_get_arr_data(header, id), n * sizeof(T));
    return values;
}

template <typename Out, typename In>
std::vector<Out> widen(const std::vector<In>& values) {
    return std::vector<Out>(values.begin(), values.end());
}

MetadataValue array_value(const gguf_context* header, int64_t id) {
    switch (gguf_get_arr_type(header, id)) {
        case GGUF_TYPE_UINT8:
            return widen<int64_t>(copy_array<uint8_t>(header, id));
        case GGUF_TYPE_INT8:
            return widen<int64_t>(copy_array<int8_t>(header, id));
        case GGUF_TYPE_UINT16:
            return widen<int64_t>(copy_array<uint16_t>(header, id));
        case GGUF_TYPE_INT16:
            return widen<int64_t>(copy_array<int16_t>(header, id));
        case GGUF_TYPE_UINT32:
            return widen<int64_t>(copy_array<uint32_t>(header, id));
        case GGUF_TYPE_INT32:
            return widen<int64_t>(copy_array<int32_t>(header, id));
        case GGUF_TYPE_INT64:
            return copy_array<int64_t>(header, id);
        case GGUF_TYPE_UINT64:
            return copy_array<uint64_t>(header, id);
        case GGUF_TYPE_FLOAT32:
            return widen<double>(copy_array<float>(header, id));
        case GGUF_TYPE_FLOAT64:
            return copy_array<double>(header, id);
        case GGUF_TYPE_BOOL: {
            std::vector<bool> flags;
            for (const int8_t flag : copy_array<int8_t>(header, id)) flags.push_back(flag != 0);
            return flags;
        }
        case GGUF_TYPE_STRING: {
            std::vector<std::string> texts(gguf_get_arr_n(header, id));
            for (size_t i = 0; i < texts.size(); ++i) texts[i] = gguf_get_arr_str(header, id, i);
            return texts;
        }
        default:
            return std::string("(an array of arrays)");
    }
}

MetadataValue value_of(const gguf_context* header, int64_t id) {
    switch (gguf_get_kv_type(header, id)) {
        case GGUF_TYPE_UINT8:
            return int64_t{gguf_get_val_u8(header, id)};
        case GGUF_TYPE_INT8:
            return int64_t{gguf_get_val_i8(header, id)};
        case GGUF_TYPE_UINT16:
            return int64_t{gguf_get_val_u16(header, id)};
        case GGUF_TYPE_INT16:
            return int64_t{gguf_get_val_i16(header, id)};
        case GGUF_TYPE_UINT32:
            return int64_t{gguf_get_val_u32(header, id)};
        case GGUF_TYPE_INT32:
            return int64_t{gguf_get_val_i32(header, id)};
        case GGUF_TYPE_INT64:
            return gguf_get_val_i64(header, id);
        case GGUF_TYPE_UINT64:
            return gguf_get_val_u64(header, id);
        case GGUF_TYPE_FLOAT32:
            return double{gguf_get_val_f32(header, id)};
        case GGUF_TYPE_FLOAT64:
            return gguf_get_val_f64(header, id);
        case GGUF_TYPE_BOOL:
            return gguf_get_val_bool(header, id);
        case GGUF_TYPE_STRING:
            return std::string(gguf_get_val_str(header, id));
        default:
            return array_value(header, id);
    }
}

std::string type_of(const gguf_context* header, int64_t id) {
    const gguf_type type = gguf_get_kv_type(header, id);
    if (type != GGUF_TYPE_ARRAY) return gguf_type_name(type);
    return std::string("array of ") + gguf_type_name(gguf_get_arr_type(header, id));
}

std::string number_text(double x) {
    char buffer[32];
    std::snprintf(buffer, sizeof buffer, "%.10g", x);
    return buffer;
}

std::string range_text(double low, double high) {
    return "must be between " + number_text(low) + " and " + number_text(high);
}

}  // namespace

int64_t GgufFile::key_id(const std::string& key, size_t file) const { return gguf_find_key(header(file), key.c_str()); }

int64_t GgufFile::required_id(const std::string& key, size_t file) const {
    const int64_t id = key_id(key, file);
    if (id < 0) fail("metadata key " + key + " is missing; the file is not a complete DiffusionGemma model", file);
    return id;
}

bool GgufFile::has(const std::string& key) const { return key_id(key) >= 0; }

bool GgufFile::is_array(const std::string& key) const {
    const int64_t id = key_id(key);
    return id >= 0 && gguf_get_kv_type(header(), id) == GGUF_TYPE_ARRAY;
}

int64_t GgufFile::integer(const std::string& key, int64_t low, int64_t high, size_t file) const {
    const int64_t id = required_id(key, file);
    const MetadataValue value = value_of(header(file), id);
    int64_t number = 0;
    if (const auto* whole = std::get_if<int64_t>(&value)) {
        number = *whole;
    } else if (const auto* large = std::get_if<uint64_t>(&value)) {
        number = static_cast<int64_t>(std::min<uint64_t>(*large, INT64_MAX));
    } else {
        fail("metadata key " + key + " has the type " + type_of(header(file), id) + ", an integer is needed", file);
    }
    if (number < low || number > high) {
        fail("metadata key " + key + " is " + std::to_string(number) + "; it " +
                 range_text(static_cast<double>(low), static_cast<double>(high)),
             file);
    }
    return number;
}

int64_t GgufFile::integer_or(const std::string& key, int64_t low, int64_t high, int64_t fallback) const {
    return has(key) ? integer(key, low, high) : fallback;
}

double GgufFile::number(const std::string& key, double low, double high) const {
    const int64_t id = required_id(key);
    const MetadataValue value = value_of(header(), id);
    double number = 0;
    if (const auto* real = std::get_if<double>(&value)) {
        number = *real;
    } else if (const auto* whole = std::get_if<int64_t>(&value)) {
        number = static_cast<double>(*whole);
    } else if (const auto* large = std::get_if<uint64_t>(&value)) {
        number = static_cast<double>(*large);
    } else {
        fail("metadata key " + key + " has the type " + type_of(header(), id) + ", a number is needed");
    }
    if (!(number >= low && number <= high)) {
        fail("metadata key " + key + " is " + number_text(number) + "; it " + range_text(low, high));
    }
    return number;
}

std::string GgufFile::text(const std::string& key) const {
    const int64_t id = required_id(key);
    if (gguf_get_kv_type(header(), id) != GGUF_TYPE_STRING) {
        fail("metadata key " + key + " has the type " + type_of(header(), id) + ", a string is needed");
    }
    return gguf_get_val_str(header(), id);
}

std::string GgufFile::text_or(const std::string& key, const std::string& fallback) const {
    return has(key) ? text(key) : fallback;
}

std::vector<int64_t> GgufFile::integers(const std::string& key, int64_t low, int64_t high) const {
    const int64_t id = required_id(key);
    const MetadataValue value = value_of(header(), id);
    const auto* numbers = std::get_if<std::vector<int64_t>>(&value);
    if (numbers == nullptr) {
        fail("metadata key " + key + " has the type " + type_of(header(), id) + ", an array of integers is needed");
    }
    for (const int64_t number : *numbers) {
        if (number < low || number > high) {
            fail("metadata key " + key + " holds " + std::to_string(number) + "; each value " +
                 range_text(static_cast<double>(low), static_cast<double>(high)));
        }
    }
    return *numbers;
}

std::vector<bool> GgufFile::flags(const std::string& key) const {
    const int64_t id = required_id(key);
    const MetadataValue value = value_of(header(), id);
    const auto* flags = std::get_if<std::vector<bool>>(&value);
    if (flags == nullptr) {
        fail("metadata key " + key + " has the type " + type_of(header(), id) + ", an array of bool is needed");
    }
    return *flags;
}

int64_t GgufFile::length(const std::string& key) const {
    return is_array(key) ? static_cast<int64_t>(gguf_get_arr_n(header(), key_id(key))) : 0;
}

std::vector<int64_t> GgufFile::find_texts(const std::string& key, const std::vector<std::string>& wanted) const {
    std::vector<int64_t> found(wanted.size(), -1);
    const int64_t id = key_id(key);
    if (id < 0 || gguf_get_kv_type(header(), id) != GGUF_TYPE_ARRAY ||
        gguf_get_arr_type(header(), id) != GGUF_TYPE_STRING) {
        return found;
    }
    const size_t n = gguf_get_arr_n(header(), id);
    for (size_t i = 0; i < n; ++i) {
        const char* text = gguf_get_arr_str(header(), id, i);
        for (size_t j = 0; j < wanted.size(); ++j) {
            if (found[j] < 0 && wanted[j] == text) found[j] = static_cast<int64_t>(i);
        }
    }
    return found;
}

std::vector<std::pair<std::string, MetadataValue>> GgufFile::metadata() const {
    std::vector<std::pair<std::string, MetadataValue>> all;
    const int64_t n = gguf_get_n_kv(header());
    for (int64_t id = 0; id < n; ++id) all.emplace_back(gguf_get_key(header(), id), value_of(header(), id));
    return all;
}

}  // namespace dgemma
