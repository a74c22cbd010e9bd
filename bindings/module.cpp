#include <nanobind/stl/string.h>

#include <new>
#include <string>

#include "bindings.h"
#include "dgemma/dgemma.h"

namespace {

nb::object error_class(const char* name) { return nb::module_::import_("dgemma.errors").attr(name); }

void raise(const char* name, const std::exception& e) {
    PyErr_SetObject(error_class(name).ptr(), to_text(e.what()).ptr());
}

/// C++'s error family becomes Python's, name by name; the most derived first.
void translate(const std::exception_ptr& error, void* /*payload*/) {
    try {
        std::rethrow_exception(error);
    } catch (const dgemma::Cancelled& e) {
        // A signal handler has already set its own exception (KeyboardInterrupt): that is the one to raise.
        if (PyErr_Occurred() == nullptr) raise("Cancelled", e);
    } catch (const dgemma::ContextError& e) {
        raise("ContextError", e);
    } catch (const dgemma::RequestError& e) {
        raise("RequestError", e);
    } catch (const dgemma::SessionFileError& e) {
        raise("FileError", e);
    } catch (const dgemma::FileError& e) {
        raise("ModelFileError", e);
    } catch (const dgemma::BackendError& e) {
        raise("BackendError", e);
    } catch (const dgemma::Error& e) {
        raise("Error", e);
    } catch (const std::bad_alloc&) {
        raise("BackendError", dgemma::BackendError("not enough memory"));
    }
}

}  // namespace

NB_MODULE(_core, m) {
    m.doc() = "The engine of dgemma. Use it through the dgemma package.";
    nb::register_exception_translator(translate);
    m.def("ggml_built_version", &dgemma::ggml_built_version, "The ggml this module was compiled against.");
    m.def("ggml_found_version", &dgemma::ggml_found_version, "The ggml found at run time.");
    m.def("load_backends", &dgemma::load_backends, nb::arg("backend_dir"),
          "Finds ggml's devices; plug-in backends are looked for in ``backend_dir`` only.");
    init_gguf(m);
    init_devices(m);
    init_quantize(m);
    init_products(m);
    init_sampler(m);
    init_engine(m);
    init_cuda(m);
}
