// The part of CUDA that the kernels use, for g++. What is missing here is missing on purpose:
// floating-point atomics (sums have a fixed order), `__shared__` (SHARED_ARRAY fills it with NaN),
// fences (no kernel waits for another block).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "runtime.h"

#define __global__ static
#define __device__
#define __host__
#define __forceinline__ inline
#define __restrict__ __restrict
#define __launch_bounds__(...)

using dim3 = zf::emulation::Index;
using std::exp;
using std::fma;
using std::log;
using std::max;
using std::min;
using std::pow;
using std::sqrt;

#define threadIdx (::zf::emulation::here().thread)
#define blockIdx (::zf::emulation::here().block)
#define blockDim (::zf::emulation::here().block_size)
#define gridDim (::zf::emulation::here().grid_size)

#define ZF_SITE(operation) ::zf::emulation::Site{operation, file, line}
#define ZF_WHERE const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(ZF_WHERE) { zf::emulation::block_barrier(ZF_SITE("__syncthreads()")); }

inline void __syncwarp(unsigned mask = 0xffffffffu, ZF_WHERE) {
    zf::emulation::warp_rendezvous(mask, nullptr, nullptr, true, ZF_SITE("__syncwarp()"));
}

namespace zf::emulation {

template <class T>
struct Shuffle {
    T value, result;
    int source;  // lane of the warp
    Site site;
};

// `source` is worked out by the caller; a source outside the mask has no value in CUDA either.
template <class T>
T shuffle(unsigned mask, T value, int source, Site site) {
    Shuffle<T> mine{value, value, source, site};
    warp_rendezvous(
        mask, &mine,
        [](void* lanes[32]) {
            for (int i = 0; i < 32; ++i) {
                auto* lane = static_cast<Shuffle<T>*>(lanes[i]);
                if (!lane) continue;
                const auto* from = static_cast<const Shuffle<T>*>(lanes[lane->source]);
                if (!from) fail("the source lane is not in the mask", lane->site);
                lane->result = from->value;
            }
        },
        false, site);
    return mine.result;
}

struct Vote {
    bool value;
    unsigned result;
};

inline unsigned vote(unsigned mask, bool value, Site site) {
    Vote mine{value, 0};
    warp_rendezvous(
        mask, &mine,
        [](void* lanes[32]) {
            unsigned all = 0;
            for (int i = 0; i < 32; ++i)
                if (lanes[i] && static_cast<Vote*>(lanes[i])->value) all |= 1u << i;
            for (int i = 0; i < 32; ++i)
                if (lanes[i]) static_cast<Vote*>(lanes[i])->result = all;
        },
        false, site);
    return mine.result;
}

}  // namespace zf::emulation

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, ZF_WHERE) {
    const int lane = zf::emulation::lane();
    return zf::emulation::shuffle(mask, value, (lane & ~(width - 1)) + (source & (width - 1)), ZF_SITE("__shfl_sync()"));
}

template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, ZF_WHERE) {
    const int lane = zf::emulation::lane(), in = (lane & (width - 1)) + int(delta);
    return zf::emulation::shuffle(mask, value, in < width ? lane + int(delta) : lane, ZF_SITE("__shfl_down_sync()"));
}

template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, ZF_WHERE) {
    const int lane = zf::emulation::lane(), in = (lane & (width - 1)) - int(delta);
    return zf::emulation::shuffle(mask, value, in >= 0 ? lane - int(delta) : lane, ZF_SITE("__shfl_up_sync()"));
}

template <class T>
T __shfl_xor_sync(unsigned mask, T value, int other, int width = 32, ZF_WHERE) {
    const int lane = zf::emulation::lane(), to = lane ^ other;
    // As on the device: a lane of an earlier group of `width` may be read, one of a later may not.
    return zf::emulation::shuffle(mask, value, to <= (lane | (width - 1)) ? to : lane, ZF_SITE("__shfl_xor_sync()"));
}

inline unsigned __ballot_sync(unsigned mask, bool value, ZF_WHERE) {
    return zf::emulation::vote(mask, value, ZF_SITE("__ballot_sync()"));
}
inline bool __any_sync(unsigned mask, bool value, ZF_WHERE) {
    return zf::emulation::vote(mask, value, ZF_SITE("__any_sync()")) != 0;
}
inline bool __all_sync(unsigned mask, bool value, ZF_WHERE) {
    return zf::emulation::vote(mask, value, ZF_SITE("__all_sync()")) == mask;
}

template <class T>
T atomicAdd(T* address, T value) {
    static_assert(std::is_integral_v<T>, "sums of floating-point numbers have a fixed order here");
    return __atomic_fetch_add(address, value, __ATOMIC_RELAXED);
}
template <class T>
T atomicOr(T* address, T value) {
    return __atomic_fetch_or(address, value, __ATOMIC_RELAXED);
}
template <class T>
T atomicExch(T* address, T value) {
    return __atomic_exchange_n(address, value, __ATOMIC_RELAXED);
}
template <class T>
T atomicCAS(T* address, T expected, T value) {
    __atomic_compare_exchange_n(address, &expected, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
    return expected;
}
template <class T>
T atomicMax(T* address, T value) {
    static_assert(std::is_integral_v<T>);
    T old = __atomic_load_n(address, __ATOMIC_RELAXED);
    while (old < value && !__atomic_compare_exchange_n(address, &old, value, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
    return old;
}

inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline double rsqrt(double x) { return 1.0 / std::sqrt(x); }
