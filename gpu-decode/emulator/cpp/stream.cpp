// Streams, events, and graphs captured from streams.
//
// Work is run as late as the interface allows (lazy), so that a missing synchronisation shows; or when it is
// submitted (eager). There are no threads: work runs in the call that waits for it.
//
// What is refused during a capture follows the CUDA programming guide, "CUDA graphs", and the driver's reference;
// it is stricter in two points, because a decode that is to be captured should do neither: allocations and frees
// in stream order are refused, and so are copies between a stream and memory that is not pinned.
#include "driver.h"
#include <algorithm>
#include <chrono>

using namespace emu;

namespace {

struct Event {
    bool timed;
    uint64_t recorded = 0;  // how often; each record makes a new target to wait for
    uint64_t done = 0;
    std::shared_ptr<Stream> stream;
    std::chrono::steady_clock::time_point time;
    std::shared_ptr<Capture> capture;  // where it was last recorded, if in a capture
    Clock before;

    bool captured() const { return capture && !capture->ended; }
};

struct Graph {
    std::vector<Work> nodes;
};

// Live objects by handle. Work that is still waiting shares them, so a handle may go before its work.
template <class T> class Handles {
  public:
    void *add(std::shared_ptr<T> object) {
        void *handle = object.get();
        live[handle] = std::move(object);
        return handle;
    }
    std::shared_ptr<T> find(void *handle) {
        const auto found = live.find(handle);
        return found == live.end() ? nullptr : found->second;
    }
    bool remove(void *handle) { return live.erase(handle) == 1; }

    std::map<void *, std::shared_ptr<T>> live;
};

// Everything lives until the process ends, when other threads may still be in the driver.
template <class T> Handles<T> &handles() {
    static auto *all = new Handles<T>();
    return *all;
}

const std::shared_ptr<Stream> &default_stream() {
    static auto *stream = new std::shared_ptr<Stream>(new Stream{true, {}, nullptr, {}});
    return *stream;
}

std::vector<std::shared_ptr<Capture>> &captures() {
    static auto *active = new std::vector<std::shared_ptr<Capture>>();
    return *active;
}

void run_first(Stream &stream) {
    const Work work = std::move(stream.queue.front());
    stream.queue.pop_front();
    work();
}

// Runs the event's stream as far as that record.
void reach(Event &event, uint64_t record) {
    while (event.done < record && !event.stream->queue.empty()) run_first(*event.stream);
}

void merge(Clock &into, const Clock &from) {
    for (const auto &[stream, count] : from) into[stream] = std::max(into[stream], count);
}

Result capture_error(Stream &stream, Result why) {
    invalidate(stream);
    return why;
}

// A captured event ties a stream to its capture: the stream joins, or goes on behind what the event stands for.
Result wait_in_capture(Stream &stream, const Event &event) {
    if (stream.capture && stream.capture != event.capture) {
        event.capture->invalid = true;
        return capture_error(stream, CAPTURE_MERGE);
    }
    if (&stream == default_stream().get()) {
        event.capture->invalid = true;
        return CAPTURE_IMPLICIT;
    }
    if (!stream.capture) {
        stream.capture = event.capture;
        stream.before.clear();
    }
    merge(stream.before, event.before);
    return SUCCESS;
}

// Every stream that joined must have been waited for by the stream where the capture began.
bool all_joined(const Capture &capture, const Clock &origin) {
    return std::all_of(capture.recorded.begin(), capture.recorded.end(), [&](const auto &entry) {
        const auto seen = origin.find(entry.first);
        return seen != origin.end() && seen->second >= entry.second;
    });
}

void leave_capture(const std::shared_ptr<Capture> &capture) {
    capture->ended = true;
    for (auto &[handle, stream] : handles<Stream>().live) {
        if (stream->capture == capture) stream->capture = nullptr;
    }
    auto &active = captures();
    active.erase(std::remove(active.begin(), active.end(), capture), active.end());
}

}  // namespace

std::shared_ptr<Stream> emu::stream_of(void *handle) {
    if (reinterpret_cast<uintptr_t>(handle) <= 2) return default_stream();
    return handles<Stream>().find(handle);
}

Result emu::submit(Stream &stream, Work work) {
    if (stream.capture) {
        if (stream.capture->invalid) return CAPTURE_INVALIDATED;
        stream.capture->nodes.push_back(std::move(work));
        stream.before[&stream] = ++stream.capture->recorded[&stream];
        return SUCCESS;
    }
    if (&stream == default_stream().get()) {
        for (auto &[handle, other] : handles<Stream>().live) {
            // The default stream would wait for a stream that does not run.
            if (other->blocking && other->capture) return capture_error(*other, CAPTURE_IMPLICIT);
        }
    }
    stream.queue.push_back(std::move(work));
    if (settings().eager) drain(stream);
    return SUCCESS;
}

