// Lets CUDA C++, as TVM writes it, be compiled for x86 and run by the fake GPU (gpu_kernels.c).
// Only C's headers: a kernel compiles in a fraction of a second.
#pragma once
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct fake_index {
    unsigned x, y, z;
};
extern "C" {
extern struct {
    fake_index thread, block, block_size, grid_size;
} fake_place;
void fake_barrier(void);
void fake_warp_barrier(void);
void fake_put(const void *, size_t);
void fake_take(void *, size_t, uint32_t);
}
#define threadIdx fake_place.thread
#define blockIdx fake_place.block
#define blockDim fake_place.block_size
#define gridDim fake_place.grid_size

#define __global__
#define __device__
#define __host__
#define __constant__ static const
#define __forceinline__ inline
#define __launch_bounds__(...)
// Blocks run one after another in one thread, so memory of a block may be the module's.
#define __shared__ static
#define __align__(n) alignas(n)

// Of math_constants.h.
#define CUDART_INF_F INFINITY
#define CUDART_NAN_F NAN
#define CUDART_INF ((double)INFINITY)
#define CUDART_NAN ((double)NAN)

#define __syncthreads() fake_barrier()
#define __syncwarp(...) fake_warp_barrier()
#define __activemask() 0xffffffffu
static inline unsigned fake_lane() {
    return (threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) & 31;
}
template <class T> static inline T fake_shuffle(T value, unsigned lane) {
    fake_put(&value, sizeof value);
    T taken;
    fake_take(&taken, sizeof taken, lane);
    return taken;
}
// A lane that would read outside of its part of the warp, of `width` lanes, keeps its own value.
template <class T> static inline T __shfl_sync(unsigned, T v, int lane, int width = 32) {
    return fake_shuffle(v, (fake_lane() & ~(width - 1)) | (lane & (width - 1)));
}
template <class T> static inline T __shfl_down_sync(unsigned, T v, unsigned by, int width = 32) {
    unsigned to = (fake_lane() & (width - 1)) + by;
    return fake_shuffle(v, to < (unsigned)width ? fake_lane() + by : fake_lane());
}
template <class T> static inline T __shfl_up_sync(unsigned, T v, unsigned by, int width = 32) {
    return fake_shuffle(v, (fake_lane() & (width - 1)) >= by ? fake_lane() - by : fake_lane());
}
template <class T> static inline T __shfl_xor_sync(unsigned, T v, int mask, int = 32) {
    return fake_shuffle(v, fake_lane() ^ mask);
}

static inline void __threadfence_system() { __sync_synchronize(); }
static inline void __threadfence() { __sync_synchronize(); }
static inline void __threadfence_block() { __sync_synchronize(); }
static inline long long clock64() { return (long long)__builtin_ia32_rdtsc(); }

// Nothing else runs meanwhile, so plain accesses are atomic.
template <class T, class U> static inline T atomicAdd(T *at, U by) {
    T old = *at;
    *at = old + (T)by;
    return old;
}
template <class T, class U> static inline T atomicMax(T *at, U with) {
    T old = *at;
    *at = old < (T)with ? (T)with : old;
    return old;
}
template <class T, class U> static inline T atomicMin(T *at, U with) {
    T old = *at;
    *at = old > (T)with ? (T)with : old;
    return old;
}
template <class T, class U> static inline T atomicExch(T *at, U with) {
    T old = *at;
    *at = (T)with;
    return old;
}

#define FAKE_VECTOR(T, N)                                                                          \
    struct N##1 { T x; };                                                                          \
    struct alignas(2 * sizeof(T)) N##2 { T x, y; };                                                \
    struct N##3 { T x, y, z; };                                                                    \
    struct alignas(sizeof(T) == 8 ? 16 : 4 * sizeof(T)) N##4 { T x, y, z, w; };                    \
    static inline N##1 make_##N##1(T x) { return {x}; }                                            \
    static inline N##2 make_##N##2(T x, T y) { return {x, y}; }                                    \
    static inline N##3 make_##N##3(T x, T y, T z) { return {x, y, z}; }                            \
    static inline N##4 make_##N##4(T x, T y, T z, T w) { return {x, y, z, w}; }
