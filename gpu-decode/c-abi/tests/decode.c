// The C interface from C: decode FILE.cmz TENSOR EXPECTED decodes a tensor by a plan, its rows, and by a load, and compares the
// bytes with a file; then it makes mistakes and looks at the errors. The driver's functions are declared here as in cuda.h.
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmz_gpu.h"

int cuDevicePrimaryCtxRetain(void **context, int device);
int cuCtxSetCurrent(void *context);
int cuCtxGetCurrent(void **context);
int cuMemAlloc_v2(unsigned long long *address, size_t bytes);
int cuMemFree_v2(unsigned long long address);
int cuMemsetD8_v2(unsigned long long address, unsigned char value, size_t bytes);
int cuMemcpyDtoH_v2(void *to, unsigned long long from, size_t bytes);
int cuStreamCreate(void **stream, unsigned flags);
int cuStreamDestroy_v2(void *stream);

#define CHECK(condition)                                                                                  \
    do {                                                                                                  \
        if (!(condition)) {                                                                               \
            fprintf(stderr, "line %d: %s\nlast error: %s\n", __LINE__, #condition, cmz_last_error());     \
            exit(1);                                                                                      \
        }                                                                                                 \
    } while (0)
#define CMZ(call) CHECK((call) == CMZ_OK)
#define CUDA(call) CHECK((call) == 0)

static unsigned char *read_file(const char *path, size_t len) {
    unsigned char *bytes = malloc(len + 1);
    FILE *file = fopen(path, "rb");
    CHECK(bytes && file && fread(bytes, 1, len + 1, file) == len);
    fclose(file);
    return bytes;
}

// The device holds `expected`; clears it.
static void compare(unsigned long long address, const unsigned char *expected, size_t len) {
    unsigned char *found = malloc(len);
    CHECK(found);
    CUDA(cuMemcpyDtoH_v2(found, address, len));
    CHECK(!memcmp(found, expected, len));
    CUDA(cuMemsetD8_v2(address, 0, len));
    free(found);
}

static void *fail_elsewhere(void *unused) {
    (void)unused;
    CHECK(cmz_last_error_code() == CMZ_OK && !*cmz_last_error());
    CHECK(cmz_archive_tensors(NULL) == 0);
    CHECK(cmz_last_error_code() == CMZ_ERROR_INVALID_ARGUMENT);
    return NULL;
}

static void mistakes(const CmzGpu *gpu, const CmzArchive *archive, size_t tensor) {
    CmzArchive *none = (CmzArchive *)archive;
    CHECK(cmz_archive_open("no such file.cmz", NULL, &none) == CMZ_ERROR_IO && !none);
    CHECK(cmz_last_error_code() == CMZ_ERROR_IO);
    CHECK(!strncmp(cmz_last_error(), "CMZ1001: ", 9) && strstr(cmz_last_error(), "no such file.cmz"));
    CHECK(cmz_archive_open(NULL, NULL, &none) == CMZ_ERROR_INVALID_ARGUMENT);
    CHECK(cmz_archive_open("\xff", NULL, &none) == CMZ_ERROR_INVALID_ARGUMENT);
    CHECK(cmz_archive_open("no such file.cmz", NULL, NULL) == CMZ_ERROR_INVALID_ARGUMENT);

    pthread_t thread;
    CMZ(pthread_create(&thread, NULL, fail_elsewhere, NULL));
    CMZ(pthread_join(thread, NULL));
    CHECK(strstr(cmz_last_error(), "archive is NULL"));

    size_t number;
    CmzTensor info;
    CHECK(cmz_archive_find(archive, "no such tensor", &number) == CMZ_ERROR_INVALID_ARGUMENT);
    CHECK(strstr(cmz_last_error(), "no such tensor"));
    CHECK(cmz_archive_find(archive, "no such tensor", NULL) == CMZ_ERROR_INVALID_ARGUMENT);
    CHECK(cmz_archive_tensor(archive, SIZE_MAX, &info) == CMZ_ERROR_INVALID_ARGUMENT);

    CmzGpu *no_gpu;
    CHECK(cmz_gpu_open(1000, &no_gpu) == CMZ_ERROR_NO_GPU && !no_gpu);

    CmzPlan *plan;
    CmzRequest request = {tensor, 7, 1ull << 40, 0};
    CHECK(cmz_plan_open(gpu, archive, &request, 1, 0, 1, &plan) == CMZ_ERROR_INVALID_ARGUMENT && !plan);
    request.row_begin = 0;
    request.row_end = CMZ_ALL_ROWS;
    CHECK(cmz_plan_open(gpu, archive, NULL, 1, 0, 1, &plan) == CMZ_ERROR_INVALID_ARGUMENT);
    CHECK(cmz_plan_open(gpu, archive, &request, SIZE_MAX, 0, 1, &plan) == CMZ_ERROR_INVALID_ARGUMENT);
    CHECK(cmz_plan_open(gpu, archive, &request, 1, 4, 1, &plan) == CMZ_ERROR_INVALID_ARGUMENT);
    CHECK(cmz_plan_open(gpu, archive, &request, 1, 0, 1025, &plan) == CMZ_ERROR_INVALID_ARGUMENT);
    CHECK(cmz_plan_open(NULL, archive, &request, 1, 0, 1, &plan) == CMZ_ERROR_INVALID_ARGUMENT);
    CHECK(cmz_plan_decode(NULL, 0, NULL) == CMZ_ERROR_INVALID_ARGUMENT);
    CHECK(cmz_plan_check(NULL, NULL) == CMZ_ERROR_INVALID_ARGUMENT);
    CHECK(!cmz_plan_offsets(NULL) && !cmz_plan_output_len(NULL) && !cmz_plan_device_len(NULL));
    const CmzLoadOptions options = {0, 0, 0, CMZ_PACKED};
    CHECK(cmz_gpu_load(gpu, archive, &request, 1, NULL, &options, NULL) == CMZ_ERROR_INVALID_ARGUMENT);

    // A plan of nothing.
    CMZ(cmz_plan_open(gpu, archive, NULL, 0, CMZ_PACKED, 1, &plan));
    CHECK(cmz_plan_output_len(plan) == 0);
    CMZ(cmz_plan_decode(plan, 0, NULL));
    CMZ(cmz_plan_check(plan, NULL));
    cmz_plan_close(plan);
    cmz_plan_close(NULL);
    cmz_archive_close(NULL);
    cmz_gpu_close(NULL);
}

int main(int count, char **arguments) {
    CHECK(count == 4 && *cmz_version());
    CmzArchive *archive;
    CmzGpu *gpu;
    CMZ(cmz_archive_open(arguments[1], NULL, &archive));
    CMZ(cmz_gpu_open(0, &gpu));
    void *context;
    CUDA(cuCtxGetCurrent(&context));
    CHECK(!context);
    CUDA(cuDevicePrimaryCtxRetain(&context, 0));
    CUDA(cuCtxSetCurrent(context));

    size_t number;
    CmzTensor tensor;
    CMZ(cmz_archive_find(archive, arguments[2], &number));
    CHECK(number < cmz_archive_tensors(archive));
    CMZ(cmz_archive_tensor(archive, number, &tensor));
    CHECK(!strcmp(tensor.name, arguments[2]) && tensor.name_len == strlen(arguments[2]));
    CHECK(!strcmp(tensor.dtype, "BF16") && tensor.rank == 2);
    CHECK(2 * tensor.shape[0] * tensor.shape[1] == tensor.byte_len);
    unsigned char *expected = read_file(arguments[3], tensor.byte_len);

    unsigned long long address;
    void *stream;
    CUDA(cuMemAlloc_v2(&address, tensor.byte_len));
    CUDA(cuMemsetD8_v2(address, 0, tensor.byte_len));
    CUDA(cuStreamCreate(&stream, 1));

    CmzLoadReport report;
    const CmzRequest whole = {number, 0, CMZ_ALL_ROWS, address};
    const CmzLoadOptions options = {2, 2, 1 << 16, CMZ_CHECK_DECODED};
    CMZ(cmz_gpu_load(gpu, archive, &whole, 1, stream, &options, &report));
    CHECK(report.decoded == tensor.byte_len && report.copied > 0 && report.ring > 0);
    compare(address, expected, tensor.byte_len);
    CMZ(cmz_gpu_load(gpu, archive, &whole, 1, stream, NULL, NULL));
    compare(address, expected, tensor.byte_len);

    CmzPlan *plan, *rows;
    CMZ(cmz_plan_open(gpu, archive, &whole, 1, CMZ_CHECK_DECODED, 0, &plan));
    const CmzRequest last_row = {number, tensor.shape[0] - 1, CMZ_ALL_ROWS, 12345};
    CMZ(cmz_plan_open(gpu, archive, &last_row, 1, CMZ_PACKED, 1, &rows));
    mistakes(gpu, archive, number);
    // Plans need neither.
    cmz_archive_close(archive);
    cmz_gpu_close(gpu);

    for (int turn = 0; turn < 2; turn++) {
        CMZ(cmz_plan_decode(plan, 0, stream));
        CMZ(cmz_plan_check(plan, stream));
        compare(address, expected, tensor.byte_len);
    }
    const size_t row_len = cmz_plan_output_len(rows);
    CHECK(cmz_plan_offsets(rows)[0] == 0 && cmz_plan_device_len(rows) > 0);
    CMZ(cmz_plan_decode(rows, address, NULL));
    CMZ(cmz_plan_check(rows, NULL));
    compare(address, expected + tensor.byte_len - row_len, row_len);

    cmz_plan_close(plan);
    cmz_plan_close(rows);
    void *current;
    CUDA(cuCtxGetCurrent(&current));
    CHECK(current == context);
    CUDA(cuStreamDestroy_v2(stream));
    CUDA(cuMemFree_v2(address));
    free(expected);
    puts("ok");
    return 0;
}
