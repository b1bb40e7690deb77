// A stack and the point where it stopped. Switching costs a few nanoseconds on x86-64 and a system
// call (swapcontext) elsewhere.
#pragma once

#include <pthread.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <cstddef>
#include <cstdint>
#include <new>

#include "sanitizers.h"

#ifdef __x86_64__
extern "C" void zf_switch_stack(void** save, void* to);
asm(R"(
    .text
    .type zf_switch_stack, @function
zf_switch_stack:
    push %rbp
    push %rbx
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp, (%rdi)
    mov %rsi, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbx
    pop %rbp
    ret
    .size zf_switch_stack, . - zf_switch_stack
)");
#endif

namespace zf::emulation {

class Fiber {
public:
    // The calling OS thread, on its own stack.
    Fiber() : race_(race_fiber()) {
        pthread_attr_t attributes;
        if (pthread_getattr_np(pthread_self(), &attributes)) throw std::bad_alloc();
        pthread_attr_getstack(&attributes, &stack_, &size_);
        pthread_attr_destroy(&attributes);
    }

    // A new stack with a forbidden page below it; `entry` never returns.
    explicit Fiber(void (*entry)()) : size_(stack_bytes), owned_(true), race_(race_create()) {
        void* memory = mmap(nullptr, size_ + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED) throw std::bad_alloc();
        mprotect(memory, page, PROT_NONE);
        stack_ = static_cast<char*>(memory) + page;
#ifdef __x86_64__
        // What zf_switch_stack pops: six registers, then the address to go to. At entry the stack
        // must lie 8 bytes off a multiple of 16, as after a call.
        auto** top = reinterpret_cast<void**>(static_cast<char*>(stack_) + size_) - 8;
        for (int i = 0; i < 8; ++i) top[i] = nullptr;
        top[6] = reinterpret_cast<void*>(entry);
        saved_ = top;
#else
        getcontext(&context_);
        context_.uc_stack.ss_sp = stack_;
        context_.uc_stack.ss_size = size_;
        context_.uc_link = nullptr;
        makecontext(&context_, entry, 0);
#endif
    }

    Fiber(const Fiber&) = delete;
    Fiber& operator=(const Fiber&) = delete;

    // A fiber may be thrown away in mid-kernel, after an error: its frames' marks go with it.
    ~Fiber() {
        if (!owned_) return;
        race_destroy(race_);
        allow(stack_, size_);
        munmap(static_cast<char*>(stack_) - page, size_ + page);
    }

    void switch_to(Fiber& other) {
        leave_stack(&fake_, other.stack_, other.size_);
        race_switch(other.race_);
#ifdef __x86_64__
        zf_switch_stack(&saved_, other.saved_);
#else
        swapcontext(&context_, &other.context_);
#endif
        enter_stack(fake_);
    }

private:
    static constexpr std::size_t page = 4096, stack_bytes = 64 * page;
    void* stack_ = nullptr;
    std::size_t size_ = 0;
    bool owned_ = false;
    void* race_ = nullptr;
    void* fake_ = nullptr;
#ifdef __x86_64__
    void* saved_ = nullptr;
#else
    ucontext_t context_;
#endif
};

}  // namespace zf::emulation
