#include <nanobind/stl/filesystem.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>

#include <tuple>

#include "bindings.h"
#include "dgemma/dgemma.h"

using namespace nb::literals;

namespace {

using Rows = nb::ndarray<const uint8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Importance = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Bad = std::tuple<int64_t, int64_t, float>;

std::tuple<Array2<uint8_t>, std::optional<Bad>> convert_rows(const Rows& rows, const std::string& from,
                                                             const std::string& to, int64_t n_cols,
                                                             const std::optional<Importance>& importance,
                                                             int n_threads) {
    if (rows.shape(1) != dgemma::row_bytes(from, n_cols)) throw nb::value_error("rows do not have n_cols values");
    if (importance && importance->shape(0) != static_cast<size_t>(n_cols)) {
        throw nb::value_error("importance does not have n_cols values");
    }
    const size_t n_rows = rows.shape(0), bytes = dgemma::row_bytes(to, n_cols);
    auto* data = new uint8_t[n_rows * bytes];
    nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<uint8_t*>(p); });
    dgemma::RowConversion job{from, to, static_cast<int64_t>(n_rows), n_cols, rows.data(), data};
    job.importance = importance ? importance->data() : nullptr;
    job.n_threads = n_threads;
    std::optional<dgemma::BadValue> bad;
    {
        const nb::gil_scoped_release release;
        bad = dgemma::convert_rows(job);
    }
    return {Array2<uint8_t>(data, {n_rows, bytes}, owner),
            bad ? std::optional<Bad>({bad->row, bad->col, bad->value}) : std::nullopt};
}

}  // namespace

void init_quantize(nb::module_& m) {
    m.def(
        "convert_rows", &convert_rows, "rows"_a, "from_type"_a, "to_type"_a, "n_cols"_a, "importance"_a.none(),
        "n_threads"_a,
        nb::sig("def convert_rows(rows: NDArray[numpy.uint8], from_type: str, to_type: str, n_cols: int, "
                "importance: NDArray[numpy.float32] | None, n_threads: int) -> "
                "tuple[NDArray[numpy.uint8], tuple[int, int, float] | None]"),
        "Rows [n, bytes] of one ggml type as rows of another, and the first value that cannot be stored: row, column, "
        "value.\n\nimportance: float32 [n_cols]. Raises RequestError for types that do not fit.");
    m.def("row_bytes", &dgemma::row_bytes, "type"_a, "n_cols"_a, "Bytes of a row of n_cols values.");
    m.def("needs_importance", &dgemma::needs_importance, "type"_a,
          "Whether ggml quantises to this type with an importance matrix only.");
    m.def(
        "gguf_places",
        [](const std::filesystem::path& path) {
            dgemma::GgufLayout layout;
            {
                const nb::gil_scoped_release release;
                layout = dgemma::gguf_layout(path.string());
            }
            nb::list keys, tensors;
            for (const auto& key : layout.keys) keys.append(nb::make_tuple(to_text(key.name), key.begin, key.end));
            for (const auto& tensor : layout.tensors) tensors.append(nb::make_tuple(tensor.file, tensor.begin));
            return nb::make_tuple(keys, tensors);
        },
        "path"_a,
        nb::sig("def gguf_places(path: str | os.PathLike[str]) -> "
                "tuple[list[tuple[str, int, int]], list[tuple[int, int]]]"),
        "Byte places of what read_gguf names: of each metadata entry (name, begin, end) in the first file, and of each "
        "tensor's data (index into paths, begin).");
}
