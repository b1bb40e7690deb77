// The Python module: arrays come in by __array_interface__ (emulated) or __cuda_array_interface__.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "operations.h"

#ifdef ZF_EMULATED
#include "../csrc/emulation/runtime.h"
#define ZF_ARRAY_INTERFACE "__array_interface__"
#else
#define ZF_ARRAY_INTERFACE "__cuda_array_interface__"
#endif

namespace py = pybind11;

namespace pybind11::detail {

// C-contiguous arrays in the machine's byte order, or None.
template <>
struct type_caster<zf::bindings::Array> {
    PYBIND11_TYPE_CASTER(zf::bindings::Array, const_name("array"));

    bool load(handle source, bool) {
        if (source.is_none()) return true;
        if (!hasattr(source, ZF_ARRAY_INTERFACE)) return false;
        const auto interface = py::cast<dict>(source.attr(ZF_ARRAY_INTERFACE));
        const auto type = py::cast<std::string>(interface["typestr"]);
        if (type.size() < 3 || type[0] == '>') return false;
        value.kind = type[1];
        value.itemsize = std::stoi(type.substr(2));
        std::int64_t elements = 1;
        for (const handle extent : py::cast<tuple>(interface["shape"])) {
            value.shape.push_back(py::cast<std::int64_t>(extent));
            elements *= value.shape.back();
        }
        const auto data = py::cast<tuple>(interface["data"]);
        value.data = reinterpret_cast<void*>(py::cast<std::uintptr_t>(data[0]));
        value.writable = !py::cast<bool>(data[1]);
        if (!elements || !interface.contains("strides") || interface["strides"].is_none()) return true;
        const auto strides = py::cast<tuple>(interface["strides"]);
        std::int64_t expected = value.itemsize;
        for (std::size_t axis = value.shape.size(); axis-- > 0; expected *= value.shape[axis])
            if (value.shape[axis] > 1 && py::cast<std::int64_t>(strides[axis]) != expected)
                throw std::invalid_argument("an array is not C-contiguous");
        return true;
    }
};

// A number, or an array of shape (1,); arrays of no dimension, and NumPy's scalars, are numbers.
template <class T>
struct type_caster<zf::bindings::Given<T>> {
    PYBIND11_TYPE_CASTER(zf::bindings::Given<T>, const_name("number or array"));

    bool load(handle source, bool convert) {
        const bool is_array = hasattr(source, ZF_ARRAY_INTERFACE) &&
                              !py::cast<tuple>(py::cast<dict>(source.attr(ZF_ARRAY_INTERFACE))["shape"]).empty();
        make_caster<zf::bindings::Array> array;
        if (is_array) return array.load(source, convert) && (value.array = cast_op<zf::bindings::Array&>(array), true);
        make_caster<T> number;
        return number.load(source, true) && (value.value = cast_op<T>(number), true);
    }
};

}  // namespace pybind11::detail

PYBIND11_MODULE(ZF_MODULE, module) {
    zf::bindings::operations([&](const char* name, auto function) {
        module.def(name, function, py::call_guard<py::gil_scoped_release>());
    });
    module.def("channel_sum_parts", zf::channel_sum_parts);
    module.def("weight_gradient_workspace", zf::bindings::weight_gradient_workspace);
    module.def("linear_workspace", zf::bindings::linear_workspace);
#ifdef ZF_TARGETS
    module.attr("targets") = ZF_TARGETS;  // as CMake names them: "80-real 90a-real 90-virtual"
#endif
#ifdef ZF_EMULATED
    module.def("seed", zf::emulation::seed, "Seed the schedules of the launches to come.");
#endif
}
