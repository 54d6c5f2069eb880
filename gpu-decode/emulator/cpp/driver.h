// State of the stand-in for libcuda: handles, streams, captures. The driver interface itself is in driver.cpp
// (device, modules, launches), stream.cpp (streams, events, graphs) and memory.cpp.
#pragma once
#include "engine.h"
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <thread>

#define CUDA_API EMU_EXPORT int

typedef unsigned long long DevicePointer;

// Values of CUresult (cuda.h).
enum Result {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NO_DEVICE = 100,
    INVALID_DEVICE = 101,
    INVALID_IMAGE = 200,
    INVALID_CONTEXT = 201,
    INVALID_HANDLE = 400,
    ILLEGAL_STATE = 401,
    NOT_FOUND = 500,
    NOT_READY = 600,
    NOT_SUPPORTED = 801,
    CAPTURE_UNSUPPORTED = 900,
    CAPTURE_INVALIDATED = 901,
    CAPTURE_MERGE = 902,
    CAPTURE_UNMATCHED = 903,
    CAPTURE_UNJOINED = 904,
    CAPTURE_ISOLATION = 905,
    CAPTURE_IMPLICIT = 906,
    CAPTURED_EVENT = 907,
    CAPTURE_WRONG_THREAD = 908,
};

namespace emu {

constexpr size_t DEVICE_BYTES = 2ull << 30;  // a test that wants more is told that there is none

typedef std::function<void()> Work;
struct Stream;
// How many works of each stream of a capture are known to come before a point.
typedef std::map<const Stream *, uint64_t> Clock;

enum class CaptureMode : int { GLOBAL = 0, THREAD_LOCAL = 1, RELAXED = 2 };

// Work that is recorded and not run, from the stream where the capture began and those that joined it by an event.
struct Capture {
    CaptureMode mode;
    std::thread::id thread;
    const Stream *origin;
    Clock recorded;
    std::vector<Work> nodes;  // in the order of submission, which satisfies every dependency
    bool invalid = false;
    bool ended = false;
};

struct Stream {
    bool blocking;  // ordered with the legacy default stream
    std::deque<Work> queue;
    std::shared_ptr<Capture> capture;
    Clock before;  // with a capture: what its next work comes after
};

// Every call of the driver holds it: one thread in the driver at a time.
std::recursive_mutex &driver_mutex();
struct Locked {
    std::lock_guard<std::recursive_mutex> guard{driver_mutex()};
};

// True when this thread has a context, without which most calls fail.
bool has_context();

// Null when the handle is unknown. 0, 1 and 2 are the default streams, which are one here.
std::shared_ptr<Stream> stream_of(void *handle);
// Runs, or leaves for later, or records.
Result submit(Stream &stream, Work work);
// Runs all that is waiting.
void drain(Stream &stream);
void drain_all();

// For calls that CUDA forbids while a capture runs that is global or of this thread: invalidates it and tells so.
// Relaxed captures only mind calls that would wait for the capturing stream itself.
enum class Call { UNSAFE, WAITS_FOR_ALL };
Result refuse_in_capture(Call call = Call::UNSAFE);
void invalidate(Stream &stream);

// Of device and pinned memory together.
size_t live_allocations();

}  // namespace emu
