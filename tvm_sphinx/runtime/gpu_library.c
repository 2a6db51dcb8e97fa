#include "gpu_library.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* As in cublasLt.h and library_types.h of CUDA 12 and 13, which differ in none of it. */
enum {
    CUDA_R_32F = 0,
    CUDA_R_16F = 2,
    CUBLAS_COMPUTE_32F = 68,
    CUBLAS_COMPUTE_32F_FAST_TF32 = 77,
    CUBLAS_STATUS_NOT_SUPPORTED = 15,

    LAYOUT_BATCH_COUNT = 5,
    LAYOUT_STRIDED_BATCH_OFFSET = 6,

    DESC_TRANSA = 3,
    DESC_TRANSB = 4,
    DESC_EPILOGUE = 7,
    DESC_BIAS_POINTER = 8,

    EPILOGUE_DEFAULT = 1,
    EPILOGUE_RELU = 2,
    EPILOGUE_BIAS = 4, /* with an activation: both bits */
    EPILOGUE_GELU = 32,

    PREFERENCE_MAX_WORKSPACE_BYTES = 1,
    PREFERENCE_MIN_ALIGNMENT_A_BYTES = 5, /* and of B, C and D */

    MOST_ALIGNMENT = 256,
};

typedef struct {
    uint64_t data[8];
} algorithm;

typedef struct {
    algorithm found;
    size_t workspace_bytes;
    int status;
    float waves;
    int reserved[4];
} heuristic_result;

/* X(result, name, arguments): every function, under the name that the library has it by. */
#define LIBRARY_FUNCTIONS(X)                                                                       \
    X(size_t, cublasLtGetVersion, (void))                                                          \
    X(const char *, cublasLtGetStatusName, (int status))                                           \
    X(int, cublasLtCreate, (void **handle))                                                        \
    X(int, cublasLtDestroy, (void *handle))                                                        \
    X(int, cublasLtMatmulDescCreate, (void **desc, int compute_type, int scale_type))              \
    X(int, cublasLtMatmulDescDestroy, (void *desc))                                                \
    X(int, cublasLtMatmulDescSetAttribute,                                                         \
      (void *desc, int attribute, const void *value, size_t bytes))                                \
    X(int, cublasLtMatrixLayoutCreate,                                                             \
      (void **layout, int type, uint64_t rows, uint64_t columns, int64_t leading))                 \
    X(int, cublasLtMatrixLayoutDestroy, (void *layout))                                            \
    X(int, cublasLtMatrixLayoutSetAttribute,                                                       \
      (void *layout, int attribute, const void *value, size_t bytes))                              \
    X(int, cublasLtMatmulPreferenceCreate, (void **preference))                                    \
    X(int, cublasLtMatmulPreferenceDestroy, (void *preference))                                    \
    X(int, cublasLtMatmulPreferenceSetAttribute,                                                   \
      (void *preference, int attribute, const void *value, size_t bytes))                          \
    X(int, cublasLtMatmulAlgoGetHeuristic,                                                         \
      (void *handle, void *desc, void *a, void *b, void *c, void *d, void *preference, int wanted, \
       heuristic_result *results, int *count))                                                     \
    X(int, cublasLtMatmul,                                                                         \
      (void *handle, void *desc, const void *alpha, const void *a, void *a_layout, const void *b,  \
       void *b_layout, const void *beta, const void *c, void *c_layout, void *d, void *d_layout,   \
       const algorithm *chosen, void *workspace, size_t workspace_bytes, CUstream stream))

struct gpu_library {
#define FIELD(result, name, arguments) result(*name) arguments;
    LIBRARY_FUNCTIONS(FIELD)
#undef FIELD
};

struct gpu_product_plan {
    const gpu_library *library;
    void *handle;
    gpu_product product;
    gpu_product_memory memory; /* its workspace aligned */
    void *desc, *layout_a, *layout_b, *layout_d;
    algorithm chosen;
    size_t workspace_bytes;
};

static void *pointer(CUdeviceptr address) { return (void *)(uintptr_t)address; }

/* --- the library -------------------------------------------------------------------------------
 */

static int load(void *opened, const char *name, void *into, size_t bytes, char *why, size_t size) {
    void *symbol = dlsym(opened, name);
    if (!symbol) {
        snprintf(why, size, "it has no %s", name);
        return -1;
    }
    memcpy(into, &symbol, bytes); /* as in gpu_driver.c */
    return 0;
}

