// CUDA blocks on the CPU, for tests: every CUDA thread is a fiber of the calling OS thread.
//
// A fiber runs until it waits (a block barrier, a warp operation) or ends; then a seeded random
// choice says which ready fiber goes on, so a missing barrier shows in the values. ThreadSanitizer
// and AddressSanitizer are told about fibers: the first sees the threads of all blocks as
// unordered but for the barriers, the second sees each fiber's stack and each shared array's end.
#pragma once

#include <cstddef>
#include <cstdint>

namespace zf::emulation {

struct Index {
    unsigned x, y, z;
    constexpr Index(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

// What one CUDA thread knows of itself: the kernel's threadIdx, blockIdx, blockDim and gridDim.
struct Place {
    Index thread, block, block_size, grid_size;
};

struct Site {
    const char* operation;
    const char* file;
    int line;
};

// Where the running fiber is. Outside a kernel it throws.
const Place& here();

// Run `body(data)` once for every thread of every block, block after block in random order.
// Throws std::runtime_error on sizes that a device refuses, on a barrier that not every thread
// reaches, and on errors inside the kernel; the message holds the schedule's seed.
void run(Index grid, Index block, std::size_t dynamic_shared_bytes, void (*body)(void*), void* data);

// Seed of the schedules to come; at first ZFCORE_EMULATION_SEED or 1.
void seed(std::uint64_t value);

// __syncthreads(): every thread of the block must come to this very line.
void block_barrier(Site site);

// A rendezvous of the lanes in `mask`, which must all come with the same mask and line. The last
// one calls `operation` with every lane's `data` (null outside the mask). `orders_memory` is true
// for __syncwarp() alone: a shuffle moves a value, it does not make earlier writes visible.
using WarpOperation = void (*)(void* lanes[32]);
void warp_rendezvous(unsigned mask, void* data, WarpOperation operation, bool orders_memory, Site site);

// The block's shared memory, filled with 0xff bytes (NaN, -1) when a block begins. `key` names one
// declaration; every declaration ends in memory that AddressSanitizer forbids to touch.
void* shared(const void* key, std::size_t bytes);
void* dynamic_shared();

// Asynchronous copies of the running thread, done as late as CUDA allows: when it waits until at most
// `keep` committed groups are open, the caller makes each copy that `async_next` hands out. A thread that
// ends with copies that nobody waited for is an error.
struct Copy {
    void* to;
    const void* from;  // null: zeros
    std::size_t bytes;
};
void async_copy(const Copy& copy);
void async_commit();
bool async_next(unsigned keep, Copy& copy);

int lane();
[[noreturn]] void fail(const char* text, Site site);

}  // namespace zf::emulation
