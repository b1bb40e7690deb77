// Parameter updates, in place and in one pass over memory. Rates and counters may lie in device memory.
#include <limits>

#include "device.cuh"

namespace zf {
namespace {

// ----------------------------------------------------------------------------------------- kernels

// Inside: v = m v - rate (g + decay w), w += v. Outside: the rate is no part of the velocity,
// v = m v + g + decay w, w -= rate v.
//
// A rate that is NaN takes no step: what a guarded setting says where a loss was not finite.
template <class T>
__device__ __forceinline__ void descend(T& w, T& v, T g, T rate, T momentum, T decay, bool rate_in_velocity) {
    const T step = g + decay * w;
    v = rate_in_velocity ? momentum * v - rate * step : momentum * v + step;
    w = rate_in_velocity ? w + v : w - rate * v;
}

// A thread owns `width` neighbouring weights.
template <class T, int width>
__global__ void __launch_bounds__(256)
sgd_kernel(T* __restrict__ weight, T* __restrict__ velocity, const T* __restrict__ gradient, std::int64_t vectors,
           Setting<double> rate, T momentum, T decay, bool rate_in_velocity) {
    const std::int64_t i = (std::int64_t(blockIdx.x) * blockDim.x + threadIdx.x) * width;
    if (i >= vectors * width || is_nan(given(rate))) return;
    auto w = load<width>(weight + i), v = load<width>(velocity + i);
    const auto g = load<width>(gradient + i);
#pragma unroll
    for (int j = 0; j < width; ++j) descend(w[j], v[j], g[j], T(given(rate)), momentum, decay, rate_in_velocity);
    store(velocity + i, v);
    store(weight + i, w);
}

// A thread owns `width` neighbouring weights (Kingma and Ba 2015); rate and root hold the two bias corrections.
template <class T, int width>
__global__ void __launch_bounds__(256)
adam_kernel(T* __restrict__ weight, T* __restrict__ first, T* __restrict__ second, const T* __restrict__ gradient,
            std::int64_t vectors, Setting<double> rate, T beta1, T beta2, T rest1, T rest2, Setting<double> root, T epsilon,
            T decay) {
    const std::int64_t i = (std::int64_t(blockIdx.x) * blockDim.x + threadIdx.x) * width;
    if (i >= vectors * width || is_nan(given(rate))) return;
    auto w = load<width>(weight + i), m = load<width>(first + i), v = load<width>(second + i);
    const auto gradients = load<width>(gradient + i);
#pragma unroll
    for (int j = 0; j < width; ++j) {
        const T g = gradients[j] + decay * w[j];
        m[j] = beta1 * m[j] + rest1 * g;
        v[j] = beta2 * v[j] + rest2 * (g * g);
        w[j] -= T(given(rate)) * m[j] / (sqrt(v[j]) / T(given(root)) + epsilon);
    }
    store(first + i, m);
    store(second + i, v);
    store(weight + i, w);
}

// What brings a filter of this sum of squares (each thread's own, of elements 256 apart, in float64) down to the
// radius; 1 where its root mean square is no greater. The warps add by shuffles in a fixed tree.
template <class T>
__device__ __forceinline__ T shrinkage(double total, double (&parts)[8], std::int64_t length, double radius) {
    for (int distance = 16; distance; distance /= 2) total += __shfl_xor_sync(all_lanes, total, distance);
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = total;
    __syncthreads();
    total = 0;
    for (int i = 0; i < 8; ++i) total += parts[i];
    const double size = sqrt(total / double(length));
    return size > radius ? T(radius / size) : T(1);
}

// A block owns one filter.
template <class T>
__global__ void __launch_bounds__(256)
renormalize_filters_kernel(T* __restrict__ weight, std::int64_t length, double radius) {
    SHARED_ARRAY(double, parts, [8]);
    T* filter = weight + std::int64_t(blockIdx.x) * length;
    double total = 0;
    for (std::int64_t i = threadIdx.x; i < length; i += 256) total += double(filter[i]) * double(filter[i]);
    const T scale = shrinkage<T>(total, parts, length, radius);
    if (scale == T(1)) return;
    for (std::int64_t i = threadIdx.x; i < length; i += 256) filter[i] *= scale;
}

// Both in one pass: a block owns one filter, a thread every 256th of its weights, which wait for the filter's size in
// shared memory (`kept`; longer filters are written and read again, from the second-level cache). C: type of a copy
// that is written besides, unless null.
template <class T, class C>
__global__ void __launch_bounds__(256)
sgd_filters_kernel(T* __restrict__ weight, T* __restrict__ velocity, C* __restrict__ copy, const T* __restrict__ gradient,
                   std::int64_t length, Setting<double> rate, T momentum, T decay, bool rate_in_velocity, double radius,
                   bool keeps) {
    SHARED_ARRAY(double, parts, [8]);
    DYNAMIC_SHARED(T, kept);
    if (is_nan(given(rate))) return;
    const std::int64_t first = std::int64_t(blockIdx.x) * length;
    double total = 0;
    for (std::int64_t i = threadIdx.x; i < length; i += 256) {
        T w = weight[first + i], v = velocity[first + i];
        descend(w, v, gradient[first + i], T(given(rate)), momentum, decay, rate_in_velocity);
        velocity[first + i] = v;
        if (keeps)
            kept[i] = w;
        else
            weight[first + i] = w;
        total += double(w) * double(w);
    }
    const T scale = shrinkage<T>(total, parts, length, radius);
    if (!keeps && !copy && scale == T(1)) return;
    for (std::int64_t i = threadIdx.x; i < length; i += 256) {
        const T w = (keeps ? kept[i] : weight[first + i]) * scale;
        weight[first + i] = w;
        if (copy) copy[first + i] = narrow<C>(w);
    }
}

constexpr double no_step = std::numeric_limits<double>::quiet_NaN();

// One block: the settings as they came if all losses are finite, else NaN.
template <class T>
__global__ void __launch_bounds__(256)
guard_settings_kernel(double* __restrict__ guarded, const double* __restrict__ settings, int count,
                      const T* __restrict__ losses, std::int64_t size) {
    SHARED_ARRAY(double, parts, [8]);
    double wrong = 0;
    for (std::int64_t i = threadIdx.x; i < size; i += 256)
        if (!(losses[i] - losses[i] == 0)) wrong = 1;
    for (int distance = 16; distance; distance /= 2) wrong += __shfl_xor_sync(all_lanes, wrong, distance);
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = wrong;
    __syncthreads();
    wrong = 0;
    for (int i = 0; i < 8; ++i) wrong += parts[i];
    for (int i = threadIdx.x; i < count; i += 256)
        guarded[i] = wrong > 0 ? no_step : settings[i];
}

}  // namespace

// --------------------------------------------------------------------------------------- launchers

template <class T>
void sgd_step(T* weight, T* velocity, const T* gradient, std::int64_t size, Setting<double> rate, T momentum, T decay,
              bool rate_in_velocity, void* stream) {
    ZF_CHECK(size >= 0, "sgd_step: a negative size");
    constexpr int full = full_width<T>;
    const bool vectors = size % full == 0 && aligned(weight, 16) && aligned(velocity, 16) && aligned(gradient, 16);
    const std::int64_t pieces = vectors ? size / full : size;
    launch({blocks_x(pieces, 256), 256, stream}, vectors ? sgd_kernel<T, full> : sgd_kernel<T, 1>, weight, velocity, gradient,
           pieces, rate, momentum, decay, rate_in_velocity);
}

template <class T>
void adam_step(T* weight, T* first, T* second, const T* gradient, std::int64_t size, Setting<double> rate, T beta1, T beta2,
               T rest1, T rest2, Setting<double> root, T epsilon, T decay, void* stream) {
    ZF_CHECK(size >= 0, "adam_step: a negative size");
    constexpr int full = full_width<T>;
    const bool vectors = size % full == 0 && aligned(weight, 16) && aligned(first, 16) && aligned(second, 16) &&
                         aligned(gradient, 16);
    const std::int64_t pieces = vectors ? size / full : size;
    launch({blocks_x(pieces, 256), 256, stream}, vectors ? adam_kernel<T, full> : adam_kernel<T, 1>, weight, first, second,
           gradient, pieces, rate, beta1, beta2, rest1, rest2, root, epsilon, decay);
}

template <class T>
void renormalize_filters(T* weight, std::int64_t filters, std::int64_t length, double radius, void* stream) {
    ZF_CHECK(filters >= 0 && length >= 0, "renormalize_filters: sizes must not be negative");
    if (length) launch({blocks_x(filters, 1), 256, stream}, renormalize_filters_kernel<T>, weight, length, radius);
}

template <class T, class C>
void sgd_filters(T* weight, T* velocity, C* copy, const T* gradient, std::int64_t filters, std::int64_t length,
                 Setting<double> rate, T momentum, T decay, bool rate_in_velocity, double radius, void* stream) {
    ZF_CHECK(filters >= 0 && length >= 0, "sgd_filters: sizes must not be negative");
    if (!length) return;
    const std::int64_t bytes = length * std::int64_t(sizeof(T)), most = 32 * 1024;  // so that several blocks fit
    launch({blocks_x(filters, 1), 256, stream, std::size_t(bytes <= most ? bytes : 0)}, sgd_filters_kernel<T, C>, weight,
           velocity, copy, gradient, length, rate, momentum, decay, rate_in_velocity, radius, bytes <= most);
}

template <class T>
void guard_settings(double* guarded, const double* settings, int count, const T* losses, std::int64_t size, void* stream) {
    ZF_CHECK(count >= 0 && size >= 0, "guard_settings: sizes must not be negative");
    launch({1, 256, stream}, guard_settings_kernel<T>, guarded, settings, count, losses, size);
}

#define INSTANTIATE(T) \
    template void sgd_step(T*, T*, const T*, std::int64_t, Setting<double>, T, T, bool, void*); \
    template void adam_step(T*, T*, T*, const T*, std::int64_t, Setting<double>, T, T, T, T, Setting<double>, T, T, void*); \
    template void renormalize_filters(T*, std::int64_t, std::int64_t, double, void*); \
    template void guard_settings(double*, const double*, int, const T*, std::int64_t, void*);
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

#define INSTANTIATE(T, C) \
    template void sgd_filters(T*, T*, C*, const T*, std::int64_t, std::int64_t, Setting<double>, T, T, bool, double, void*);
INSTANTIATE(float, float)
INSTANTIATE(float, float16)
INSTANTIATE(float, bfloat16)
INSTANTIATE(double, double)
#undef INSTANTIATE

}  // namespace zf
