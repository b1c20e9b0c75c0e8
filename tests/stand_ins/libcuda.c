/* A stand-in for libcuda.so.1: cuda-bindings calls it as it calls the driver, and it prints what it is asked for.
   STAND_IN_SM is the device's compute capability, STAND_IN_SIZES the bytes of each kernel parameter, one digit each,
   STAND_IN_FAIL the name of a function that fails, STAND_IN_FORGET that of a wait that does not wait,
   STAND_IN_INTEGRATED whether the device has no memory of its own, STAND_IN_VERSION the driver's version, 1000 major +
   10 minor: it has no function of a newer one.

   Its device memory is the host's. Streams do what is put on them as late as they may: when somebody waits for them. So
   a host that reads too early, or writes too early where a copy still reads, gets wrong numbers each time. The kernels of
   a stand-in engine are host functions. Kernels in PTX are printed, or run by whoever stand_in_interpret names. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef void *handle;

static int answer(const char *name) {
    const char *failing = getenv("STAND_IN_FAIL");
    return failing && !strcmp(failing, name) ? 200 : 0; /* CUDA_ERROR_INVALID_IMAGE */
}

static int forgets(const char *name) {
    const char *forgotten = getenv("STAND_IN_FORGET");
    return forgotten && !strcmp(forgotten, name);
}

static int setting(const char *name) { return atoi(getenv(name)); }

static int driver_version(void) { return getenv("STAND_IN_VERSION") ? setting("STAND_IN_VERSION") : 13000; }

int cuGetProcAddress_v2(const char *symbol, void **function, int version, uint64_t flags, int *status) {
    int known = version <= driver_version();
    *function = known ? dlsym(RTLD_DEFAULT, symbol) : NULL;
    if (status) *status = *function ? 0 : known ? 1 : 2;
    return *function ? 0 : 500;
}
int cuInit(unsigned flags) { return answer("cuInit"); }
int cuDriverGetVersion(int *version) { *version = driver_version(); return 0; }
int cuDeviceGetCount(int *count) { *count = 1; return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    if (attribute == 18) *value = getenv("STAND_IN_INTEGRATED") != NULL;
    else *value = attribute == 75 ? setting("STAND_IN_SM") / 10 : setting("STAND_IN_SM") % 10;
    return 0;
}
int cuDevicePrimaryCtxRetain(handle *context, int device) { *context = (handle)0x1000; return 0; }
int cuCtxPushCurrent(handle context) { printf("push %p\n", context); return 0; }
int cuCtxPopCurrent(handle *context) { *context = (handle)0x1000; printf("pop\n"); return 0; }
static _Atomic long live, copies; /* objects; copies that were done */

typedef struct { char *image, *entry; } kernel;
typedef void *(*noting)(const char *image, const char *entry, const unsigned *sizes, void **parameters);
typedef void (*running)(void *launch);
static noting note;
static running run_launch;

/* note gets sizes {grid x, y, z, block, shared} and the parameters as they are now; run_launch gets what it gave. */
void stand_in_interpret(noting noting, running running) { note = noting; run_launch = running; }

int cuModuleLoadData(handle *module, const char *image) {
    *module = (handle)0x2000;
    if (note) {
        *module = strdup(image);
        return answer("cuModuleLoadData");
    }
    printf("load %02x %s\n", (unsigned char)image[0], image[0] == 0x7f ? "ELF" : strrchr(image, '}'));
    return answer("cuModuleLoadData");
}
int cuModuleGetFunction(handle *function, handle module, const char *name) {
    *function = (handle)0x3000;
    if (note) {
        kernel *k = malloc(sizeof *k);
        *k = (kernel){module, strdup(name)};
        *function = k;
        return answer("cuModuleGetFunction");
    }
    printf("function %s\n", name);
    return 0;
}
int cuGetErrorString(int error, const char **text) { *text = "made to fail"; return 0; }
int cuLibraryLoadData(handle *library, const char *image, handle options, handle values, unsigned count,
                      handle library_options, handle library_values, unsigned library_count) {
    int status = answer("cuLibraryLoadData");
    live += !status;
    return status ? status : cuModuleLoadData(library, image);
}
int cuLibraryGetKernel(handle *found, handle library, const char *name) {
    return cuModuleGetFunction(found, library, name);
}
int cuLibraryUnload(handle library) { live--; return 0; }

