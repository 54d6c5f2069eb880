// Stacks, and switching between them. Built without sanitizers, which are told of every switch through hooks that
// are null when none is loaded.
#include "engine.h"
#include <pthread.h>
#include <sys/mman.h>

extern "C" {
void __sanitizer_start_switch_fiber(void **, const void *, size_t) __attribute__((weak));
void __sanitizer_finish_switch_fiber(void *, const void **, size_t *) __attribute__((weak));
void *__asan_region_is_poisoned(void *, size_t) __attribute__((weak));
void *__tsan_get_current_fiber(void) __attribute__((weak));
void *__tsan_create_fiber(unsigned) __attribute__((weak));
void __tsan_switch_to_fiber(void *, unsigned) __attribute__((weak));
void __tsan_acquire(void *) __attribute__((weak));
void __tsan_release(void *) __attribute__((weak));
void __tsan_read_range(void *, unsigned long) __attribute__((weak));
void __tsan_write_range(void *, unsigned long) __attribute__((weak));
}

__thread EmuThread *emu_cur;
__thread const EmuLaunch *emu_current_launch;

#ifndef EMU_USES_UCONTEXT
// Eight times as fast as swapcontext, which saves the signal mask by a system call.
extern "C" void emu_switch(void **save_stack_pointer, void *load_stack_pointer);
asm(R"(
.text
.globl emu_switch
.hidden emu_switch
.type emu_switch,@function
emu_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp,(%rdi)
    movq %rsi,%rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size emu_switch,.-emu_switch
)");
constexpr int SAVED_REGISTERS = 6;
#endif

namespace emu {

namespace {
constexpr size_t STACK_BYTES = 256 << 10;
constexpr size_t GUARD_BYTES = 4096;
constexpr unsigned TSAN_NO_SYNC = 1;  // a switch orders nothing: only barriers do
}  // namespace

void adopt_thread(Fiber &fiber) {
    pthread_attr_t attributes;
    void *lowest;
    size_t bytes;
    pthread_getattr_np(pthread_self(), &attributes);
    pthread_attr_getstack(&attributes, &lowest, &bytes);
    pthread_attr_destroy(&attributes);
    fiber.stack = static_cast<char *>(lowest);
    fiber.stack_bytes = bytes;
    if (__tsan_get_current_fiber) fiber.tsan_fiber = __tsan_get_current_fiber();
}

void make_fiber(Fiber &fiber, void (*main)()) {
    if (fiber.stack) return;
    void *memory = mmap(nullptr, GUARD_BYTES + STACK_BYTES, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) emu_fail("no memory for the stack of a fiber");
    mprotect(memory, GUARD_BYTES, PROT_NONE);
    fiber.stack = static_cast<char *>(memory) + GUARD_BYTES;
    fiber.stack_bytes = STACK_BYTES;
#ifdef EMU_USES_UCONTEXT
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack;
    fiber.context.uc_stack.ss_size = STACK_BYTES;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, main, 0);
#else
    void **top = reinterpret_cast<void **>(fiber.stack + STACK_BYTES);
    *--top = nullptr;  // keeps rsp % 16 == 8 on entry, as after a call
    *--top = reinterpret_cast<void *>(main);
    for (int i = 0; i < SAVED_REGISTERS; i++) *--top = nullptr;
    fiber.stack_pointer = top;
#endif
    if (__tsan_create_fiber) fiber.tsan_fiber = __tsan_create_fiber(0);
}

void switch_fiber(Fiber &from, Fiber &to) {
    emu_cur = &to.thread;
    if (__sanitizer_start_switch_fiber) __sanitizer_start_switch_fiber(&from.asan_fake_stack, to.stack, to.stack_bytes);
    if (__tsan_switch_to_fiber) __tsan_switch_to_fiber(to.tsan_fiber, TSAN_NO_SYNC);
#ifdef EMU_USES_UCONTEXT
    swapcontext(&from.context, &to.context);
#else
    emu_switch(&from.stack_pointer, to.stack_pointer);
#endif
    if (__sanitizer_finish_switch_fiber) __sanitizer_finish_switch_fiber(from.asan_fake_stack, nullptr, nullptr);
}

void entered_fiber() {
    if (__sanitizer_finish_switch_fiber) __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
}

void acquire(void *cell) {
    if (__tsan_acquire) __tsan_acquire(cell);
}

void release(void *cell) {
    if (__tsan_release) __tsan_release(cell);
}

bool check_copy(void *to, const void *from, size_t bytes) {
    void *source = const_cast<void *>(from);
    if (__tsan_write_range) {
        __tsan_write_range(to, bytes);
        __tsan_read_range(source, bytes);
    }
    if (!__asan_region_is_poisoned) return true;
    return !__asan_region_is_poisoned(to, bytes) && !__asan_region_is_poisoned(source, bytes);
}

}  // namespace emu
