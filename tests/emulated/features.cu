// What the emulation promises beyond the kernels that use it today: shuffles with widths and partial
// masks, votes, integer atomics, dynamic shared memory, asynchronous copies, tensor-core fragments.
//
//     features [NAME]    exit 0: as CUDA defines it; NAME asks for one of the faults instead
#include <cstdio>
#include <cstring>
#include <memory>

#include "../../csrc/device.cuh"

namespace zf {

constexpr int lanes = 32;

#define EXPECT(condition) \
    if (!(condition)) atomicAdd(wrong, 1)

__global__ void shuffle_kernel(int* wrong) {
    const int lane = int(threadIdx.x) % lanes, eighth = lane / 8 * 8;
    EXPECT(__shfl_sync(all_lanes, lane, 5) == 5);
    EXPECT(__shfl_sync(all_lanes, lane, 3, 8) == eighth + 3);
    EXPECT(__shfl_up_sync(all_lanes, lane, 2) == (lane < 2 ? lane : lane - 2));
    EXPECT(__shfl_down_sync(all_lanes, lane, 3, 8) == (lane % 8 < 5 ? lane + 3 : lane));
    EXPECT(__shfl_xor_sync(all_lanes, lane, 1) == (lane ^ 1));
    EXPECT(__ballot_sync(all_lanes, lane % 3 == 0) == 0x49249249u);
    EXPECT(__any_sync(all_lanes, lane == 7) && !__all_sync(all_lanes, lane == 7));
    // Two halves of a warp go their own ways and meet only among themselves.
    if (lane < 16) {
        int sum = lane;
        for (int d = 8; d; d /= 2) sum += __shfl_xor_sync(0x0000ffffu, sum, d);
        EXPECT(sum == 120);
    } else {
        EXPECT(__shfl_sync(0xffff0000u, lane * 2, 20) == 40);
    }
    __syncwarp();
    EXPECT(__shfl_sync(all_lanes, 0.5 * lane, 31) == 15.5);  // eight bytes at once
}

__global__ void atomic_kernel(int* wrong, unsigned* counter, int* greatest) {
    atomicAdd(counter, 2u);
    atomicMax(greatest, int(blockIdx.x * blockDim.x + threadIdx.x));
    EXPECT(atomicCAS(counter, 0xffffffffu, 7u) != 0xffffffffu);
}

template <bool waits>
__global__ void copy_kernel(int* wrong, const float* x) {
    DYNAMIC_SHARED(float, memory);
    const int t = int(threadIdx.x);
    copy_async<4>(memory + 4 * t, x + 4 * t, true);
    copies_commit();
    copy_async<1>(memory + 4 * lanes + t, x, t % 2 == 0);
    copies_commit();
    EXPECT(is_nan(memory[4 * t]));  // as late as it may be
    copies_wait<1>();
    EXPECT(memory[4 * t + 3] == x[4 * t + 3] && is_nan(memory[4 * lanes + t]));
    if (waits) copies_wait<0>();
    EXPECT(!waits || memory[4 * lanes + t] == (t % 2 ? 0 : x[0]));
}

// One factor, or the lower of two, in a register.
template <class T>
std::uint32_t factor(float value) {
    if constexpr (std::is_same_v<T, float>)
        return to_tf32(value);
    else
        return narrow<T>(value).bits;
}

// A 16 x depth by depth x 8 product with small integers, through the fragments' documented places.
template <class T, bool rounds>
__global__ void product_kernel(int* wrong) {
    constexpr int depth = product_depth<T>, half = depth / 2, packed = 4 / int(sizeof(T));
    const int t = int(threadIdx.x), g = t / 4, c = t % 4 * packed;
    const auto left = [](int row, int k) { return float(row * 3 - k); };
    const auto right = [](int k, int column) { return float(k * k % 19 - 2 * column); };
    FragmentA a = {};
    FragmentB b = {};
    FragmentC sums = {1, 1, 1, 1};
    for (int i = 0; i < packed; ++i) {
        for (int v = 0; v < 4; ++v) a[v] |= factor<T>(left(g + 8 * (v & 1), c + i + half * (v >> 1))) << 16 * i;
        for (int v = 0; v < 2; ++v) b[v] |= factor<T>(right(c + i + half * v, g)) << 16 * i;
    }
    if (!rounds) a[0] |= 1;
    multiply_tile<T>(sums, a, b);
    for (int v = 0; v < 4; ++v) {
        float expected = 1;
        for (int k = 0; k < depth; ++k) expected += left(g + 8 * (v >> 1), k) * right(k, 2 * (t % 4) + (v & 1));
        EXPECT(sums[v] == expected);
    }
}

// Four 8 x 8 matrices of words 64 matrix + 8 row + column, their rows 16 bytes each and apart by 32.
template <bool aligned>
__global__ void matrices_kernel(int* wrong) {
    SHARED_ARRAY(std::uint16_t, words, [32 * 16 + 8]);
    const int t = int(threadIdx.x), g = t / 4, c = 2 * (t % 4);
    const int first = int((16 - reinterpret_cast<std::uintptr_t>(words) % 16) % 16 / 2) + (aligned ? 0 : 1);
    for (int i = 0; i < 8; ++i) words[first % 8 + 16 * t + i] = std::uint16_t(8 * t + i);
    __syncwarp();
    std::uint32_t part[4];
    load_matrices<false>(part, words + first % 8 + 16 * t);
    for (int m = 0; m < 4; ++m) EXPECT(part[m] == unsigned(64 * m + 8 * g + c) * 0x10001u + 0x10000u);
    load_matrices<true>(part, words + first % 8 + 16 * t);
    for (int m = 0; m < 4; ++m) EXPECT(part[m] == unsigned(64 * m + 8 * c + g) * 0x10001u + 0x80000u);
}

int run(const char* fault) {
    const auto is = [&](const char* other) { return !std::strcmp(fault, other); };
    int wrong = 0, greatest = 0;
    unsigned counter = 0;
    const auto x = std::make_unique<float[]>(4 * lanes);
    for (int i = 0; i < 4 * lanes; ++i) x[i] = float(i + 1);
    launch({3, 64, nullptr}, shuffle_kernel, &wrong);
    launch({5, 96, nullptr}, atomic_kernel, &wrong, &counter, &greatest);
    if (counter != 5 * 96 * 2 || greatest != 5 * 96 - 1) ++wrong;
    const Launch one{2, lanes, nullptr, 5 * lanes * sizeof(float)};
    launch(one, is("unwaited") ? copy_kernel<false> : copy_kernel<true>, &wrong, x.get());
    launch({1, lanes, nullptr}, is("unrounded") ? product_kernel<float, false> : product_kernel<float, true>, &wrong);
    launch({1, lanes, nullptr}, product_kernel<float16, true>, &wrong);
    launch({1, lanes, nullptr}, product_kernel<bfloat16, true>, &wrong);
    launch({1, lanes, nullptr}, is("misaligned") ? matrices_kernel<false> : matrices_kernel<true>, &wrong);
    if (is("grid")) launch({{1, 65536}, lanes, nullptr}, shuffle_kernel, &wrong);
    if (is("block")) launch({1, 1056, nullptr}, shuffle_kernel, &wrong);
    if (is("warp")) launch({1, 40, nullptr}, shuffle_kernel, &wrong);
    if (to_tf32(1.0f + 0x1p-11f) != 0x3f802000u || to_tf32(-1.0f - 0x1p-12f) != 0xbf800000u) ++wrong;
    return wrong != 0;
}

}  // namespace zf

int main(int count, char** words) {
    try {
        return zf::run(count > 1 ? words[1] : "");
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 2;
    }
}
