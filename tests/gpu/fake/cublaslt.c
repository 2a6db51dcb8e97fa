/* The fake libcublasLt over the fake driver: what the product calls of it, with the names, numbers
 * and layouts of CUDA 13. A product is two kernels on the given stream, the first of which leaves
 * half of each sum in the workspace: so the fake GPU sees what is out of order, and who shares one.
 */
#define _GNU_SOURCE
#include "cuda_abi.h"
#include <dlfcn.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define API __attribute__((visibility("default")))

CUresult cuCtxGetCurrent(CUcontext *);
CUresult cuModuleLoadData(CUmodule *, const void *);
CUresult cuModuleUnload(CUmodule);
CUresult cuModuleGetFunction(CUfunction *, CUmodule, const char *);
CUresult cuStreamCreate(CUstream *, unsigned);
CUresult cuLaunchKernel(CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                        unsigned, CUstream, void **, void **);

enum {
    SUCCESS = 0,
    NOT_INITIALIZED = 1,
    ALLOC_FAILED = 3,
    INVALID_VALUE = 7,
    EXECUTION_FAILED = 13,
    NOT_SUPPORTED = 15,

    R_32F = 0,
    R_16F = 2,
    COMPUTE_32F = 68,
    COMPUTE_32F_FAST_TF32 = 77,
};
enum { PART, REST, KERNELS_PER_TYPE, BLOCK = 256, ALGORITHM = 0x5eed };

typedef struct {
    CUcontext context;
    CUmodule module;
    CUfunction functions[2][KERNELS_PER_TYPE]; /* float, half */
    CUstream stray;                            /* what a library that ignores streams takes */
} handle;

typedef struct {
    int compute;
    int32_t transposed_a, transposed_b;
    uint32_t epilogue;
    uint64_t bias;
} desc;

typedef struct {
    int type;
    uint64_t rows, columns;
    int64_t leading, stride;
    int32_t batch;
} layout;

typedef struct {
    size_t workspace_bytes;
    uint32_t alignment[4];
} preference;

typedef struct {
    uint64_t data[8]; /* ALGORITHM, bytes of the workspace, shape */
} algorithm;

typedef struct {
    algorithm found;
    size_t workspace_bytes;
    int status;
    float waves;
    int reserved[4];
} heuristic_result;

/* As in cublaslt.cu. */
typedef struct {
    long long rows, columns, depth, batch, leading_a, leading_b, leading_d, stride_a, stride_b,
        stride_d;
    int transposed_a, transposed_b, activation, is_tf32, drifts;
    float alpha, beta;
} product;

/* What is to go wrong: "stream", "bias", "transpose", "gelu", "drift", "heuristic", "matmul",
 * "create". */
static bool is_faulty(const char *name) {
    const char *given = getenv("FAKE_CUBLASLT_FAULT");
    return given && strcmp(given, name) == 0;
}

API size_t cublasLtGetVersion(void);
size_t cublasLtGetVersion(void) {
    const char *given = getenv("FAKE_CUBLASLT_VERSION");
    return given && *given ? strtoull(given, NULL, 10) : 130100;
}

API const char *cublasLtGetStatusName(int status);
const char *cublasLtGetStatusName(int status) {
    switch (status) {
    case SUCCESS:
        return "CUBLAS_STATUS_SUCCESS";
    case NOT_INITIALIZED:
        return "CUBLAS_STATUS_NOT_INITIALIZED";
    case ALLOC_FAILED:
        return "CUBLAS_STATUS_ALLOC_FAILED";
    case INVALID_VALUE:
        return "CUBLAS_STATUS_INVALID_VALUE";
    case EXECUTION_FAILED:
        return "CUBLAS_STATUS_EXECUTION_FAILED";
    case NOT_SUPPORTED:
        return "CUBLAS_STATUS_NOT_SUPPORTED";
    default:
        return "CUBLAS_STATUS_UNKNOWN";
    }
}

/* --- handles -----------------------------------------------------------------------------------
 */