void emu::drain(Stream &stream) {
    while (!stream.queue.empty()) run_first(stream);
}

void emu::drain_all() {
    drain(*default_stream());
    for (auto &[handle, stream] : handles<Stream>().live) drain(*stream);
}

void emu::invalidate(Stream &stream) {
    if (stream.capture) stream.capture->invalid = true;
}

Result emu::refuse_in_capture(Call call) {
    Result result = SUCCESS;
    for (const auto &capture : captures()) {
        const bool minds = capture->mode != CaptureMode::RELAXED || call == Call::WAITS_FOR_ALL;
        const bool own = capture->mode == CaptureMode::GLOBAL || capture->thread == std::this_thread::get_id();
        if (!minds || !own) continue;
        capture->invalid = true;
        result = CAPTURE_UNSUPPORTED;
    }
    return result;
}

// For tests that look for leaks.
EMU_EXPORT uint64_t emu_live_objects() {
    Locked lock;
    return live_allocations() + handles<Stream>().live.size() + handles<Event>().live.size() + handles<Graph>().live.size();
}

// ---- streams ------------------------------------------------------------------------------------------------------------

CUDA_API cuStreamCreate(void **handle, unsigned flags) {
    Locked lock;
    if (!has_context()) return INVALID_CONTEXT;
    const bool blocking = !(flags & 1);  // CU_STREAM_NON_BLOCKING
    *handle = handles<Stream>().add(std::shared_ptr<Stream>(new Stream{blocking, {}, nullptr, {}}));
    return SUCCESS;
}

CUDA_API cuStreamCreateWithPriority(void **handle, unsigned flags, int) { return cuStreamCreate(handle, flags); }

CUDA_API cuStreamDestroy_v2(void *handle) {
    Locked lock;
    const auto stream = handles<Stream>().find(handle);
    if (!stream) return INVALID_HANDLE;
    if (stream->capture) leave_capture(stream->capture);
    drain(*stream);
    handles<Stream>().remove(handle);
    return SUCCESS;
}

CUDA_API cuStreamSynchronize(void *handle) {
    Locked lock;
    const auto stream = stream_of(handle);
    if (!stream) return INVALID_HANDLE;
    if (stream->capture) return capture_error(*stream, CAPTURE_UNSUPPORTED);
    drain(*stream);
    return SUCCESS;
}

CUDA_API cuStreamWaitEvent(void *stream_handle, void *event_handle, unsigned) {
    Locked lock;
    const auto stream = stream_of(stream_handle);
    const auto event = handles<Event>().find(event_handle);
    if (!stream || !event) return INVALID_HANDLE;
    if (event->captured()) return wait_in_capture(*stream, *event);
    if (!event->recorded) return SUCCESS;
    if (stream->capture) return capture_error(*stream, CAPTURE_ISOLATION);
    return submit(*stream, [event, record = event->recorded] { reach(*event, record); });
}

// ---- events -------------------------------------------------------------------------------------------------------------

CUDA_API cuEventCreate(void **handle, unsigned flags) {
    Locked lock;
    if (!has_context()) return INVALID_CONTEXT;
    auto event = std::make_shared<Event>();
    event->timed = !(flags & 2);  // CU_EVENT_DISABLE_TIMING
    *handle = handles<Event>().add(std::move(event));
    return SUCCESS;
}

CUDA_API cuEventDestroy_v2(void *handle) {
    Locked lock;
    return handles<Event>().remove(handle) ? SUCCESS : INVALID_HANDLE;
}

CUDA_API cuEventRecord(void *event_handle, void *stream_handle) {
    Locked lock;
    const auto event = handles<Event>().find(event_handle);
    const auto stream = stream_of(stream_handle);
    if (!event || !stream) return INVALID_HANDLE;
    if (stream->capture) {
        if (stream->capture->invalid) return CAPTURE_INVALIDATED;
        event->capture = stream->capture;
        event->before = stream->before;
        return SUCCESS;
    }
    event->capture = nullptr;
    event->stream = stream;
    return submit(*stream, [event, record = ++event->recorded] {
        event->done = record;
        event->time = std::chrono::steady_clock::now();
    });
}

