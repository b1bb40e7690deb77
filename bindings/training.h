// Pointwise operations, loss and parameter updates as functions of arrays.
#pragma once

#include "../csrc/ops.h"
#include "array.h"

namespace zf::bindings {

inline void same_size(const Array& a, const Array& b) { require(a.size() == b.size(), "arrays differ in size"); }

inline void relu(Array y, Array x, Stream stream) {
    same_size(y, x);
    with_type(x, [&](auto zero) {
        using T = decltype(zero);
        zf::relu(y.out<T>(), x.in<T>(), x.size(), pointer(stream));
    });
}

inline void relu_gradient(Array dx, Array dy, Array y, Stream stream) {
    same_size(dx, dy);
    same_size(dx, y);
    with_type(y, [&](auto zero) {
        using T = decltype(zero);
        zf::relu_gradient(dx.out<T>(), dy.in<T>(), y.in<T>(), y.size(), pointer(stream));
    });
}

inline void relu_guided(Array dx, Array dy, Array y, Stream stream) {
    same_size(dx, dy);
    same_size(dx, y);
    with_type(y, [&](auto zero) {
        using T = decltype(zero);
        zf::relu_guided(dx.out<T>(), dy.in<T>(), y.in<T>(), y.size(), pointer(stream));
    });
}

inline void add(Array y, Array a, Array b, Stream stream) {
    same_size(y, a);
    same_size(y, b);
    with_type(y, [&](auto zero) {
        using T = decltype(zero);
        zf::add(y.out<T>(), a.in<T>(), b.in<T>(), y.size(), pointer(stream));
    });
}

inline void dropout(Array y, Array x, std::uint64_t threshold, double scale, std::uint64_t seed, std::uint64_t step,
                    std::uint64_t first, Stream stream) {
    same_size(y, x);
    const int images = x.length(0);
    with_type(x, [&](auto zero) {
        using T = decltype(zero);
        zf::dropout(y.out<T>(), x.in<T>(), images, images ? x.size() / images : 0, threshold, T(scale), seed, step,
                    std::uint32_t(first), pointer(stream));
    });
}

inline void copy_columns(Array target, Array source, int target_column, int source_column, int width, Stream stream) {
    require(target.shape.size() == 2 && source.shape.size() == 2 && target.extent(0) == source.extent(0),
            "copy_columns: arrays are not of as many rows");
    with_type(target, [&](auto zero) {
        using T = decltype(zero);
        zf::copy_columns(target.out<T>(), source.in<T>(), target.extent(0), target.length(1), source.length(1),
                         target_column, source_column, width, pointer(stream));
    });
}

inline void clear_outside(Array x, Array bounds, Stream stream) {
    require(x.shape.size() == 4, "an array is not (N, H, W, C)");
    with_type(x, [&](auto zero) {
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

inline void sgd_step(Array weight, Array velocity, Array gradient, double rate, double momentum, double decay,
                     bool rate_in_velocity, Stream stream) {
    same_size(weight, velocity);
    same_size(weight, gradient);
    with_type(weight, [&](auto zero) {
        using T = decltype(zero);
        zf::sgd_step(weight.out<T>(), velocity.out<T>(), gradient.in<T>(), weight.size(), T(rate), T(momentum), T(decay),
                     rate_in_velocity, pointer(stream));
    });
}

inline void adam_step(Array weight, Array first, Array second, Array gradient, double rate, double beta1, double beta2,
                      double rest1, double rest2, double root, double epsilon, double decay, Stream stream) {
    for (const Array* other : {&first, &second, &gradient}) same_size(weight, *other);
    with_type(weight, [&](auto zero) {
        using T = decltype(zero);
        zf::adam_step(weight.out<T>(), first.out<T>(), second.out<T>(), gradient.in<T>(), weight.size(), T(rate), T(beta1),
                      T(beta2), T(rest1), T(rest2), T(root), T(epsilon), T(decay), pointer(stream));
    });
}

inline void renormalize_filters(Array weight, double radius, Stream stream) {
    const std::int64_t filters = weight.extent(0);
    with_type(weight, [&](auto zero) {
        using T = decltype(zero);
        zf::renormalize_filters(weight.out<T>(), filters, filters ? weight.size() / filters : 0, radius, pointer(stream));
    });
}

}  // namespace zf::bindings