/* The kernels lie beside the library. */
static void *read_image(void) {
    Dl_info here;
    char path[PATH_MAX];
    if (!dladdr((void *)(uintptr_t)read_image, &here))
        return NULL;
    const char *slash = strrchr(here.dli_fname, '/');
    snprintf(path, sizeof path, "%.*s/cublaslt.image", slash ? (int)(slash - here.dli_fname) : 1,
             slash ? here.dli_fname : ".");
    FILE *file = fopen(path, "rb");
    if (!file)
        return NULL;
    fseek(file, 0, SEEK_END);
    long size = ftell(file);
    rewind(file);
    char *image = size > 0 ? malloc((size_t)size) : NULL;
    if (image && fread(image, 1, (size_t)size, file) != (size_t)size) {
        free(image);
        image = NULL;
    }
    fclose(file);
    return image;
}

API int cublasLtCreate(void **made);
int cublasLtCreate(void **made) {
    static const char *const names[2][KERNELS_PER_TYPE] = {{"fake_float_part", "fake_float_rest"},
                                                           {"fake_half_part", "fake_half_rest"}};
    handle *self = calloc(1, sizeof *self);
    if (!self)
        return ALLOC_FAILED;
    void *image = read_image();
    bool works = image && !is_faulty("create") && cuCtxGetCurrent(&self->context) == CUDA_SUCCESS &&
                 self->context && cuModuleLoadData(&self->module, image) == CUDA_SUCCESS;
    for (int type = 0; type < 2 && works; type++)
        for (int kernel = 0; kernel < KERNELS_PER_TYPE && works; kernel++)
            works = cuModuleGetFunction(&self->functions[type][kernel], self->module,
                                        names[type][kernel]) == CUDA_SUCCESS;
    free(image);
    if (works && is_faulty("stream"))
        works = cuStreamCreate(&self->stray, CU_STREAM_NON_BLOCKING) == CUDA_SUCCESS;
    if (!works) {
        free(self);
        return NOT_INITIALIZED;
    }
    *made = self;
    return SUCCESS;
}

API int cublasLtDestroy(handle *self);
int cublasLtDestroy(handle *self) {
    CUcontext now = NULL;
    if (!self || cuCtxGetCurrent(&now) != CUDA_SUCCESS || now != self->context)
        return INVALID_VALUE;
    (void)cuModuleUnload(self->module);
    free(self);
    return SUCCESS;
}

/* --- descriptors -------------------------------------------------------------------------------
 */

API int cublasLtMatmulDescCreate(void **made, int compute, int scale);
int cublasLtMatmulDescCreate(void **made, int compute, int scale) {
    if ((compute != COMPUTE_32F && compute != COMPUTE_32F_FAST_TF32) || scale != R_32F)
        return NOT_SUPPORTED;
    desc *self = calloc(1, sizeof *self);
    if (!self)
        return ALLOC_FAILED;
    self->compute = compute;
    self->epilogue = 1;
    *made = self;
    return SUCCESS;
}

API int cublasLtMatmulDescDestroy(desc *self);
int cublasLtMatmulDescDestroy(desc *self) {
    free(self);
    return SUCCESS;
}

static int take(void *to, size_t wanted, const void *value, size_t bytes) {
    if (bytes != wanted)
        return INVALID_VALUE;
    memcpy(to, value, bytes);
    return SUCCESS;
}

API int cublasLtMatmulDescSetAttribute(desc *self, int attribute, const void *value, size_t bytes);
int cublasLtMatmulDescSetAttribute(desc *self, int attribute, const void *value, size_t bytes) {
    switch (attribute) {
    case 3:
        return take(&self->transposed_a, sizeof self->transposed_a, value, bytes);
    case 4:
        return take(&self->transposed_b, sizeof self->transposed_b, value, bytes);
    case 7:
        return take(&self->epilogue, sizeof self->epilogue, value, bytes);
    case 8:
        return take(&self->bias, sizeof self->bias, value, bytes);
    default:
        return INVALID_VALUE;
    }
}

