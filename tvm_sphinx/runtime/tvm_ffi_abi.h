/* The part of TVM's stable C ABI (tvm_ffi 0.1, tvm/ffi/c_api.h) and of DLPack 1 that the lanes use.
 *
 * Declared here rather than included, so that building the package needs a C compiler and nothing
 * of TVM; the symbols are those of libtvm_ffi, which is loaded before this library is, as it is for
 * the libraries that TVM itself compiles. `tvm_sphinx._tvm` holds the versions that this is made
 * for.
 */
#ifndef TVM_SPHINX_TVM_FFI_ABI_H_
#define TVM_SPHINX_TVM_FFI_ABI_H_

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    int32_t device_type; /* 1: CPU */
    int32_t device_id;
} DLDevice;

typedef struct {
    uint8_t code, bits;
    uint16_t lanes;
} DLDataType;

typedef struct {
    void *data;
    DLDevice device;
    int32_t ndim;
    DLDataType dtype;
    int64_t *shape, *strides;
    uint64_t byte_offset;
} DLTensor;

enum { kDLCPU = 1 };

enum {
    kTVMFFINone = 0,
    kTVMFFIInt = 1,
    kTVMFFIDLTensorPtr = 7,
    kTVMFFIFunction = 68,
    kTVMFFITensor = 70,
    kTVMFFIArray = 71,
};

typedef void *TVMFFIObjectHandle;

typedef struct {
    uint64_t combined_ref_count;
    int32_t type_index;
    uint32_t padding;
    void (*deleter)(void *self, int flags);
} TVMFFIObject;

typedef struct {
    int32_t type_index;
    uint32_t zero_padding;
    union {
        int64_t v_int64;
        void *v_ptr;
        TVMFFIObject *v_obj;
    };
} TVMFFIAny;

typedef int (*TVMFFISafeCallType)(void *handle, const TVMFFIAny *args, int32_t num_args,
                                  TVMFFIAny *result);

typedef struct {
    TVMFFISafeCallType safe_call;
    void *cpp_call;
} TVMFFIFunctionCell;

static_assert(sizeof(TVMFFIAny) == 16 && sizeof(TVMFFIObject) == 24,
              "layout of the tvm_ffi 0.1 ABI");
static_assert(sizeof(void *) != 8 || sizeof(DLTensor) == 48, "layout of DLPack 1");

int TVMFFIObjectIncRef(TVMFFIObjectHandle object);
int TVMFFIObjectDecRef(TVMFFIObjectHandle object);
int TVMFFIFunctionCreate(void *self, TVMFFISafeCallType safe_call, void (*deleter)(void *self),
                         TVMFFIObjectHandle *out);
int TVMFFITensorCreateUnsafeView(TVMFFIObjectHandle source, const DLTensor *prototype,
                                 TVMFFIObjectHandle *out);
void TVMFFIErrorMoveFromRaised(TVMFFIObjectHandle *result);
void TVMFFIErrorSetRaised(TVMFFIObjectHandle error);
void TVMFFIErrorSetRaisedFromCStr(const char *kind, const char *message);
int TVMFFIEnvCheckSignals(void);

/* The content of these objects follows their header. */
static inline DLTensor *tvm_ffi_dl_tensor(TVMFFIObject *object) { return (DLTensor *)(object + 1); }
static inline TVMFFIFunctionCell *tvm_ffi_function_cell(TVMFFIObject *object) {
    return (TVMFFIFunctionCell *)(object + 1);
}

#endif
