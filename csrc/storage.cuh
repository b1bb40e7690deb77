// Numbers of 16 bits in memory: widened to float32 when read, rounded when written. Nothing computes in them.
#pragma once

namespace zf {

template <class T>
__device__ __forceinline__ T widen(T x) {
    return x;
}

__device__ __forceinline__ float bits_to_float(std::uint32_t bits) {
#ifdef __CUDACC__
    return __uint_as_float(bits);
#else
    float x;
    std::memcpy(&x, &bits, 4);
    return x;
#endif
}

__device__ __forceinline__ std::uint32_t float_to_bits(float x) {
#ifdef __CUDACC__
    return __float_as_uint(x);
#else
    std::uint32_t bits;
    std::memcpy(&bits, &x, 4);
    return bits;
#endif
}

__device__ __forceinline__ float widen(bfloat16 x) { return bits_to_float(std::uint32_t(x.bits) << 16); }

// To the nearest, ties to even; NaN becomes 0x7fff, as the device's own conversion has it.
__device__ __forceinline__ bfloat16 to_bfloat16(float x) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    bfloat16 result;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(result.bits) : "f"(x));
    return result;
#else
    const std::uint32_t bits = float_to_bits(x);
    if (x != x) return {0x7fff};
    return {std::uint16_t((bits + 0x7fffu + (bits >> 16 & 1)) >> 16)};
#endif
}

#ifdef __CUDACC__

__device__ __forceinline__ float widen(float16 x) {
    float result;
    asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(x.bits));
    return result;
}

// To the nearest, ties to even; beyond 65,504 infinite.
__device__ __forceinline__ float16 to_float16(float x) {
    float16 result;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(result.bits) : "f"(x));
    return result;
}

#else

inline float widen(float16 x) {
    const std::uint32_t sign = (x.bits & 0x8000u) << 16, exponent = x.bits >> 10 & 31u, fraction = x.bits & 1023u;
    if (!exponent) return (sign ? -0x1p-24f : 0x1p-24f) * float(fraction);
    return bits_to_float(sign | (exponent == 31 ? 255u : exponent + 112) << 23 | fraction << 13);
}

inline float16 to_float16(float x) {
    const float size = std::fabs(x);
    const auto sign = std::uint16_t(float_to_bits(x) >> 16 & 0x8000u);
    if (x != x) return {0x7fff};
    if (size >= 65520) return {std::uint16_t(sign | 0x7c00u)};
    if (size < 0x1p-14f) return {std::uint16_t(sign | std::uint16_t(std::nearbyint(size * 0x1p24f)))};
    const std::uint32_t bits = float_to_bits(size);
    return {std::uint16_t(sign | (((bits + 0xfffu + (bits >> 13 & 1)) >> 13) - (112u << 10)))};
}

#endif

template <class T>
__device__ __forceinline__ T narrow(Wide<T> x) {
    if constexpr (std::is_same_v<T, float16>)
        return to_float16(x);
    else if constexpr (std::is_same_v<T, bfloat16>)
        return to_bfloat16(x);
    else
        return x;
}

// What x is once it has been in memory.
template <class T>
__device__ __forceinline__ Wide<T> rounded(Wide<T> x) {
    return widen(narrow<T>(x));
}

// ---------------------------------------------------------------------------------- vector accesses

// `width` neighbouring values, read and written in one access of at most 16 bytes.
template <class T, int width>
struct alignas(sizeof(T) * width) Vector {
    T value[width];
    __device__ T& operator[](int i) { return value[i]; }
    __device__ const T& operator[](int i) const { return value[i]; }
};

template <int width, class T>
__device__ __forceinline__ Vector<Wide<T>, width> load(const T* address) {
    const auto stored = *reinterpret_cast<const Vector<T, width>*>(address);
    Vector<Wide<T>, width> result;
#pragma unroll
    for (int i = 0; i < width; ++i) result[i] = widen(stored[i]);
    return result;
}

template <class T, int width>
__device__ __forceinline__ void store(T* address, const Vector<Wide<T>, width>& value) {
    Vector<T, width> stored;
#pragma unroll
    for (int i = 0; i < width; ++i) stored[i] = narrow<T>(value[i]);
    *reinterpret_cast<Vector<T, width>*>(address) = stored;
}

// Keeps a vector's load one access. NVVM for compute capability 10.0 and up else loads element by element what branches
// ask for one by one.
template <class T, int width>
__device__ __forceinline__ void keep_whole([[maybe_unused]] Vector<T, width>& vector) {
#ifdef __CUDACC__
#pragma unroll
    for (int i = 0; i < width; ++i)
        if constexpr (std::is_same_v<T, double>)
            asm volatile("" : "+d"(vector[i]));
        else if constexpr (std::is_integral_v<T>)
            asm volatile("" : "+r"(vector[i]));
        else
            asm volatile("" : "+f"(vector[i]));
#endif
}

template <class T>
constexpr int full_width = 16 / int(sizeof(T));

inline bool aligned(const void* address, std::size_t bytes) {
    return reinterpret_cast<std::uintptr_t>(address) % bytes == 0;
}

}  // namespace zf
