/* A stand-in for libcuda.so.1: cuda-bindings calls it as it calls the driver, and it prints what it is asked for.
   STAND_IN_SM is the device's compute capability, STAND_IN_SIZES the bytes of each kernel parameter, one digit each,
   STAND_IN_FAIL the name of a function that fails. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef void *handle;

static int answer(const char *name) {
    const char *failing = getenv("STAND_IN_FAIL");
    return failing && !strcmp(failing, name) ? 200 : 0; /* CUDA_ERROR_INVALID_IMAGE */
}

static int setting(const char *name) { return atoi(getenv(name)); }

int cuGetProcAddress_v2(const char *symbol, void **function, int version, uint64_t flags, int *status) {
    *function = dlsym(RTLD_DEFAULT, symbol);
    if (status) *status = *function ? 0 : 1;
    return *function ? 0 : 500;
}
int cuInit(unsigned flags) { return answer("cuInit"); }
int cuDriverGetVersion(int *version) { *version = 13000; return 0; }
int cuDeviceGetCount(int *count) { *count = 1; return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    *value = attribute == 75 ? setting("STAND_IN_SM") / 10 : setting("STAND_IN_SM") % 10;
    return 0;
}
int cuDevicePrimaryCtxRetain(handle *context, int device) { *context = (handle)0x1000; return 0; }
int cuCtxPushCurrent(handle context) { printf("push %p\n", context); return 0; }
int cuCtxPopCurrent(handle *context) { *context = (handle)0x1000; printf("pop\n"); return 0; }
int cuModuleLoadData(handle *module, const char *image) {
    *module = (handle)0x2000;
    printf("load %02x %s\n", (unsigned char)image[0], image[0] == 0x7f ? "ELF" : strrchr(image, '}'));
    return answer("cuModuleLoadData");
}
int cuModuleGetFunction(handle *function, handle module, const char *name) {
    *function = (handle)0x3000;
    printf("function %s\n", name);
    return 0;
}
int cuGetErrorString(int error, const char **text) { *text = "made to fail"; return 0; }
int cuLaunchKernel(handle function, unsigned x, unsigned y, unsigned z, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, handle stream, void **parameters, void **extra) {
    printf("launch %p grid %u %u %u block %u %u %u shared %u stream %p\n", function, x, y, z, bx, by, bz, shared, stream);
    for (const char *size = getenv("STAND_IN_SIZES"); *size; size++, parameters++) {
        if (*size == '8') printf("%#lx\n", *(uint64_t *)*parameters);
        else printf("%d\n", *(int32_t *)*parameters);
    }
    fflush(stdout);
    return answer("cuLaunchKernel");
}
