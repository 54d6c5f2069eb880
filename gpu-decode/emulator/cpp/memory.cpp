// Device and pinned memory, and the copies between them.
#include "driver.h"

using namespace emu;

namespace {

// Live allocations by address, with their bytes. "Device" memory is memory of the process, so that kernels and
// sanitizers reach it.
typedef std::map<DevicePointer, size_t> Allocations;

Allocations &device_memory() {
    static auto *allocations = new Allocations();
    return *allocations;
}

Allocations &pinned_memory() {
    static auto *allocations = new Allocations();
    return *allocations;
}

size_t device_bytes_used() {
    size_t used = 0;
    for (const auto &[address, bytes] : device_memory()) used += bytes;
    return used;
}

void *host(DevicePointer address) { return reinterpret_cast<void *>(address); }
DevicePointer address_of(const void *memory) { return reinterpret_cast<DevicePointer>(memory); }

// The allocation that holds an address, or end().
Allocations::const_iterator holding(const Allocations &allocations, DevicePointer address) {
    auto next = allocations.upper_bound(address);
    if (next == allocations.begin()) return allocations.end();
    --next;
    return address - next->first < next->second ? next : allocations.end();
}

bool inside(const Allocations &allocations, DevicePointer address, size_t bytes) {
    const auto found = holding(allocations, address);
    return found != allocations.end() && bytes <= found->second - (address - found->first);
}

void expect_inside(const Allocations &allocations, DevicePointer address, size_t bytes, const char *what) {
    if (!bytes || inside(allocations, address, bytes)) return;
    fprintf(stderr, "cuda_emu: %s of %zu bytes goes outside every live allocation\n", what, bytes);
    abort();
}

// Poisoned, and no larger than asked for, so that AddressSanitizer sees the first byte beyond.
Result allocate(Allocations &allocations, DevicePointer *address, size_t bytes) {
    if (!has_context()) return INVALID_CONTEXT;
    if (allocation_is_to_fail() || bytes > DEVICE_BYTES) return OUT_OF_MEMORY;
    if (&allocations == &device_memory() && bytes > DEVICE_BYTES - device_bytes_used()) return OUT_OF_MEMORY;
    void *memory;
    if (posix_memalign(&memory, 256, bytes)) return OUT_OF_MEMORY;
    memset(memory, UNWRITTEN, bytes);
    *address = address_of(memory);
    allocations[*address] = bytes;
    return SUCCESS;
}

void deallocate(Allocations &allocations, DevicePointer address) {
    if (!allocations.erase(address)) emu_fail("free of an address that is not allocated");
    free(host(address));
}

void copy_to_device(DevicePointer to, const void *from, size_t bytes) {
    expect_inside(device_memory(), to, bytes, "host to device copy");
    memcpy(host(to), from, bytes);
}

void copy_to_host(void *to, DevicePointer from, size_t bytes) {
    expect_inside(device_memory(), from, bytes, "device to host copy");
    memcpy(to, host(from), bytes);
}

void copy_on_device(DevicePointer to, DevicePointer from, size_t bytes) {
    expect_inside(device_memory(), to, bytes, "device to device copy");
    expect_inside(device_memory(), from, bytes, "device to device copy");
    memmove(host(to), host(from), bytes);
}

void set_bytes(DevicePointer to, unsigned char value, size_t bytes) {
    expect_inside(device_memory(), to, bytes, "memset");
    memset(host(to), value, bytes);
}

// For calls that return when they are done: these run on the default stream.
Result run_now(Work work) {
    if (!has_context()) return INVALID_CONTEXT;
    if (const Result refused = refuse_in_capture()) return refused;
    const auto stream = stream_of(nullptr);
    const Result result = submit(*stream, std::move(work));
    drain(*stream);
    return result;
}

}  // namespace

size_t emu::live_allocations() { return device_memory().size() + pinned_memory().size(); }

// ---- allocations ----------------------------------------------------------------------------------------------------------

CUDA_API cuMemGetInfo_v2(size_t *unused, size_t *total) {
    Locked lock;
    *unused = DEVICE_BYTES - device_bytes_used();
    *total = DEVICE_BYTES;
    return SUCCESS;
}

CUDA_API cuMemAlloc_v2(DevicePointer *address, size_t bytes) {
    Locked lock;
    if (const Result refused = refuse_in_capture()) return refused;
    if (!bytes) return INVALID_VALUE;
    return allocate(device_memory(), address, bytes);
}

CUDA_API cuMemFree_v2(DevicePointer address) {
    Locked lock;
    if (const Result refused = refuse_in_capture()) return refused;
    if (!address) return SUCCESS;
    drain_all();  // as on a device, freeing waits for it
    deallocate(device_memory(), address);
    return SUCCESS;
}

CUDA_API cuMemAllocAsync(DevicePointer *address, size_t bytes, void *stream_handle) {
    Locked lock;
    const auto stream = stream_of(stream_handle);
    if (!stream) return INVALID_HANDLE;
    if (stream->capture) {
        invalidate(*stream);
        return CAPTURE_UNSUPPORTED;
    }
    *address = 0;
    if (!bytes) return SUCCESS;  // unlike cuMemAlloc
    return allocate(device_memory(), address, bytes);
}