int gpu_library_open(const char *path, int32_t major, gpu_library **out, char *why, size_t size) {
    *out = NULL;
    void *opened = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!opened) {
        snprintf(why, size, "%s", dlerror());
        return -1;
    }
    gpu_library *self = calloc(1, sizeof *self);
    if (!self) {
        snprintf(why, size, "there is no memory left");
        return -1;
    }
    int status = 0;
#define LOAD(result, name, arguments)                                                              \
    if (status == 0)                                                                               \
        status = load(opened, #name, &self->name, sizeof self->name, why, size);
    LIBRARY_FUNCTIONS(LOAD)
#undef LOAD
    /* 120403, or 13.1.0 as 130100. */
    size_t version = status == 0 ? self->cublasLtGetVersion() : 0;
    if (status == 0 && version / 10000 != (size_t)major) {
        snprintf(why, size, "it is of version %zu.%zu, and %d is expected", version / 10000,
                 version / 100 % 100, major);
        status = -1;
    }
    if (status != 0) {
        free(self);
        return -1;
    }
    *out = self;
    return 0;
}

void gpu_library_close(gpu_library *self) { free(self); }

const char *gpu_library_status(const gpu_library *self, int status) {
    return status < 0 ? "no memory left" : self->cublasLtGetStatusName(status);
}

int gpu_library_handle(const gpu_library *self, void **out) { return self->cublasLtCreate(out); }

void gpu_library_drop(const gpu_library *self, void *handle) {
    (void)self->cublasLtDestroy(handle);
}

/* --- products ----------------------------------------------------------------------------------
 */

static int data_type(const gpu_product *product) {
    return product->type == GPU_FLOAT16 ? CUDA_R_16F : CUDA_R_32F;
}

static int make_desc(gpu_product_plan *self) {
    const gpu_library *lt = self->library;
    const gpu_product *product = &self->product;
    static const uint32_t epilogues[] = {EPILOGUE_DEFAULT, EPILOGUE_RELU, EPILOGUE_GELU};
    uint32_t epilogue = epilogues[product->activation];
    if (self->memory.bias)
        epilogue = (epilogue == EPILOGUE_DEFAULT ? 0 : epilogue) | EPILOGUE_BIAS;
    int compute = product->type == GPU_TF32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
    const void *bias = pointer(self->memory.bias);
    int status = lt->cublasLtMatmulDescCreate(&self->desc, compute, CUDA_R_32F);
    if (status == 0)
        status = lt->cublasLtMatmulDescSetAttribute(self->desc, DESC_TRANSA, &product->transposed_a,
                                                    sizeof product->transposed_a);
    if (status == 0)
        status = lt->cublasLtMatmulDescSetAttribute(self->desc, DESC_TRANSB, &product->transposed_b,
                                                    sizeof product->transposed_b);
    if (status == 0)
        status = lt->cublasLtMatmulDescSetAttribute(self->desc, DESC_EPILOGUE, &epilogue,
                                                    sizeof epilogue);
    if (status == 0 && bias)
        status =
            lt->cublasLtMatmulDescSetAttribute(self->desc, DESC_BIAS_POINTER, &bias, sizeof bias);
    return status;
}

static int make_layout(gpu_product_plan *self, void **out, int64_t rows, int64_t columns,
                       int64_t leading, int64_t stride) {
    const gpu_library *lt = self->library;
    int32_t batch = (int32_t)self->product.batch;
    int status = lt->cublasLtMatrixLayoutCreate(out, data_type(&self->product), (uint64_t)rows,
                                                (uint64_t)columns, leading);
    if (status == 0)
        status =
            lt->cublasLtMatrixLayoutSetAttribute(*out, LAYOUT_BATCH_COUNT, &batch, sizeof batch);
    if (status == 0)
        status = lt->cublasLtMatrixLayoutSetAttribute(*out, LAYOUT_STRIDED_BATCH_OFFSET, &stride,
                                                      sizeof stride);
    return status;
}

static int make_layouts(gpu_product_plan *self) {
    const gpu_product *p = &self->product;
    int is_a = p->transposed_a, is_b = p->transposed_b;
    int status = make_layout(self, &self->layout_a, is_a ? p->depth : p->rows,
                             is_a ? p->rows : p->depth, p->leading_a, p->stride_a);
    if (status == 0)
        status = make_layout(self, &self->layout_b, is_b ? p->columns : p->depth,
                             is_b ? p->depth : p->columns, p->leading_b, p->stride_b);
    if (status == 0)
        status = make_layout(self, &self->layout_d, p->rows, p->columns, p->leading_d, p->stride_d);
    return status;
}

