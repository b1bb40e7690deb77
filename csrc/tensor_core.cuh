// Tensor-core products and asynchronous copies, as functions that the emulation has too.
#pragma once

namespace zf {

// c += a b for a 16 x 8 tile, depth 8; factors are tf32 bits. Lane t holds, with g = t / 4 and c = t % 4:
// a[v] = A(g + 8 (v & 1), c + 4 (v >> 1)), b[v] = B(c + 4 v, g), c[v] = C(g + 8 (v >> 1), 2 c + (v & 1)).
using FragmentA = std::uint32_t[4];
using FragmentB = std::uint32_t[2];
using FragmentC = float[4];

#ifdef __CUDACC__

__device__ __forceinline__ void multiply_tf32(FragmentC& c, const FragmentA& a, const FragmentB& b) {
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// To the nearest, ties away from zero.
__device__ __forceinline__ std::uint32_t to_tf32(float x) {
    std::uint32_t bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
    return bits;
}

// `count` floats (1 or 4, aligned to their size) into shared memory, or zeros; there after copies_wait
// and a barrier. Reads nothing where `valid` is false.
template <int count>
__device__ __forceinline__ void copy_async(float* to, const float* from, bool valid) {
    const unsigned target = static_cast<unsigned>(__cvta_generic_to_shared(to));
    const int bytes = valid ? 4 * count : 0;
    if (count == 4)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(target), "l"(from), "r"(bytes) : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(target), "l"(from), "r"(bytes) : "memory");
}

__device__ __forceinline__ void copies_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Until at most `keep` of this thread's groups are open.
template <int keep>
__device__ __forceinline__ void copies_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(keep) : "memory");
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

inline float tf32_value(std::uint32_t bits, const Site& site) {
    if (bits & 0x1fffu) fail("a factor was not rounded to tf32", site);
    float x;
    std::memcpy(&x, &bits, 4);
    return x;
}

// Gathers both factors from the lanes' fragments, multiplies, and hands the sums back.
inline void multiply_lanes(void* lanes[32]) {
    float a[16][8], b[8][8];
    for (int t = 0; t < 32; ++t) {
        const auto& lane = *static_cast<Product*>(lanes[t]);
        const int g = t / 4, c = t % 4;
        for (int v = 0; v < 4; ++v) a[g + 8 * (v & 1)][c + 4 * (v >> 1)] = tf32_value(lane.a[v], lane.site);
        for (int v = 0; v < 2; ++v) b[c + 4 * v][g] = tf32_value(lane.b[v], lane.site);
    }
    for (int t = 0; t < 32; ++t) {
        float* sums = static_cast<Product*>(lanes[t])->c;
        for (int v = 0; v < 4; ++v)
            for (int k = 0; k < 8; ++k) sums[v] += a[t / 4 + 8 * (v >> 1)][k] * b[k][2 * (t % 4) + (v & 1)];
    }
}

}  // namespace emulation

inline void multiply_tf32(FragmentC& c, const FragmentA& a, const FragmentB& b, ZF_WHERE) {
    emulation::Product mine{c, a, b, ZF_SITE("multiply_tf32()")};
    emulation::warp_rendezvous(0xffffffffu, &mine, emulation::multiply_lanes, false, mine.site);
}

template <int count>
inline void copy_async(float* to, const float* from, bool valid) {
    static_assert(count == 1 || count == 4);
    const emulation::Site site{"copy_async()", __FILE__, __LINE__};
    if (reinterpret_cast<std::uintptr_t>(to) % (4 * count)) emulation::fail("a misaligned target", site);
    if (valid && reinterpret_cast<std::uintptr_t>(from) % (4 * count)) emulation::fail("a misaligned source", site);
    emulation::async_copy({to, valid ? from : nullptr, 4 * count});
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

#endif

}  // namespace zf
