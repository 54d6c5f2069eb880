// A stand-in for libcuda that runs registered kernels on the emulator, so that the host code runs unmodified where
// there is no GPU: argument packing, streams, events, pinned copies, graphs. Everything a caller would get away
// with on some GPUs and not on others is an error here, or ends the process with a message.
#include "driver.h"
#include <algorithm>

using namespace emu;

namespace {

struct Module {
    std::string ptx;  // empty when the image is a cubin or a fat binary
};

struct Function {
    const Kernel *kernel;
    int most_dynamic_shared = 48 * 1024;  // more must be asked for by cuFuncSetAttribute
};

int context_token;
thread_local void *current_context;

const char *name_of(int result) {
    switch (result) {
        case SUCCESS: return "CUDA_SUCCESS";
        case INVALID_VALUE: return "CUDA_ERROR_INVALID_VALUE";
        case OUT_OF_MEMORY: return "CUDA_ERROR_OUT_OF_MEMORY";
        case NO_DEVICE: return "CUDA_ERROR_NO_DEVICE";
        case INVALID_DEVICE: return "CUDA_ERROR_INVALID_DEVICE";
        case INVALID_IMAGE: return "CUDA_ERROR_INVALID_IMAGE";
        case INVALID_CONTEXT: return "CUDA_ERROR_INVALID_CONTEXT";
        case INVALID_HANDLE: return "CUDA_ERROR_INVALID_HANDLE";
        case ILLEGAL_STATE: return "CUDA_ERROR_ILLEGAL_STATE";
        case NOT_FOUND: return "CUDA_ERROR_NOT_FOUND";
        case NOT_READY: return "CUDA_ERROR_NOT_READY";
        case NOT_SUPPORTED: return "CUDA_ERROR_NOT_SUPPORTED";
        case CAPTURE_UNSUPPORTED: return "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED";
        case CAPTURE_INVALIDATED: return "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED";
        case CAPTURE_MERGE: return "CUDA_ERROR_STREAM_CAPTURE_MERGE";
        case CAPTURE_UNMATCHED: return "CUDA_ERROR_STREAM_CAPTURE_UNMATCHED";
        case CAPTURE_UNJOINED: return "CUDA_ERROR_STREAM_CAPTURE_UNJOINED";
        case CAPTURE_ISOLATION: return "CUDA_ERROR_STREAM_CAPTURE_ISOLATION";
        case CAPTURE_IMPLICIT: return "CUDA_ERROR_STREAM_CAPTURE_IMPLICIT";
        case CAPTURED_EVENT: return "CUDA_ERROR_CAPTURED_EVENT";
        case CAPTURE_WRONG_THREAD: return "CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD";
        default: return nullptr;
    }
}

// Values of CUdevice_attribute; those of an H200 where they matter to a launch.
int device_attribute(int attribute) {
    switch (attribute) {
        case 1: return MOST_THREADS;           // MAX_THREADS_PER_BLOCK
        case 2: case 3: return MOST_THREADS;   // MAX_BLOCK_DIM_X, _Y
        case 4: return 64;                     // MAX_BLOCK_DIM_Z
        case 5: return 0x7fffffff;             // MAX_GRID_DIM_X
        case 6: case 7: return 0xffff;         // MAX_GRID_DIM_Y, _Z
        case 8: return 48 * 1024;              // MAX_SHARED_MEMORY_PER_BLOCK
        case 10: return WARP;                  // WARP_SIZE
        case 12: return 65536;                 // MAX_REGISTERS_PER_BLOCK
        case 13: return 1'000'000;             // CLOCK_RATE, in kHz
        case 16: return 4;                     // MULTIPROCESSOR_COUNT: few, so that grids over all of them stay small
        case 36: return 1'000'000;             // MEMORY_CLOCK_RATE, in kHz
        case 37: return 64;                    // GLOBAL_MEMORY_BUS_WIDTH, in bits
        case 38: return 50 << 20;              // L2_CACHE_SIZE
        case 39: return 2048;                  // MAX_THREADS_PER_MULTIPROCESSOR
        case 40: return 2;                     // ASYNC_ENGINE_COUNT
        case 41: return 1;                     // UNIFIED_ADDRESSING
        case 75: return 9;                     // COMPUTE_CAPABILITY_MAJOR
        case 76: return 0;                     // COMPUTE_CAPABILITY_MINOR
        case 81: return 228 * 1024;            // MAX_SHARED_MEMORY_PER_MULTIPROCESSOR
        case 82: return 65536;                 // MAX_REGISTERS_PER_MULTIPROCESSOR
        case 97: return MOST_SHARED_BYTES;     // MAX_SHARED_MEMORY_PER_BLOCK_OPTIN
        case 115: return 1;                    // MEMORY_POOLS_SUPPORTED
        default: return 0;
    }
}

// The arguments of a launch, copied when it is submitted.
struct Arguments {
    std::vector<uint64_t> words;
    std::vector<size_t> first_word;

