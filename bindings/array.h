// An array that came in from outside: a pointer, a type, sizes. Knows nothing of Python.
#pragma once

#include <array>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "../csrc/ops.h"

namespace zf::bindings {

struct Array {
    void* data = nullptr;  // null also for None, where an operation allows it
    char kind = 0;         // of the elements: 'f', 'i' or 'u', as NumPy names them; bfloat16 crosses as 'u' of 2 bytes
    int itemsize = 0;
    bool writable = false;
    std::vector<std::int64_t> shape;

    std::int64_t size() const {
        std::int64_t product = 1;
        for (const std::int64_t extent : shape) product *= extent;
        return product;
    }

    // Extent of one axis; negative axes count from the end.
    std::int64_t extent(int axis) const {
        const int index = axis < 0 ? axis + int(shape.size()) : axis;
        if (index < 0 || index >= int(shape.size())) throw std::invalid_argument("an array has too few dimensions");
        return shape[std::size_t(index)];
    }

    int length(int axis) const {
        const std::int64_t value = extent(axis);
        if (value > 0x7fffffff) throw std::invalid_argument("an axis of 2^31 or more");
        return int(value);
    }

    // Elements in one item of the first axis, over all but the last axis, and so on.
    std::int64_t rows() const { return shape.empty() || !extent(-1) ? 0 : size() / extent(-1); }

    template <class T>
    bool holds() const {
        constexpr bool real = std::is_floating_point_v<T> || std::is_same_v<T, float16>;
        constexpr bool natural = std::is_unsigned_v<T> || std::is_same_v<T, bfloat16>;
        return itemsize == int(sizeof(T)) && kind == (real ? 'f' : natural ? 'u' : 'i');
    }

    template <class T>
    const T* in() const {
        if (data && !holds<T>()) throw std::invalid_argument("an array's type does not fit the others'");
        return static_cast<const T*>(data);
    }

    template <class T>
    T* out() const {
        if (data && !writable) throw std::invalid_argument("an output is read-only");
        return const_cast<T*>(in<T>());
    }
};

// Calls `operation` with a zero of the array's floating-point type.
template <class F>
void with_type(const Array& array, F&& operation) {
    if (array.holds<float>())
        operation(0.0f);
    else if (array.holds<double>())
        operation(0.0);
    else
        throw std::invalid_argument("an array of none of the types that this operation takes");
}

// The same with the types of 16 bits.
template <class F>
void with_storage(const Array& array, F&& operation) {
    if (array.holds<float16>())
        operation(float16{});
    else if (array.holds<bfloat16>())
        operation(bfloat16{});
    else
        with_type(array, operation);
}

// A setting: a number, or an array of one in device memory, float64 or uint64.
template <class T>
struct Given {
    T value{};
    Array array;
    Setting<T> setting() const {
        if (!array.data) return value;
        if (array.size() != 1) throw std::invalid_argument("a setting in memory is not one number");
        return Setting<T>::at(array.in<T>());
    }
};
using Number = Given<double>;
using Counter = Given<std::uint64_t>;

using Pair = std::array<int, 2>;
using Stream = std::uintptr_t;

inline void* pointer(Stream stream) { return reinterpret_cast<void*>(stream); }

inline void require(bool condition, const char* message) {
    if (!condition) throw std::invalid_argument(message);
}

// Null, or (N, 4) int32.
inline const Bounds* bounds_of(const Array& bounds, std::int64_t batch) {
    if (!bounds.data) return nullptr;
    require(bounds.shape.size() == 2 && bounds.extent(0) == batch && bounds.extent(1) == 4, "bounds are not (N, 4)");
    return reinterpret_cast<const Bounds*>(bounds.in<std::int32_t>());
}

}  // namespace zf::bindings