/* Memory. What is allocated holds no number until it is written. */
static struct { char *address; size_t size; } allocated[4096];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
long stand_in_live(void) { return live; }
long stand_in_copies(void) { return copies; }

static int allocate(void **address, size_t size, const char *name) {
    *address = memset(aligned_alloc(256, (size + 255) / 256 * 256), 0xff, size);
    live++;
    int at = 0;
    pthread_mutex_lock(&lock);
    while (allocated[at].address) at++;
    allocated[at].address = *address;
    allocated[at].size = size;
    pthread_mutex_unlock(&lock);
    return answer(name);
}
static int release(void *address) { free(address); live--; return 0; }
static int deallocate(char *address) {
    pthread_mutex_lock(&lock);
    for (int at = 0; at < 4096; at++)
        if (allocated[at].address == address) allocated[at].address = NULL;
    pthread_mutex_unlock(&lock);
    return release(address);
}
/* The memory that an address is in; 0: none. */
size_t stand_in_find(const char *address, char **begin) {
    size_t size = 0;
    pthread_mutex_lock(&lock);
    for (int at = 0; at < 4096 && !size; at++) {
        *begin = allocated[at].address;
        if (*begin && *begin <= address && address < *begin + allocated[at].size) size = allocated[at].size;
    }
    pthread_mutex_unlock(&lock);
    return size;
}
int cuMemAlloc(void **address, size_t size) { return allocate(address, size, "cuMemAlloc"); }
int cuMemFree(void *address) { return deallocate(address); }
int cuMemHostAlloc(void **address, size_t size, unsigned flags) { return allocate(address, size, "cuMemHostAlloc"); }
int cuMemFreeHost(void *address) { return deallocate(address); }
int cuMemHostGetDevicePointer(void **device, void *host, unsigned flags) { *device = host; return 0; }

/* Streams and graphs: a list of what is to be done. */
typedef struct stream stream;
typedef struct { stream *on; long at; } event; /* all that a stream had got, by number */
typedef struct node {
    void *target;
    const void *source;
    size_t size;
    void (*function)(void *);
    struct node *next;
} node;
struct stream {
    int capturing;
    node *first, **last;          /* of the graph that is captured */
    node *waiting, **end;         /* what is not done yet */
    long got, done;
};
static pthread_mutex_t order = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;

static void perform(const node *n) {
    if (n->function) n->function(n->target);
    else { memcpy(n->target, n->source, n->size); copies++; }
}
static void append(node ***end, node n) {
    **end = malloc(sizeof n);
    ***end = n;
    (**end)->next = NULL;
    *end = &(**end)->next;
}
static int put(stream *s, node n) {
    pthread_mutex_lock(&order);
    if (!s) perform(&n);
    else if (s->capturing) append(&s->last, n);
    else { append(&s->end, n); s->got++; }
    pthread_mutex_unlock(&order);
    return 0;
}
/* Do what a stream had got up to a number. */
static void reach(stream *s, long number) {
    pthread_mutex_lock(&order);
    while (s && s->done < number) {
        node *n = s->waiting;
        if (!(s->waiting = n->next)) s->end = &s->waiting;
        s->done++;
        perform(n);
        free(n);
    }
    pthread_mutex_unlock(&order);
}
static void reach_event(void *marked) { reach(((event *)marked)->on, ((event *)marked)->at); }

int cuStreamCreate(stream **s, unsigned flags) {
    *s = calloc(1, sizeof **s);
    (*s)->end = &(*s)->waiting;
    live++;
    return 0;
}
int cuStreamDestroy(stream *s) { reach(s, s->got); live--; return 0; } /* an event may still name it */
int cuStreamSynchronize(stream *s) {
    if (s->capturing) return 900;
    if (!forgets("cuStreamSynchronize")) reach(s, s->got);
    return answer("cuStreamSynchronize");
}
int cuMemcpyHtoDAsync(void *to, const void *from, size_t size, stream *s) { return put(s, (node){to, from, size}); }
int cuMemcpyDtoHAsync(void *to, void *from, size_t size, stream *s) { return put(s, (node){to, from, size}); }
int cuMemcpyDtoDAsync(void *to, void *from, size_t size, stream *s) { return put(s, (node){to, from, size}); }

