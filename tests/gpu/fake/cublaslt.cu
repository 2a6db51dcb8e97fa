// The kernels of the fake libcublasLt: column by column, one thread for each element of D.
struct fake_product {
    long long rows, columns, depth, batch, leading_a, leading_b, leading_d, stride_a, stride_b, stride_d;
    int transposed_a, transposed_b, activation, is_tf32, drifts;
    float alpha, beta;
};

static int fake_runs; // what a library counts that computes other numbers in each run

static inline float fake_rounded(float x, int is_tf32) {
    unsigned bits = __float_as_uint(x);
    return is_tf32 ? __uint_as_float((bits + 0x1000u) & 0xffffe000u) : x;
}

template <class T> static inline float fake_sum(const T *a, const T *b, const fake_product &p, long long at, long long begin, long long end) {
    long long row = at % p.rows, column = at / p.rows % p.columns, matrix = at / p.rows / p.columns;
    float total = 0;
    for (long long k = begin; k < end; k++) {
        long long of_a = p.transposed_a ? k + row * p.leading_a : row + k * p.leading_a;
        long long of_b = p.transposed_b ? column + k * p.leading_b : k + column * p.leading_b;
        total += fake_rounded((float)a[of_a + matrix * p.stride_a], p.is_tf32) * fake_rounded((float)b[of_b + matrix * p.stride_b], p.is_tf32);
    }
    return total;
}

template <class T> static inline void fake_finish(const T *a, const T *b, const T *c, T *d, const T *bias, const float *partial, const fake_product &p, long long at) {
    if (p.drifts && at == 0) fake_runs++;
    float x = (p.alpha + fake_runs) * (partial[at] + fake_sum(a, b, p, at, p.depth / 2, p.depth));
    long long place = at % p.rows + at / p.rows % p.columns * p.leading_d + at / p.rows / p.columns * p.stride_d;
    if (p.beta != 0) x += p.beta * (float)c[place];
    if (bias) x += (float)bias[at % p.rows];
    if (p.activation == 1) x = x > 0 ? x : 0;
    if (p.activation == 2) x = 0.5f * x * (1.0f + tanhf(0.7978845608f * (x + 0.044715f * x * x * x)));
    if (p.activation == 3) x = 0.5f * x * (1.0f + erff(0.7071067812f * x));
    d[place] = (T)x;
}

extern "C" __global__ void fake_float_part(const float *a, const float *b, float *partial, fake_product p) {
    long long at = (long long)blockIdx.x * 256 + threadIdx.x;
    if (at < p.rows * p.columns * p.batch) partial[at] = fake_sum(a, b, p, at, 0, p.depth / 2);
}

extern "C" __global__ void fake_float_rest(const float *a, const float *b, const float *c, float *d, const float *bias, const float *partial, fake_product p) {
    long long at = (long long)blockIdx.x * 256 + threadIdx.x;
    if (at < p.rows * p.columns * p.batch) fake_finish(a, b, c, d, bias, partial, p, at);
}

extern "C" __global__ void fake_half_part(const half *a, const half *b, float *partial, fake_product p) {
    long long at = (long long)blockIdx.x * 256 + threadIdx.x;
    if (at < p.rows * p.columns * p.batch) partial[at] = fake_sum(a, b, p, at, 0, p.depth / 2);
}

extern "C" __global__ void fake_half_rest(const half *a, const half *b, const half *c, half *d, const half *bias, const float *partial, fake_product p) {
    long long at = (long long)blockIdx.x * 256 + threadIdx.x;
    if (at < p.rows * p.columns * p.batch) fake_finish(a, b, c, d, bias, partial, p, at);
}
