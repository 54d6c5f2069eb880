// Runs one CTA: schedules its fibers, and carries out barriers, warp collectives, shared memory and cp.async.
// What CUDA leaves undefined ends the process with a message instead. Built without sanitizers, so that they judge
// the kernels' accesses and not those of the engine.
#include "engine.h"
#include <thread>

namespace emu {
namespace {

// Two cells, used in turn: a thread that leaves a barrier late must not be ordered with the next one.
struct OrderCells {
    char cell[2];
    unsigned phase = 0;
    void *current() { return &cell[phase & 1]; }
};

// Lanes of one mask on their way into a warp collective.
struct Collective {
    uint32_t mask = 0;
    uint32_t arrived = 0;
    int operation = 0;
    uint64_t value[WARP];
    uint32_t source_lane[WARP];
    OrderCells order;
};

struct Warp {
    uint32_t ready = 0;  // lanes that can run
    uint32_t live = 0;   // lanes that have not exited
    Collective collectives[WARP];
};

struct SharedArray {
    const void *tag;  // address of the declaration's own static
    size_t bytes;
    void *memory;
    uint64_t cta;     // the CTA for which it was last poisoned
};

// The CTA that an OS thread runs.
struct Worker {
    Fiber *fibers = new Fiber[MOST_THREADS];
    Warp warps[MOST_THREADS / WARP];
    Fiber main;  // the OS thread itself
    unsigned threads = 0;
    unsigned warp_count = 0;
    unsigned current_warp = 0;
    unsigned live = 0;
    uint64_t cta = 0;  // counts the CTAs this worker has run

    unsigned at_barrier = 0;
    int reduction = EMU_PLAIN;
    uint32_t predicates = 0;
    OrderCells barrier_order;
    char start_cell, end_cell;

    EmuEntry entry = nullptr;
    void **arguments = nullptr;
    std::vector<SharedArray> shared;
    void *dynamic_shared = nullptr;