/* CUDA_MEMCPY2D, between two places on the device. */
typedef struct {
    size_t x, y;
    int type;
    const char *host, *device, *array;
    size_t pitch;
} place;
typedef struct { place from, to; size_t width, height; } rows;
static void copy_rows(void *put) {
    const rows *r = put;
    for (size_t y = 0; y < r->height; y++)
        memcpy((char *)r->to.device + y * r->to.pitch, r->from.device + y * r->from.pitch, r->width);
    free(put);
    copies++;
}
int cuMemcpy2DAsync(const rows *asked, stream *s) {
    if (asked->from.type != 2 || asked->to.type != 2) return 1; /* CU_MEMORYTYPE_DEVICE */
    return put(s, (node){.target = memcpy(malloc(sizeof *asked), asked, sizeof *asked), .function = copy_rows});
}
int cuMemcpyDtoH(void *to, void *from, size_t size) { memcpy(to, from, size); copies++; return 0; }
int cuLaunchHostFunc(stream *s, void (*function)(void *), void *data) {
    return put(s, (node){.target = data, .function = function});
}
int cuLaunchKernel(handle function, unsigned x, unsigned y, unsigned z, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, handle on, void **parameters, void **extra) {
    if (note) {
        const kernel *k = function;
        const unsigned sizes[] = {x, y, z, bx, shared};
        put(on, (node){.target = note(k->image, k->entry, sizes, parameters), .function = run_launch});
        return answer("cuLaunchKernel");
    }
    printf("launch %p grid %u %u %u block %u %u %u shared %u stream %p\n", function, x, y, z, bx, by, bz, shared, on);
    for (const char *size = getenv("STAND_IN_SIZES"); *size; size++, parameters++) {
        if (*size == '8') printf("%#lx\n", *(uint64_t *)*parameters);
        else printf("%d\n", *(int32_t *)*parameters);
    }
    fflush(stdout);
    return answer("cuLaunchKernel");
}

int cuStreamBeginCapture(stream *s, int mode) {
    int status = answer("cuStreamBeginCapture");
    s->capturing = !status;
    s->first = NULL;
    s->last = &s->first;
    return status;
}
int cuStreamEndCapture(stream *s, node **graph) {
    s->capturing = 0;
    int status = answer("cuStreamEndCapture");
    *graph = status ? NULL : s->first;
    live += !status;
    return status;
}
int cuGraphInstantiateWithFlags(node **whole, node *graph, uint64_t flags) {
    int status = answer("cuGraphInstantiate");
    *whole = graph;
    live += !status;
    return status;
}
int cuGraphDestroy(node *graph) { live--; return 0; }
int cuGraphExecDestroy(node *whole) { live--; return 0; }
int cuGraphLaunch(node *whole, stream *s) {
    for (node *n = whole; n; n = n->next) put(s, *n);
    return answer("cuGraphLaunch");
}
int cuEventCreate(event **e, unsigned flags) { *e = calloc(1, sizeof **e); live++; return 0; }
int cuEventDestroy(event *e) { live--; return 0; } /* a stream may still wait for it */
int cuEventRecord(event *e, stream *s) { *e = (event){s, s ? s->got : 0}; return 0; }
int cuEventSynchronize(event *e) {
    if (!forgets("cuEventSynchronize")) reach_event(e);
    return answer("cuEventSynchronize");
}
int cuStreamWaitEvent(stream *s, event *e, unsigned flags) {
    return forgets("cuStreamWaitEvent") ? 0 : put(s, (node){.target = e, .function = reach_event});
}
int cuEventElapsedTime(float *ms, void *before, void *after) { *ms = 1.5f; return 0; }
