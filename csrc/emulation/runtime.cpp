#include "runtime.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "fiber.h"

// Compiled without -fsanitize=thread, so that the schedule's own state is invisible to it.

namespace zf::emulation {
namespace {

constexpr unsigned most_threads = 1024, warp_size = 32;
constexpr unsigned most_copies = 128;  // in flight, of one thread
constexpr unsigned fiber_sets = checks_races ? 3 : 1;
constexpr std::size_t most_shared = 227 * 1024, guard = 64;

enum class State { ready, waits_for_block, waits_for_warp, ended };

struct AsyncCopy {
    Copy copy;
    unsigned group;
};

struct Thread {
    Fiber* fiber = nullptr;
    AsyncCopy copies[most_copies];  // a ring of those not yet made
    unsigned made = 0, asked = 0, groups = 0;  // copies so far, and committed groups
    Place place;
    State state = State::ready;
    Site site{};
    void* data = nullptr;
};

struct Rendezvous {
    unsigned mask = 0, arrived = 0, number = 0;  // open while somebody has arrived
    Site site{};
};

struct Warp {
    Rendezvous rendezvous[warp_size];  // each open one holds a waiting lane
    unsigned count = 0;
};

// What a block owns. The objects that order its threads and its shared memory have addresses of
// their own: reused ones would order, for ThreadSanitizer, the threads of two blocks.
struct Block {
    char begin = 0, barriers[2] = {}, warp_barriers[warp_size][64] = {};
    std::unique_ptr<char[]> memory;
    std::size_t capacity = 0, used = guard;
    std::vector<std::pair<const void*, void*>> declared;

    explicit Block(std::size_t bytes) : memory(new char[bytes]), capacity(bytes) { forbid(memory.get(), bytes); }
    ~Block() { allow(memory.get(), capacity); }

    void* take(std::size_t bytes) {
        const std::size_t start = used;
        used = (start + bytes + guard + 15) / 16 * 16;
        if (used > capacity) throw std::runtime_error("emulation: out of shared memory");
        char* result = memory.get() + (start + 15) / 16 * 16;
        allow(result, bytes);
        const RaceIgnore ignore;
        std::memset(result, 0xff, bytes);
        return result;
    }
};

bool same(const Site& a, const Site& b) { return a.line == b.line && !std::strcmp(a.file, b.file); }

std::string text(const Site& site) {
    const char* name = std::strrchr(site.file, '/');
    return std::string(site.operation) + " at " + (name ? name + 1 : site.file) + ":" + std::to_string(site.line);
}

// splitmix64: small, seeded, the same everywhere.
struct Random {
    std::uint64_t state;
    std::uint64_t next() {
        std::uint64_t z = state += 0x9e3779b97f4a7c15u;
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
        z = (z ^ z >> 27) * 0x94d049bb133111ebu;
        return z ^ z >> 31;
    }
    unsigned below(unsigned count) { return static_cast<unsigned>((next() >> 32) * count >> 32); }
};

std::uint64_t first_seed() {
    const char* value = std::getenv("ZFCORE_EMULATION_SEED");
    return value ? std::strtoull(value, nullptr, 10) : 1;
}

// All that one OS thread needs to run blocks, one launch at a time.
struct Machine {
    Fiber main;
    std::vector<std::unique_ptr<Fiber>> fibers;
    Thread threads[most_threads];
    Warp warps[warp_size];
    unsigned count = 0, ready[most_threads] = {}, ready_count = 0, running = 0;
    unsigned at_barrier = 0, generation = 0;
    Site barrier_site{};
    Block* block = nullptr;
    void* dynamic = nullptr;
    void (*body)(void*) = nullptr;
    void* data = nullptr;
    char end = 0;
    std::exception_ptr error;
    std::uint64_t seed = first_seed(), launches = 0;
    Random random{seed};

    void wake(unsigned thread) {
        threads[thread].state = State::ready;
        ready[ready_count++] = thread;
    }

    // Leave the running fiber for a ready one; for main when there is none, or after an error.
    void go_on(Fiber& from, bool from_main = false) {
        if (!ready_count || error) {
            if (!from_main) from.switch_to(main);
            return;
        }
        const unsigned choice = random.below(ready_count), before = running;
        running = ready[choice];
        ready[choice] = ready[--ready_count];
        if (from_main || running != before) from.switch_to(*threads[running].fiber);
    }

    void wait() {
        const unsigned self = running;
        go_on(*threads[self].fiber);
    }

