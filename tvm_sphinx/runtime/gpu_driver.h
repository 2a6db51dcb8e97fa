/* The part of NVIDIA's driver API that the GPU lanes use, opened at run time.
 *
 * Declared here rather than included, so that building the package needs nothing of CUDA; the names
 * and numbers are those of cuda.h, whose binary interface is stable from CUDA 12 on. */
#ifndef TVM_SPHINX_GPU_DRIVER_H_
#define TVM_SPHINX_GPU_DRIVER_H_

#include <stddef.h>
#include <stdint.h>

typedef int CUresult;
typedef int CUdevice;
typedef uint64_t CUdeviceptr;
typedef struct CUctx_st *CUcontext;
typedef struct CUmod_st *CUmodule;
typedef struct CUfunc_st *CUfunction;
typedef struct CUstream_st *CUstream;
typedef struct CUevent_st *CUevent;
typedef struct CUgraph_st *CUgraph;
typedef struct CUgraphExec_st *CUgraphExec;

enum {
    CUDA_SUCCESS = 0,
    CUDA_ERROR_OUT_OF_MEMORY = 2,
    CUDA_ERROR_NOT_INITIALIZED = 3,
    CUDA_ERROR_DEVICE_UNAVAILABLE = 46,
    CUDA_ERROR_NO_DEVICE = 100,
    CUDA_ERROR_INVALID_DEVICE = 101,
    CUDA_ERROR_INVALID_IMAGE = 200,
    CUDA_ERROR_NO_BINARY_FOR_GPU = 209,
    CUDA_ERROR_NOT_READY = 600,

    CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR = 75,
    CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR = 76,
    CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES = 8,
    CU_STREAM_NON_BLOCKING = 1,
    CU_STREAM_CAPTURE_MODE_RELAXED = 2,
    CU_EVENT_DEFAULT = 0,
    CU_EVENT_DISABLE_TIMING = 2,
    CU_MEMHOSTALLOC_PORTABLE = 1,
    CU_POINTER_ATTRIBUTE_MEMORY_TYPE = 2,
    CU_MEMORYTYPE_HOST = 1,
};

/* X(result name, arguments): every function, under the name that the library has it by. */
#define GPU_DRIVER_FUNCTIONS(X)                                                                    \
    X(cuInit, (unsigned flags))                                                                    \
    X(cuDriverGetVersion, (int *version))                                                          \
    X(cuDeviceGetCount, (int *count))                                                              \
    X(cuDeviceGet, (CUdevice * device, int ordinal))                                               \
    X(cuDeviceGetName, (char *name, int size, CUdevice device))                                    \
    X(cuDeviceGetAttribute, (int *value, int attribute, CUdevice device))                          \
    X(cuDevicePrimaryCtxRetain, (CUcontext * context, CUdevice device))                            \
    X(cuDevicePrimaryCtxRelease_v2, (CUdevice device))                                             \
    X(cuCtxGetCurrent, (CUcontext * context))                                                      \
    X(cuCtxSetCurrent, (CUcontext context))                                                        \
    X(cuMemGetInfo_v2, (size_t *available, size_t *total))                                         \
    X(cuMemAlloc_v2, (CUdeviceptr * memory, size_t bytes))                                         \
    X(cuMemFree_v2, (CUdeviceptr memory))                                                          \
    X(cuMemHostAlloc, (void **memory, size_t bytes, unsigned flags))                               \
    X(cuMemFreeHost, (void *memory))                                                               \
    X(cuMemcpyHtoDAsync_v2, (CUdeviceptr to, const void *from, size_t bytes, CUstream stream))     \
    X(cuMemcpyDtoHAsync_v2, (void *to, CUdeviceptr from, size_t bytes, CUstream stream))           \
    X(cuMemsetD32Async, (CUdeviceptr memory, unsigned value, size_t count, CUstream stream))       \
    X(cuModuleLoadData, (CUmodule * module, const void *image))                                    \
    X(cuModuleUnload, (CUmodule module))                                                           \
    X(cuModuleGetFunction, (CUfunction * function, CUmodule module, const char *name))             \
    X(cuFuncSetAttribute, (CUfunction function, int attribute, int value))                         \
    X(cuLaunchKernel, (CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z,     \
                       unsigned block_x, unsigned block_y, unsigned block_z,                       \
                       unsigned shared_bytes, CUstream stream, void **arguments, void **extra))    \
    X(cuStreamCreate, (CUstream * stream, unsigned flags))                                         \
    X(cuStreamDestroy_v2, (CUstream stream))                                                       \
    X(cuStreamQuery, (CUstream stream))                                                            \
    X(cuStreamSynchronize, (CUstream stream))                                                      \
    X(cuStreamWaitEvent, (CUstream stream, CUevent event, unsigned flags))                         \
    X(cuStreamBeginCapture_v2, (CUstream stream, int mode))                                        \
    X(cuStreamEndCapture, (CUstream stream, CUgraph * graph))                                      \
    X(cuEventCreate, (CUevent * event, unsigned flags))                                            \
    X(cuEventDestroy_v2, (CUevent event))                                                          \
    X(cuEventRecord, (CUevent event, CUstream stream))                                             \
    X(cuGraphInstantiateWithFlags, (CUgraphExec * exec, CUgraph graph, unsigned long long flags))  \
    X(cuGraphLaunch, (CUgraphExec exec, CUstream stream))                                          \
    X(cuGraphDestroy, (CUgraph graph))                                                             \
    X(cuGraphExecDestroy, (CUgraphExec exec))                                                      \
    X(cuGetErrorName, (CUresult error, const char **name))                                         \
    X(cuGetErrorString, (CUresult error, const char **text))

/* Functions that a driver may lack; their pointers are NULL then. */
#define GPU_DRIVER_OPTIONAL(X)                                                                     \
    X(cuStreamWriteValue32_v2,                                                                     \
      (CUstream stream, CUdeviceptr memory, uint32_t value, unsigned flags))                       \
    X(cuEventElapsedTime, (float *milliseconds, CUevent begin, CUevent end))                       \
    X(cuEventElapsedTime_v2, (float *milliseconds, CUevent begin, CUevent end))                    \
    X(cuFuncLoad, (CUfunction function))                                                           \
    X(cuGraphUpload, (CUgraphExec exec, CUstream stream))                                          \
    X(cuPointerGetAttribute, (void *value, int attribute, CUdeviceptr memory))

typedef struct {
#define GPU_DRIVER_FIELD(name, arguments) CUresult(*name) arguments;
    GPU_DRIVER_FUNCTIONS(GPU_DRIVER_FIELD) GPU_DRIVER_OPTIONAL(GPU_DRIVER_FIELD)
#undef GPU_DRIVER_FIELD
} gpu_driver;

/* The driver, opened and initialised when it is first asked for; NULL if there is none that will
 * do, and then what is wrong in `why`. */
const gpu_driver *gpu_driver_open(char *why, size_t size);

#endif
