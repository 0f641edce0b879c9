// Apple's GPUs for Mesa's Honeykrisp, as the kernel's driver of Linux 6.16 and later describes them. FAKE_CHIP: m1 or m2.
#define DRIVER "asahi"
#define VERSION {1, 0, 0}
#include "node.h"
#include <drm/asahi_drm.h>

static drmPlatformBusInfo bus = {"/soc/gpu@206400000"};
static char *compatible[] = {"apple,agx-g13g", NULL};
static drmPlatformDeviceInfo identity = {compatible};

static void describe(drmDevicePtr device) {
    device->bustype = DRM_BUS_PLATFORM;
    device->businfo.platform = &bus;
    device->deviceinfo.platform = &identity;
}

static struct drm_asahi_params_global chip(void) {
    const char *name = getenv("FAKE_CHIP");
    const int second = name && !strcmp(name, "m2");
    struct drm_asahi_params_global it = {
        .features = DRM_ASAHI_FEATURE_SOFT_FAULTS,
        .gpu_generation = second ? 14 : 13,
        .gpu_variant = 'G',
        .gpu_revision = second ? 0x00 : 0x10,
        .chip_id = second ? 0x8112 : 0x8103,
        .num_dies = 1,
        .num_clusters_total = 1,
        .num_cores_per_cluster = second ? 10 : 8,
        .max_frequency_khz = second ? 1398000 : 1278000,
        .vm_start = 0x4000,
        .vm_end = second ? 0x3fffffff8000ull >> 4 : 0x7fffff8000ull,
        .vm_kernel_min_size = 32ull << 30,
        .max_commands_per_submission = 64,
        .max_attachments = 16,
        .command_timestamp_frequency_hz = 1000000000,
    };
    it.core_masks[0] = (1u << it.num_cores_per_cluster) - 1;
    return it;
}

static int answer(int nr, void *arg) {
    switch (nr) {
    case DRM_ASAHI_GET_PARAMS: {
        struct drm_asahi_get_params *it = arg;
        const struct drm_asahi_params_global all = chip();
        if (it->param_group) return -EINVAL;
        if (it->size > sizeof all) it->size = sizeof all;
        memcpy((void *)(uintptr_t)it->pointer, &all, it->size);
        return 0;
    }
    case DRM_ASAHI_VM_CREATE: ((struct drm_asahi_vm_create *)arg)->vm_id = 1; return 0;
    case DRM_ASAHI_GEM_CREATE: {
        struct drm_asahi_gem_create *it = arg;
        it->handle = buffer(it->size);
        return 0;
    }
    case DRM_ASAHI_GEM_MMAP_OFFSET: {
        struct drm_asahi_gem_mmap_offset *it = arg;
        it->offset = place(it->handle);
        return 0;
    }
    case DRM_ASAHI_GEM_BIND_OBJECT: ((struct drm_asahi_gem_bind_object *)arg)->object_handle = 1; return 0;
    case DRM_ASAHI_QUEUE_CREATE: ((struct drm_asahi_queue_create *)arg)->queue_id = 1; return 0;
    default: return 0;
    }
}