API int cublasLtMatrixLayoutCreate(void **made, int type, uint64_t rows, uint64_t columns,
                                   int64_t leading);
int cublasLtMatrixLayoutCreate(void **made, int type, uint64_t rows, uint64_t columns,
                               int64_t leading) {
    if ((type != R_32F && type != R_16F) || !rows || !columns || leading < (int64_t)rows)
        return INVALID_VALUE;
    layout *self = malloc(sizeof *self);
    if (!self)
        return ALLOC_FAILED;
    *self = (layout){type, rows, columns, leading, 0, 1};
    *made = self;
    return SUCCESS;
}

API int cublasLtMatrixLayoutDestroy(layout *self);
int cublasLtMatrixLayoutDestroy(layout *self) {
    free(self);
    return SUCCESS;
}

API int cublasLtMatrixLayoutSetAttribute(layout *self, int attribute, const void *value,
                                         size_t bytes);
int cublasLtMatrixLayoutSetAttribute(layout *self, int attribute, const void *value, size_t bytes) {
    if (attribute == 5)
        return take(&self->batch, sizeof self->batch, value, bytes);
    if (attribute == 6)
        return take(&self->stride, sizeof self->stride, value, bytes);
    return INVALID_VALUE;
}

API int cublasLtMatmulPreferenceCreate(void **made);
int cublasLtMatmulPreferenceCreate(void **made) {
    preference *self = malloc(sizeof *self);
    if (!self)
        return ALLOC_FAILED;
    *self = (preference){0, {256, 256, 256, 256}};
    *made = self;
    return SUCCESS;
}

API int cublasLtMatmulPreferenceDestroy(preference *self);
int cublasLtMatmulPreferenceDestroy(preference *self) {
    free(self);
    return SUCCESS;
}

API int cublasLtMatmulPreferenceSetAttribute(preference *self, int attribute, const void *value,
                                             size_t bytes);
int cublasLtMatmulPreferenceSetAttribute(preference *self, int attribute, const void *value,
                                         size_t bytes) {
    if (attribute == 1)
        return take(&self->workspace_bytes, sizeof self->workspace_bytes, value, bytes);
    if (attribute >= 5 && attribute <= 8)
        return take(&self->alignment[attribute - 5], sizeof *self->alignment, value, bytes);
    return INVALID_VALUE;
}

/* --- products ----------------------------------------------------------------------------------
 */

/* Whether matrices fit together, and how they are gone through. */
static bool read_product(const desc *of, const layout *a, const layout *b, const layout *d,
                         product *out) {
    uint32_t activation = of->epilogue & ~5u; /* DEFAULT and BIAS */
    bool has_bias = of->epilogue & 4u;
    *out = (product){
        .rows = (long long)d->rows,
        .columns = (long long)d->columns,
        .depth = (long long)(of->transposed_a ? a->rows : a->columns),
        .batch = d->batch,
        .leading_a = a->leading,
        .leading_b = b->leading,
        .leading_d = d->leading,
        .stride_a = a->stride,
        .stride_b = b->stride,
        .stride_d = d->stride,
        .transposed_a = of->transposed_a,
        .transposed_b = of->transposed_b,
        .activation = activation == 2    ? 1
                      : activation == 32 ? is_faulty("gelu") ? 3 : 2
                                         : 0,
        .is_tf32 = of->compute == COMPUTE_32F_FAST_TF32,
        .alpha = 1,
    };
    bool types = a->type == d->type && b->type == d->type && a->batch == d->batch &&
                 b->batch == d->batch && !(out->is_tf32 && d->type != R_32F);
    bool known = (activation == 0 || activation == 2 || activation == 32) && has_bias == !!of->bias;
    return types && known && (of->transposed_a ? a->columns : a->rows) == d->rows &&
           (of->transposed_b ? b->rows : b->columns) == d->columns &&
           (of->transposed_b ? b->columns : b->rows) == (uint64_t)out->depth;
}

API int cublasLtMatmulAlgoGetHeuristic(handle *self, desc *of, layout *a, layout *b, layout *c,
                                       layout *d, preference *prefers, int wanted,
                                       heuristic_result *results, int *count);
