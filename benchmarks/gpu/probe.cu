// Kernels of probe.c.
extern "C" __global__ void __launch_bounds__(1) empty_kernel(unsigned* word) {
  (void)word;
}
extern "C" __global__ void __launch_bounds__(1) raise_kernel(unsigned* flag, unsigned value) {
  __threadfence_system();
  *(volatile unsigned*)flag = value;
}
extern "C" __global__ void __launch_bounds__(1) count_kernel(unsigned* word) {
  *word = *word + 1u;
}
extern "C" __global__ void __launch_bounds__(256) read_kernel(float* to, float* from, unsigned n) {
  for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += blockDim.x * gridDim.x) to[i] = from[i];
}
extern "C" __global__ void __launch_bounds__(1) spin_kernel(unsigned* word, unsigned cycles) {
  unsigned long long begin = clock64();
  while ((unsigned)(clock64() - begin) < cycles) {
  }
  *word = cycles;
}