/* What an address is a multiple of, as far as that matters. */
static uint32_t alignment(CUdeviceptr address) {
    uint32_t found = MOST_ALIGNMENT;
    while (address % found)
        found /= 2;
    return found;
}

static int set_preference(const gpu_product_plan *self, void *preference) {
    const gpu_library *lt = self->library;
    const CUdeviceptr operands[] = {self->memory.a, self->memory.b, self->memory.c, self->memory.d};
    size_t most = self->workspace_bytes;
    int status = lt->cublasLtMatmulPreferenceSetAttribute(
        preference, PREFERENCE_MAX_WORKSPACE_BYTES, &most, sizeof most);
    for (int i = 0; i < 4 && status == 0; i++) {
        uint32_t bytes = alignment(operands[i]);
        status = lt->cublasLtMatmulPreferenceSetAttribute(
            preference, PREFERENCE_MIN_ALIGNMENT_A_BYTES + i, &bytes, sizeof bytes);
    }
    return status;
}

static int choose(gpu_product_plan *self) {
    const gpu_library *lt = self->library;
    void *preference = NULL;
    heuristic_result result = {.status = CUBLAS_STATUS_NOT_SUPPORTED};
    int count = 0, status = lt->cublasLtMatmulPreferenceCreate(&preference);
    if (status == 0)
        status = set_preference(self, preference);
    if (status == 0)
        status = lt->cublasLtMatmulAlgoGetHeuristic(self->handle, self->desc, self->layout_a,
                                                    self->layout_b, self->layout_d, self->layout_d,
                                                    preference, 1, &result, &count);
    if (preference)
        (void)lt->cublasLtMatmulPreferenceDestroy(preference);
    if (status == 0)
        status = count < 1 ? CUBLAS_STATUS_NOT_SUPPORTED : result.status;
    self->chosen = result.found;
    return status;
}

int gpu_product_make(const gpu_library *library, void *handle, const gpu_product *product,
                     const gpu_product_memory *memory, gpu_product_plan **out) {
    *out = NULL;
    gpu_product_plan *self = calloc(1, sizeof *self);
    if (!self)
        return -1;
    self->library = library;
    self->handle = handle;
    self->product = *product;
    self->memory = *memory;
    if (!memory->c)
        self->memory.c = memory->d; /* which is not read then */
    if (memory->workspace) {
        CUdeviceptr end = memory->workspace + (CUdeviceptr)product->workspace_bytes;
        self->memory.workspace = (memory->workspace + GPU_WORKSPACE_ALIGN - 1) /
                                 GPU_WORKSPACE_ALIGN * GPU_WORKSPACE_ALIGN;
        self->workspace_bytes =
            end > self->memory.workspace ? (size_t)(end - self->memory.workspace) : 0;
    }
    int status = make_desc(self);
    if (status == 0)
        status = make_layouts(self);
    if (status == 0)
        status = choose(self);
    if (status != 0) {
        gpu_product_free(self);
        return status;
    }
    *out = self;
    return 0;
}

int gpu_product_issue(const gpu_product_plan *self, CUstream stream) {
    const gpu_product_memory *memory = &self->memory;
    const float scale = self->product.scale, of_c = self->product.has_residual ? 1 : 0;
    return self->library->cublasLtMatmul(
        self->handle, self->desc, &scale, pointer(memory->a), self->layout_a, pointer(memory->b),
        self->layout_b, &of_c, pointer(memory->c), self->layout_d, pointer(memory->d),
        self->layout_d, &self->chosen, pointer(memory->workspace), self->workspace_bytes, stream);
}

void gpu_product_free(gpu_product_plan *self) {
    if (!self)
        return;
    const gpu_library *lt = self->library;
    void *const layouts[] = {self->layout_a, self->layout_b, self->layout_d};
    for (int i = 0; i < 3; i++)
        if (layouts[i])
            (void)lt->cublasLtMatrixLayoutDestroy(layouts[i]);
    if (self->desc)
        (void)lt->cublasLtMatmulDescDestroy(self->desc);
    free(self);
}
