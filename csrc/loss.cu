// Softmax and cross-entropy. A block of four warps owns one row of scores.
#include "device.cuh"

namespace zf {
namespace {

// ----------------------------------------------------------------------------------------- kernels

constexpr int row_threads = 128, row_warps = row_threads / 32;

template <class T>
__device__ __forceinline__ T exponential(T x) {
    return std::is_same<T, float>::value ? T(expf(float(x))) : T(exp(double(x)));
}

// The sum of all threads' values, in a fixed tree, for every thread.
__device__ __forceinline__ double block_sum(double value, double* parts) {
    for (int distance = 16; distance; distance /= 2) value += __shfl_xor_sync(all_lanes, value, distance);
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = value;
    __syncthreads();
    value = 0;
    for (int i = 0; i < row_warps; ++i) value += parts[i];
    return value;
}

// y = exp(x - max) / sum, the sum in float64; with labels the loss is log(sum) - (x_label - max).
template <class T>
__global__ void __launch_bounds__(row_threads, 8)
softmax_kernel(T* __restrict__ y, T* __restrict__ losses, const T* __restrict__ x,
               const std::int64_t* __restrict__ labels, int classes) {
    SHARED_ARRAY(T, greatest_of, [row_warps]);
    SHARED_ARRAY(double, parts, [row_warps]);
    const std::int64_t row = blockIdx.x;
    x += row * classes;
    y += row * classes;
    T greatest = x[0];  // a NaN wins, wherever it is
    for (int c = threadIdx.x; c < classes; c += row_threads)
        if (!(x[c] <= greatest)) greatest = x[c];
    for (int distance = 16; distance; distance /= 2) {
        const T other = __shfl_xor_sync(all_lanes, greatest, distance);
        if (!(other <= greatest) && !is_nan(greatest)) greatest = other;
    }
    if (threadIdx.x % 32 == 0) greatest_of[threadIdx.x / 32] = greatest;
    __syncthreads();
    for (int i = 0; i < row_warps; ++i)
        if (!(greatest_of[i] <= greatest) && !is_nan(greatest)) greatest = greatest_of[i];
    double total = 0;
    for (int c = threadIdx.x; c < classes; c += row_threads) {
        const T value = exponential(x[c] - greatest);
        y[c] = value;
        total += double(value);
    }
    total = block_sum(total, parts);
    for (int c = threadIdx.x; c < classes; c += row_threads) y[c] = T(double(y[c]) / total);
    if (labels && threadIdx.x == 0) losses[row] = T(log(total) - double(x[labels[row]] - greatest));
}

// dx = y (dy - sum(dy y)), the sum in float64.
template <class T>
__global__ void __launch_bounds__(row_threads, 8)
softmax_gradient_kernel(T* __restrict__ dx, const T* __restrict__ dy, const T* __restrict__ y, int classes) {
    SHARED_ARRAY(double, parts, [row_warps]);
    const std::int64_t begin = std::int64_t(blockIdx.x) * classes;
    double total = 0;
    for (int c = threadIdx.x; c < classes; c += row_threads) total += double(dy[begin + c]) * double(y[begin + c]);
    total = block_sum(total, parts);
    for (int c = threadIdx.x; c < classes; c += row_threads)
        dx[begin + c] = T(double(y[begin + c]) * (double(dy[begin + c]) - total));
}

// A thread owns one element: (y - one at the label) / rows.
template <class T>
__global__ void __launch_bounds__(256)
cross_entropy_gradient_kernel(T* __restrict__ dx, const T* __restrict__ y, const std::int64_t* __restrict__ labels,
                              std::int64_t rows, int classes) {
    const std::int64_t item = std::int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (item >= rows * classes) return;
    const bool label = labels[item / classes] == item % classes;
    dx[item] = T((double(y[item]) - (label ? 1 : 0)) / double(rows));
}

}  // namespace

// --------------------------------------------------------------------------------------- launchers

template <class T>
void softmax(T* y, const T* x, std::int64_t rows, int classes, void* stream) {
    ZF_CHECK(rows >= 0 && classes >= 0, "softmax: sizes must not be negative");
    if (classes)
        launch({blocks_x(rows, 1), row_threads, stream}, softmax_kernel<T>, y, static_cast<T*>(nullptr), x,
               static_cast<const std::int64_t*>(nullptr), classes);
}

template <class T>
void softmax_cross_entropy(T* losses, T* y, const T* x, const std::int64_t* labels, std::int64_t rows, int classes,
                           void* stream) {
    ZF_CHECK(rows >= 0 && classes >= 1, "softmax_cross_entropy: needs a class");
    launch({blocks_x(rows, 1), row_threads, stream}, softmax_kernel<T>, y, losses, x, labels, classes);
}

template <class T>
void softmax_gradient(T* dx, const T* dy, const T* y, std::int64_t rows, int classes, void* stream) {
    ZF_CHECK(rows >= 0 && classes >= 0, "softmax_gradient: sizes must not be negative");
    if (classes)
        launch({blocks_x(rows, 1), row_threads, stream}, softmax_gradient_kernel<T>, dx, dy, y, classes);
}

template <class T>
void softmax_cross_entropy_gradient(T* dx, const T* y, const std::int64_t* labels, std::int64_t rows, int classes,
                                    void* stream) {
    ZF_CHECK(rows >= 0 && classes >= 0, "softmax_cross_entropy_gradient: sizes must not be negative");
    launch({blocks_x(rows * classes, 256), 256, stream}, cross_entropy_gradient_kernel<T>, dx, y, labels, rows, classes);
}

#define INSTANTIATE(T) \
    template void softmax(T*, const T*, std::int64_t, int, void*); \
    template void softmax_cross_entropy(T*, T*, const T*, const std::int64_t*, std::int64_t, int, void*); \
    template void softmax_gradient(T*, const T*, const T*, std::int64_t, int, void*); \
    template void softmax_cross_entropy_gradient(T*, const T*, const std::int64_t*, std::int64_t, int, void*);
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace zf
