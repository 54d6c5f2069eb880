// What the parts of the emulator share: fibers, the CTA that a worker runs, settings, the table of kernels.
#pragma once
#include "cuda_emu.h"
// The macros of the kernels' language would meet names of the standard library.
#undef threadIdx
#undef blockIdx
#undef blockDim
#undef gridDim
#include <cstdlib>
#include <string>
#include <vector>
#if !defined(__x86_64__) || defined(EMU_UCONTEXT)
#define EMU_USES_UCONTEXT 1
#include <ucontext.h>
#endif

#define EMU_EXPORT extern "C" __attribute__((visibility("default")))

namespace emu {

constexpr unsigned WARP = 32;
constexpr unsigned MOST_THREADS = 1024;             // per CTA
constexpr unsigned MOST_SHARED_BYTES = 227 * 1024;  // per CTA, as on sm_90
constexpr char UNWRITTEN = static_cast<char>(0xA5); // what memory that nobody has written reads as
constexpr char IN_FLIGHT = static_cast<char>(0xC5); // what the target of a pending cp.async reads as

// ---- settings: environment variables, which a thread may override for what it launches itself --------------------

enum Order { FORWARD, REVERSE, RANDOM };
struct Settings {
    Order order;
    uint64_t seed;
    unsigned workers;
    bool eager;      // streams run their work when it is submitted, not as late as they may
    bool no_device;
};
Settings settings();
// True when this allocation of device or pinned memory is the one that is to fail.
bool allocation_is_to_fail();

// ---- fibers (fiber.cpp) --------------------------------------------------------------------------------------------

enum class State : uint8_t { READY, IN_WARP, IN_BLOCK, DONE };

struct AsyncCopy {
    void *shared;
    const void *global;
    unsigned bytes;
    unsigned group;
};

struct Fiber {
    EmuThread thread;  // first, because emu_cur points here
    void *stack_pointer = nullptr;
#ifdef EMU_USES_UCONTEXT
    ucontext_t context;
#endif
    char *stack = nullptr;
    size_t stack_bytes = 0;
    void *tsan_fiber = nullptr;
    void *asan_fake_stack = nullptr;
    State state = State::DONE;
    uint64_t result = 0;  // of the collective or barrier it waited for
    std::vector<AsyncCopy> copies;
    unsigned committed_groups = 0;
};
static_assert(offsetof(Fiber, thread) == 0, "emu_cur is cast to the fiber");

// Makes the calling OS thread's own stack known as a fiber.
void adopt_thread(Fiber &fiber);
// Gives a fiber a stack, once; `main` is what it runs, and must never return.
void make_fiber(Fiber &fiber, void (*main)());
void switch_fiber(Fiber &from, Fiber &to);
// What runs first on a fiber's stack.
void entered_fiber();

// Edges of "happens before" for ThreadSanitizer; nothing without it.
void acquire(void *cell);
void release(void *cell);
// What the sanitizers must know of a copy that the engine makes on a kernel's behalf. False: out of bounds.
bool check_copy(void *to, const void *from, size_t bytes);

// Plain stores that the compiler cannot turn into memset, which sanitizers intercept.
inline void fill(void *memory, char value, size_t bytes) {
    volatile char *byte = static_cast<volatile char *>(memory);
    for (size_t i = 0; i < bytes; i++) byte[i] = value;
}

// ---- running (engine.cpp) and launching (launch.cpp) ------------------------------------------------------------------

struct Kernel {
    std::string name;
    EmuEntry entry;
    std::vector<unsigned> parameter_bytes;
};
// Null when there is none of that name. Kernels live as long as the process.
const Kernel *find_kernel(const std::string &name);
// False when CUDA would refuse these dimensions.
bool launch(const Kernel &kernel, const EmuLaunch &dimensions, void **arguments);

void run_cta(uint3 index, const EmuLaunch &dimensions, EmuEntry entry, void **arguments, const Settings &settings);

}  // namespace emu