    Order order = FORWARD;
    uint64_t random_state = 1;
    uint64_t random() {  // xorshift64, Marsaglia 2003
        random_state ^= random_state << 13;
        random_state ^= random_state >> 7;
        random_state ^= random_state << 17;
        return random_state;
    }
};

__thread Worker *worker;

Fiber *self() { return reinterpret_cast<Fiber *>(emu_cur); }

template <class Visit> void for_each_lane(uint32_t mask, Visit visit) {
    for (; mask; mask &= mask - 1) visit(static_cast<unsigned>(__builtin_ctz(mask)));
}

unsigned pick_lane(uint32_t ready) {
    if (worker->order == FORWARD) return __builtin_ctz(ready);
    if (worker->order == REVERSE) return 31 - __builtin_clz(ready);
    for (unsigned skip = worker->random() % __builtin_popcount(ready); skip; skip--) ready &= ready - 1;
    return __builtin_ctz(ready);
}

[[noreturn]] void fail_with_deadlock() {
    const uint3 index = worker->fibers[0].thread.block_index;
    fprintf(stderr, "cuda_emu: DEADLOCK in block (%u,%u,%u): not every thread reached the same barrier\n", index.x,
            index.y, index.z);
    for (unsigned w = 0; w < worker->warp_count; w++) {
        uint32_t in_block = 0, in_warp = 0, exited = 0;
        for (unsigned i = w * WARP; i < (w + 1) * WARP && i < worker->threads; i++) {
            const State state = worker->fibers[i].state;
            uint32_t &lanes = state == State::IN_BLOCK ? in_block : state == State::IN_WARP ? in_warp : exited;
            lanes |= 1u << i % WARP;
        }
        fprintf(stderr, "  warp %u: in __syncthreads %08x, in a warp collective %08x, exited %08x\n", w, in_block,
                in_warp, exited);
        for (const Collective &c : worker->warps[w].collectives) {
            if (c.arrived) fprintf(stderr, "    collective of mask %08x, arrived %08x\n", c.mask, c.arrived);
        }
    }
    abort();
}

// The next fiber to run; stays in a warp while that has lanes that can. The OS thread itself when all have exited.
Fiber &next_fiber() {
    const unsigned count = worker->warp_count;
    unsigned start = worker->current_warp;
    if (worker->order == RANDOM && !worker->warps[start].ready) start = worker->random() % count;
    for (unsigned i = 0; i < count; i++) {
        const unsigned w = worker->order == REVERSE ? (start + count - i) % count : (start + i) % count;
        Warp &warp = worker->warps[w];
        if (!warp.ready) continue;
        worker->current_warp = w;
        const unsigned lane = pick_lane(warp.ready);
        warp.ready &= ~(1u << lane);
        return worker->fibers[w * WARP + lane];
    }
    if (worker->live == 0) return worker->main;
    fail_with_deadlock();
}

// Runs something else until this fiber is picked again.
void wait(Fiber &me) {
    Fiber &next = next_fiber();
    if (&next != &me) switch_fiber(me, next);  // the last to arrive may be the first to go on
}

uint32_t reduced_predicates() {
    switch (worker->reduction) {
        case EMU_COUNT: return worker->predicates;
        case EMU_ALL: return worker->predicates == worker->live;
        case EMU_ANY: return worker->predicates != 0;
        default: return 0;
    }
}

void open_barrier_if_all_arrived() {
    if (worker->live == 0 || worker->at_barrier != worker->live) return;
    const uint32_t result = reduced_predicates();
    for (unsigned i = 0; i < worker->threads; i++) {
        Fiber &fiber = worker->fibers[i];
        if (fiber.state != State::IN_BLOCK) continue;
        fiber.state = State::READY;
        fiber.result = result;
        worker->warps[i / WARP].ready |= 1u << i % WARP;
    }
    worker->at_barrier = 0;
    worker->predicates = 0;
    worker->barrier_order.phase++;
}

void fiber_main() {
    Fiber &me = *self();
    entered_fiber();
    for (;;) {  // one turn a CTA
        acquire(&worker->start_cell);
        worker->entry(worker->arguments);
        release(&worker->end_cell);
        if (!me.copies.empty()) emu_fail("thread exited with cp.async copies that it never waited for");
        me.state = State::DONE;
        worker->live--;
        worker->warps[me.thread.warp].live &= ~(1u << me.thread.lane);
        open_barrier_if_all_arrived();  // __syncthreads waits for the threads that have not exited
        wait(me);
    }
}

void *allocate_shared(size_t alignment, size_t bytes) {
    void *memory;
    // No more than asked for, so that AddressSanitizer sees the first byte beyond.
    if (posix_memalign(&memory, alignment, bytes)) emu_fail("no memory for shared memory");
    return memory;
}

void prepare_thread(unsigned i, uint3 index, const dim3 &block) {
    Fiber &fiber = worker->fibers[i];
    make_fiber(fiber, fiber_main);
    fiber.state = State::READY;
    fiber.copies.clear();
    fiber.committed_groups = 0;
    fiber.thread.block_index = index;
    fiber.thread.thread_index = {i % block.x, i / block.x % block.y, i / (block.x * block.y)};
    fiber.thread.lane = i % WARP;
    fiber.thread.warp = i / WARP;
    Warp &warp = worker->warps[i / WARP];
    warp.ready |= 1u << i % WARP;
    warp.live |= 1u << i % WARP;
}

// The slot of this mask. One slot a mask, because the parts of a diverged warp may be in different collectives.
Collective &slot_of(Warp &warp, uint32_t mask) {
    Collective *unused = nullptr;
    for (Collective &c : warp.collectives) {
        if (c.mask == mask) return c;
        if (!unused && !c.arrived) unused = &c;
    }
    return *unused;  // 32 slots, and each that is in use holds a lane
}

// What every lane of the mask gets, for the operations where that is the same.
uint64_t common_result(const Collective &c) {
    const uint64_t first = c.value[__builtin_ctz(c.mask)];
    uint64_t result = c.operation == EMU_MATCH_ALL ? c.mask : 0;
    if (c.operation == EMU_MIN || c.operation == EMU_MAX || c.operation == EMU_AND) result = first;
    for_each_lane(c.mask, [&](unsigned lane) {
        const uint64_t value = c.value[lane];
        switch (c.operation) {
            case EMU_BALLOT: result |= (value & 1) << lane; break;
            case EMU_MATCH_ALL: result = value == first ? result : 0; break;
            case EMU_ADD: result = static_cast<uint32_t>(result + value); break;
            case EMU_MIN: result = value < result ? value : result; break;
            case EMU_MAX: result = value > result ? value : result; break;
            case EMU_AND: result &= value; break;
            case EMU_OR: result |= value; break;
            case EMU_XOR: result ^= value; break;
            default: break;
        }
    });
    return result;
}

uint64_t matching_lanes(const Collective &c, uint64_t value) {
    uint64_t lanes = 0;
    for_each_lane(c.mask, [&](unsigned lane) { lanes |= c.value[lane] == value ? 1ull << lane : 0; });
    return lanes;
}

void finish_collective(Warp &warp, Collective &c, const Fiber &me) {
    c.arrived = 0;
    c.order.phase++;
    const uint64_t common = common_result(c);
    for_each_lane(c.mask, [&](unsigned lane) {
        Fiber &fiber = worker->fibers[me.thread.warp * WARP + lane];
        fiber.result = common;
        if (c.operation == EMU_SHUFFLE) fiber.result = c.value[c.source_lane[lane]];
        if (c.operation == EMU_MATCH_ANY) fiber.result = matching_lanes(c, c.value[lane]);
        fiber.state = State::READY;
    });
    warp.ready |= c.mask & ~(1u << me.thread.lane);
}

}  // namespace

void run_cta(uint3 index, const EmuLaunch &dimensions, EmuEntry entry, void **arguments, const Settings &settings) {
    if (!worker) {
        worker = new Worker();  // for as long as the process: the fibers keep their stacks
        adopt_thread(worker->main);
    }
    const dim3 &block = dimensions.block;
    worker->order = settings.order;
    worker->random_state = settings.seed * 0x9E3779B97F4A7C15ull + 88172645463325252ull + index.x;
    if (!worker->random_state) worker->random_state = 1;
    worker->threads = block.x * block.y * block.z;
    worker->warp_count = (worker->threads + WARP - 1) / WARP;
    worker->current_warp = settings.order == REVERSE ? worker->warp_count - 1 : 0;
    worker->live = worker->threads;
    worker->at_barrier = 0;
    worker->predicates = 0;
    worker->entry = entry;
    worker->arguments = arguments;
    worker->cta++;

    free(worker->dynamic_shared);
    worker->dynamic_shared = nullptr;
    if (dimensions.shared_bytes) {
        worker->dynamic_shared = allocate_shared(128, dimensions.shared_bytes);
        fill(worker->dynamic_shared, UNWRITTEN, dimensions.shared_bytes);
    }
    for (unsigned w = 0; w < worker->warp_count; w++) {
        worker->warps[w].ready = 0;
        worker->warps[w].live = 0;
    }
    for (unsigned i = 0; i < worker->threads; i++) prepare_thread(i, index, block);

    release(&worker->start_cell);
    emu_current_launch = &dimensions;
    switch_fiber(worker->main, next_fiber());
    acquire(&worker->end_cell);
    emu_cur = nullptr;
}

}  // namespace emu

