/* A counter that some threads change and others wait for: they spin a while, then sleep. */
#ifndef TVM_SPHINX_LANES_SIGNAL_H_
#define TVM_SPHINX_LANES_SIGNAL_H_

#include <stdatomic.h>
#include <stdint.h>

/* Two cache lines: processors prefetch lines in pairs. */
#define LANES_ALIGN 128

typedef struct {
    _Alignas(LANES_ALIGN) _Atomic uint32_t value;
    _Atomic uint32_t sleepers;
} lanes_signal;

/* Counters wrap; `a` is at or past `b` when their difference, taken as signed, is not negative. */
static inline int lanes_reached(uint32_t a, uint32_t b) { return (int32_t)(a - b) >= 0; }

/* Set the counter and wake those who sleep on it. */
void lanes_signal_set(lanes_signal *self, uint32_t value);
/* Add one to the counter and wake those who sleep on it. */
void lanes_signal_add(lanes_signal *self);
/* Take one from the counter and wake those who sleep on it. */
void lanes_signal_subtract(lanes_signal *self);
/* Wait until the counter has reached `target`; spins for `spin_ns` before it sleeps. */
void lanes_signal_wait(lanes_signal *self, uint32_t target, int64_t spin_ns);
/* Wait until the counter is `target`; for counters that do not only rise. */
void lanes_signal_wait_equal(lanes_signal *self, uint32_t target, int64_t spin_ns);
/* Sleep until the counter differs from `seen`, a signal handler ran, or `timeout_ns` is over. */
void lanes_signal_sleep(lanes_signal *self, uint32_t seen, int64_t timeout_ns);
/* Look at a counter for some 50 us, without a system call if `spin` and with a pause if not; return
 * whether it has reached `target`. For counters that nobody wakes anybody for. */
int lanes_poll(_Atomic uint32_t *value, uint32_t target, int spin);
/* Tell the processor that this is a spin loop. */
void lanes_pause(void);

#endif
