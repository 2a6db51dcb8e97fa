/* Products by NVIDIA's cuBLASLt, which is opened at run time like the driver.
 *
 * Matrices stand as BLAS has them, column by column: what is row by row is the transposed one. A
 * handle belongs to the context that was current when it was made, and so do its plans. A plan is
 * one product of fixed addresses with the algorithm that the library's heuristic names for it; it
 * is found once, so that each run takes the same. */
#ifndef TVM_SPHINX_GPU_LIBRARY_H_
#define TVM_SPHINX_GPU_LIBRARY_H_

#include <stddef.h>
#include <stdint.h>

#include "gpu_driver.h"

/* Workspaces have to begin at a multiple of this. */
enum { GPU_WORKSPACE_ALIGN = 256 };

enum gpu_product_type { GPU_FLOAT32 = 0, GPU_TF32 = 1, GPU_FLOAT16 = 2 };
enum gpu_product_activation { GPU_LINEAR = 0, GPU_RELU = 1, GPU_GELU_TANH = 2 };

/* D = activation(scale op(A) op(B) + C + bias): op(A) has `rows` rows and `depth` columns, op(B)
 * `depth` rows and `columns` columns; leading dimensions and strides between matrices of a batch
 * are in elements; the bias has one element for each row of D, and C lies as D does. */
typedef struct {
    int32_t type, activation;
    float scale;
    int64_t rows, columns, depth, batch;
    int32_t transposed_a, transposed_b;
    int64_t leading_a, leading_b, leading_d;
    int64_t stride_a, stride_b, stride_d;
    int64_t workspace_bytes;
    int32_t has_bias, has_residual;
} gpu_product;

/* Where the operands of a product lie; what it has not is 0. */
typedef struct {
    CUdeviceptr a, b, c, d, bias, workspace;
} gpu_product_memory;

typedef struct gpu_library gpu_library;
typedef struct gpu_product_plan gpu_product_plan;

/* Status 0 is success; others are the library's, or -1 for want of host memory. */

/* Open the library in the file `path`, whose version has to begin with `major`. It stays loaded.
 * Returns nonzero with what is wrong in `why`. */
int gpu_library_open(const char *path, int32_t major, gpu_library **out, char *why, size_t size);
void gpu_library_close(gpu_library *self);
/* Name of a status, such as "CUBLAS_STATUS_NOT_SUPPORTED". */
const char *gpu_library_status(const gpu_library *self, int status);

/* For the context that is current. */
int gpu_library_handle(const gpu_library *self, void **out);
void gpu_library_drop(const gpu_library *self, void *handle);

int gpu_product_make(const gpu_library *self, void *handle, const gpu_product *product,
                     const gpu_product_memory *memory, gpu_product_plan **out);
/* Issue it to a stream, or into the graph that is captured of it. */
int gpu_product_issue(const gpu_product_plan *self, CUstream stream);
void gpu_product_free(gpu_product_plan *self);

#endif