using namespace emu;

extern "C" {

void emu_fail(const char *message) {
    fprintf(stderr, "cuda_emu: %s", message);
    if (emu_cur) {
        const uint3 block = emu_cur->block_index, thread = emu_cur->thread_index;
        fprintf(stderr, " [block %u,%u,%u thread %u,%u,%u]", block.x, block.y, block.z, thread.x, thread.y, thread.z);
    }
    fputc('\n', stderr);
    abort();
}

uint64_t emu_collective(int operation, uint32_t mask, uint64_t value, uint32_t source_lane) {
    Fiber &me = *self();
    const unsigned lane = me.thread.lane;
    Warp &warp = worker->warps[me.thread.warp];
    if (!(mask >> lane & 1)) emu_fail("warp collective: the calling lane is not in its mask");
    if (mask & ~warp.live) emu_fail("warp collective: the mask names a lane that has exited or does not exist");
    if (operation == EMU_SHUFFLE && !(mask >> (source_lane & 31) & 1)) {
        emu_fail("__shfl*_sync reads a lane outside the mask");
    }
    Collective &c = slot_of(warp, mask);
    if (!c.arrived) {
        c.mask = mask;
        c.operation = operation;
    } else if (c.operation != operation) {
        emu_fail("warp collective: lanes of one mask meet in different operations");
    }
    c.value[lane] = value;
    c.source_lane[lane] = source_lane & 31;
    c.arrived |= 1u << lane;
    // Of the warp's collectives only __syncwarp orders memory (CUDA programming guide, warp vote and shuffle).
    void *cell = operation == EMU_SYNCWARP ? c.order.current() : nullptr;
    if (cell) release(cell);
    if (c.arrived == mask) {
        finish_collective(warp, c, me);
    } else {
        me.state = State::IN_WARP;
        wait(me);
    }
    if (cell) acquire(cell);
    return me.result;
}

uint32_t emu_syncthreads(int reduction, uint32_t predicate) {
    Fiber &me = *self();
    if (worker->at_barrier == 0) {
        worker->reduction = reduction;
    } else if (worker->reduction != reduction) {
        emu_fail("threads meet in different kinds of __syncthreads");
    }
    void *cell = worker->barrier_order.current();
    release(cell);
    me.state = State::IN_BLOCK;
    worker->at_barrier++;
    worker->predicates += predicate;
    open_barrier_if_all_arrived();
    wait(me);  // the last to arrive queues too, so that the order applies to all
    acquire(cell);
    return static_cast<uint32_t>(me.result);
}

void *emu_shared(const void *tag, size_t bytes, size_t alignment) {
    SharedArray *found = nullptr;
    for (SharedArray &array : worker->shared) {
        if (array.tag == tag) found = &array;
    }
    if (!found) {
        worker->shared.push_back({tag, bytes, allocate_shared(alignment, bytes), 0});
        found = &worker->shared.back();
    }
    if (found->cta != worker->cta) {
        found->cta = worker->cta;
        fill(found->memory, UNWRITTEN, bytes);
        release(found->memory);
    } else {
        acquire(found->memory);
    }
    return found->memory;
}

void *emu_dynamic_shared() {
    if (!worker->dynamic_shared) emu_fail("the kernel uses dynamic shared memory and was launched with none");
    return worker->dynamic_shared;
}

void emu_yield() {
    Fiber &me = *self();
    worker->warps[me.thread.warp].ready |= 1u << me.thread.lane;
    worker->current_warp = (worker->current_warp + 1) % worker->warp_count;
    wait(me);
    std::this_thread::yield();  // for the CTA that it may be waiting for
}

// The bytes arrive at the wait, not before, so that a missing wait shows.
void emu_cp_async(void *shared, const void *global, unsigned bytes) {
    if (bytes != 4 && bytes != 8 && bytes != 16) emu_fail("cp.async: copies 4, 8 or 16 bytes");
    if ((reinterpret_cast<uintptr_t>(shared) | reinterpret_cast<uintptr_t>(global)) % bytes) {
        emu_fail("cp.async: misaligned address");
    }
    if (!check_copy(shared, global, bytes)) emu_fail("cp.async: out of bounds");
    fill(shared, IN_FLIGHT, bytes);
    self()->copies.push_back({shared, global, bytes, self()->committed_groups});
}

void emu_cp_commit() { self()->committed_groups++; }

// At most `groups_left` of the newest committed groups stay pending, and so do copies that were never committed.
void emu_cp_wait(unsigned groups_left) {
    Fiber &me = *self();
    std::vector<AsyncCopy> pending;
    for (const AsyncCopy &copy : me.copies) {
        if (copy.group + groups_left >= me.committed_groups) {
            pending.push_back(copy);
            continue;
        }
        volatile char *to = static_cast<volatile char *>(copy.shared);
        const volatile char *from = static_cast<const volatile char *>(copy.global);
        for (unsigned i = 0; i < copy.bytes; i++) to[i] = from[i];
    }
    me.copies.swap(pending);
}
}
