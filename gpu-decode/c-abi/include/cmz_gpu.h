/* C interface of the cmz CUDA decoders (libcmz_gpu): .cmz files straight into device memory.
 *
 * Made by `cargo xtask header` of gpu-decode/c-abi/src: not to be edited.
 *
 *     CmzArchive *archive; CmzGpu *gpu; CmzPlan *plan; size_t number;
 *     CMZ(cmz_archive_open("model.cmz", NULL, &archive));
 *     CMZ(cmz_gpu_open(0, &gpu));
 *     CMZ(cmz_archive_find(archive, "lm_head.weight", &number));
 *     CmzRequest request = {number, 0, CMZ_ALL_ROWS, address};
 *     CMZ(cmz_plan_open(gpu, archive, &request, 1, 0, 0, &plan));
 *     CMZ(cmz_plan_decode(plan, 0, stream));
 *     CMZ(cmz_plan_check(plan, stream));
 *
 * Functions that return int32_t return CMZ_OK or the number of an error, whose text is cmz_last_error(), one a thread. No
 * function changes the thread's current CUDA context. Handles are closed by the caller, in any order: a plan keeps what
 * it needs. No handle may be closed while a function uses it. */

#ifndef CMZ_GPU_H
#define CMZ_GPU_H

#include <stddef.h>
#include <stdint.h>

/* Numbers of errors. The thousands digit says who must act: 1 the operation failed, 2 the request
 * is wrong, 3 the data is wrong, 4 newer software is needed, 5 refused. */
/* Reading or writing failed. */
#define CMZ_ERROR_IO 1001
/* A source file changed while it was being read. */
#define CMZ_ERROR_SOURCE_CHANGED 1002
/* The input is not a checkpoint at all (a Git LFS pointer, a web page, a pickle). */
#define CMZ_ERROR_NOT_WEIGHTS 1003
/* No usable GPU or driver. */
#define CMZ_ERROR_NO_GPU 1004
/* The caller asked to stop. */
#define CMZ_ERROR_INTERRUPTED 1005
/* The CUDA driver reports an error, or memory of the device ran out. */
#define CMZ_ERROR_DEVICE 1006
/* The request cannot be met: no such tensor, rows out of range, a wrong buffer size. */
#define CMZ_ERROR_INVALID_ARGUMENT 2001
/* A tensor is stored as what sets it apart from one of another file, and that file is not given. */
#define CMZ_ERROR_MISSING_BASE 2002
/* The stored bytes of a block do not match their checksum. */
#define CMZ_ERROR_STORED_CHECKSUM 3001
/* A block decodes to bytes that do not match their checksum. */
#define CMZ_ERROR_DECODED_CHECKSUM 3002
/* The file ends too early. */
#define CMZ_ERROR_TRUNCATED 3003
/* A structure of the file breaks a rule of the format. */
#define CMZ_ERROR_MALFORMED 3004
/* A stream inside a block cannot be decoded. */
#define CMZ_ERROR_BAD_STREAM 3005
/* Two records of the same fact differ: block header and block table, or manifest and descriptor. */
#define CMZ_ERROR_DISAGREEMENT 3006
/* A whole-file digest does not match. */
#define CMZ_ERROR_DIGEST 3007
/* The source checkpoint breaks the rules of its own format. */
#define CMZ_ERROR_BAD_SOURCE 3008
/* The file does not start with the .cmz magic. */
#define CMZ_ERROR_NOT_CMZ 3009
/* Bytes that must be zero are not. */
#define CMZ_ERROR_PADDING 3010
/* Two checkpoints that should be equal differ. */
#define CMZ_ERROR_DIFFERENT 3011
/* A file given as the base is not the one that a tensor was stored against. */
#define CMZ_ERROR_WRONG_BASE 3012
/* The file was written by a newer, incompatible version of the format. */
#define CMZ_ERROR_VERSION 4001
/* The file uses a feature that this version does not know. */
#define CMZ_ERROR_FEATURE 4002
/* A tensor uses a stream codec that this version does not know. */
#define CMZ_ERROR_UNKNOWN_CODEC 4003
/* A tensor uses an encoding or element type that this version does not know. */
#define CMZ_ERROR_UNKNOWN_ENCODING 4004
/* The target exists. */
#define CMZ_ERROR_EXISTS 5001
/* There is not enough room on the target's file system. */
#define CMZ_ERROR_NO_SPACE 5002
/* The file asks for more than the limits allow. */
#define CMZ_ERROR_LIMIT 5003
/* Another process is writing the same target. */
#define CMZ_ERROR_BUSY 5004
/* An unfinished file of another conversion is in the way. */
#define CMZ_ERROR_OTHER_PARTIAL 5005