FAKE_VECTOR(float, float)
FAKE_VECTOR(double, double)
FAKE_VECTOR(signed char, char)
FAKE_VECTOR(unsigned char, uchar)
FAKE_VECTOR(short, short)
FAKE_VECTOR(unsigned short, ushort)
FAKE_VECTOR(int, int)
FAKE_VECTOR(unsigned, uint)
FAKE_VECTOR(long long, longlong)
FAKE_VECTOR(unsigned long long, ulonglong)

template <class A, class B> struct fake_common {
    typedef decltype(true ? A() : B()) type;
};
template <class A, class B> static inline typename fake_common<A, B>::type max(A a, B b) {
    return a > b ? a : b;
}
template <class A, class B> static inline typename fake_common<A, B>::type min(A a, B b) {
    return a < b ? a : b;
}
template <class T> static inline T __ldg(const T *at) { return *at; }
#define isnan(x) __builtin_isnan(x)
#define isinf(x) __builtin_isinf(x)
#define isfinite(x) __builtin_isfinite(x)
// Exact where a GPU's are not: a difference between them is no fault that this can find.
// glibc has functions of some of these names.
#define __expf expf
#define __exp10f(x) powf(10.0f, x)
#define __logf logf
#define __log2f log2f
#define __log10f log10f
#define __powf powf
#define __sinf sinf
#define __cosf cosf
#define __tanf tanf
#define __fdividef(x, y) ((x) / (y))
static inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
static inline double rsqrt(double x) { return 1.0 / sqrt(x); }
static inline unsigned __float_as_uint(float x) {
    unsigned bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}
static inline float __uint_as_float(unsigned x) {
    float value;
    memcpy(&value, &x, sizeof value);
    return value;
}

// half, where the compiler has 16-bit floats
#ifdef __FLT16_MAX__
typedef _Float16 half;
typedef _Float16 __half;
FAKE_VECTOR(half, half)
static inline half __float2half_rn(float x) { return (half)x; }
static inline half __float2half(float x) { return (half)x; }
static inline float __half2float(half x) { return (float)x; }
#define FAKE_HALF(NAME, F)                                                                         \
    static inline half NAME(half x) { return (half)F((float)x); }
FAKE_HALF(hexp, expf)
FAKE_HALF(hlog, logf)
FAKE_HALF(hsqrt, sqrtf)
FAKE_HALF(hrsqrt, rsqrtf)
FAKE_HALF(htanh, tanhf)
FAKE_HALF(hsin, sinf)
FAKE_HALF(hcos, cosf)
FAKE_HALF(hfloor, floorf)
FAKE_HALF(hceil, ceilf)
FAKE_HALF(__habs, fabsf)
static inline half __hmax(half x, half y) { return x > y ? x : y; }
static inline half __hmin(half x, half y) { return x < y ? x : y; }
#endif

// What the fake GPU has to know of a kernel, and how it runs one thread of it.
struct fake_info {
    uint32_t num_params, has_barriers, param_bytes[128], is_pointer[128];
};
template <class T> struct fake_is_pointer {
    enum { value = 0 };
};
template <class T> struct fake_is_pointer<T *> {
    enum { value = 1 };
};
template <class T> struct fake_is_pointer<T *const> {
    enum { value = 1 };
};
template <class T> struct fake_value {
    typedef T type;
};
template <class T> struct fake_value<const T> {
    typedef T type;
};
template <class... A> fake_info fake_describe(void (*)(A...), bool has_barriers) {
    fake_info info = {sizeof...(A), has_barriers, {sizeof(A)...}, {fake_is_pointer<A>::value...}};
    return info;
}
template <int... I> struct fake_numbers {};
template <int N, int... I> struct fake_count : fake_count<N - 1, N - 1, I...> {};
template <int... I> struct fake_count<0, I...> {
    typedef fake_numbers<I...> type;
};
template <class... A, int... I>
static inline void fake_call(void (*kernel)(A...), void **params, fake_numbers<I...>) {
    kernel(*(typename fake_value<A>::type *)params[I]...);
}
template <class... A> static inline void fake_thread(void (*kernel)(A...), void **params) {
    fake_call(kernel, params, typename fake_count<sizeof...(A)>::type());
}
#define FAKE_KERNEL(NAME, HAS_BARRIERS)                                                            \
    extern "C" {                                                                                   \
    void NAME##__fake_thread(void **params) { fake_thread(NAME, params); }                         \
    fake_info NAME##__fake_info = fake_describe(NAME, HAS_BARRIERS);                               \
    }
