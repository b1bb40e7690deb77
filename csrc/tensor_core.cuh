// Tensor-core products, their fragments and asynchronous copies, as functions that the emulation has too.
//
// Built for targets before sm_80 they trap: launchers ask tensor_cores() first and take the plain path.
#pragma once

namespace zf {

// A product c += a b of a 16 x `depth` by a depth x 8 tile; factors are 32 bytes a row, sums float32. With
// g = lane / 4 and c = lane % 4 a lane holds c[v] = C(g + 8 (v >> 1), 2 c + (v & 1)) and
//   float (rounded to tf32), depth 8:  a[v] = A(g + 8 (v & 1), c + 4 (v >> 1)),  b[v] = B(c + 4 v, g);
//   float16, bfloat16, depth 16, two factors in each register, the lower term in the lower half:
//                        a[v] = A(g + 8 (v & 1), 2 c + 8 (v >> 1) + {0, 1}),  b[v] = B(2 c + 8 v + {0, 1}, g).
using FragmentA = std::uint32_t[4];
using FragmentB = std::uint32_t[2];
using FragmentC = float[4];

template <class T>
constexpr int product_depth = 32 / int(sizeof(T));

// Bytes of shared memory that a block may have, and all blocks of a multiprocessor together; multiprocessors.
struct Device {
    int block_memory, memory, multiprocessors;
};

#ifdef __CUDACC__

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
#define ZF_SM80(...) __trap()
#else
#define ZF_SM80(...) asm volatile(__VA_ARGS__)
#endif
#define ZF_PRODUCT(shape) \
    ZF_SM80("mma.sync.aligned." shape " {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};" \
            : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) \
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))

template <class T>
__device__ __forceinline__ void multiply_tile(FragmentC& c, const FragmentA& a, const FragmentB& b) {
    if constexpr (std::is_same_v<T, float16>)
        ZF_PRODUCT("m16n8k16.row.col.f32.f16.f16.f32");
    else if constexpr (std::is_same_v<T, bfloat16>)
        ZF_PRODUCT("m16n8k16.row.col.f32.bf16.bf16.f32");
    else
        ZF_PRODUCT("m16n8k8.row.col.f32.tf32.tf32.f32");
}

// To the nearest, ties away from zero.
__device__ __forceinline__ std::uint32_t to_tf32(float x) {
    std::uint32_t bits = 0;
    ZF_SM80("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
    return bits;
}

// Four 8 x 8 matrices of 16-bit words (8 rows of 16 bytes; lane t names the address of row t % 8 of matrix
// t / 8): part[m] holds words 2 (t % 4) and the next of row t / 4 of matrix m; `transposed`: of its columns.
template <bool transposed>
__device__ __forceinline__ void load_matrices(std::uint32_t (&part)[4], const void* row) {
    const unsigned from = static_cast<unsigned>(__cvta_generic_to_shared(row));
    if constexpr (transposed)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(part[0]), "=r"(part[1]), "=r"(part[2]), "=r"(part[3]) : "r"(from) : "memory");
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(part[0]), "=r"(part[1]), "=r"(part[2]), "=r"(part[3]) : "r"(from) : "memory");
}