    Arguments(const Kernel &kernel, void **given) {
        for (size_t i = 0; i < kernel.parameter_bytes.size(); i++) {
            const unsigned bytes = kernel.parameter_bytes[i];
            first_word.push_back(words.size());
            words.resize(words.size() + (bytes + 7) / 8);
            memcpy(&words[first_word[i]], given[i], bytes);
        }
    }
    std::vector<void *> pointers() {
        std::vector<void *> all;
        for (size_t at : first_word) all.push_back(&words[at]);
        return all;
    }
};

}  // namespace

std::recursive_mutex &emu::driver_mutex() {
    static auto *mutex = new std::recursive_mutex();
    return *mutex;
}

bool emu::has_context() { return current_context != nullptr; }

// ---- device and context -----------------------------------------------------------------------------------------------

CUDA_API cuInit(unsigned) { return settings().no_device ? NO_DEVICE : SUCCESS; }

CUDA_API cuDriverGetVersion(int *version) {
    *version = 13000;
    return SUCCESS;
}

CUDA_API cuGetErrorName(int result, const char **name) {
    *name = name_of(result);
    return *name ? SUCCESS : INVALID_VALUE;
}

CUDA_API cuGetErrorString(int result, const char **text) { return cuGetErrorName(result, text); }

CUDA_API cuDeviceGetCount(int *count) {
    *count = settings().no_device ? 0 : 1;
    return SUCCESS;
}

CUDA_API cuDeviceGet(int *device, int ordinal) {
    if (ordinal != 0 || settings().no_device) return INVALID_DEVICE;
    *device = 0;
    return SUCCESS;
}

CUDA_API cuDeviceGetName(char *name, int capacity, int) {
    snprintf(name, static_cast<size_t>(capacity), "cuda_emu (CPU)");
    return SUCCESS;
}

CUDA_API cuDeviceGetUuid(char *uuid, int) {
    memset(uuid, 0, 16);
    return SUCCESS;
}

CUDA_API cuDeviceGetUuid_v2(char *uuid, int device) { return cuDeviceGetUuid(uuid, device); }

CUDA_API cuDeviceTotalMem_v2(size_t *bytes, int) {
    *bytes = DEVICE_BYTES;
    return SUCCESS;
}

CUDA_API cuDeviceGetAttribute(int *value, int attribute, int) {
    *value = device_attribute(attribute);
    return SUCCESS;
}

CUDA_API cuDevicePrimaryCtxRetain(void **context, int) {
    *context = &context_token;
    return SUCCESS;
}

CUDA_API cuDevicePrimaryCtxRelease_v2(int) { return SUCCESS; }

CUDA_API cuCtxGetCurrent(void **context) {
    *context = current_context;
    return SUCCESS;
}

CUDA_API cuCtxSetCurrent(void *context) {
    if (context && context != &context_token) return INVALID_CONTEXT;
    current_context = context;
    return SUCCESS;
}

CUDA_API cuCtxGetStreamPriorityRange(int *least, int *greatest) {
    *least = *greatest = 0;
    return SUCCESS;
}

CUDA_API cuCtxSynchronize() {
    Locked lock;
    if (const Result refused = refuse_in_capture(Call::WAITS_FOR_ALL)) return refused;
    drain_all();
    return SUCCESS;
}

// ---- modules and functions: handles live as long as the process ----------------------------------------------------------