CUDA_API cuMemFreeAsync(DevicePointer address, void *stream_handle) {
    Locked lock;
    const auto stream = stream_of(stream_handle);
    if (!stream) return INVALID_HANDLE;
    if (stream->capture) {
        invalidate(*stream);
        return CAPTURE_UNSUPPORTED;
    }
    if (!address) return SUCCESS;
    return submit(*stream, [address] { deallocate(device_memory(), address); });
}

CUDA_API cuMemHostAlloc(void **memory, size_t bytes, unsigned) {
    Locked lock;
    if (const Result refused = refuse_in_capture()) return refused;
    if (!bytes) return INVALID_VALUE;
    DevicePointer address = 0;
    const Result result = allocate(pinned_memory(), &address, bytes);
    if (result == SUCCESS) *memory = host(address);
    return result;
}

CUDA_API cuMemFreeHost(void *memory) {
    Locked lock;
    if (const Result refused = refuse_in_capture()) return refused;
    deallocate(pinned_memory(), address_of(memory));
    return SUCCESS;
}

// Attributes of an address, by the numbers of CUpointer_attribute.
CUDA_API cuPointerGetAttribute(void *value, int attribute, DevicePointer address) {
    Locked lock;
    const bool on_device = inside(device_memory(), address, 1);
    if (!on_device && !inside(pinned_memory(), address, 1)) return INVALID_VALUE;
    const auto found = holding(on_device ? device_memory() : pinned_memory(), address);
    switch (attribute) {
        case 2: *static_cast<unsigned *>(value) = on_device ? 2 : 1; return SUCCESS;      // MEMORY_TYPE
        case 3: *static_cast<DevicePointer *>(value) = address; return SUCCESS;           // DEVICE_POINTER
        case 9: *static_cast<int *>(value) = 0; return SUCCESS;                           // DEVICE_ORDINAL
        case 11: *static_cast<DevicePointer *>(value) = found->first; return SUCCESS;     // RANGE_START_ADDR
        case 12: *static_cast<size_t *>(value) = found->second; return SUCCESS;           // RANGE_SIZE
        default: return NOT_SUPPORTED;
    }
}

// ---- copies in stream order -------------------------------------------------------------------------------------------------

CUDA_API cuMemcpyHtoDAsync_v2(DevicePointer to, const void *from, size_t bytes, void *stream_handle) {
    Locked lock;
    if (!has_context()) return INVALID_CONTEXT;
    const auto stream = stream_of(stream_handle);
    if (!stream) return INVALID_HANDLE;
    if (inside(pinned_memory(), address_of(from), bytes)) {
        return submit(*stream, [=] {
            expect_inside(pinned_memory(), address_of(from), bytes, "copy from pinned memory");
            copy_to_device(to, from, bytes);
        });
    }
    if (stream->capture) {
        invalidate(*stream);
        return CAPTURE_UNSUPPORTED;
    }
    // Memory that is not pinned is read before the call returns.
    const char *first = static_cast<const char *>(from);
    auto staged = std::make_shared<std::vector<char>>(first, first + bytes);
    return submit(*stream, [=] { copy_to_device(to, staged->data(), bytes); });
}

CUDA_API cuMemcpyDtoHAsync_v2(void *to, DevicePointer from, size_t bytes, void *stream_handle) {
    Locked lock;
    if (!has_context()) return INVALID_CONTEXT;
    const auto stream = stream_of(stream_handle);
    if (!stream) return INVALID_HANDLE;
    if (inside(pinned_memory(), address_of(to), bytes)) {
        return submit(*stream, [=] {
            expect_inside(pinned_memory(), address_of(to), bytes, "copy to pinned memory");
            copy_to_host(to, from, bytes);
        });
    }
    if (stream->capture) {
        invalidate(*stream);
        return CAPTURE_UNSUPPORTED;
    }
    // Memory that is not pinned is written before the call returns.
    const Result result = submit(*stream, [=] { copy_to_host(to, from, bytes); });
    drain(*stream);
    return result;
}

CUDA_API cuMemcpyDtoDAsync_v2(DevicePointer to, DevicePointer from, size_t bytes, void *stream_handle) {
    Locked lock;
    if (!has_context()) return INVALID_CONTEXT;
    const auto stream = stream_of(stream_handle);
    if (!stream) return INVALID_HANDLE;
    return submit(*stream, [=] { copy_on_device(to, from, bytes); });
}

CUDA_API cuMemsetD8Async(DevicePointer to, unsigned char value, size_t bytes, void *stream_handle) {
    Locked lock;
    if (!has_context()) return INVALID_CONTEXT;
    const auto stream = stream_of(stream_handle);
    if (!stream) return INVALID_HANDLE;
    return submit(*stream, [=] { set_bytes(to, value, bytes); });
}

// ---- copies that return when they are done ------------------------------------------------------------------------------------

CUDA_API cuMemcpyHtoD_v2(DevicePointer to, const void *from, size_t bytes) {
    Locked lock;
    return run_now([=] { copy_to_device(to, from, bytes); });
}

CUDA_API cuMemcpyDtoH_v2(void *to, DevicePointer from, size_t bytes) {
    Locked lock;
    return run_now([=] { copy_to_host(to, from, bytes); });
}

CUDA_API cuMemcpyDtoD_v2(DevicePointer to, DevicePointer from, size_t bytes) {
    Locked lock;
    return run_now([=] { copy_on_device(to, from, bytes); });
}

CUDA_API cuMemsetD8_v2(DevicePointer to, unsigned char value, size_t bytes) {
    Locked lock;
    return run_now([=] { set_bytes(to, value, bytes); });
}
