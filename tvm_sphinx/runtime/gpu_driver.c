#include "gpu_driver.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

/* The oldest driver whose interface is the one that is declared here: that of CUDA 12.0. */
enum { LEAST_VERSION = 12000 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static gpu_driver driver;
static int is_open;

static int load(void *library, const char *name, void **into, char *why, size_t size) {
    *into = dlsym(library, name);
    if (*into)
        return 1;
    snprintf(why, size, "libcuda.so.1 has no %s; a driver of CUDA 12 or later is needed", name);
    return 0;
}

static int open_driver(char *why, size_t size) {
    void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        snprintf(why, size, "no NVIDIA driver is installed (%s)", dlerror());
        return 0;
    }
    void *symbol;
    char ignored[1];
/* POSIX lets a function's address travel through an object pointer; C wants it copied. */
#define NEEDED(name, arguments)                                                                    \
    if (!load(library, #name, &symbol, why, size))                                                 \
        return 0;                                                                                  \
    memcpy(&driver.name, &symbol, sizeof symbol);
#define WELCOME(name, arguments)                                                                   \
    (void)load(library, #name, &symbol, ignored, sizeof ignored);                                  \
    memcpy(&driver.name, &symbol, sizeof symbol);
    GPU_DRIVER_FUNCTIONS(NEEDED)
    GPU_DRIVER_OPTIONAL(WELCOME)
#undef NEEDED
#undef WELCOME
    int version = 0;
    /* An old driver may not start with what is new to it: it is asked for its version first. */
    CUresult error = driver.cuDriverGetVersion(&version);
    if (error == CUDA_SUCCESS && version >= LEAST_VERSION)
        error = driver.cuInit(0);
    if (error != CUDA_SUCCESS) {
        const char *name = NULL;
        driver.cuGetErrorName(error, &name);
        snprintf(why, size, "the NVIDIA driver does not start: %s", name ? name : "unknown error");
        return 0;
    }
    if (version < LEAST_VERSION) {
        snprintf(why, size, "the NVIDIA driver knows CUDA %d.%d; 12.0 or later is needed",
                 version / 1000, version % 1000 / 10);
        return 0;
    }
    return 1;
}

const gpu_driver *gpu_driver_open(char *why, size_t size) {
    pthread_mutex_lock(&lock);
    if (!is_open)
        is_open = open_driver(why, size);
    const gpu_driver *found = is_open ? &driver : NULL;
    pthread_mutex_unlock(&lock);
    return found;
}
