// Convolution as functions of arrays.
#pragma once

#include "../csrc/ops.h"
#include "array.h"

namespace zf::bindings {

using Quad = std::array<int, 4>;

// The number of a precision's name in ops.h.
inline Precision precision_of(int number) {
    require(number >= 0 && number <= int(Precision::tf32x3), "convolution: no such precision");
    return Precision(number);
}

// x (N, H, W, C), weight (K, R, S, C / groups), y (N, P, Q, K); padding (top, bottom, left, right).
inline Convolution convolution_of(const Array& x, const Array& weight, const Array& y, Pair stride, Quad padding,
                                  Pair dilation, int groups) {
    require(x.shape.size() == 4 && weight.shape.size() == 4 && y.shape.size() == 4,
            "convolution: arrays are not of four dimensions");
    require(groups >= 1 && x.extent(0) == y.extent(0) && weight.extent(0) == y.extent(3) &&
                weight.extent(3) * groups == x.extent(3),
            "convolution: arrays do not fit together");
    return {x.length(0),      x.length(1),      x.length(2), x.length(3), weight.length(0), weight.length(1),
            weight.length(2), y.length(1),      y.length(2), stride[0],   stride[1],        padding[0],
            padding[2],       dilation[0],      dilation[1], groups};
}

inline void convolution_forward(Array y, Array x, Array weight, Array bias, Pair stride, Quad padding, Pair dilation,
                                int groups, bool relu, int precision, Stream stream) {
    require(!bias.data || bias.size() == weight.extent(0), "convolution: not one bias a filter");
    const Convolution sizes = convolution_of(x, weight, y, stride, padding, dilation, groups);
    with_storage(x, [&](auto zero) {
        using T = decltype(zero);
        zf::convolution_forward(y.out<T>(), x.in<T>(), weight.in<T>(), bias.in<Wide<T>>(), sizes, relu, precision_of(precision),
                                pointer(stream));
    });
}

inline void convolution_input_gradient(Array dx, Array dy, Array weight, Pair stride, Quad padding, Pair dilation,
                                       int groups, int precision, Stream stream) {
    const Convolution sizes = convolution_of(dx, weight, dy, stride, padding, dilation, groups);
    with_storage(dx, [&](auto zero) {
        using T = decltype(zero);
        zf::convolution_input_gradient(dx.out<T>(), dy.in<T>(), weight.in<T>(), sizes, precision_of(precision),
                                       pointer(stream));
    });
}

// Elements of the workspace that the next function needs.
inline std::int64_t weight_gradient_workspace(Array dweight, Array dy, Array x, Pair stride, Quad padding, Pair dilation,
                                              int groups) {
    const int parts = weight_gradient_parts(convolution_of(x, dweight, dy, stride, padding, dilation, groups));
    return parts == 1 ? 0 : parts * dweight.size();
}

inline void convolution_weight_gradient(Array dweight, Array workspace, Array dy, Array x, Pair stride, Quad padding,
                                        Pair dilation, int groups, int precision, Stream stream) {
    const Convolution sizes = convolution_of(x, dweight, dy, stride, padding, dilation, groups);
    require(workspace.size() >= weight_gradient_workspace(dweight, dy, x, stride, padding, dilation, groups),
            "convolution_weight_gradient: too small a workspace");
    with_storage(x, [&](auto zero) {
        using T = decltype(zero);
        zf::convolution_weight_gradient(dweight.out<Wide<T>>(), workspace.out<Wide<T>>(), dy.in<T>(), x.in<T>(), sizes,
                                        precision_of(precision), pointer(stream));
    });
}

// Elements of the workspace that the next two functions need.
inline std::int64_t linear_workspace(int rows, int columns, int terms, int precision) {
    return zf::linear_workspace(rows, columns, terms, precision_of(precision));
}

// y (N, O), x (N, I), weight (O, I); the workspace holds linear_workspace(N, O, I, precision) elements.
inline void linear_forward(Array y, Array workspace, Array x, Array weight, Array bias, bool relu, int precision,
                           Stream stream) {
    const int rows = x.length(0), inputs = x.length(1), outputs = weight.length(0);
    require(y.extent(0) == rows && y.extent(1) == outputs && weight.extent(1) == inputs &&
                y.size() == std::int64_t(rows) * outputs,
            "linear: arrays do not fit together");
    require(!bias.data || bias.size() == outputs, "linear: not one bias an output");
    require(!workspace.data || workspace.size() >= linear_workspace(rows, outputs, inputs, precision),
            "linear: too small a workspace");
    with_storage(x, [&](auto zero) {
        using T = decltype(zero);
        zf::linear_forward(y.out<T>(), workspace.out<Wide<T>>(), x.in<T>(), weight.in<T>(), bias.in<Wide<T>>(), rows, inputs,
                           outputs, relu, precision_of(precision), pointer(stream));
    });
}

// dx (N, I), dy (N, O), weight (O, I); the workspace holds linear_workspace(N, I, O, precision) elements.
inline void linear_input_gradient(Array dx, Array workspace, Array dy, Array weight, int precision, Stream stream) {
    const int rows = dx.length(0), inputs = dx.length(1), outputs = weight.length(0);
    require(dy.extent(0) == rows && dy.extent(1) == outputs && weight.extent(1) == inputs &&
                dy.size() == std::int64_t(rows) * outputs,
            "linear: arrays do not fit together");
    require(!workspace.data || workspace.size() >= linear_workspace(rows, inputs, outputs, precision),
            "linear: too small a workspace");
    with_storage(dx, [&](auto zero) {
        using T = decltype(zero);
        zf::linear_input_gradient(dx.out<T>(), workspace.out<Wide<T>>(), dy.in<T>(), weight.in<T>(), rows, inputs, outputs,
                                  precision_of(precision), pointer(stream));
    });
}

}  // namespace zf::bindings
