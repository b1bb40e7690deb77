// Normalisation across maps (response norm), over space (contrast norm), and batch norm's pointwise steps.
//
// Sums over a window have the window's own order (rows first, then columns, each ascending), whatever
// array it lies in, so crops give the bits of the whole map.
#include "device.cuh"

namespace zf {
namespace {

// ----------------------------------------------------------------------------------------- kernels

// base^-beta; `power` counts quarters where beta is 1/2, 3/4 or 1, which need square roots only.
template <class T>
__device__ __forceinline__ T inverse_power(T base, T beta, int power) {
    if (power == 3) {
        const T root = T(1) / sqrt(base);
        return root * sqrt(root);
    }
    if (power == 2) return T(1) / sqrt(base);
    if (power == 4) return T(1) / base;
    return pow(base, -beta);
}

// A thread owns `width` neighbouring maps of one cell, whose windows overlap: each square is made once. They are its
// neighbours' too, so the first-level cache has them. (A least number of blocks is named here and below because for
// compute capability 12.0 the compiler else aims at more of them, and spills.)
template <class T, int width>
__global__ void __launch_bounds__(256, 1)
response_norm_kernel(T* __restrict__ y, const T* __restrict__ x, std::int64_t elements, int channels, int size,
                     Wide<T> alpha, Wide<T> beta, Wide<T> k, int power) {
    const std::int64_t item = (std::int64_t(blockIdx.x) * blockDim.x + threadIdx.x) * width;
    if (item >= elements) return;
    const int channel = divide(item, channels).remainder;
    const T* cell = x + (item - channel);
    const int first = channel - size / 2, end = min(first + size + width - 1, channels);
    Wide<T> sums[width] = {};
#pragma unroll 4
    for (int c = max(first, 0); c < end; ++c) {
        const Wide<T> square = widen(cell[c]) * widen(cell[c]);
#pragma unroll
        for (int i = 0; i < width; ++i)
            if (within(c - first - i, size)) sums[i] += square;
    }
    auto value = load<width>(x + item);
#pragma unroll
    for (int i = 0; i < width; ++i) value[i] *= inverse_power(k + alpha * sums[i], beta, power);
    store(y + item, value);
}

// dx_f = g_f D_f^-beta - 2 a beta x_f * sum of g_j y_j / D_j over the j whose window holds f: the mirrored
// window. A block owns `cells` cells (x of the grid) times `tile` channels (y): squares of the tile and
// two windows beside it, then terms of the tile and one window beside it, then the result.
template <class T>
__global__ void __launch_bounds__(256, 2)
response_norm_gradient_kernel(T* __restrict__ dx, const T* __restrict__ dy, const T* __restrict__ x, std::int64_t total,
                              int channels, int cells, int tile, int size, Wide<T> alpha, Wide<T> beta,
                              Wide<T> k, int power) {
    DYNAMIC_SHARED(Wide<T>, squares);  // [cells][tile + 2 (size - 1)], then terms [cells][tile + size - 1]
    const int before = size / 2, after = size - 1 - before;
    const int wide = tile + 2 * (size - 1), middle = tile + size - 1;
    Wide<T>* terms = squares + cells * wide;
    const int first = int(blockIdx.y) * tile;
    const std::int64_t cell = std::int64_t(blockIdx.x) * cells;
    const auto outside = [&](int i, int channel) { return cell + i >= total || channel < 0 || channel >= channels; };

    for (int item = threadIdx.x; item < cells * wide; item += 256) {
        const int i = item / wide, channel = first - (size - 1) + item % wide;
        const Wide<T> value = outside(i, channel) ? Wide<T>(0) : widen(x[(cell + i) * channels + channel]);
        squares[item] = value * value;
    }
    __syncthreads();
    // Term t belongs to channel first - after + t, whose window begins `before` channels earlier: at square t.
    for (int item = threadIdx.x; item < cells * middle; item += 256) {
        const int i = item / middle, t = item % middle, channel = first - after + t;
        Wide<T> term = 0;
        if (!outside(i, channel)) {
            const std::int64_t at = (cell + i) * channels + channel;
            Wide<T> base = 0;
            for (int j = 0; j < size; ++j) base += squares[i * wide + t + j];
            base = k + alpha * base;
            term = widen(dy[at]) * widen(x[at]) * inverse_power(base, beta, power) / base;
        }
        terms[item] = term;
    }
    __syncthreads();
    for (int item = threadIdx.x; item < cells * tile; item += 256) {
        const int i = item / tile, t = item % tile, channel = first + t;
        if (outside(i, channel)) continue;
        Wide<T> base = 0, sum = 0;
        for (int j = 0; j < size; ++j) base += squares[i * wide + t + after + j];
        for (int j = 0; j < size; ++j) sum += terms[i * middle + t + j];
        const std::int64_t at = (cell + i) * channels + channel;
        dx[at] = narrow<T>(widen(dy[at]) * inverse_power(k + alpha * base, beta, power) -
                           2 * alpha * beta * widen(x[at]) * sum);
    }
}

// A window over space: `size` x `size` cells from `start` off the cell on; clipped to the map.
struct Box {
    Shape shape;
    int size, start;
    __device__ std::int64_t at(int n, int row, int column, int channel) const {
        return ((std::int64_t(n) * shape.rows + row) * shape.columns + column) * shape.channels + channel;
    }
    __device__ int cells(const Bounds& inside, int row, int column) const {
        row += start, column += start;
        return (min(row + size, inside.bottom) - max(row, inside.top)) *
               (min(column + size, inside.right) - max(column, inside.left));
    }
    // Sum of the window's cells in the map (or of their squares): columns in order, each over its rows in order.
    template <bool squared, class T>
    __device__ T sum(const T* source, const Bounds& inside, int n, int row, int column, int channel) const {
        row += start, column += start;
        const int last_row = min(row + size, inside.bottom), last_column = min(column + size, inside.right);
        T total = 0;
        for (int s = max(column, inside.left); s < last_column; ++s) {
            T line = 0;
            for (int r = max(row, inside.top); r < last_row; ++r) {
                const T value = source[at(n, r, s, channel)];
                line += squared ? value * value : value;
            }
            total += line;
        }
        return total;
    }
};

// A thread owns one element of a row (x of the grid), y steps through rows, z through images;
// `body(n, row, column, channel, bounds, whether the cell is in the map)`.
template <class F>
__device__ __forceinline__ void over(const Shape& shape, const Bounds* bounds, F&& body) {
    const unsigned item = blockIdx.x * blockDim.x + threadIdx.x;
    if (item >= unsigned(shape.columns) * shape.channels) return;
    const int column = int(item / shape.channels), channel = int(item % shape.channels);
    for (int n = blockIdx.z; n < shape.batch; n += gridDim.z) {
        const Bounds inside = bounds ? bounds[n] : Bounds{0, shape.rows, 0, shape.columns};
        const bool in_columns = column >= inside.left && column < inside.right;
        for (int row = blockIdx.y; row < shape.rows; row += gridDim.y)
            body(n, row, column, channel, inside, in_columns && row >= inside.top && row < inside.bottom);
    }
}

// d = x - local mean; here and below 0 outside the map.
template <class T>
__global__ void __launch_bounds__(256)
contrast_mean_kernel(T* __restrict__ d, const T* __restrict__ x, const Bounds* __restrict__ bounds, Box box) {
    over(box.shape, bounds, [&](int n, int i, int j, int c, const Bounds& inside, bool valid) {
        const std::int64_t at = box.at(n, i, j, c);
        d[at] = valid ? x[at] - box.sum<false>(x, inside, n, i, j, c) / T(box.cells(inside, i, j)) : T(0);
    });
}

// y = numerator D^-beta; the numerator is x or d.
template <class T>
__global__ void __launch_bounds__(256)
contrast_norm_kernel(T* __restrict__ y, const T* __restrict__ numerator, const T* __restrict__ d,
                     const Bounds* __restrict__ bounds, Box box, T alpha, T beta, T k, int power) {
    over(box.shape, bounds, [&](int n, int i, int j, int c, const Bounds& inside, bool valid) {
        const std::int64_t at = box.at(n, i, j, c);
        T value = 0;
        if (valid) value = numerator[at] * inverse_power(k + alpha * box.sum<true>(d, inside, n, i, j, c), beta, power);
        y[at] = value;
    });
}

// direct = g D^-beta and terms = -beta g numerator D^-beta / D.
template <class T>
__global__ void __launch_bounds__(256, 2)
contrast_terms_kernel(T* __restrict__ direct, T* __restrict__ terms, const T* __restrict__ dy,
                      const T* __restrict__ numerator, const T* __restrict__ d, const Bounds* __restrict__ bounds, Box box,
                      T alpha, T beta, T k, int power) {
    over(box.shape, bounds, [&](int n, int i, int j, int c, const Bounds& inside, bool valid) {
        const std::int64_t at = box.at(n, i, j, c);
        T straight = 0, term = 0;
        if (valid) {
            const T base = k + alpha * box.sum<true>(d, inside, n, i, j, c);
            straight = dy[at] * inverse_power(base, beta, power);
            term = -beta * straight * numerator[at] / base;
        }
        direct[at] = straight;
        terms[at] = term;
    });
}

// h, the gradient by d, and share = h / (cells of d's own mean, whose window is `own`). Here the box is
// the window's mirror image: the cells whose windows hold this one.
template <class T>
__global__ void __launch_bounds__(256)
contrast_difference_gradient_kernel(T* __restrict__ h, T* __restrict__ share, const T* __restrict__ direct,
                                    const T* __restrict__ terms, const T* __restrict__ d,
                                    const Bounds* __restrict__ bounds, Box mirrored, Box own, T alpha, bool subtractive) {
    over(own.shape, bounds, [&](int n, int i, int j, int c, const Bounds& inside, bool valid) {
        const std::int64_t at = own.at(n, i, j, c);
        T value = 0, part = 0;
        if (valid) {
            value = 2 * alpha * d[at] * mirrored.sum<false>(terms, inside, n, i, j, c);
            if (subtractive) value += direct[at];
            part = value / T(own.cells(inside, i, j));
        }
        h[at] = value;
        share[at] = part;
    });
}

// dx = direct (divisive) + h - the shares of all means that the cell is part of.
template <class T>
__global__ void __launch_bounds__(256)
contrast_input_gradient_kernel(T* __restrict__ dx, const T* __restrict__ direct, const T* __restrict__ h,
                               const T* __restrict__ share, const Bounds* __restrict__ bounds, Box mirrored,
                               bool subtractive, bool mean_is_constant) {
    over(mirrored.shape, bounds, [&](int n, int i, int j, int c, const Bounds& inside, bool valid) {
        const std::int64_t at = mirrored.at(n, i, j, c);
        T value = 0;
        if (valid) {
            value = subtractive ? h[at] : direct[at] + h[at];
            if (!mean_is_constant) value -= mirrored.sum<false>(share, inside, n, i, j, c);
        }
        dx[at] = value;
    });
}

// A thread owns `width` neighbouring channels of one cell: y = (x - mean) * multiplier + bias.
template <class T, int width>
__global__ void __launch_bounds__(256)
scale_channels_kernel(T* __restrict__ y, const T* __restrict__ x, const T* __restrict__ mean,
                      const T* __restrict__ multiplier, const T* __restrict__ bias, std::int64_t elements, int channels) {
    const std::int64_t item = (std::int64_t(blockIdx.x) * blockDim.x + threadIdx.x) * width;
    if (item >= elements) return;
    const int c = divide(item, channels).remainder;
    auto value = load<width>(x + item);
#pragma unroll
    for (int i = 0; i < width; ++i) value[i] = (value[i] - mean[c + i]) * multiplier[c + i] + bias[c + i];
    store(y + item, value);
}

// The same for dx = multiplier * (dy - constant - slope * (x - mean)).
template <class T, int width>
__global__ void __launch_bounds__(256)
batch_norm_gradient_kernel(T* __restrict__ dx, const T* __restrict__ dy, const T* __restrict__ x,
                           const T* __restrict__ mean, const T* __restrict__ constant, const T* __restrict__ slope,
                           const T* __restrict__ multiplier, std::int64_t elements, int channels) {
    const std::int64_t item = (std::int64_t(blockIdx.x) * blockDim.x + threadIdx.x) * width;
    if (item >= elements) return;
    const int c = divide(item, channels).remainder;
    auto signal = load<width>(dy + item);
    const auto value = load<width>(x + item);
#pragma unroll
    for (int i = 0; i < width; ++i)
        signal[i] = multiplier[c + i] * (signal[i] - constant[c + i] - slope[c + i] * (value[i] - mean[c + i]));
    store(dx + item, signal);
}

// --------------------------------------------------------------------------------------- launchers

int power_of(double beta) { return beta == 0.5 ? 2 : beta == 0.75 ? 3 : beta == 1 ? 4 : 0; }

Launch over(const Shape& shape, void* stream) {
    ZF_CHECK(shape.batch >= 0 && shape.rows >= 0 && shape.columns >= 0 && shape.channels >= 0,
             "contrast_norm: sizes must not be negative");
    const std::int64_t line = std::int64_t(shape.columns) * shape.channels;
    ZF_CHECK(line < 0x7fffffff, "contrast_norm: rows of a map must be shorter than 2^31 elements");
    return {{blocks_x(line, 256), blocks_yz(shape.rows), blocks_yz(shape.batch)}, 256, stream};
}

}  // namespace

template <class T>
void response_norm(T* y, const T* x, std::int64_t cells, int channels, int size, double alpha, double beta, double k,
                   void* stream) {
    ZF_CHECK(cells >= 0 && channels >= 0 && size >= 1, "response_norm: sizes out of range");
    const bool vectors = channels % full_width<T> == 0 && aligned(y, 16) && aligned(x, 16);
    launch({blocks_x(cells * channels / (vectors ? full_width<T> : 1), 256), 256, stream},
           vectors ? response_norm_kernel<T, full_width<T>> : response_norm_kernel<T, 1>, y, x, cells * channels, channels,
           size, Wide<T>(alpha), Wide<T>(beta), Wide<T>(k), power_of(beta));
}

template <class T>
void response_norm_gradient(T* dx, const T* dy, const T* x, std::int64_t total, int channels, int size, double alpha,
                            double beta, double k, void* stream) {
    ZF_CHECK(total >= 0 && channels >= 0 && size >= 1, "response_norm_gradient: sizes out of range");
    if (!channels) return;
    const int tile = min(channels, 512), cells = max(1, 1024 / tile);
    const std::int64_t elements = std::int64_t(cells) * (2 * std::int64_t(tile) + 3 * (std::int64_t(size) - 1));
    ZF_CHECK(elements * std::int64_t(sizeof(Wide<T>)) <= 96 * 1024, "response_norm_gradient: size is too large for this device");
    const unsigned tiles = blocks_yz(divide_up(channels, tile));
    ZF_CHECK(std::int64_t(tiles) * tile >= channels, "response_norm_gradient: too many channels");
    launch({{blocks_x(total, cells), tiles}, 256, stream, std::size_t(elements) * sizeof(Wide<T>)},
           response_norm_gradient_kernel<T>, dx, dy, x, total, channels, cells, tile, size, Wide<T>(alpha),
           Wide<T>(beta), Wide<T>(k), power_of(beta));
}

template <class T>
void contrast_norm(T* y, T* d, const T* x, const Bounds* bounds, const Shape& shape, int size, double alpha, double beta,
                   double k, bool subtractive, void* stream) {
    ZF_CHECK(size >= 1, "contrast_norm: size must be at least 1");
    const Box box{shape, size, -(size / 2)};
    launch(over(shape, stream), contrast_mean_kernel<T>, d, x, bounds, box);
    launch(over(shape, stream), contrast_norm_kernel<T>, y, subtractive ? d : x, d, bounds, box, T(alpha), T(beta), T(k),
           power_of(beta));
}

template <class T>
void contrast_norm_gradient(T* dx, T* d, T* h, T* share, T* direct, T* terms, const T* dy, const T* x,
                            const Bounds* bounds, const Shape& shape, int size, double alpha, double beta, double k,
                            bool subtractive, bool mean_is_constant, void* stream) {
    ZF_CHECK(size >= 1, "contrast_norm_gradient: size must be at least 1");
    const Box box{shape, size, -(size / 2)}, mirrored{shape, size, 1 - size + size / 2};
    launch(over(shape, stream), contrast_mean_kernel<T>, d, x, bounds, box);
    launch(over(shape, stream), contrast_terms_kernel<T>, direct, terms, dy, subtractive ? d : x, d, bounds, box, T(alpha),
           T(beta), T(k), power_of(beta));
    launch(over(shape, stream), contrast_difference_gradient_kernel<T>, h, share, direct, terms, d, bounds, mirrored, box,
           T(alpha), subtractive);
    launch(over(shape, stream), contrast_input_gradient_kernel<T>, dx, direct, h, share, bounds, mirrored, subtractive,
           mean_is_constant);
}

template <class T>
void scale_channels(T* y, const T* x, const T* mean, const T* multiplier, const T* bias, std::int64_t cells, int channels,
                    void* stream) {
    ZF_CHECK(cells >= 0 && channels >= 0, "scale_channels: sizes must not be negative");
    const bool vectors = channels % full_width<T> == 0 && aligned(y, 16) && aligned(x, 16);
    launch({blocks_x(cells * channels / (vectors ? full_width<T> : 1), 256), 256, stream},
           vectors ? scale_channels_kernel<T, full_width<T>> : scale_channels_kernel<T, 1>, y, x, mean, multiplier, bias,
           cells * channels, channels);
}

template <class T>
void batch_norm_training_gradient(T* dx, const T* dy, const T* x, const T* mean, const T* constant, const T* slope,
                                  const T* multiplier, std::int64_t cells, int channels, void* stream) {
    ZF_CHECK(cells >= 0 && channels >= 0, "batch_norm_training_gradient: sizes must not be negative");
    const bool vectors = channels % full_width<T> == 0 && aligned(dx, 16) && aligned(dy, 16) && aligned(x, 16);
    launch({blocks_x(cells * channels / (vectors ? full_width<T> : 1), 256), 256, stream},
           vectors ? batch_norm_gradient_kernel<T, full_width<T>> : batch_norm_gradient_kernel<T, 1>, dx, dy, x, mean, constant,
           slope, multiplier, cells * channels, channels);
}

#define INSTANTIATE(T) \
    template void response_norm(T*, const T*, std::int64_t, int, int, double, double, double, void*); \
    template void response_norm_gradient(T*, const T*, const T*, std::int64_t, int, int, double, double, double, void*);
INSTANTIATE(float)
INSTANTIATE(double)
INSTANTIATE(float16)
INSTANTIATE(bfloat16)
#undef INSTANTIATE

#define INSTANTIATE(T) \
    template void contrast_norm(T*, T*, const T*, const Bounds*, const Shape&, int, double, double, double, bool, void*); \
    template void contrast_norm_gradient(T*, T*, T*, T*, T*, T*, const T*, const T*, const Bounds*, const Shape&, int, \
                                         double, double, double, bool, bool, void*); \
    template void scale_channels(T*, const T*, const T*, const T*, const T*, std::int64_t, int, void*); \
    template void batch_norm_training_gradient(T*, const T*, const T*, const T*, const T*, const T*, const T*, \
                                               std::int64_t, int, void*);
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace zf
