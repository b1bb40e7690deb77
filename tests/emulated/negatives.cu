// Kernels with one fault each, and the right one: the emulation and the sanitizers must tell them apart.
//
//     negatives NAME    exit 0: nothing was noticed, 1: a wrong value, 2: the emulation's own error
#include <cstdio>
#include <cstring>
#include <memory>
#include <vector>

#include "../../csrc/device.cuh"

namespace zf {

constexpr int threads = 128;

enum Fault { none, barrier, divergent, ended, overrun, shared_overrun, dynamic_overrun, warp_barrier, lane, blocks, unset };

// A block sums its part of x: warps by shuffles, then the warps' sums through shared memory.
template <Fault fault>
__global__ void sum_kernel(float* sums, const float* x, int size) {
    SHARED_ARRAY(float, parts, [threads / 32]);
    DYNAMIC_SHARED(float, copy);
    const int t = int(threadIdx.x), b = int(blockIdx.x), i = b * threads + t;
    float value = (fault == overrun ? i <= size : i < size) ? x[i] : 0;
    if (fault == shared_overrun && t == 0) parts[threads / 32 + b % 1] = value;
    copy[fault == dynamic_overrun && t == threads - 1 ? threads : t] = value;
    if (fault != warp_barrier) __syncwarp();
    value += copy[t ^ 1] - copy[t ^ 1];  // nothing, but it reads the neighbour's
    for (int distance = 16; distance; distance /= 2)
        value += fault == lane && t % 32 >= 16 ? value : __shfl_down_sync(fault == lane ? 0xffffu : all_lanes, value, distance);
    if (t % 32 == 0 && !(fault == unset && t == 32)) parts[t / 32] = value;
    if (fault == ended && t == 77) return;
    if (fault == divergent && t < 64)
        __syncthreads();
    else if (fault != barrier)
        __syncthreads();
    if (t == 0) {
        float total = 0;
        for (int w = 0; w < threads / 32; ++w) total += parts[w];
        sums[fault == blocks ? 0 : b] = total;
    }
}

template <Fault fault>
int run() {
    constexpr int count = 16, size = count * threads - 5;
    const auto x = std::make_unique<float[]>(size), sums = std::make_unique<float[]>(count);
    for (int i = 0; i < size; ++i) x[i] = float(i % 7);
    launch({count, threads, nullptr, threads * sizeof(float)}, sum_kernel<fault>, sums.get(), x.get(), size);
    for (int b = 0; b < count; ++b) {
        float expected = 0;
        for (int i = b * threads; i < (b + 1) * threads && i < size; ++i) expected += x[i];
        if (!(sums[b] == expected)) return 1;
    }
    return 0;
}

int run(const char* name) {
    const auto is = [&](const char* other) { return !std::strcmp(name, other); };
    if (is("none")) return run<none>();
    if (is("barrier")) return run<barrier>();
    if (is("divergent")) return run<divergent>();
    if (is("ended")) return run<ended>();
    if (is("overrun")) return run<overrun>();
    if (is("shared_overrun")) return run<shared_overrun>();
    if (is("dynamic_overrun")) return run<dynamic_overrun>();
    if (is("warp_barrier")) return run<warp_barrier>();
    if (is("lane")) return run<lane>();
    if (is("blocks")) return run<blocks>();
    if (is("unset")) return run<unset>();
    throw std::invalid_argument("no such fault");
}

}  // namespace zf

int main(int, char** words) {
    try {
        return zf::run(words[1]);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 2;
    }
}