// Success.
#define CMZ_OK 0

// A bug in this library, which the caller survives; the handles of the call should only be closed.
#define CMZ_PANIC 1

// As `row_end`: up to the last row.
#define CMZ_ALL_ROWS UINT64_MAX

// Flag: the device compares the checksums of the decoded bytes too. Those of the stored bytes are always compared.
#define CMZ_CHECK_DECODED 1

// Flag for plans: tensors lie one behind the other, each on a multiple of 256 bytes, wherever the requests say.
#define CMZ_PACKED 2

// An open .cmz file. Any number of threads may use it at the same time.
typedef struct CmzArchive CmzArchive;

// The decoder of a device. It works in the device's primary context, as the CUDA runtime and PyTorch do. Any number of
// threads may use it at the same time.
typedef struct CmzGpu CmzGpu;

// Compressed tensors in the memory of the device, decoded as often as needed. A decode is some launches: it allocates nothing,
// waits for nothing, and can be captured in a CUDA graph. Threads may use a plan at the same time, but its decodes must
// not overlap on the device: they share memory.
typedef struct CmzPlan CmzPlan;

// A tensor of an archive. What it points to belongs to the archive and lives as long.
typedef struct CmzTensor {
  // Name: UTF-8, with a zero byte behind it.
  const char *name;
  // Bytes of the name without that zero byte; a name may hold zero bytes itself.
  size_t name_len;
  // Element type as safetensors spells it, such as "BF16"; a text that this library may not know.
  const char *dtype;
  // Size of each dimension, in elements.
  const uint64_t *shape;
  // Number of dimensions.
  size_t rank;
  // Decoded length, in bytes.
  uint64_t byte_len;
} CmzTensor;

// A tensor that is to be decoded, or rows of it.
typedef struct CmzRequest {
  // Number of the tensor in the archive.
  size_t tensor;
  // The first index of the first dimension that is wanted.
  uint64_t row_begin;
  // Behind the last one; CMZ_ALL_ROWS, with 0 as the first, is the whole tensor, whatever its dimensions.
  uint64_t row_end;
  // Where its bytes go: an address on the device, or for plans an offset to the output. Multiples of 16 are decoded fastest.
  uint64_t address;
} CmzRequest;

// How to load. 0 stands for a default.
typedef struct CmzLoadOptions {
  // Threads that read and check blocks, at most 1024.
  size_t threads;
  // Buffers of the ring, at least 2; by default 3.
  size_t slots;
  // Bytes of a buffer, which there is on the host, pinned, and on the device; by default 32 MiB. One that is too small for a
  // block is made larger.
  size_t slot_len;
  // 0 or CMZ_CHECK_DECODED.
  uint32_t flags;
} CmzLoadOptions;

// What a load did.
typedef struct CmzLoadReport {
  // Decoded bytes, now in the memory of the device.
  uint64_t decoded;
  // Bytes that were copied to the device for it.
  uint64_t copied;
  // Memory of the ring in bytes, on the host and as much on the device.
  uint64_t ring;
} CmzLoadReport;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// Number of the last error of a function called on this thread: one of CMZ_ERROR_*, CMZ_PANIC, or CMZ_OK when there was none.
// Success does not change it.
int32_t cmz_last_error_code(void);

// Text of the last error of a function called on this thread, in UTF-8: what is wrong, where (file, tensor, block), and what
// can be done. Empty when there was none. Valid until another function of this thread fails, and never to be freed.
const char *cmz_last_error(void);

// Version of this library, such as "0.1.0". Never to be freed.
const char *cmz_version(void);

// Opens a .cmz file; cmz_archive_close closes it.
//
// # Safety
// `path` is UTF-8 that ends with a zero byte. `base` is NULL, or the archive of another file that tensors of this one may be
// stored against; it may be closed while the new one is open. `archive` may be written.
int32_t cmz_archive_open(const char *path,
                         const struct CmzArchive *base,
                         struct CmzArchive **archive);

