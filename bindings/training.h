// Pointwise operations, loss and parameter updates as functions of arrays.
#pragma once

#include "../csrc/ops.h"
#include "array.h"

namespace zf::bindings {

inline void same_size(const Array& a, const Array& b) { require(a.size() == b.size(), "arrays differ in size"); }

inline void relu(Array y, Array x, Stream stream) {
    same_size(y, x);
    with_storage(x, [&](auto zero) {
        using T = decltype(zero);
        zf::relu(y.out<T>(), x.in<T>(), x.size(), pointer(stream));
    });
}

inline void relu_gradient(Array dx, Array dy, Array y, Stream stream) {
    same_size(dx, dy);
    same_size(dx, y);
    with_storage(y, [&](auto zero) {
        using T = decltype(zero);
        zf::relu_gradient(dx.out<T>(), dy.in<T>(), y.in<T>(), y.size(), pointer(stream));
    });
}

inline void relu_guided(Array dx, Array dy, Array y, Stream stream) {
    same_size(dx, dy);
    same_size(dx, y);
    with_storage(y, [&](auto zero) {
        using T = decltype(zero);
        zf::relu_guided(dx.out<T>(), dy.in<T>(), y.in<T>(), y.size(), pointer(stream));
    });
}

inline void add(Array y, Array a, Array b, Stream stream) {
    same_size(y, a);
    same_size(y, b);
    with_storage(y, [&](auto zero) {
        using T = decltype(zero);
        zf::add(y.out<T>(), a.in<T>(), b.in<T>(), y.size(), pointer(stream));
    });
}

inline void dropout(Array y, Array x, std::uint64_t threshold, double scale, std::uint64_t seed, Counter step,
                    std::uint64_t first, Stream stream) {
    same_size(y, x);
    const int images = x.length(0);
    with_storage(x, [&](auto zero) {
        using T = decltype(zero);
        zf::dropout(y.out<T>(), x.in<T>(), images, images ? x.size() / images : 0, threshold, Wide<T>(scale), seed, step.setting(),
                    std::uint32_t(first), pointer(stream));
    });
}

inline void copy_columns(Array target, Array source, int target_column, int source_column, int width, Stream stream) {
    require(target.shape.size() == 2 && source.shape.size() == 2 && target.extent(0) == source.extent(0),
            "copy_columns: arrays are not of as many rows");
    const auto copy = [&](auto* to, const auto* from) {
        zf::copy_columns(to, from, target.extent(0), target.length(1), source.length(1), target_column, source_column, width,
                         pointer(stream));
    };
    with_storage(target, [&](auto zero) {
        using T = decltype(zero);
        if constexpr (sizeof(T) == 2)
            copy(reinterpret_cast<std::uint16_t*>(target.out<T>()), reinterpret_cast<const std::uint16_t*>(source.in<T>()));
        else
            copy(target.out<T>(), source.in<T>());
    });
}

// One of the two arrays is float32, the other float16 or bfloat16.
inline void convert(Array y, Array x, Stream stream) {
    same_size(y, x);
    const auto from_float = [&](auto zero) { zf::convert(y.out<decltype(zero)>(), x.in<float>(), y.size(), pointer(stream)); };
    const auto to_float = [&](auto zero) { zf::convert(y.out<float>(), x.in<decltype(zero)>(), y.size(), pointer(stream)); };
    require(y.holds<float>() || x.holds<float>(), "convert: neither array is of float32");
    const Array& other = y.holds<float>() ? x : y;
    require(other.holds<float16>() || other.holds<bfloat16>(), "convert: neither array is of 16 bits");
    if (other.holds<float16>())
        y.holds<float>() ? to_float(float16{}) : from_float(float16{});
    else
        y.holds<float>() ? to_float(bfloat16{}) : from_float(bfloat16{});
}

// y (rows, wide), x (rows, channels).
inline void pad_channels(Array y, Array x, Stream stream) {
    require(y.shape.size() == 2 && x.shape.size() == 2 && y.extent(0) == x.extent(0),
            "pad_channels: arrays are not of as many rows");
    const auto pad = [&](auto* to, const auto* from) {
        zf::pad_channels(to, from, x.extent(0), x.length(1), y.length(1), pointer(stream));
    };
    with_storage(y, [&](auto zero) {
        using T = decltype(zero);
        if constexpr (sizeof(T) == 2)
            pad(reinterpret_cast<std::uint16_t*>(y.out<T>()), reinterpret_cast<const std::uint16_t*>(x.in<T>()));
        else
            pad(y.out<T>(), x.in<T>());
    });
}

inline void clear_outside(Array x, Array bounds, Stream stream) {
    require(x.shape.size() == 4, "an array is not (N, H, W, C)");
    with_storage(x, [&](auto zero) {
        using T = decltype(zero);
        zf::clear_outside(x.out<T>(), bounds_of(bounds, x.extent(0)), x.length(0), x.length(1), x.length(2), x.length(3),
                          pointer(stream));
    });
}

inline void softmax(Array y, Array x, Stream stream) {
    same_size(y, x);
    with_type(x, [&](auto zero) {
        using T = decltype(zero);
        zf::softmax(y.out<T>(), x.in<T>(), x.extent(0), x.length(1), pointer(stream));
    });
}

inline void softmax_cross_entropy(Array losses, Array y, Array x, Array labels, Stream stream) {
    same_size(y, x);
    require(losses.size() == x.extent(0) && labels.size() == x.extent(0), "not one loss and one label a row");
    with_type(x, [&](auto zero) {
        using T = decltype(zero);
        zf::softmax_cross_entropy(losses.out<T>(), y.out<T>(), x.in<T>(), labels.in<std::int64_t>(), x.extent(0),
                                  x.length(1), pointer(stream));
    });
}

inline void softmax_gradient(Array dx, Array dy, Array y, Stream stream) {
    same_size(dx, y);
    same_size(dy, y);
    with_type(y, [&](auto zero) {
        using T = decltype(zero);
        zf::softmax_gradient(dx.out<T>(), dy.in<T>(), y.in<T>(), y.extent(0), y.length(1), pointer(stream));
    });
}

inline void softmax_cross_entropy_gradient(Array dx, Array y, Array labels, Stream stream) {
    same_size(dx, y);
    require(labels.size() == y.extent(0), "not one label a row");
    with_type(y, [&](auto zero) {
        using T = decltype(zero);
        zf::softmax_cross_entropy_gradient(dx.out<T>(), y.in<T>(), labels.in<std::int64_t>(), y.extent(0), y.length(1),
                                           pointer(stream));
    });
}

inline void sgd_step(Array weight, Array velocity, Array gradient, Number rate, double momentum, double decay,
                     bool rate_in_velocity, Stream stream) {
    same_size(weight, velocity);
    same_size(weight, gradient);
    with_type(weight, [&](auto zero) {
        using T = decltype(zero);
        zf::sgd_step(weight.out<T>(), velocity.out<T>(), gradient.in<T>(), weight.size(), rate.setting(), T(momentum), T(decay),
                     rate_in_velocity, pointer(stream));
    });
}

inline void adam_step(Array weight, Array first, Array second, Array gradient, Number rate, double beta1, double beta2,
                      double rest1, double rest2, Number root, double epsilon, double decay, Stream stream) {
    for (const Array* other : {&first, &second, &gradient}) same_size(weight, *other);
    with_type(weight, [&](auto zero) {
        using T = decltype(zero);
        zf::adam_step(weight.out<T>(), first.out<T>(), second.out<T>(), gradient.in<T>(), weight.size(), rate.setting(),
                      T(beta1), T(beta2), T(rest1), T(rest2), root.setting(), T(epsilon), T(decay), pointer(stream));
    });
}

inline void renormalize_filters(Array weight, double radius, Stream stream) {
    const std::int64_t filters = weight.extent(0);
    with_type(weight, [&](auto zero) {
        using T = decltype(zero);
        zf::renormalize_filters(weight.out<T>(), filters, filters ? weight.size() / filters : 0, radius, pointer(stream));
    });
}

// `copy` may be None, of the weights' type, or of 16 bits.
inline void sgd_filters(Array weight, Array velocity, Array copy, Array gradient, Number rate, double momentum, double decay,
                        bool rate_in_velocity, double radius, Stream stream) {
    same_size(weight, velocity);
    same_size(weight, gradient);
    if (copy.data) same_size(weight, copy);
    const std::int64_t filters = weight.extent(0), length = filters ? weight.size() / filters : 0;
    with_type(weight, [&](auto zero) {
        using T = decltype(zero);
        const auto step = [&](auto* target) {
            zf::sgd_filters(weight.out<T>(), velocity.out<T>(), target, gradient.in<T>(), filters, length, rate.setting(),
                            T(momentum), T(decay), rate_in_velocity, radius, pointer(stream));
        };
        if constexpr (sizeof(T) == 4) {
            if (copy.holds<float16>()) return step(copy.out<float16>());
            if (copy.holds<bfloat16>()) return step(copy.out<bfloat16>());
        }
        step(copy.out<T>());
    });
}

inline void guard_settings(Array guarded, Array settings, Array losses, Stream stream) {
    same_size(guarded, settings);
    with_type(losses, [&](auto zero) {
        using T = decltype(zero);
        zf::guard_settings(guarded.out<double>(), settings.in<double>(), int(settings.size()), losses.in<T>(), losses.size(),
                           pointer(stream));
    });
}

}  // namespace zf::bindings
