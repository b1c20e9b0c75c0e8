/* The stand-in for libcuda.so.1 of libcuda.c, for a program that asks for symbols by cuda.h's names. It minds
   contexts as the driver does: without the device's own one, what needs a context fails. */
#define cuDevicePrimaryCtxRetain uncounted_retain
#include "libcuda.c"
#undef cuDevicePrimaryCtxRetain

enum { DEEPEST = 16, INVALID_CONTEXT = 201 };
static _Thread_local handle contexts[DEEPEST];
static _Thread_local int depth;
static int retained;

/* Of this thread. */
int stand_in_depth(void) { return depth; }
handle stand_in_current(void) { return depth ? contexts[depth - 1] : NULL; }
int stand_in_retained(void) { return retained; }
static int ours(void) { return stand_in_current() == (handle)0x1000; }

int cuCtxPushCurrent_v2(handle context) {
    contexts[depth++] = context;
    return 0;
}
int cuCtxPopCurrent_v2(handle *context) {
    if (!depth) return INVALID_CONTEXT;
    *context = contexts[--depth];
    return 0;
}
int cuDevicePrimaryCtxRetain(handle *context, int device) {
    retained++;
    return uncounted_retain(context, device);
}
int cuDevicePrimaryCtxRelease_v2(int device) {
    retained--;
    return 0;
}

#define IN_CONTEXT(name, parameters, arguments) \
    int name##_v2 parameters { return ours() ? name arguments : INVALID_CONTEXT; }
IN_CONTEXT(cuMemAlloc, (void **address, size_t size), (address, size))
IN_CONTEXT(cuMemFree, (void *address), (address))
IN_CONTEXT(cuMemHostGetDevicePointer, (void **device, void *host, unsigned flags), (device, host, flags))
IN_CONTEXT(cuMemcpyHtoDAsync, (void *to, const void *from, size_t size, stream *s), (to, from, size, s))
IN_CONTEXT(cuMemcpyDtoHAsync, (void *to, void *from, size_t size, stream *s), (to, from, size, s))
IN_CONTEXT(cuMemcpy2DAsync, (const rows *asked, stream *s), (asked, s))
IN_CONTEXT(cuEventDestroy, (event *e), (e))
IN_CONTEXT(cuStreamDestroy, (stream *s), (s))
IN_CONTEXT(cuStreamBeginCapture, (stream *s, int mode), (s, mode))
