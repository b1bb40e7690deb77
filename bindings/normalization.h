// Normalisation, and sums over cells, as functions of arrays.
#pragma once

#include "../csrc/ops.h"
#include "array.h"

namespace zf::bindings {

inline void same_shape(const Array& a, const Array& b) { require(a.shape == b.shape, "arrays differ in shape"); }

// (C,) of the channels of `x`.
inline void per_channel(const Array& a, const Array& x) {
    require(a.shape.size() == 1 && a.extent(0) == x.extent(-1), "an array is not one number a channel");
}

inline Shape shape_of(const Array& x) {
    require(x.shape.size() == 4, "an array is not (N, H, W, C)");
    return {x.length(0), x.length(1), x.length(2), x.length(3)};
}

inline void response_norm(Array y, Array x, int size, double alpha, double beta, double k, Stream stream) {
    same_shape(y, x);
    with_storage(x, [&](auto zero) {
        using T = decltype(zero);
        zf::response_norm(y.out<T>(), x.in<T>(), x.rows(), x.length(-1), size, alpha, beta, k, pointer(stream));
    });
}

inline void response_norm_gradient(Array dx, Array dy, Array x, int size, double alpha, double beta, double k,
                                   Stream stream) {
    same_shape(dx, x);
    same_shape(dy, x);
    with_storage(x, [&](auto zero) {
        using T = decltype(zero);
        zf::response_norm_gradient(dx.out<T>(), dy.in<T>(), x.in<T>(), x.rows(), x.length(-1), size, alpha, beta, k,
                                   pointer(stream));
    });
}

inline void contrast_norm(Array y, Array d, Array x, Array bounds, int size, double alpha, double beta, double k,
                          bool subtractive, Stream stream) {
    same_shape(y, x);
    same_shape(d, x);
    with_type(x, [&](auto zero) {
        using T = decltype(zero);
        zf::contrast_norm(y.out<T>(), d.out<T>(), x.in<T>(), bounds_of(bounds, x.extent(0)), shape_of(x), size, alpha,
                          beta, k, subtractive, pointer(stream));
    });
}

inline void contrast_norm_gradient(Array dx, Array d, Array h, Array share, Array direct, Array terms, Array dy, Array x,
                                   Array bounds, int size, double alpha, double beta, double k, bool subtractive,
                                   bool mean_is_constant, Stream stream) {
    for (const Array* other : {&dx, &d, &h, &share, &direct, &terms, &dy}) same_shape(*other, x);
    with_type(x, [&](auto zero) {
        using T = decltype(zero);
        zf::contrast_norm_gradient(dx.out<T>(), d.out<T>(), h.out<T>(), share.out<T>(), direct.out<T>(), terms.out<T>(),
                                   dy.in<T>(), x.in<T>(), bounds_of(bounds, x.extent(0)), shape_of(x), size, alpha, beta,
                                   k, subtractive, mean_is_constant, pointer(stream));
    });
}

inline void scale_channels(Array y, Array x, Array mean, Array multiplier, Array bias, Stream stream) {
    same_shape(y, x);
    for (const Array* other : {&mean, &multiplier, &bias}) per_channel(*other, x);
    with_type(x, [&](auto zero) {
        using T = decltype(zero);
        zf::scale_channels(y.out<T>(), x.in<T>(), mean.in<T>(), multiplier.in<T>(), bias.in<T>(), x.rows(), x.length(-1),
                           pointer(stream));
    });
}

inline void batch_norm_training_gradient(Array dx, Array dy, Array x, Array mean, Array constant, Array slope,
                                         Array multiplier, Stream stream) {
    same_shape(dx, x);
    same_shape(dy, x);
    for (const Array* other : {&mean, &constant, &slope, &multiplier}) per_channel(*other, x);
    with_type(x, [&](auto zero) {
        using T = decltype(zero);
        zf::batch_norm_training_gradient(dx.out<T>(), dy.in<T>(), x.in<T>(), mean.in<T>(), constant.in<T>(), slope.in<T>(),
                                         multiplier.in<T>(), x.rows(), x.length(-1), pointer(stream));
    });
}

inline double* sums_workspace(const Array& workspace, const Array& x) {
    require(workspace.size() >= std::int64_t(2) * x.extent(-1) * channel_sum_parts(x.rows()), "too small a workspace");
    return workspace.out<double>();
}

inline void channel_sum(Array sums, Array workspace, Array x, Stream stream) {
    per_channel(sums, x);
    with_storage(x, [&](auto zero) {
        using T = decltype(zero);
        zf::channel_sum(sums.out<zf::Wide<T>>(), sums_workspace(workspace, x), x.in<T>(), x.rows(), x.length(-1),
                        pointer(stream));
    });
}

inline void channel_products(Array sums, Array workspace, Array a, Array b, Array mean, Stream stream) {
    same_shape(a, b);
    per_channel(mean, a);
    require(sums.size() == 2 * a.extent(-1), "sums are not (2, C)");
    with_type(a, [&](auto zero) {
        using T = decltype(zero);
        zf::channel_products(sums.out<double>(), sums_workspace(workspace, a), a.in<T>(), b.in<T>(), mean.in<double>(),
                             a.rows(), a.length(-1), pointer(stream));
    });
}

}  // namespace zf::bindings