    std::string stuck() const;
    void run_block(Index where, Index block_size, Index grid_size, std::size_t shared_bytes);
};

thread_local std::unique_ptr<Machine> machine;
thread_local bool in_kernel = false;

Machine& current() {
    if (!in_kernel) throw std::runtime_error("emulation: a device function was called outside a kernel");
    return *machine;
}

// A fiber runs one thread of each block, for ever.
void entry() {
    enter_stack(nullptr);
    for (;;) {
        Machine& m = *machine;
        race_acquire(&m.block->begin);
        try {
            m.body(m.data);
            if (m.threads[m.running].made != m.threads[m.running].asked)
                throw std::runtime_error("emulation: a thread ended with asynchronous copies that it never waited for");
        } catch (...) {
            if (!m.error) m.error = std::current_exception();
        }
        race_release(&m.end);
        m.threads[m.running].state = State::ended;
        m.wait();
    }
}

std::string Machine::stuck() const {
    std::map<std::string, unsigned> groups;
    for (unsigned t = 0; t < count; ++t)
        ++groups[threads[t].state == State::ended ? "have ended" : "wait in " + text(threads[t].site)];
    std::string result = "divergent barrier:";
    const char* separator = " ";
    for (const auto& [group, size] : groups) {
        result += separator + std::to_string(size) + " threads " + group;
        separator = ", ";
    }
    return result;
}

void Machine::run_block(Index where, Index block_size, Index grid_size, std::size_t shared_bytes) {
    // Other fibers than the last block's, mostly: barriers order the fibers of one block, and every
    // later block of the same fibers, but two sets have nothing in common.
    const unsigned set = random.below(fiber_sets) * count;
    for (unsigned t = 0; t < count; ++t) {
        Thread& thread = threads[t];
        thread.fiber = fibers[set + t].get();
        const unsigned x = t % block_size.x, y = t / block_size.x % block_size.y, z = t / block_size.x / block_size.y;
        thread.place = {{x, y, z}, where, block_size, grid_size};
        thread.state = State::ready;
        thread.made = thread.asked = thread.groups = 0;
        ready[t] = t;
    }
    ready_count = count;
    at_barrier = generation = 0;
    for (Warp& warp : warps) warp = Warp{};
    dynamic = shared_bytes ? block->take(shared_bytes) : nullptr;
    race_release(&block->begin);
    in_kernel = true;
    go_on(main, true);
    in_kernel = false;
    if (error) return;
    if (!std::all_of(threads, threads + count, [](const Thread& t) { return t.state == State::ended; }))
        error = std::make_exception_ptr(std::runtime_error(stuck()));
}

void check_limits(Index grid, Index block, std::size_t shared_bytes) {
    const std::uint64_t threads = std::uint64_t(block.x) * block.y * block.z;
    if (threads == 0 || threads > most_threads || block.z > 64)
        throw std::runtime_error("emulation: a block of " + std::to_string(threads) + " threads");
    if (threads % warp_size) throw std::runtime_error("emulation: a block that is no whole number of warps");
    if (!grid.x || !grid.y || !grid.z || grid.x > 0x7fffffff || grid.y > 65535 || grid.z > 65535)
        throw std::runtime_error("emulation: a grid of " + std::to_string(grid.x) + " x " + std::to_string(grid.y) +
                                 " x " + std::to_string(grid.z) + " blocks");
    if (shared_bytes > most_shared) throw std::runtime_error("emulation: too much shared memory");
}

}  // namespace

const Place& here() {
    Machine& m = current();
    return m.threads[m.running].place;
}

void seed(std::uint64_t value) {
    if (!machine) machine = std::make_unique<Machine>();
    machine->seed = value;
    machine->launches = 0;
}

void run(Index grid, Index block, std::size_t shared_bytes, void (*body)(void*), void* data) {
    if (in_kernel) throw std::runtime_error("emulation: a kernel launched a kernel");
    check_limits(grid, block, shared_bytes);
    if (!machine) machine = std::make_unique<Machine>();
    Machine& m = *machine;
    m.random = Random{m.seed * 0x2545f4914f6cdd1du + m.launches};
    m.body = body;
    m.data = data;
    m.count = block.x * block.y * block.z;
    while (m.fibers.size() < fiber_sets * m.count) m.fibers.push_back(std::make_unique<Fiber>(entry));

    // Blocks in random order: a permutation i -> (i * step + first) mod blocks, step coprime.
    const std::uint64_t blocks = std::uint64_t(grid.x) * grid.y * grid.z;
    std::uint64_t step = m.random.next() % blocks | 1, first = m.random.next() % blocks;
    const auto gcd = [](std::uint64_t a, std::uint64_t b) {
        while (b) a %= b, std::swap(a, b);
        return a;
    };
    while (gcd(step, blocks) != 1) step += 2;
    if (blocks > 0xffffffffu) step = 1, first = 0;

    std::vector<std::unique_ptr<Block>> kept;
    std::size_t capacity = most_shared + 64 * guard;
    for (std::uint64_t i = 0; i < blocks && !m.error; ++i) {
        if (kept.empty() || checks_races) {
            if (!kept.empty()) capacity = kept.front()->used + 4 * guard;
            kept.push_back(std::make_unique<Block>(capacity));
        }
        m.block = kept.back().get();
        forbid(m.block->memory.get(), m.block->capacity);
        m.block->used = guard;
        m.block->declared.clear();
        const std::uint64_t b = (i * step + first) % blocks;
        const Index where{unsigned(b % grid.x), unsigned(b / grid.x % grid.y), unsigned(b / grid.x / grid.y)};
        m.run_block(where, block, grid, shared_bytes);
    }
    race_acquire(&m.end);
    ++m.launches;
    if (m.error) {
        const std::string schedule = " (schedule seed " + std::to_string(m.seed) + ")";
        m.fibers.clear();  // some stopped in mid-kernel
        const std::exception_ptr error = std::exchange(m.error, nullptr);
        try {
            std::rethrow_exception(error);
        } catch (const std::exception& caught) {
            throw std::runtime_error(caught.what() + schedule);
        }
    }
}

void fail(const char* what, Site site) { throw std::runtime_error(text(site) + ": " + what); }

void block_barrier(Site site) {
    Machine& m = current();
    Thread& self = m.threads[m.running];
    if (m.at_barrier && !same(m.barrier_site, site))
        fail(("divergent barrier: another thread waits in " + text(m.barrier_site)).c_str(), site);
    m.barrier_site = site;
    char* object = &m.block->barriers[m.generation & 1];
    race_release(object);
    self.state = State::waits_for_block;
    self.site = site;
    if (++m.at_barrier == m.count) {
        m.at_barrier = 0;
        ++m.generation;
        for (unsigned t = 0; t < m.count; ++t) m.wake(t);
    }
    m.wait();
    race_acquire(object);
}

void warp_rendezvous(unsigned mask, void* data, WarpOperation operation, bool orders_memory, Site site) {
    Machine& m = current();
    const unsigned number = m.running, first = number / warp_size * warp_size, bit = 1u << (number - first);
    Warp& warp = m.warps[number / warp_size];
    if (!(mask & bit)) fail("the lane is not in its own mask", site);
    Rendezvous* meeting = nullptr;
    for (Rendezvous& r : warp.rendezvous) {
        if (r.arrived && r.mask == mask && same(r.site, site)) {
            meeting = &r;
            break;
        }
        if (!r.arrived && !meeting) meeting = &r;
    }
    if (!meeting->arrived) *meeting = {mask, 0, warp.count++, site};
    char* object = &m.block->warp_barriers[number / warp_size][meeting->number % 64];
    if (orders_memory) race_release(object);
    meeting->arrived |= bit;
    Thread& self = m.threads[number];
    self.state = State::waits_for_warp;
    self.site = site;
    self.data = data;
    if (meeting->arrived == mask) {
        void* lanes[warp_size] = {};
        for (unsigned i = 0; i < warp_size; ++i)
            if (mask >> i & 1) lanes[i] = m.threads[first + i].data;
        if (operation) {
            const RaceIgnore ignore;
            operation(lanes);
        }
        meeting->arrived = 0;
        for (unsigned i = 0; i < warp_size; ++i)
            if (mask >> i & 1) m.wake(first + i);
    }
    m.wait();
    if (orders_memory) race_acquire(object);
}

void* shared(const void* key, std::size_t bytes) {
    Block& block = *current().block;
    for (const auto& [known, memory] : block.declared)
        if (known == key) return memory;
    void* memory = block.take(bytes);
    block.declared.emplace_back(key, memory);
    return memory;
}

void* dynamic_shared() { return current().dynamic; }

void async_copy(const Copy& copy) {
    Thread& self = current().threads[current().running];
    if (self.asked - self.made == most_copies) throw std::runtime_error("emulation: too many asynchronous copies");
    self.copies[self.asked++ % most_copies] = {copy, self.groups};
}

void async_commit() { ++current().threads[current().running].groups; }

bool async_next(unsigned keep, Copy& copy) {
    Thread& self = current().threads[current().running];
    const AsyncCopy& oldest = self.copies[self.made % most_copies];
    if (self.made == self.asked || oldest.group + keep >= self.groups) return false;
    copy = oldest.copy;
    ++self.made;
    return true;
}

int lane() { return int(current().running % warp_size); }

}  // namespace zf::emulation