// `count` neighbours (2, 4, 8 or 16 bytes, aligned to their size) into shared memory, or zeros; there after
// copies_wait and a barrier. Reads nothing where `valid` is false. Two bytes are copied at once.
template <int count, class T>
__device__ __forceinline__ void copy_async(T* to, const T* from, bool valid) {
    constexpr int size = count * int(sizeof(T));
    static_assert(size == 2 || size == 4 || size == 8 || size == 16);
    [[maybe_unused]] const unsigned target = static_cast<unsigned>(__cvta_generic_to_shared(to));
    [[maybe_unused]] const int bytes = valid ? size : 0;
    if constexpr (size == 16)
        ZF_SM80("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(target), "l"(from), "r"(bytes) : "memory");
    else if constexpr (size == 8)
        ZF_SM80("cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"(target), "l"(from), "r"(bytes) : "memory");
    else if constexpr (size == 4)
        ZF_SM80("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(target), "l"(from), "r"(bytes) : "memory");
    else
        *to = valid ? *from : T{};
}

__device__ __forceinline__ void copies_commit() { ZF_SM80("cp.async.commit_group;" ::: "memory"); }

// Until at most `keep` of this thread's groups are open.
template <int keep>
__device__ __forceinline__ void copies_wait() {
    ZF_SM80("cp.async.wait_group %0;" ::"n"(keep) : "memory");
}

#undef ZF_PRODUCT
#undef ZF_SM80

inline Device this_device() {
    int number = 0;
    check_cuda(cudaGetDevice(&number), __FILE__, __LINE__);
    const auto of = [&](cudaDeviceAttr attribute) {
        int value = 0;
        check_cuda(cudaDeviceGetAttribute(&value, attribute, number), __FILE__, __LINE__);
        return value;
    };
    return {of(cudaDevAttrMaxSharedMemoryPerBlockOptin), of(cudaDevAttrMaxSharedMemoryPerMultiprocessor),
            of(cudaDevAttrMultiProcessorCount)};
}

// Whether the kernel's code for this device was compiled with what is above.
template <class... P>
bool tensor_cores(void (*kernel)(P...)) {
    cudaFuncAttributes attributes;
    check_cuda(cudaFuncGetAttributes(&attributes, kernel), __FILE__, __LINE__);
    return attributes.ptxVersion >= 80;
}

#else

inline std::uint32_t to_tf32(float x) {
    std::uint32_t bits;
    std::memcpy(&bits, &x, 4);
    if (x != x) return 0x7fffe000u;
    if (!std::isinf(x)) bits += 0x1000u;
    return bits & ~0x1fffu;
}

namespace emulation {

struct Product {
    float* c;
    const std::uint32_t *a, *b;
    Site site;
};

// Factor `i` of a register: the only one, or one of two.
template <class T>
float factor(std::uint32_t bits, int i, const Site& site) {
    if constexpr (std::is_same_v<T, float>) {
        if (bits & 0x1fffu) fail("a factor was not rounded to tf32", site);
        return bits_to_float(bits);
    } else {
        return widen(T{std::uint16_t(bits >> 16 * i)});
    }
}

// Gathers both factors from the lanes' fragments, multiplies, and hands the sums back.
template <class T>
void multiply_lanes(void* lanes[32]) {
    constexpr int packed = 4 / int(sizeof(T)), depth = product_depth<T>;
    float a[16][depth], b[depth][8];
    for (int t = 0; t < 32; ++t) {
        const auto& lane = *static_cast<Product*>(lanes[t]);
        const int g = t / 4, c = t % 4 * packed;
        for (int i = 0; i < packed; ++i) {
            for (int v = 0; v < 4; ++v)
                a[g + 8 * (v & 1)][c + i + depth / 2 * (v >> 1)] = factor<T>(lane.a[v], i, lane.site);
            for (int v = 0; v < 2; ++v) b[c + i + depth / 2 * v][g] = factor<T>(lane.b[v], i, lane.site);
        }
    }
    for (int t = 0; t < 32; ++t) {
        float* sums = static_cast<Product*>(lanes[t])->c;
        for (int v = 0; v < 4; ++v)
            for (int k = 0; k < depth; ++k) sums[v] += a[t / 4 + 8 * (v >> 1)][k] * b[k][2 * (t % 4) + (v & 1)];
    }
}

struct Matrices {
    std::uint16_t row[8];
    std::uint32_t* part;
};

template <bool transposed>
void exchange_rows(void* lanes[32]) {
    const auto word = [&](int matrix, int row, int column) -> std::uint32_t {
        return static_cast<Matrices*>(lanes[8 * matrix + row])->row[column];
    };
    for (int t = 0; t < 32; ++t)
        for (int m = 0; m < 4; ++m) {
            const int g = t / 4, c = 2 * (t % 4);
            static_cast<Matrices*>(lanes[t])->part[m] =
                transposed ? word(m, c, g) | word(m, c + 1, g) << 16 : word(m, g, c) | word(m, g, c + 1) << 16;
        }
}

}  // namespace emulation

template <class T>
void multiply_tile(FragmentC& c, const FragmentA& a, const FragmentB& b, ZF_WHERE) {
    emulation::Product mine{c, a, b, ZF_SITE("multiply_tile()")};
    emulation::warp_rendezvous(0xffffffffu, &mine, emulation::multiply_lanes<T>, false, mine.site);
}

template <bool transposed>
void load_matrices(std::uint32_t (&part)[4], const void* row, ZF_WHERE) {
    const emulation::Site site = ZF_SITE("load_matrices()");
    if (reinterpret_cast<std::uintptr_t>(row) % 16) emulation::fail("a misaligned row", site);
    emulation::Matrices mine{{}, part};
    std::memcpy(mine.row, row, 16);
    emulation::warp_rendezvous(0xffffffffu, &mine, emulation::exchange_rows<transposed>, false, site);
}

template <int count, class T>
void copy_async(T* to, const T* from, bool valid) {
    constexpr int size = count * int(sizeof(T));
    static_assert(size == 2 || size == 4 || size == 8 || size == 16);
    const emulation::Site site{"copy_async()", __FILE__, __LINE__};
    if (reinterpret_cast<std::uintptr_t>(to) % size) emulation::fail("a misaligned target", site);
    if (valid && reinterpret_cast<std::uintptr_t>(from) % size) emulation::fail("a misaligned source", site);
    if (size == 2)
        *to = valid ? *from : T{};
    else
        emulation::async_copy({to, valid ? from : nullptr, size});
}

inline void copies_commit() { emulation::async_commit(); }

template <int keep>
inline void copies_wait() {
    emulation::Copy copy;
    while (emulation::async_next(keep, copy))
        if (copy.from)
            std::memcpy(copy.to, copy.from, copy.bytes);
        else
            std::memset(copy.to, 0, copy.bytes);
}

template <class... P>
bool tensor_cores(void (*)(P...)) {
    return true;
}

// Few multiprocessors, so that the tests' blocks have more than one patch each.
inline Device this_device() { return {227 * 1024, 228 * 1024, 2}; }

#endif

// How many blocks of so many bytes of shared memory a multiprocessor holds; the driver takes 1 KB of each.
inline int blocks_at_once(const Device& device, std::int64_t bytes) {
    return bytes > device.block_memory ? 0 : int(device.memory / (bytes + 1024));
}

}  // namespace zf
