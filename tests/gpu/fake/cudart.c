/* The fake libcudart.so.13 over the fake driver: what TVM's CUDA runtime calls. */
#include "cuda_abi.h"
#include <string.h>

typedef int cudaError_t;
enum { PROPERTIES_BYTES = 1008, TOTAL_MEMORY_AT = 288, SMS_AT = 384, MAJOR_AT = 360 };

CUresult cuInit(unsigned);
CUresult cuDeviceGetCount(int *);
CUresult cuDeviceGetName(char *, int, CUdevice);
CUresult cuDeviceTotalMem_v2(size_t *, CUdevice);
CUresult cuDeviceGetAttribute(int *, int, CUdevice);
CUresult cuDevicePrimaryCtxRetain(CUcontext *, CUdevice);
CUresult cuCtxSetCurrent(CUcontext);
CUresult cuCtxGetCurrent(CUcontext *);
CUresult cuCtxGetDevice(CUdevice *);
CUresult cuCtxSynchronize(void);
CUresult cuMemAlloc_v2(CUdeviceptr *, size_t);
CUresult cuMemFree_v2(CUdeviceptr);
CUresult cuMemGetInfo_v2(size_t *, size_t *);
CUresult cuMemHostAlloc(void **, size_t, unsigned);
CUresult cuMemFreeHost(void *);
CUresult cuMemcpyAsync(CUdeviceptr, CUdeviceptr, size_t, CUstream);
CUresult cuStreamCreate(CUstream *, unsigned);
CUresult cuStreamDestroy_v2(CUstream);
CUresult cuStreamSynchronize(CUstream);
CUresult cuStreamWaitEvent(CUstream, CUevent, unsigned);
CUresult cuStreamBeginCapture_v2(CUstream, int);
CUresult cuStreamEndCapture(CUstream, CUgraph *);
CUresult cuGraphInstantiateWithFlags(CUgraphExec *, CUgraph, unsigned long long);
CUresult cuGraphLaunch(CUgraphExec, CUstream);
CUresult cuGraphDestroy(CUgraph);
CUresult cuGraphExecDestroy(CUgraphExec);
CUresult cuEventCreate(CUevent *, unsigned);
CUresult cuEventDestroy_v2(CUevent);
CUresult cuEventRecord(CUevent, CUstream);
CUresult cuEventSynchronize(CUevent);
CUresult cuEventElapsedTime_v2(float *, CUevent, CUevent);
CUresult cuGetErrorName(CUresult, const char **);
CUresult cuGetErrorString(CUresult, const char **);

static __thread cudaError_t last_error;

/* Both count errors alike since CUDA 10.1. */
static cudaError_t returned(CUresult error) {
    if (error)
        last_error = error;
    return error;
}

/* The runtime makes the context of device 0 current by itself. */
static CUresult with_context(void) {
    CUresult error = cuInit(0);
    CUcontext current = NULL;
    if (!error)
        error = cuCtxGetCurrent(&current);
    if (error || current)
        return error;
    error = cuDevicePrimaryCtxRetain(&current, 0);
    return error ? error : cuCtxSetCurrent(current);
}

#define CALL(WHAT)                                                                                 \
    do {                                                                                           \
        CUresult error_ = with_context();                                                          \
        return returned(error_ ? error_ : (WHAT));                                                 \
    } while (0)

#define API __attribute__((visibility("default")))