CUDA_API cuModuleLoadData(void **module, const void *image) {
    if (!has_context()) return INVALID_CONTEXT;
    const char *bytes = static_cast<const char *>(image);
    const bool cubin = !memcmp(bytes, "\x7f" "ELF", 4);
    const bool fat_binary = !memcmp(bytes, "\x50\xed\x55\xba", 4);
    auto *loaded = new Module();
    if (!cubin && !fat_binary) loaded->ptx = bytes;
    *module = loaded;
    const bool whole = loaded->ptx.find(".version") != std::string::npos && loaded->ptx.find(".entry") != std::string::npos;
    return cubin || fat_binary || whole ? SUCCESS : INVALID_IMAGE;
}

CUDA_API cuModuleUnload(void *) { return SUCCESS; }

// The kernel must be in the image too: a test that finds it only in the emulator would say nothing of the GPU.
CUDA_API cuModuleGetFunction(void **function, void *module, const char *name) {
    const std::string &ptx = static_cast<Module *>(module)->ptx;
    const std::string entry = std::string(".entry ") + name + "(";
    const Kernel *kernel = find_kernel(name);
    if (!kernel || (!ptx.empty() && ptx.find(entry) == std::string::npos)) return NOT_FOUND;
    *function = new Function{kernel};
    return SUCCESS;
}

// Attributes of a function that host code asks for, by the numbers of CUfunction_attribute.
CUDA_API cuFuncGetAttribute(int *value, int attribute, void *function) {
    switch (attribute) {
        case 0: *value = MOST_THREADS; break;                                             // MAX_THREADS_PER_BLOCK
        case 5: case 6: *value = 90; break;                                               // PTX_VERSION, BINARY_VERSION
        case 8: *value = static_cast<Function *>(function)->most_dynamic_shared; break;   // MAX_DYNAMIC_SHARED_SIZE_BYTES
        default: *value = 0;
    }
    return SUCCESS;
}

CUDA_API cuFuncSetAttribute(void *function, int attribute, int value) {
    if (attribute != 8) return SUCCESS;  // hints, all but MAX_DYNAMIC_SHARED_SIZE_BYTES
    if (value < 0 || value > static_cast<int>(MOST_SHARED_BYTES)) return INVALID_VALUE;
    static_cast<Function *>(function)->most_dynamic_shared = value;
    return SUCCESS;
}

CUDA_API cuFuncSetCacheConfig(void *, int) { return SUCCESS; }

// ---- launches -----------------------------------------------------------------------------------------------------------

CUDA_API cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks, void *, int threads, size_t shared_bytes,
                                                              unsigned) {
    if (threads < 1 || threads > static_cast<int>(MOST_THREADS)) return INVALID_VALUE;
    const size_t by_shared = shared_bytes ? 228 * 1024 / (shared_bytes + 1024) : 32;
    *blocks = static_cast<int>(std::min<size_t>({32, 2048u / threads, by_shared}));
    return SUCCESS;
}

CUDA_API cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, void *function, int threads, size_t shared_bytes) {
    return cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks, function, threads, shared_bytes, 0);
}

CUDA_API cuLaunchKernel(void *handle, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                        unsigned block_y, unsigned block_z, unsigned shared_bytes, void *stream_handle,
                        void **arguments, void **extra) {
    Locked lock;
    if (!has_context()) return INVALID_CONTEXT;
    const auto stream = stream_of(stream_handle);
    if (!stream || !handle) return INVALID_HANDLE;
    const Function &function = *static_cast<Function *>(handle);
    const EmuLaunch dimensions = {{grid_x, grid_y, grid_z}, {block_x, block_y, block_z}, shared_bytes};
    const uint64_t threads = static_cast<uint64_t>(block_x) * block_y * block_z;
    const bool empty = !grid_x || !grid_y || !grid_z || !threads;
    if (extra || empty || threads > MOST_THREADS) return INVALID_VALUE;
    if (static_cast<int64_t>(shared_bytes) > function.most_dynamic_shared) return INVALID_VALUE;

    const Kernel *kernel = function.kernel;
    auto copied = std::make_shared<Arguments>(*kernel, arguments);
    return submit(*stream, [kernel, dimensions, copied] {
        std::vector<void *> pointers = copied->pointers();
        if (!launch(*kernel, dimensions, pointers.data())) emu_fail("a launch with dimensions that CUDA refuses");
    });
}

CUDA_API cuLaunchHostFunc(void *stream_handle, void (*function)(void *), void *data) {
    Locked lock;
    const auto stream = stream_of(stream_handle);
    if (!stream) return INVALID_HANDLE;
    return submit(*stream, [=] { function(data); });
}
