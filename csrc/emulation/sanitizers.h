// The sanitizers' fiber interfaces, or nothing where the program is built without them.
// The runtime itself is never instrumented for ThreadSanitizer: ZF_THREAD_SANITIZER says that the
// rest of the program is.
#pragma once

#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define ZF_ADDRESS_SANITIZER 1
#endif

#ifdef ZF_THREAD_SANITIZER
extern "C" {
void* __tsan_get_current_fiber();
void* __tsan_create_fiber(unsigned flags);
void __tsan_destroy_fiber(void* fiber);
void __tsan_switch_to_fiber(void* fiber, unsigned flags);
void __tsan_acquire(void* address);
void __tsan_release(void* address);
void AnnotateIgnoreReadsBegin(const char* file, int line);
void AnnotateIgnoreReadsEnd(const char* file, int line);
void AnnotateIgnoreWritesBegin(const char* file, int line);
void AnnotateIgnoreWritesEnd(const char* file, int line);
}
#endif

namespace zf::emulation {

#ifdef ZF_THREAD_SANITIZER
constexpr bool checks_races = true;
inline void* race_fiber() { return __tsan_get_current_fiber(); }
inline void* race_create() { return __tsan_create_fiber(0); }
inline void race_destroy(void* fiber) { __tsan_destroy_fiber(fiber); }
inline void race_switch(void* fiber) { __tsan_switch_to_fiber(fiber, 1); }  // 1: orders nothing
inline void race_acquire(void* object) { __tsan_acquire(object); }
inline void race_release(void* object) { __tsan_release(object); }
// The runtime's own accesses to lanes' data and shared memory are no part of the kernel.
struct RaceIgnore {
    RaceIgnore() { AnnotateIgnoreReadsBegin(__FILE__, __LINE__), AnnotateIgnoreWritesBegin(__FILE__, __LINE__); }
    ~RaceIgnore() { AnnotateIgnoreWritesEnd(__FILE__, __LINE__), AnnotateIgnoreReadsEnd(__FILE__, __LINE__); }
};
#else
constexpr bool checks_races = false;
inline void* race_fiber() { return nullptr; }
inline void* race_create() { return nullptr; }
inline void race_destroy(void*) {}
inline void race_switch(void*) {}
inline void race_acquire(void*) {}
inline void race_release(void*) {}
struct RaceIgnore {
    RaceIgnore() {}
};
#endif

#ifdef ZF_ADDRESS_SANITIZER
inline void leave_stack(void** fake, const void* bottom, std::size_t size) {
    __sanitizer_start_switch_fiber(fake, bottom, size);
}
inline void enter_stack(void* fake) { __sanitizer_finish_switch_fiber(fake, nullptr, nullptr); }
inline void forbid(const void* memory, std::size_t bytes) { __asan_poison_memory_region(memory, bytes); }
inline void allow(const void* memory, std::size_t bytes) { __asan_unpoison_memory_region(memory, bytes); }
#else
inline void leave_stack(void**, const void*, std::size_t) {}
inline void enter_stack(void*) {}
inline void forbid(const void*, std::size_t) {}
inline void allow(const void*, std::size_t) {}
#endif

}  // namespace zf::emulation