API cudaError_t cudaGetDeviceCount(int *count) {
    *count = 0;
    CUresult error = cuInit(0);
    return returned(error ? error : cuDeviceGetCount(count));
}
API cudaError_t cudaGetDevice(int *device) { CALL(cuCtxGetDevice(device)); }
API cudaError_t cudaSetDevice(int device) {
    CUcontext context;
    CUresult error = cuInit(0);
    if (!error)
        error = cuDevicePrimaryCtxRetain(&context, device);
    return returned(error ? error : cuCtxSetCurrent(context));
}
API cudaError_t cudaDeviceGetAttribute(int *value, int attribute, int device) {
    CALL(cuDeviceGetAttribute(value, attribute, device));
}
API cudaError_t cudaGetDeviceProperties(void *properties, int device) {
    char *at = properties;
    size_t total;
    int values[2];
    CUresult error = with_context();
    if (!error)
        error = cuDeviceTotalMem_v2(&total, device);
    if (error)
        return returned(error);
    memset(at, 0, PROPERTIES_BYTES);
    cuDeviceGetName(at, 256, device);
    memcpy(at + TOTAL_MEMORY_AT, &total, sizeof total);
    cuDeviceGetAttribute(&values[0], 75, device);
    cuDeviceGetAttribute(&values[1], 16, device);
    memcpy(at + MAJOR_AT, &values[0], sizeof values[0]);
    memcpy(at + SMS_AT, &values[1], sizeof values[1]);
    return 0;
}
API cudaError_t cudaDeviceSynchronize(void) { CALL(cuCtxSynchronize()); }
API cudaError_t cudaMalloc(void **at, size_t bytes) {
    CALL(cuMemAlloc_v2((CUdeviceptr *)at, bytes));
}
API cudaError_t cudaFree(void *at) { CALL(cuMemFree_v2((CUdeviceptr)at)); }
API cudaError_t cudaMallocHost(void **at, size_t bytes) { CALL(cuMemHostAlloc(at, bytes, 0)); }
API cudaError_t cudaFreeHost(void *at) { CALL(cuMemFreeHost(at)); }
API cudaError_t cudaMemGetInfo(size_t *unused, size_t *total) {
    CALL(cuMemGetInfo_v2(unused, total));
}
API cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, int kind, CUstream on) {
    (void)kind;
    CALL(cuMemcpyAsync((CUdeviceptr)to, (CUdeviceptr)from, bytes, on));
}
API cudaError_t cudaMemcpyPeerAsync(void *to, int to_device, const void *from, int from_device,
                                    size_t bytes, CUstream on) {
    (void)to_device, (void)from_device;
    CALL(cuMemcpyAsync((CUdeviceptr)to, (CUdeviceptr)from, bytes, on));
}
API cudaError_t cudaStreamCreate(CUstream *made) { CALL(cuStreamCreate(made, 0)); }
API cudaError_t cudaStreamCreateWithFlags(CUstream *made, unsigned flags) {
    CALL(cuStreamCreate(made, flags));
}
API cudaError_t cudaStreamDestroy(CUstream self) { CALL(cuStreamDestroy_v2(self)); }
API cudaError_t cudaStreamSynchronize(CUstream self) { CALL(cuStreamSynchronize(self)); }
API cudaError_t cudaStreamWaitEvent(CUstream self, CUevent event, unsigned flags) {
    CALL(cuStreamWaitEvent(self, event, flags));
}
API cudaError_t cudaStreamBeginCapture(CUstream self, int mode) {
    CALL(cuStreamBeginCapture_v2(self, mode));
}
API cudaError_t cudaStreamEndCapture(CUstream self, CUgraph *made) {
    CALL(cuStreamEndCapture(self, made));
}
API cudaError_t cudaGraphInstantiate(CUgraphExec *made, CUgraph graph, unsigned long long flags) {
    CALL(cuGraphInstantiateWithFlags(made, graph, flags));
}
API cudaError_t cudaGraphLaunch(CUgraphExec self, CUstream on) { CALL(cuGraphLaunch(self, on)); }
API cudaError_t cudaGraphDestroy(CUgraph self) { CALL(cuGraphDestroy(self)); }
API cudaError_t cudaGraphExecDestroy(CUgraphExec self) { CALL(cuGraphExecDestroy(self)); }
API cudaError_t cudaEventCreate(CUevent *made) { CALL(cuEventCreate(made, 0)); }
API cudaError_t cudaEventDestroy(CUevent self) { CALL(cuEventDestroy_v2(self)); }
API cudaError_t cudaEventRecord(CUevent self, CUstream on) { CALL(cuEventRecord(self, on)); }
API cudaError_t cudaEventSynchronize(CUevent self) { CALL(cuEventSynchronize(self)); }
API cudaError_t cudaEventElapsedTime(float *milliseconds, CUevent begin, CUevent end) {
    CALL(cuEventElapsedTime_v2(milliseconds, begin, end));
}
API cudaError_t cudaGetLastError(void) {
    cudaError_t error = last_error;
    last_error = 0;
    return error;
}
API cudaError_t cudaPeekAtLastError(void) { return last_error; }
API const char *cudaGetErrorName(cudaError_t error) {
    const char *name = NULL;
    cuGetErrorName(error, &name);
    return name ? name : "unrecognized error code";
}
API const char *cudaGetErrorString(cudaError_t error) {
    const char *text = NULL;
    cuGetErrorString(error, &text);
    return text ? text : "unrecognized error code";
}
