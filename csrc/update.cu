// Parameter updates, in place and in one pass over memory.
#include "device.cuh"

namespace zf {
namespace {

// ----------------------------------------------------------------------------------------- kernels

// A thread owns one weight. Inside: v = m v - rate (g + decay w), w += v. Outside: the rate is no part
// of the velocity, v = m v + g + decay w, w -= rate v.
template <class T, bool rate_in_velocity>
__global__ void __launch_bounds__(256)
sgd_kernel(T* __restrict__ weight, T* __restrict__ velocity, const T* __restrict__ gradient, std::int64_t size, T rate,
           T momentum, T decay) {
    const std::int64_t i = std::int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= size) return;
    const T w = weight[i], step = gradient[i] + decay * w;
    const T v = rate_in_velocity ? momentum * velocity[i] - rate * step : momentum * velocity[i] + step;
    velocity[i] = v;
    weight[i] = rate_in_velocity ? w + v : w - rate * v;
}

// A thread owns one weight (Kingma and Ba 2015); rate and root hold the two bias corrections.
template <class T>
__global__ void __launch_bounds__(256)
adam_kernel(T* __restrict__ weight, T* __restrict__ first, T* __restrict__ second, const T* __restrict__ gradient,
            std::int64_t size, T rate, T beta1, T beta2, T rest1, T rest2, T root, T epsilon, T decay) {
    const std::int64_t i = std::int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= size) return;
    const T w = weight[i], g = gradient[i] + decay * w;
    const T m = beta1 * first[i] + rest1 * g, v = beta2 * second[i] + rest2 * (g * g);
    first[i] = m;
    second[i] = v;
    weight[i] = w - rate * m / (sqrt(v) / root + epsilon);
}

// A block owns one filter: each thread sums squares 256 apart in float64, the warps add by shuffles in a
// fixed tree, then all rescale where the root mean square exceeds the radius.
template <class T>
__global__ void __launch_bounds__(256)
renormalize_filters_kernel(T* __restrict__ weight, std::int64_t length, double radius) {
    SHARED_ARRAY(double, parts, [8]);
    T* filter = weight + std::int64_t(blockIdx.x) * length;
    double total = 0;
    for (std::int64_t i = threadIdx.x; i < length; i += 256) total += double(filter[i]) * double(filter[i]);
    for (int distance = 16; distance; distance /= 2) total += __shfl_xor_sync(all_lanes, total, distance);
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = total;
    __syncthreads();
    total = 0;
    for (int i = 0; i < 8; ++i) total += parts[i];
    const double size = sqrt(total / double(length));
    if (!(size > radius)) return;
    const T scale = T(radius / size);
    for (std::int64_t i = threadIdx.x; i < length; i += 256) filter[i] *= scale;
}

}  // namespace

// --------------------------------------------------------------------------------------- launchers

template <class T>
void sgd_step(T* weight, T* velocity, const T* gradient, std::int64_t size, T rate, T momentum, T decay,
              bool rate_in_velocity, void* stream) {
    ZF_CHECK(size >= 0, "sgd_step: a negative size");
    launch({blocks_x(size, 256), 256, stream}, rate_in_velocity ? sgd_kernel<T, true> : sgd_kernel<T, false>, weight,
           velocity, gradient, size, rate, momentum, decay);
}

template <class T>
void adam_step(T* weight, T* first, T* second, const T* gradient, std::int64_t size, T rate, T beta1, T beta2, T rest1,
               T rest2, T root, T epsilon, T decay, void* stream) {
    ZF_CHECK(size >= 0, "adam_step: a negative size");
    launch({blocks_x(size, 256), 256, stream}, adam_kernel<T>, weight, first, second, gradient, size, rate, beta1, beta2,
           rest1, rest2, root, epsilon, decay);
}

template <class T>
void renormalize_filters(T* weight, std::int64_t filters, std::int64_t length, double radius, void* stream) {
    ZF_CHECK(filters >= 0 && length >= 0, "renormalize_filters: sizes must not be negative");
    if (length) launch({blocks_x(filters, 1), 256, stream}, renormalize_filters_kernel<T>, weight, length, radius);
}

#define INSTANTIATE(T) \
    template void sgd_step(T*, T*, const T*, std::int64_t, T, T, T, bool, void*); \
    template void adam_step(T*, T*, T*, const T*, std::int64_t, T, T, T, T, T, T, T, T, void*); \
    template void renormalize_filters(T*, std::int64_t, std::int64_t, double, void*);
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace zf
