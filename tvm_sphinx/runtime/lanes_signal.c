#define _GNU_SOURCE
#include "lanes_signal.h"

#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "lanes_core.h"

/* Pauses between two looks at the clock. */
enum { PAUSES_PER_LOOK = 32 };

/* Looks that are further apart than this mean that another process got the core in between. A
 * thread that spins then only uses up its share of the core, and is put aside when its turn comes;
 * one that sleeps gets the core soon after it is woken. So for a while afterwards it spins shortly.
 */
enum { PUT_ASIDE_NS = 50000, CROWDED_NS = 20000000, CROWDED_SPIN_NS = 5000 };

/* One look of `lanes_poll`. */
enum { POLL_NS = 50000 };

static _Thread_local int64_t crowded_until_ns;

static void futex_wait(_Atomic uint32_t *word, uint32_t seen, const struct timespec *timeout) {
    /* Returns at once if the word has changed; early returns are harmless, callers look again. */
    (void)syscall(SYS_futex, (uint32_t *)word, FUTEX_WAIT_PRIVATE, seen, timeout, NULL, 0);
}

static void wake(lanes_signal *self) {
    /* Sequentially consistent with the sleeper's increment and look at the value: either it sees
     * the new value, or we see it. */
    if (atomic_load(&self->sleepers) != 0)
        (void)syscall(SYS_futex, (uint32_t *)&self->value, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL,
                      0);
}

void lanes_pause(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield" ::: "memory");
#endif
}

int64_t lanes_now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

void lanes_signal_set(lanes_signal *self, uint32_t value) {
    atomic_store(&self->value, value);
    wake(self);
}

void lanes_signal_add(lanes_signal *self) {
    atomic_fetch_add(&self->value, 1);
    wake(self);
}

void lanes_signal_subtract(lanes_signal *self) {
    atomic_fetch_sub(&self->value, 1);
    wake(self);
}

static int is_met(uint32_t value, uint32_t target, int exactly) {
    return exactly ? value == target : lanes_reached(value, target);
}

static inline void wait(lanes_signal *self, uint32_t target, int64_t spin_ns, int exactly) {
    uint32_t seen = atomic_load_explicit(&self->value, memory_order_acquire);
    if (is_met(seen, target, exactly))
        return;
    int64_t now = lanes_now_ns(), last = now;
    int64_t until =
        now + (now < crowded_until_ns && spin_ns > CROWDED_SPIN_NS ? CROWDED_SPIN_NS : spin_ns);
    do {
        for (int i = 0; i < PAUSES_PER_LOOK; i++) {
            if (is_met(atomic_load_explicit(&self->value, memory_order_acquire), target, exactly))
                return;
            lanes_pause();
        }
        last = now;
        now = lanes_now_ns();
        if (now - last > PUT_ASIDE_NS) {
            crowded_until_ns = now + CROWDED_NS;
            break;
        }
    } while (now < until);
    atomic_fetch_add(&self->sleepers, 1);
    while (!is_met(seen = atomic_load(&self->value), target, exactly))
        futex_wait(&self->value, seen, NULL);
    atomic_fetch_sub(&self->sleepers, 1);
}

void lanes_signal_wait(lanes_signal *self, uint32_t target, int64_t spin_ns) {
    wait(self, target, spin_ns, 0);
}

void lanes_signal_wait_equal(lanes_signal *self, uint32_t target, int64_t spin_ns) {
    wait(self, target, spin_ns, 1);
}

void lanes_signal_sleep(lanes_signal *self, uint32_t seen, int64_t timeout_ns) {
    struct timespec timeout = {.tv_sec = timeout_ns / 1000000000,
                               .tv_nsec = timeout_ns % 1000000000};
    atomic_fetch_add(&self->sleepers, 1);
    if (atomic_load(&self->value) == seen)
        futex_wait(&self->value, seen, &timeout);
    atomic_fetch_sub(&self->sleepers, 1);
}

int lanes_poll(_Atomic uint32_t *value, uint32_t target, int spin) {
    int64_t until = lanes_now_ns() + POLL_NS;
    do {
        for (int i = 0; i < PAUSES_PER_LOOK; i++) {
            if (lanes_reached(atomic_load_explicit(value, memory_order_acquire), target))
                return 1;
            lanes_pause();
        }
        if (!spin) {
            nanosleep(&(struct timespec){.tv_nsec = POLL_NS}, NULL);
            break;
        }
    } while (lanes_now_ns() < until);
    return lanes_reached(atomic_load_explicit(value, memory_order_acquire), target);
}