int cublasLtMatmulAlgoGetHeuristic(handle *self, desc *of, layout *a, layout *b, layout *c,
                                   layout *d, preference *prefers, int wanted,
                                   heuristic_result *results, int *count) {
    product shape;
    *count = 0;
    if (!self || wanted < 1 || c != d || !read_product(of, a, b, d, &shape))
        return INVALID_VALUE;
    size_t needed = (size_t)(shape.rows * shape.columns * shape.batch) * sizeof(float);
    uint32_t least = d->type == R_16F ? 2 : 4;
    for (int i = 0; i < 4; i++)
        if (prefers->alignment[i] < least)
            return NOT_SUPPORTED;
    if (is_faulty("heuristic") || needed > prefers->workspace_bytes)
        return NOT_SUPPORTED;
    results[0] = (heuristic_result){
        .found = {{ALGORITHM, needed, d->rows, d->columns, (uint64_t)shape.depth}},
        .workspace_bytes = needed,
        .waves = 1,
    };
    *count = 1;
    return SUCCESS;
}

static int launch(const handle *self, int type, int kernel, const product *shape, CUstream stream,
                  void **arguments) {
    uint64_t count = (uint64_t)(shape->rows * shape->columns * shape->batch);
    CUresult error =
        cuLaunchKernel(self->functions[type][kernel], (unsigned)((count + BLOCK - 1) / BLOCK), 1, 1,
                       BLOCK, 1, 1, 0, stream, arguments, NULL);
    return error == CUDA_SUCCESS ? SUCCESS : EXECUTION_FAILED;
}

static void plant_fault(product *shape, uint64_t *bias) {
    if (is_faulty("bias"))
        *bias = 0;
    if (is_faulty("transpose"))
        shape->transposed_a = !shape->transposed_a;
    shape->drifts = is_faulty("drift");
}

API int cublasLtMatmul(handle *self, desc *of, const float *alpha, uint64_t a, layout *a_layout,
                       uint64_t b, layout *b_layout, const float *beta, uint64_t c,
                       layout *c_layout, uint64_t d, layout *d_layout, const algorithm *chosen,
                       uint64_t workspace, size_t workspace_bytes, CUstream stream);
int cublasLtMatmul(handle *self, desc *of, const float *alpha, uint64_t a, layout *a_layout,
                   uint64_t b, layout *b_layout, const float *beta, uint64_t c, layout *c_layout,
                   uint64_t d, layout *d_layout, const algorithm *chosen, uint64_t workspace,
                   size_t workspace_bytes, CUstream stream) {
    product shape;
    CUcontext now = NULL;
    if (cuCtxGetCurrent(&now) != CUDA_SUCCESS || now != self->context)
        return NOT_INITIALIZED;
    if (c_layout != d_layout || (*beta != 0) == (c == d) ||
        !read_product(of, a_layout, b_layout, d_layout, &shape))
        return INVALID_VALUE;
    const uint64_t made_for[] = {ALGORITHM, workspace_bytes, d_layout->rows, d_layout->columns,
                                 (uint64_t)shape.depth};
    for (int i = 0; i < 5; i++)
        if (i == 1 ? chosen->data[i] > made_for[i] : chosen->data[i] != made_for[i])
            return INVALID_VALUE;
    if (workspace % 256)
        return INVALID_VALUE;
    if (is_faulty("matmul"))
        return EXECUTION_FAILED;
    shape.alpha = *alpha;
    shape.beta = *beta;
    uint64_t bias = of->bias;
    plant_fault(&shape, &bias);
    if (self->stray)
        stream = self->stray;
    int type = d_layout->type == R_16F;
    void *part[] = {&a, &b, &workspace, &shape},
         *rest[] = {&a, &b, &c, &d, &bias, &workspace, &shape};
    int status = launch(self, type, PART, &shape, stream, part);
    return status ? status : launch(self, type, REST, &shape, stream, rest);
}
