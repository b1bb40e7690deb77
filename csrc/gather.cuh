// What the files of convolution kernels share: the geometry of a gather, and the tensor-core launchers.
#pragma once

#include "device.cuh"

namespace zf {

// One axis of a gather: output j and tap i meet at input j * stride + offset + i * tap_step; the output is
// cell first + j * spacing of its map, the tap is first_tap + i * tap_spacing of the filter.
struct Axis {
    int outputs, stride, offset;
    int taps, tap_step;
    int first, spacing;
    int first_tap, tap_spacing;
};

// A whole gather. Forward: out = y, in = x, depth = channels of a group, width = its filters. Input
// gradient: out = cells of dx of one phase, in = dy, depth = filters, width = channels.
struct Gather {
    Axis down, across;
    int batch;
    int in_rows, in_columns, in_channels;
    int out_rows, out_columns, out_channels;
    int depth, width;
    int filter_rows, filter_columns, filter_channels;  // of the weight (filters, rows, columns, channels)
};

// Tensor cores with operands rounded to tf32 (convolution_tensor.cu); for float alone.
template <bool transposed>
void gather_tf32(float* out, const float* in, const float* weight, const float* bias, const Gather&, int groups,
                 bool relu, void* stream);
void weight_gradient_tf32(float* parts, const float* dy, const float* x, const Convolution&, int part_count,
                          int part_cells, void* stream);

template <bool transposed>
void gather_tf32(double*, const double*, const double*, const double*, const Gather&, int, bool, void*) {
    ZF_CHECK(false, "convolution: tf32 is a precision of float32 arrays");
}
inline void weight_gradient_tf32(double*, const double*, const double*, const Convolution&, int, int, void*) {
    ZF_CHECK(false, "convolution: tf32 is a precision of float32 arrays");
}

}  // namespace zf