// Closes an archive. NULL is none.
//
// # Safety
// `archive` is NULL, or was opened and not closed, and nobody uses it or what a CmzTensor of it points to. Plans made from it do
// not need it.
void cmz_archive_close(struct CmzArchive *archive);

// Number of tensors; 0 after an error.
//
// # Safety
// `archive` is open.
size_t cmz_archive_tensors(const struct CmzArchive *archive);

// What there is to know of tensor `number`, from 0.
//
// # Safety
// `archive` is open, and `tensor` may be written.
int32_t cmz_archive_tensor(const struct CmzArchive *archive, size_t number, struct CmzTensor *tensor);

// Number of the tensor with a name.
//
// # Safety
// `archive` is open, `name` ends with a zero byte, and `number` may be written.
int32_t cmz_archive_find(const struct CmzArchive *archive, const char *name, size_t *number);

// Opens the decoder of device `ordinal`, from 0; cmz_gpu_close closes it. CMZ_ERROR_NO_GPU says why there is none.
//
// # Safety
// `gpu` may be written.
int32_t cmz_gpu_open(size_t ordinal, struct CmzGpu **gpu);

// Closes a decoder. NULL is none. Plans made with it do not need it.
//
// # Safety
// `gpu` is NULL, or was opened and not closed, and nobody uses it.
void cmz_gpu_close(struct CmzGpu *gpu);

// Decodes tensors into device memory, each once, and waits until they are there: reading, copying and decoding overlap. After an
// error the memory holds anything, but nothing is written to it any more. `options` may be NULL, and so may `report`.
//
// # Safety
// `gpu` and `archive` are open. There are `count` requests, and each address is that of memory of the device, writable for
// the bytes of its request. `stream` is a CUstream or cudaStream_t of the device that is not being captured, or NULL, the
// default stream. `options` is NULL or may be read, `report` is NULL or may be written.
int32_t cmz_gpu_load(const struct CmzGpu *gpu,
                     const struct CmzArchive *archive,
                     const struct CmzRequest *requests,
                     size_t count,
                     void *stream,
                     const struct CmzLoadOptions *options,
                     struct CmzLoadReport *report);

// Reads and checks the blocks of tensors on `threads` threads (0: a default) and copies them, compressed, to the device;
// cmz_plan_close frees them. `flags` are CMZ_CHECK_DECODED and CMZ_PACKED, or 0.
//
// # Safety
// `gpu` and `archive` are open, there are `count` requests, and `plan` may be written.
int32_t cmz_plan_open(const struct CmzGpu *gpu,
                      const struct CmzArchive *archive,
                      const struct CmzRequest *requests,
                      size_t count,
                      uint32_t flags,
                      size_t threads,
                      struct CmzPlan **plan);

// Frees a plan. NULL is none.
//
// # Safety
// `plan` is NULL, or was made and not freed, nobody uses it, and its decodes have ended.
void cmz_plan_close(struct CmzPlan *plan);

// Bytes of the output, from the lowest offset that can be, 0, to the end of the last tensor; 0 after an error.
//
// # Safety
// `plan` is open.
uint64_t cmz_plan_output_len(const struct CmzPlan *plan);

// Where the tensor of each request begins in the output, in bytes: one number a request, which belong to the plan and live as
// long. NULL after an error.
//
// # Safety
// `plan` is open.
const uint64_t *cmz_plan_offsets(const struct CmzPlan *plan);

// Bytes of device memory that the plan holds; 0 after an error.
//
// # Safety
// `plan` is open.
uint64_t cmz_plan_device_len(const struct CmzPlan *plan);

// Submits a decode to `stream` and returns. Whether it succeeds, cmz_plan_check tells later.
//
// # Safety
// `plan` is open. `output` plus each offset is the address of device memory that is writable for the tensor's bytes until the
// work has ended; with addresses as offsets, `output` is 0. `stream` is a CUstream or cudaStream_t of the device, or NULL,
// the default stream. No other decode of this plan is under way.
int32_t cmz_plan_decode(const struct CmzPlan *plan,
                        uint64_t output,
                        void *stream);

// Waits for `stream` and says whether the plan's last decode there succeeded. If not, what it wrote is anything.
//
// # Safety
// `plan` is open, and `stream` is the one of the last decode.
int32_t cmz_plan_check(const struct CmzPlan *plan, void *stream);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* CMZ_GPU_H */
