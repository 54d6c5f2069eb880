// The table of kernels, the settings, and the threads over which the CTAs of a launch go.
#include "engine.h"
#include <atomic>
#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <thread>

namespace emu {
namespace {

std::map<std::string, Kernel> &kernels() {
    static auto *table = new std::map<std::string, Kernel>();
    return *table;
}

const char *variable(const char *name) {
    const char *value = getenv(name);
    return value && *value ? value : nullptr;
}

Order order_named(const char *name) {
    if (!name || !strcmp(name, "forward")) return FORWARD;
    if (!strcmp(name, "reverse")) return REVERSE;
    if (!strcmp(name, "random")) return RANDOM;
    emu_fail("CUDA_EMU_ORDER is forward, reverse or random");
}

bool eager_named(const char *name) {
    if (!name || !strcmp(name, "lazy")) return false;
    if (!strcmp(name, "eager")) return true;
    emu_fail("CUDA_EMU_STREAM is lazy or eager");
}

Settings from_environment() {
    Settings settings;
    settings.order = order_named(variable("CUDA_EMU_ORDER"));
    settings.seed = variable("CUDA_EMU_SEED") ? strtoull(variable("CUDA_EMU_SEED"), nullptr, 0) : 1;
    settings.workers = variable("CUDA_EMU_WORKERS") ? strtoul(variable("CUDA_EMU_WORKERS"), nullptr, 0)
                                                    : std::thread::hardware_concurrency();
    if (!settings.workers) settings.workers = 1;
    settings.eager = eager_named(variable("CUDA_EMU_STREAM"));
    settings.no_device = variable("CUDA_EMU_NO_DEVICE") != nullptr;
    return settings;
}

// What this thread set for itself.
thread_local bool overridden;
thread_local Settings override_settings;
thread_local uint64_t allocations_until_failure;

// OS threads that stay, each running one CTA at a time. CTAs run on no other: a thread's fibers, with all their stacks, live as long as
// the process, and callers may be threads that come and go.
class Pool {
  public:
    // Runs `job` on so many threads; returns when all have returned.
    void run(unsigned workers, std::function<void()> job) {
        std::unique_lock<std::mutex> lock(mutex);
        current = std::move(job);
        generation++;
        wanted = running = workers;
        for (; threads < workers; threads++) {
            std::thread([this, id = threads, seen = generation - 1] { serve(id, seen); }).detach();
        }
        start.notify_all();
        finished.wait(lock, [&] { return running == 0; });
    }

  private:
    void serve(unsigned id, uint64_t seen) {
        std::unique_lock<std::mutex> lock(mutex);
        for (;;) {
            start.wait(lock, [&] { return generation != seen; });
            seen = generation;
            if (id >= wanted) continue;
            lock.unlock();
            current();
            lock.lock();
            if (--running == 0) finished.notify_all();
        }
    }

    std::mutex mutex;
    std::condition_variable start, finished;
    std::function<void()> current;
    uint64_t generation = 0;
    unsigned threads = 0, wanted = 0, running = 0;
};

}  // namespace

Settings settings() { return overridden ? override_settings : from_environment(); }

bool allocation_is_to_fail() {
    if (allocations_until_failure) return --allocations_until_failure == 0;
    static std::atomic<uint64_t> allocations{0};
    const uint64_t number = ++allocations;
    const char *failing = variable("CUDA_EMU_FAIL_ALLOCATION");
    return failing && strtoull(failing, nullptr, 0) == number;
}

const Kernel *find_kernel(const std::string &name) {
    const auto found = kernels().find(name);
    return found == kernels().end() ? nullptr : &found->second;
}

bool launch(const Kernel &kernel, const EmuLaunch &dimensions, void **arguments) {
    const dim3 grid = dimensions.grid, block = dimensions.block;
    const uint64_t threads = static_cast<uint64_t>(block.x) * block.y * block.z;
    const uint64_t ctas = static_cast<uint64_t>(grid.x) * grid.y * grid.z;
    if (!ctas || !threads || threads > MOST_THREADS || block.z > 64) return false;
    if (grid.x > 0x7fffffff || grid.y > 0xffff || grid.z > 0xffff) return false;
    if (dimensions.shared_bytes > MOST_SHARED_BYTES) return false;

    const Settings settings = emu::settings();
    std::atomic<uint64_t> next{0};
    const auto work = [&] {
        for (uint64_t n = next++; n < ctas; n = next++) {
            const uint64_t i = settings.order == REVERSE ? ctas - 1 - n : n;
            const uint64_t rest = i / grid.x;
            const uint3 index = {static_cast<unsigned>(i % grid.x), static_cast<unsigned>(rest % grid.y),
                                 static_cast<unsigned>(rest / grid.y)};
            run_cta(index, dimensions, kernel.entry, arguments, settings);
        }
    };
    static auto *pool = new Pool();
    static std::mutex one_launch_at_a_time;
    std::lock_guard<std::mutex> guard(one_launch_at_a_time);
    const uint64_t workers = settings.workers < ctas ? settings.workers : ctas;
    pool->run(static_cast<unsigned>(workers), work);
    return true;
}

}  // namespace emu

using namespace emu;

void emu_register(const char *name, EmuEntry entry, unsigned parameters, const unsigned *sizes) {
    kernels()[name] = {name, entry, std::vector<unsigned>(sizes, sizes + parameters)};
}

// What lib.rs calls.

EMU_EXPORT int emu_launch(const char *name, const unsigned *grid, const unsigned *block, unsigned shared_bytes,
                          void **arguments) {
    const Kernel *kernel = find_kernel(name);
    if (!kernel) return 1;
    const EmuLaunch dimensions = {{grid[0], grid[1], grid[2]}, {block[0], block[1], block[2]}, shared_bytes};
    return launch(*kernel, dimensions, arguments) ? 0 : 2;
}

EMU_EXPORT unsigned emu_parameters(const char *name, unsigned *sizes, unsigned capacity) {
    const Kernel *kernel = find_kernel(name);
    if (!kernel) return ~0u;
    const unsigned count = static_cast<unsigned>(kernel->parameter_bytes.size());
    for (unsigned i = 0; i < count && i < capacity; i++) sizes[i] = kernel->parameter_bytes[i];
    return count;
}

EMU_EXPORT void emu_override_settings(int order, uint64_t seed, unsigned workers, int eager, int no_device) {
    overridden = true;
    override_settings = {static_cast<Order>(order), seed, workers ? workers : 1, eager != 0, no_device != 0};
}

EMU_EXPORT void emu_fail_allocation(uint64_t number) { allocations_until_failure = number; }
