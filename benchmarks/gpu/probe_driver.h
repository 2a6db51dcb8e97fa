/* What probe.c calls of NVIDIA's driver. */
#pragma once
#include <stddef.h>
#include <stdint.h>

typedef int CUresult;
typedef struct CUstream_st *CUstream;
typedef struct CUevent_st *CUevent;
typedef void *CUgraph, *CUgraphExec, *CUcontext, *CUmodule, *CUfunction;
typedef uint64_t CUdeviceptr;

#define DRIVER(X)                                                                                  \
    X(cuInit, (unsigned))                                                                          \
    X(cuDriverGetVersion, (int *))                                                                 \
    X(cuDeviceGet, (int *, int))                                                                   \
    X(cuDeviceGetName, (char *, int, int))                                                         \
    X(cuDeviceGetAttribute, (int *, int, int))                                                     \
    X(cuDevicePrimaryCtxRetain, (CUcontext *, int))                                                \
    X(cuCtxSetCurrent, (CUcontext))                                                                \
    X(cuModuleLoadData, (CUmodule *, const void *))                                                \
    X(cuModuleGetFunction, (CUfunction *, CUmodule, const char *))                                 \
    X(cuLaunchKernel, (CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,     \
                       unsigned, CUstream, void **, void **))                                      \
    X(cuStreamCreate, (CUstream *, unsigned))                                                      \
    X(cuStreamSynchronize, (CUstream))                                                             \
    X(cuStreamQuery, (CUstream))                                                                   \
    X(cuEventCreate, (CUevent *, unsigned))                                                        \
    X(cuEventRecord, (CUevent, CUstream))                                                          \
    X(cuEventQuery, (CUevent))                                                                     \
    X(cuEventSynchronize, (CUevent))                                                               \
    X(cuEventElapsedTime, (float *, CUevent, CUevent))                                             \
    X(cuStreamWaitEvent, (CUstream, CUevent, unsigned))                                            \
    X(cuMemAlloc_v2, (CUdeviceptr *, size_t))                                                      \
    X(cuMemFree_v2, (CUdeviceptr))                                                                 \
    X(cuMemHostAlloc, (void **, size_t, unsigned))                                                 \
    X(cuMemFreeHost, (void *))                                                                     \
    X(cuMemHostRegister_v2, (void *, size_t, unsigned))                                            \
    X(cuMemHostUnregister, (void *))                                                               \
    X(cuMemcpyHtoDAsync_v2, (CUdeviceptr, const void *, size_t, CUstream))                         \
    X(cuMemcpyDtoHAsync_v2, (void *, CUdeviceptr, size_t, CUstream))                               \
    X(cuMemcpyDtoDAsync_v2, (CUdeviceptr, CUdeviceptr, size_t, CUstream))                          \
    X(cuMemsetD32Async, (CUdeviceptr, unsigned, size_t, CUstream))                                 \
    X(cuStreamWriteValue32_v2, (CUstream, CUdeviceptr, uint32_t, unsigned))                        \
    X(cuStreamWaitValue32_v2, (CUstream, CUdeviceptr, uint32_t, unsigned))                         \
    X(cuLaunchHostFunc, (CUstream, void (*)(void *), void *))                                      \
    X(cuStreamBeginCapture_v2, (CUstream, int))                                                    \
    X(cuStreamEndCapture, (CUstream, CUgraph *))                                                   \
    X(cuGraphInstantiateWithFlags, (CUgraphExec *, CUgraph, unsigned long long))                   \
    X(cuGraphUpload, (CUgraphExec, CUstream))                                                      \
    X(cuGraphLaunch, (CUgraphExec, CUstream))
#define FIELD(name, arguments) CUresult(*name) arguments;
static struct {
    DRIVER(FIELD)
} cu;
