// A DRM render node that is not there, for LD_PRELOAD: a driver of Mesa finds it, opens it and makes pipelines for its chip.
// Nothing is ever executed.
//
// libdrm's search for devices returns one device, whose path is that of a sparse file in memory. So the driver's open and
// mmap are real, and only ioctl is answered here. The driver's file defines
//
//   DRIVER             the name of the kernel's driver
//   VERSION            its three numbers
//   describe(device)   sets the bus of the device and what is known of it
//   answer(nr, arg)    an ioctl of the driver, counted from DRM_COMMAND_BASE: 0, or an error below 0
//
// and takes memory by buffer(bytes), a handle, and place(handle), its offset in the file.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xf86drm.h>

static void describe(drmDevicePtr device);
static int answer(int nr, void *arg);

// ---- memory

enum { MOST_BUFFERS = 1 << 16 };
static const uint64_t PAGE = 1 << 16, FILE_BYTES = 1ull << 46;

static int file = -1;
static struct stat file_status;
static uint64_t places[MOST_BUFFERS], sizes[MOST_BUFFERS], next_place = 1 << 20;
static int buffers = 0;

static uint32_t buffer(uint64_t bytes) {
    if (++buffers == MOST_BUFFERS) abort();
    places[buffers] = next_place;
    sizes[buffers] = (bytes + PAGE - 1) / PAGE * PAGE;
    next_place += sizes[buffers];
    return buffers;
}

static uint64_t place(uint32_t handle) {
    return handle < MOST_BUFFERS ? places[handle] : 0;
}

// ---- the device, as libdrm describes one

static char path[32];
static char *paths[DRM_NODE_MAX];
static drmDevice device = {.nodes = paths, .available_nodes = 1 << DRM_NODE_RENDER};

__attribute__((constructor)) static void begin(void) {
    file = memfd_create("render node", MFD_CLOEXEC);
    if (file < 0 || ftruncate(file, FILE_BYTES) || fstat(file, &file_status)) abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    for (int i = 0; i < DRM_NODE_MAX; i++) paths[i] = path;
    // what a driver prints stays among the lines of the program
    setvbuf(stdout, NULL, _IOLBF, 0);
    describe(&device);
}

int drmGetDevices2(uint32_t flags, drmDevicePtr devices[], int most) {
    if (devices && most > 0) devices[0] = &device;
    return 1;
}

int drmGetDevices(drmDevicePtr devices[], int most) {
    return drmGetDevices2(0, devices, most);
}

int drmGetDevice2(int fd, uint32_t flags, drmDevicePtr *found) {
    *found = &device;
    return 0;
}

int drmGetDevice(int fd, drmDevicePtr *found) {
    return drmGetDevice2(fd, 0, found);
}

void drmFreeDevices(drmDevicePtr devices[], int count) {}

void drmFreeDevice(drmDevicePtr *one) {}

int drmGetDeviceFromDevId(dev_t id, uint32_t flags, drmDevicePtr *found) {
    return drmGetDevice2(-1, flags, found);
}

// ---- ioctl

static int is_node(int fd) {
    struct stat status;
    return !fstat(fd, &status) && status.st_dev == file_status.st_dev && status.st_ino == file_status.st_ino;
}

static void put(char *to, __typeof__(((struct drm_version *)0)->name_len) *bytes, const char *text) {
    if (to) strncpy(to, text, *bytes);
    *bytes = strlen(text);
}

static void common(int nr, void *arg) {
    static const int version[3] = VERSION;
    switch (nr) {
    case _IOC_NR(DRM_IOCTL_VERSION): {
        struct drm_version *it = arg;
        it->version_major = version[0];
        it->version_minor = version[1];
        it->version_patchlevel = version[2];
        put(it->name, &it->name_len, DRIVER);
        put(it->date, &it->date_len, "20260101");
        put(it->desc, &it->desc_len, DRIVER);
        return;
    }
    case _IOC_NR(DRM_IOCTL_GET_CAP): ((struct drm_get_cap *)arg)->value = 1; return;
    case _IOC_NR(DRM_IOCTL_SYNCOBJ_CREATE): ((struct drm_syncobj_create *)arg)->handle = 1; return;
    }
}

int ioctl(int fd, unsigned long request, ...) {
    va_list list;
    va_start(list, request);
    void *arg = va_arg(list, void *);
    va_end(list);
    if (!is_node(fd)) {
        static int (*real)(int, unsigned long, ...);
        if (!real) real = (__typeof__(real))dlsym(RTLD_NEXT, "ioctl");
        return real(fd, request, arg);
    }
    const int nr = _IOC_NR(request);
    int error = 0;
    if (nr < DRM_COMMAND_BASE || nr >= DRM_COMMAND_END) common(nr, arg);
    else error = answer(nr - DRM_COMMAND_BASE, arg);
    if (getenv("FAKE_DEBUG")) fprintf(stderr, "ioctl %#x of %d bytes: %d\n", nr, (int)_IOC_SIZE(request), error);
    errno = -error;
    return error ? -1 : 0;
}
