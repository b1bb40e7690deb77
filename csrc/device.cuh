// The only header that a kernel file includes, beside its own prototypes in ops.h.
//
// nvcc compiles the kernels for the device, g++ the same files for the emulation: launch() and the
// two shared-memory macros are all that differs.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "ops.h"

#ifdef __CUDACC__
#include <cuda_runtime.h>
#else
#include "emulation/cuda.h"
#endif

// ------------------------------------------------------------------------------------------ errors

namespace zf {

[[noreturn]] inline void refuse(const char* file, int line, const char* condition, const std::string& message) {
    throw std::invalid_argument(std::string(file) + ":" + std::to_string(line) + ": " + message + " (" + condition + ")");
}

}  // namespace zf

// Argument checks of launchers, before anything is launched: std::invalid_argument.
#define ZF_CHECK(condition, message) \
    do { \
        if (!(condition)) ::zf::refuse(__FILE__, __LINE__, #condition, message); \
    } while (0)

// ------------------------------------------------------------------------------------------ launch

namespace zf {

// Geometry of a launch. An empty grid launches nothing: so a batch of 0 is no special case.
struct Launch {
    dim3 grid, block;
    void* stream;
    std::size_t shared_bytes;
    const char* file;
    int line;

    Launch(dim3 grid, dim3 block, void* stream, std::size_t shared_bytes = 0, const char* file = __builtin_FILE(),
           int line = __builtin_LINE())
        : grid(grid), block(block), stream(stream), shared_bytes(shared_bytes), file(file), line(line) {}
};

#ifdef __CUDACC__

inline void check_cuda(cudaError_t status, const char* file, int line) {
    if (status != cudaSuccess)
        throw std::runtime_error(std::string(file) + ":" + std::to_string(line) + ": " + cudaGetErrorName(status) + ": " +
                                 cudaGetErrorString(status));
}

template <class... P, class... A>
void launch(const Launch& on, void (*kernel)(P...), const A&... arguments) {
    if (!on.grid.x || !on.grid.y || !on.grid.z) return;
    if (on.shared_bytes > 48 * 1024)
        check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(on.shared_bytes)),
                   on.file, on.line);
    kernel<<<on.grid, on.block, on.shared_bytes, static_cast<cudaStream_t>(on.stream)>>>(P(arguments)...);
    check_cuda(cudaGetLastError(), on.file, on.line);
}

#define SHARED_ARRAY(type, name, extents) __shared__ type name extents
#define DYNAMIC_SHARED(type, name) \
    extern __shared__ __align__(16) unsigned char zf_dynamic_shared[]; \
    type* name = reinterpret_cast<type*>(zf_dynamic_shared)

#else

template <class... P, class... A>
void launch(const Launch& on, void (*kernel)(P...), const A&... arguments) {
    if (!on.grid.x || !on.grid.y || !on.grid.z) return;
    auto body = [&] { kernel(P(arguments)...); };
    try {
        emulation::run(on.grid, on.block, on.shared_bytes, [](void* data) { (*static_cast<decltype(body)*>(data))(); },
                       &body);
    } catch (const std::exception& error) {
        throw std::runtime_error(std::string(on.file) + ":" + std::to_string(on.line) + ": " + error.what());
    }
}

#define SHARED_ARRAY(type, name, extents) \
    typedef type name##_array extents; \
    static const char name##_key = 0; \
    name##_array& name = *static_cast<name##_array*>(::zf::emulation::shared(&name##_key, sizeof(name##_array)))
#define DYNAMIC_SHARED(type, name) type* name = static_cast<type*>(::zf::emulation::dynamic_shared())

#endif

// -------------------------------------------------------------------------------------- arithmetic

constexpr unsigned all_lanes = 0xffffffffu;

template <class T>
__host__ __device__ constexpr T divide_up(T a, T b) {
    return (a + b - 1) / b;
}

struct Divided {
    std::int64_t quotient;
    int remainder;
};

// Of a number that is not negative; a division of 64 bits costs dozens of instructions, and few need it.
__device__ __forceinline__ Divided divide(std::int64_t number, int by) {
    if (number >> 32) return {number / by, int(number % by)};
    const auto small = static_cast<std::uint32_t>(number), quotient = small / unsigned(by);
    return {quotient, int(small - quotient * unsigned(by))};
}

// Blocks along x for `items` of `per_block`; refused where one launch cannot reach them all.
inline unsigned blocks_x(std::int64_t items, std::int64_t per_block) {
    const std::int64_t blocks = divide_up(items, per_block);
    ZF_CHECK(blocks <= 0x7fffffff, std::to_string(items) + " items are too many for one launch");
    return static_cast<unsigned>(blocks);
}

// Blocks along y or z: at most 65,535, so kernels step through these axes by gridDim.
inline unsigned blocks_yz(std::int64_t items) { return static_cast<unsigned>(items < 65535 ? items : 65535); }

// 0 <= at < size, in one comparison.
__device__ __forceinline__ bool within(int at, int size) { return unsigned(at) < unsigned(size); }

template <class T>
__device__ __forceinline__ bool is_nan(T x) {
    return x != x;
}

template <class T>
__device__ __forceinline__ bool is_finite(T x) {
    return x - x == 0;
}

// The same number, of which the compiler knows nothing: what is made of it is not made before it is asked for, in a rare
// branch, and kept in registers meanwhile.
__device__ __forceinline__ int opaque(int x) {
#ifdef __CUDACC__
    asm volatile("" : "+r"(x));
#endif
    return x;
}

template <class T>
__device__ __forceinline__ T given(const Setting<T>& setting) {
    return setting.address ? *setting.address : setting.value;
}

}  // namespace zf

#include "storage.cuh"
#include "tensor_core.cuh"
