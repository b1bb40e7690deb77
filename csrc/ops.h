// zfcore's operations in C++: all that another program needs to include. Link with the library.
//
// Activations are NHWC, filters KRSC, dense and in device memory. Arguments: outputs, inputs,
// sizes, the stream last (a cudaStream_t as void*; null is the default stream). Outputs may not
// overlap inputs unless an operation says so. Nothing is allocated, nothing waits for the device.
// T is float or double. Sizes are checked before a launch: std::invalid_argument; a failed launch
// is std::runtime_error. A batch of 0 does nothing.
#pragma once

#include <cstdint>

namespace zf {

// Part of an array's rows [top, bottom) and columns [left, right) that lies in the map; one for each
// image, in device memory. Cells outside are padding: so crops of a larger map keep the true border.
// Null where arrays are whole maps.
struct Bounds {
    std::int32_t top, bottom, left, right;
};

// ------------------------------------------------------------------------------------- convolution

// Sizes of a convolution: x (batch, height, width, channels), weight (filters, window_height, window_width,
// channels / groups), y (batch, rows, columns, filters).
struct Convolution {
    int batch, height, width, channels;
    int filters, window_height, window_width;
    int rows, columns;
    int stride_vertical, stride_horizontal;
    int top, left;
    int dilation_vertical, dilation_horizontal;
    int groups;
};

// What products are made of; sums are always at least float32. tf32 rounds both factors to 11 bits and
// needs tensor cores of compute capability 8.0; it is for float arrays.
enum class Precision { float32, tf32 };

// y = x correlated with the filters, plus bias (filters; may be null), rectified if asked.
template <class T>
void convolution_forward(T* y, const T* x, const T* weight, const T* bias, const Convolution&, bool relu,
                         Precision, void* stream);

// The adjoint by x: the deconvnet's filtering. A strided one is one dense gather for each phase of the stride.
template <class T>
void convolution_input_gradient(T* dx, const T* dy, const T* weight, const Convolution&, Precision, void* stream);

// The adjoint by the filters, over parts of the batch's cells that are added in order. `workspace` holds
// weight_gradient_parts() times the weight; it is not touched where that is 1.
int weight_gradient_parts(const Convolution&);
template <class T>
void convolution_weight_gradient(T* dweight, T* workspace, const T* dy, const T* x, const Convolution&, Precision,
                                 void* stream);

// ----------------------------------------------------------------------------------------- pooling

// Output cell (p, q) looks at `height` x `width` cells from (p * stride_vertical - top,
// q * stride_horizontal - left) on.
struct Windows {
    int height, width;
    int stride_vertical, stride_horizontal;
    int top, left;
};

// Sizes of a pooling's input (batch, height, width, channels) and output (batch, rows, columns, channels).
struct Maps {
    int batch, height, width, channels;
    int rows, columns;
};

// Largest value of each window and its place in the unclipped window, r * width + c. Ties: the
// first in raster order; the first NaN wins. A window outside the map gives 0, switch 0.
template <class T>
void max_pool(T* y, std::uint8_t* switches, const T* x, const Bounds* bounds, const Maps&, const Windows&, void* stream);

// *bad becomes 1 where a switch points outside its window or the map, and is left alone otherwise.
void check_switches(std::int32_t* bad, const std::uint8_t* switches, const Bounds* bounds, const Maps&, const Windows&,
                    void* stream);

// Each value to its switch, 0 elsewhere. Windows that share a cell: their sum in raster order (then it
// is max_pool's gradient), or the last one's value. A bad switch reaches no cell: nothing is written astray.
template <class T>
void max_unpool(T* x, const T* y, const std::uint8_t* switches, const Bounds* bounds, const Maps&, const Windows&,
                bool last_wins, void* stream);

// Sum of a window's cells in the map, over the number of its cells inside `counted` (null: as `bounds`).
template <class T>
void average_pool(T* y, const T* x, const Bounds* bounds, const Bounds* counted, const Maps&, const Windows&,
                  void* stream);

template <class T>
void average_pool_gradient(T* dx, const T* dy, const Bounds* bounds, const Bounds* counted, const Maps&, const Windows&,
                           void* stream);

// One value a channel: y is (batch, channels), x (batch, cells, channels).
template <class T>
void global_average_pool(T* y, const T* x, int batch, std::int64_t cells, int channels, void* stream);

template <class T>
void global_average_pool_gradient(T* dx, const T* dy, int batch, std::int64_t cells, int channels, void* stream);

// Largest value of each map and its first position, row * width + column; the first NaN wins.
template <class T>
void map_maximum(T* values, std::int32_t* positions, const T* x, int batch, std::int64_t cells, int channels,
                 void* stream);

template <class T>
void global_max_pool_gradient(T* dx, const T* dy, const std::int32_t* positions, int batch, std::int64_t cells,
                              int channels, void* stream);

// ------------------------------------------------------------------------------------- pointwise

// y may be x: each thread reads its elements before it writes them. Here dx is the signal dy where the
// ReLU's output y was positive (gradient), and besides the signal is (guided).
template <class T>
void relu(T* y, const T* x, std::int64_t size, void* stream);
template <class T>
void relu_gradient(T* dx, const T* dy, const T* y, std::int64_t size, void* stream);
template <class T>
void relu_guided(T* dx, const T* dy, const T* y, std::int64_t size, void* stream);
template <class T>
void add(T* y, const T* a, const T* b, std::int64_t size, void* stream);

// An element is kept, times `scale`, where its random word is at least `threshold` (the rate times 2^32).
// The word depends on seed, step, the image's number (from `first` on) and the place in it alone.
template <class T>
void dropout(T* y, const T* x, int images, std::int64_t elements, std::uint64_t threshold, T scale, std::uint64_t seed,
             std::uint64_t step, std::uint32_t first, void* stream);

// `width` columns from source_column on, of arrays (rows, columns): concatenation and its gradient.
template <class T>
void copy_columns(T* target, const T* source, std::int64_t rows, int target_columns, int source_columns,
                  int target_column, int source_column, int width, void* stream);

// Cells of x (batch, rows, columns, channels) outside their bounds become 0, in place.
template <class T>
void clear_outside(T* x, const Bounds* bounds, int batch, int rows, int columns, int channels, void* stream);

// --------------------------------------------------------------------------------- sums over cells

// Sums over the rows of (rows, channels) arrays, in float64, in an order that sizes alone decide.
// `workspace` holds 2 * channels * channel_sum_parts(rows) doubles.
int channel_sum_parts(std::int64_t rows);

template <class T>
void channel_sum(T* sums, double* workspace, const T* x, std::int64_t rows, int channels, void* stream);

// sums (2, channels): of a (b - mean), and of a.
template <class T>
void channel_products(double* sums, double* workspace, const T* a, const T* b, const double* mean, std::int64_t rows,
                      int channels, void* stream);

// ----------------------------------------------------------------------------------- normalization

// Across maps: y_f = x_f D_f^-beta, D_f = k + alpha * sum of x_j^2, j from f - size / 2 to
// f - size / 2 + size - 1. The gradient computes D again from x.
template <class T>
void response_norm(T* y, const T* x, std::int64_t cells, int channels, int size, double alpha, double beta, double k,
                   void* stream);
template <class T>
void response_norm_gradient(T* dx, const T* dy, const T* x, std::int64_t cells, int channels, int size, double alpha,
                            double beta, double k, void* stream);

struct Shape {
    int batch, rows, columns, channels;
};

// Over space, each map alone, windows of size x size cells: d = x - mean, D = k + alpha * sum of d^2,
// y = x D^-beta, or d D^-beta (subtractive). Cells outside `bounds` give 0. d, h, share, direct and terms
// are workspaces of x's shape.
template <class T>
void contrast_norm(T* y, T* d, const T* x, const Bounds* bounds, const Shape&, int size, double alpha, double beta,
                   double k, bool subtractive, void* stream);
template <class T>
void contrast_norm_gradient(T* dx, T* d, T* h, T* share, T* direct, T* terms, const T* dy, const T* x,
                            const Bounds* bounds, const Shape&, int size, double alpha, double beta, double k,
                            bool subtractive, bool mean_is_constant, void* stream);

// y = (x - mean) * multiplier + bias, one of each a channel: batch norm with its statistics given.
template <class T>
void scale_channels(T* y, const T* x, const T* mean, const T* multiplier, const T* bias, std::int64_t cells, int channels,
                    void* stream);

// dx = multiplier * (dy - constant - slope * (x - mean)): batch norm where mean and variance are x's own.
template <class T>
void batch_norm_training_gradient(T* dx, const T* dy, const T* x, const T* mean, const T* constant, const T* slope,
                                  const T* multiplier, std::int64_t cells, int channels, void* stream);

// -------------------------------------------------------------------------------------------- loss

// Rows of scores; y are probabilities, labels int64 in range. The gradient is that of the mean loss.
template <class T>
void softmax(T* y, const T* x, std::int64_t rows, int classes, void* stream);
template <class T>
void softmax_cross_entropy(T* losses, T* y, const T* x, const std::int64_t* labels, std::int64_t rows, int classes,
                           void* stream);
template <class T>
void softmax_gradient(T* dx, const T* dy, const T* y, std::int64_t rows, int classes, void* stream);
template <class T>
void softmax_cross_entropy_gradient(T* dx, const T* y, const std::int64_t* labels, std::int64_t rows, int classes,
                                    void* stream);

// ------------------------------------------------------------------------------------------ update

// In place. rate_in_velocity: v = momentum v - rate (g + decay w), w += v; else the rate stays outside.
template <class T>
void sgd_step(T* weight, T* velocity, const T* gradient, std::int64_t size, T rate, T momentum, T decay,
              bool rate_in_velocity, void* stream);

// rate = learning rate / (1 - beta1^step), root = sqrt(1 - beta2^step), rest = 1 - beta.
template <class T>
void adam_step(T* weight, T* first, T* second, const T* gradient, std::int64_t size, T rate, T beta1, T beta2, T rest1,
               T rest2, T root, T epsilon, T decay, void* stream);

// Filters (rows of weight) whose root mean square exceeds the radius are scaled down to it.
template <class T>
void renormalize_filters(T* weight, std::int64_t filters, std::int64_t length, double radius, void* stream);

}  // namespace zf
