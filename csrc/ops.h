// zfcore's operations in C++: all that another program needs to include. Link with the library.
//
// Activations are NHWC, filters KRSC, dense and in device memory. Arguments: outputs, inputs,
// sizes, the stream last (a cudaStream_t as void*; null is the default stream). Outputs may not
// overlap inputs unless an operation says so. Nothing is allocated, nothing waits for the device.
// T is float or double, or, where `Wide` or a remark says so, float16 or bfloat16. Sizes are checked before a
// launch: std::invalid_argument; a failed launch is std::runtime_error. A batch of 0 does nothing.
#pragma once

#include <cstdint>

namespace zf {

// Storage of 16 bits (IEEE half; the upper half of a float32). Arithmetic on it is float32's; results are
// rounded to the nearest, ties to even.
struct float16 {
    std::uint16_t bits;
};
struct bfloat16 {
    std::uint16_t bits;
};

// What sums over T are kept in: T, or float for storage of 16 bits.
template <class T>
struct WideOf {
    using type = T;
};
template <>
struct WideOf<float16> {
    using type = float;
};
template <>
struct WideOf<bfloat16> {
    using type = float;
};
template <class T>
using Wide = typename WideOf<T>::type;

// A number that comes with the call, or one that the kernels find in device memory when they run: so one captured
// CUDA graph serves steps whose learning rate or counter differs.
template <class T>
struct Setting {
    T value{};
    const T* address = nullptr;
    Setting(T value) : value(value) {}
    static Setting at(const T* address) {
        Setting result{T{}};
        result.address = address;
        return result;
    }
};

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

// What products are made of; sums are always at least float32. `float32`: plain arithmetic, in the arrays' own
// type, or float32 for storage of 16 bits. The others are for tensor cores: `tf32` for float arrays, factors
// rounded to 11 bits; `float16` and `bfloat16` for arrays of those, whose products are exact; `tf32x3` for float
// arrays, factors split into two of 11 bits each and multiplied three times: nearly float32's own error. Where the device
// has no such tensor cores (before compute capability 8.0) they are computed as `float32`.
enum class Precision { float32, tf32, float16, bfloat16, tf32x3 };

// y = x correlated with the filters, plus bias (filters; may be null), rectified if asked.
template <class T>
void convolution_forward(T* y, const T* x, const T* weight, const Wide<T>* bias, const Convolution&, bool relu,
                         Precision, void* stream);

// The adjoint by x: the deconvnet's filtering. A strided one is one dense gather for each phase of the stride.
template <class T>
void convolution_input_gradient(T* dx, const T* dy, const T* weight, const Convolution&, Precision, void* stream);

// The adjoint by the filters, over parts of the batch's cells that are added in order. `workspace` holds
// weight_gradient_parts() times the weight; it is not touched where that is 1.
int weight_gradient_parts(const Convolution&);
template <class T>
void convolution_weight_gradient(Wide<T>* dweight, Wide<T>* workspace, const T* dy, const T* x, const Convolution&,
                                 Precision, void* stream);

// -------------------------------------------------------------------------------------------- linear

// y (rows, outputs) = x (rows, inputs) times weight (outputs, inputs) transposed, plus bias, rectified if asked.
// Sums are made in pieces of terms (512, or on tensor cores as the layer's sizes have it) that are added in order, by one
// block or by several: a row's bits depend on neither the other rows nor their number. `workspace` holds
// linear_workspace() elements of Wide<T> (few rows: the pieces of several blocks; null: slower, and the same bits);
// `terms` is inputs, or outputs for the gradient, whose columns are inputs.
std::int64_t linear_workspace(int rows, int columns, int terms, Precision);
template <class T>
void linear_forward(T* y, Wide<T>* workspace, const T* x, const T* weight, const Wide<T>* bias, int rows, int inputs,
                    int outputs, bool relu, Precision, void* stream);

// dx = dy times weight. The gradient by the weight is convolution_weight_gradient's, of maps of one cell.
template <class T>
void linear_input_gradient(T* dx, Wide<T>* workspace, const T* dy, const T* weight, int rows, int inputs, int outputs,
                           Precision, void* stream);

// ----------------------------------------------------------------------------------------- pooling
// All of it for float16 and bfloat16 too.

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

// Between switches and flat indices, row * Maps::width + column of each map's plane (Maps::height is not asked for). An
// index outside its window makes *bad 1, which is left alone otherwise, and its switch 0.
void switches_to_flat(std::int64_t* flat, const std::uint8_t* switches, const Maps&, const Windows&, void* stream);
void switches_from_flat(std::uint8_t* switches, std::int32_t* bad, const std::int64_t* flat, const Maps&, const Windows&,
                        void* stream);

// Each value to its switch, 0 elsewhere. Windows that share a cell: their sum in raster order (then it
// is max_pool's gradient), or the last one's value. A bad switch reaches no cell: nothing is written astray.
template <class T>
void max_unpool(T* x, const T* y, const std::uint8_t* switches, const Bounds* bounds, const Maps&, const Windows&,
                bool last_wins, void* stream);

// convolution_forward, rectified if asked, then max_pool, without the maps between; the bits of the two in that
// precision. Windows of at most 64 cells. `bounds` are those of the maps that are pooled.
template <class T>
void convolution_pool(T* y, std::uint8_t* switches, const T* x, const T* weight, const Wide<T>* bias, const Bounds* bounds,
                      const Convolution&, bool relu, const Maps&, const Windows&, Precision, void* stream);

// The deconvnet's way down: max_unpool, rectified if asked, then convolution_input_gradient, without the maps
// between; the bits of the three in that precision.
template <class T>
void unpool_filter(T* dx, const T* y, const std::uint8_t* switches, const T* weight, const Bounds* bounds, const Maps&,
                   const Windows&, bool last_wins, bool rectify, const Convolution&, Precision, void* stream);

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
// All of it for float16 and bfloat16 too.

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
void dropout(T* y, const T* x, int images, std::int64_t elements, std::uint64_t threshold, Wide<T> scale, std::uint64_t seed,
             Setting<std::uint64_t> step, std::uint32_t first, void* stream);

// Between float and float16 or bfloat16.
template <class To, class From>
void convert(To* y, const From* x, std::int64_t size, void* stream);

// `width` columns from source_column on, of arrays (rows, columns): concatenation and its gradient.
// T besides: std::uint16_t, for the bits of both types of 16.
template <class T>
void copy_columns(T* target, const T* source, std::int64_t rows, int target_columns, int source_columns,
                  int target_column, int source_column, int width, void* stream);

// y (rows, wide) = x (rows, channels), then zeros: a first layer's three channels, and its filters', become four,
// which tensor-core kernels copy at once. T as for copy_columns.
template <class T>
void pad_channels(T* y, const T* x, std::int64_t rows, int channels, int wide, void* stream);

// Cells of x (batch, rows, columns, channels) outside their bounds become 0, in place.
template <class T>
void clear_outside(T* x, const Bounds* bounds, int batch, int rows, int columns, int channels, void* stream);

// --------------------------------------------------------------------------------- sums over cells

// Sums over the rows of (rows, channels) arrays, in float64, in an order that sizes alone decide.
// `workspace` holds 2 * channels * channel_sum_parts(rows) doubles.
int channel_sum_parts(std::int64_t rows);

// float16 and bfloat16 too.
template <class T>
void channel_sum(Wide<T>* sums, double* workspace, const T* x, std::int64_t rows, int channels, void* stream);

// sums (2, channels): of a (b - mean), and of a.
template <class T>
void channel_products(double* sums, double* workspace, const T* a, const T* b, const double* mean, std::int64_t rows,
                      int channels, void* stream);

// ----------------------------------------------------------------------------------- normalization

// Across maps: y_f = x_f D_f^-beta, D_f = k + alpha * sum of x_j^2, j from f - size / 2 to
// f - size / 2 + size - 1. The gradient computes D again from x. float16 and bfloat16 too.
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

// A rate that the kernels read (Setting<double>::at) and find to be NaN takes no step: nothing is written.

// In place. rate_in_velocity: v = momentum v - rate (g + decay w), w += v; else the rate stays outside.
template <class T>
void sgd_step(T* weight, T* velocity, const T* gradient, std::int64_t size, Setting<double> rate, T momentum, T decay,
              bool rate_in_velocity, void* stream);

// rate = learning rate / (1 - beta1^step), root = sqrt(1 - beta2^step), rest = 1 - beta.
template <class T>
void adam_step(T* weight, T* first, T* second, const T* gradient, std::int64_t size, Setting<double> rate, T beta1, T beta2,
               T rest1, T rest2, Setting<double> root, T epsilon, T decay, void* stream);

// Filters (rows of weight) whose root mean square exceeds the radius are scaled down to it.
template <class T>
void renormalize_filters(T* weight, std::int64_t filters, std::int64_t length, double radius, void* stream);

// sgd_step and renormalize_filters in one pass over memory, with their bits. `copy`, unless null, receives the new
// weights too: C is T, or float16 or bfloat16 where T is float.
template <class T, class C>
void sgd_filters(T* weight, T* velocity, C* copy, const T* gradient, std::int64_t filters, std::int64_t length,
                 Setting<double> rate, T momentum, T decay, bool rate_in_velocity, double radius, void* stream);

// guarded (count) = settings (count), or NaN everywhere if one of the losses (size) is not finite: the rates of a
// captured step, whose walk and update nobody stands between.
template <class T>
void guard_settings(double* guarded, const double* settings, int count, const T* losses, std::int64_t size, void* stream);

}  // namespace zf