CUDA_API cuEventSynchronize(void *handle) {
    Locked lock;
    const auto event = handles<Event>().find(handle);
    if (!event) return INVALID_HANDLE;
    if (event->captured()) {
        event->capture->invalid = true;
        return CAPTURED_EVENT;
    }
    if (const Result refused = refuse_in_capture()) return refused;
    if (event->recorded) reach(*event, event->recorded);
    return SUCCESS;
}

CUDA_API cuEventQuery(void *handle) {
    Locked lock;
    const auto event = handles<Event>().find(handle);
    if (!event) return INVALID_HANDLE;
    if (event->captured()) {
        event->capture->invalid = true;
        return CAPTURED_EVENT;
    }
    if (const Result refused = refuse_in_capture()) return refused;
    return event->done == event->recorded ? SUCCESS : NOT_READY;
}

CUDA_API cuEventElapsedTime(float *milliseconds, void *from_handle, void *to_handle) {
    Locked lock;
    const auto from = handles<Event>().find(from_handle);
    const auto to = handles<Event>().find(to_handle);
    if (!from || !to || !from->timed || !to->timed || !from->recorded || !to->recorded) return INVALID_HANDLE;
    if (from->done != from->recorded || to->done != to->recorded) return NOT_READY;
    *milliseconds = std::chrono::duration<float, std::milli>(to->time - from->time).count();
    return SUCCESS;
}

CUDA_API cuEventElapsedTime_v2(float *milliseconds, void *from, void *to) {
    return cuEventElapsedTime(milliseconds, from, to);
}

// ---- captures and graphs --------------------------------------------------------------------------------------------------

CUDA_API cuStreamBeginCapture_v2(void *handle, int mode) {
    Locked lock;
    const auto stream = stream_of(handle);
    if (!stream) return INVALID_HANDLE;
    if (stream == default_stream()) return CAPTURE_UNSUPPORTED;
    if (stream->capture) return ILLEGAL_STATE;
    if (mode < 0 || mode > 2) return INVALID_VALUE;
    auto capture = std::make_shared<Capture>();
    capture->mode = static_cast<CaptureMode>(mode);
    capture->thread = std::this_thread::get_id();
    capture->origin = stream.get();
    stream->capture = capture;
    stream->before.clear();
    captures().push_back(std::move(capture));
    return SUCCESS;
}

CUDA_API cuStreamEndCapture(void *handle, void **graph_handle) {
    Locked lock;
    *graph_handle = nullptr;
    const auto stream = stream_of(handle);
    if (!stream) return INVALID_HANDLE;
    const auto capture = stream->capture;
    if (!capture) return ILLEGAL_STATE;
    if (capture->origin != stream.get()) return capture_error(*stream, CAPTURE_UNMATCHED);
    if (capture->mode != CaptureMode::RELAXED && capture->thread != std::this_thread::get_id()) {
        return CAPTURE_WRONG_THREAD;
    }
    leave_capture(capture);
    if (capture->invalid) return CAPTURE_INVALIDATED;
    if (!all_joined(*capture, stream->before)) return CAPTURE_UNJOINED;
    *graph_handle = handles<Graph>().add(std::shared_ptr<Graph>(new Graph{capture->nodes}));
    return SUCCESS;
}

CUDA_API cuStreamIsCapturing(void *handle, int *status) {
    Locked lock;
    const auto stream = stream_of(handle);
    if (!stream) return INVALID_HANDLE;
    // CU_STREAM_CAPTURE_STATUS_NONE, _ACTIVE, _INVALIDATED
    *status = !stream->capture ? 0 : stream->capture->invalid ? 2 : 1;
    return SUCCESS;
}

CUDA_API cuGraphInstantiateWithFlags(void **executable, void *handle, unsigned long long) {
    Locked lock;
    const auto graph = handles<Graph>().find(handle);
    if (!graph) return INVALID_HANDLE;
    *executable = handles<Graph>().add(std::make_shared<Graph>(*graph));
    return SUCCESS;
}

CUDA_API cuGraphUpload(void *executable, void *) {
    Locked lock;
    return handles<Graph>().find(executable) ? SUCCESS : INVALID_HANDLE;
}

CUDA_API cuGraphLaunch(void *executable, void *stream_handle) {
    Locked lock;
    const auto graph = handles<Graph>().find(executable);
    const auto stream = stream_of(stream_handle);
    if (!graph || !stream) return INVALID_HANDLE;
    return submit(*stream, [graph] {
        for (const Work &node : graph->nodes) node();
    });
}

CUDA_API cuGraphDestroy(void *handle) {
    Locked lock;
    return handles<Graph>().remove(handle) ? SUCCESS : INVALID_HANDLE;
}

CUDA_API cuGraphExecDestroy(void *handle) { return cuGraphDestroy(handle); }
