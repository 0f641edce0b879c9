// Intel's GPUs for Mesa's ANV. FAKE_CHIP: tigerlake or a770.
#define DRIVER "i915"
#define VERSION {1, 6, 0}
#include "node.h"
#include <i915_drm.h>

struct chip {
    const char *name;
    int id, slices, subslices, units, has_local_memory;
};
static const struct chip chips[] = {{"tigerlake", 0x9a49, 1, 6, 16, 0}, {"a770", 0x56a0, 8, 4, 16, 1}};
static const struct chip *chip = &chips[0];

static drmPciBusInfo bus = {.dev = 2};
static drmPciDeviceInfo identity = {.vendor_id = 0x8086};

static const uint64_t GIB = 1ull << 30;
enum { GEOMETRY_SUBSLICES = 6 };    // a query that older headers lack

static void describe(drmDevicePtr device) {
    const char *name = getenv("FAKE_CHIP");
    for (unsigned i = 0; name && i < sizeof chips / sizeof *chips; i++)
        if (!strcmp(name, chips[i].name)) chip = &chips[i];
    identity.device_id = chip->id;
    device->bustype = DRM_BUS_PCI;
    device->businfo.pci = &bus;
    device->deviceinfo.pci = &identity;
}

static int parameter(int which) {
    switch (which) {
    case I915_PARAM_CHIPSET_ID: return chip->id;
    case I915_PARAM_REVISION: return 8;
    case I915_PARAM_CS_TIMESTAMP_FREQUENCY: return 19200000;
    case I915_PARAM_HAS_ALIASING_PPGTT: return 3;
    case I915_PARAM_MMAP_VERSION:
    case I915_PARAM_MMAP_GTT_VERSION: return 4;
    case I915_PARAM_SUBSLICE_TOTAL: return chip->slices * chip->subslices;
    case I915_PARAM_EU_TOTAL: return chip->slices * chip->subslices * chip->units;
    case I915_PARAM_CMD_PARSER_VERSION: return 10;
    case I915_PARAM_PERF_REVISION: return 3;
    case I915_PARAM_HAS_LLC: return !chip->has_local_memory;
    default: return 1;
    }
}

static int bytes(int bits) {
    return (bits + 7) / 8;
}

// Each query is asked twice: for its length, and for the data.
static void topology(struct drm_i915_query_item *item) {
    const int slice_bytes = bytes(chip->slices), subslice_bytes = bytes(chip->subslices), unit_bytes = bytes(chip->units);
    struct drm_i915_query_topology_info *info = (void *)(uintptr_t)item->data_ptr;
    const int data = slice_bytes + chip->slices * (subslice_bytes + chip->subslices * unit_bytes);
    if (!item->length) {
        item->length = sizeof *info + data;
        return;
    }
    info->flags = 0;
    info->max_slices = chip->slices;
    info->max_subslices = chip->subslices;
    info->max_eus_per_subslice = chip->units;
    info->subslice_offset = slice_bytes;
    info->subslice_stride = subslice_bytes;
    info->eu_offset = slice_bytes + chip->slices * subslice_bytes;
    info->eu_stride = unit_bytes;
    memset(info->data, 0xff, data);
    info->data[0] = (1u << chip->slices) - 1;
    for (int slice = 0; slice < chip->slices; slice++) info->data[slice_bytes + slice] = (1u << chip->subslices) - 1;
}

static void engines(struct drm_i915_query_item *item) {
    struct drm_i915_query_engine_info *info = (void *)(uintptr_t)item->data_ptr;
    const int length = sizeof *info + 2 * sizeof info->engines[0];
    if (!item->length) {
        item->length = length;
        return;
    }
    memset(info, 0, length);
    info->num_engines = 2;
    info->engines[0].engine.engine_class = I915_ENGINE_CLASS_RENDER;
    info->engines[1].engine.engine_class = I915_ENGINE_CLASS_COPY;
}

static void regions(struct drm_i915_query_item *item) {
    struct drm_i915_query_memory_regions *info = (void *)(uintptr_t)item->data_ptr;
    const int count = 1 + chip->has_local_memory, length = sizeof *info + count * sizeof info->regions[0];
    if (!item->length) {
        item->length = length;
        return;
    }
    memset(info, 0, length);
    info->num_regions = count;
    for (int i = 0; i < count; i++) {
        info->regions[i].region.memory_class = i;
        info->regions[i].probed_size = info->regions[i].unallocated_size = 8 * GIB;
        // as far as the host sees it
        info->regions[i].rsvd1[0] = info->regions[i].rsvd1[1] = 8 * GIB;
    }
}

static int query(struct drm_i915_query *all) {
    struct drm_i915_query_item *item = (void *)(uintptr_t)all->items_ptr;
    for (unsigned i = 0; i < all->num_items; i++, item++) {
        switch (item->query_id) {
        case DRM_I915_QUERY_TOPOLOGY_INFO:
        case GEOMETRY_SUBSLICES: topology(item); break;
        case DRM_I915_QUERY_ENGINE_INFO: engines(item); break;
        case DRM_I915_QUERY_MEMORY_REGIONS: regions(item); break;
        default: item->length = -EINVAL;
        }
    }
    return 0;
}

static int map(struct drm_i915_gem_mmap *it) {
    if (it->handle >= MOST_BUFFERS) return -EINVAL;
    void *address = mmap(0, sizes[it->handle], PROT_READ | PROT_WRITE, MAP_SHARED, file, place(it->handle));
    it->addr_ptr = (uintptr_t)address;
    return address == MAP_FAILED ? -ENOMEM : 0;
}

static int answer(int nr, void *arg) {
    switch (nr) {
    case DRM_I915_GETPARAM: {
        drm_i915_getparam_t *it = arg;
        *it->value = parameter(it->param);
        return 0;
    }
    case DRM_I915_QUERY: return query(arg);
    case DRM_I915_GEM_CREATE: {
        struct drm_i915_gem_create *it = arg;
        it->handle = buffer(it->size);
        return 0;
    }
    case DRM_I915_GEM_CREATE_EXT: {
        struct drm_i915_gem_create_ext *it = arg;
        it->handle = buffer(it->size);
        return 0;
    }
    case DRM_I915_GEM_USERPTR: {
        struct drm_i915_gem_userptr *it = arg;
        it->handle = buffer(it->user_size);
        return 0;
    }
    case DRM_I915_GEM_MMAP: return map(arg);
    // the number of GEM_MMAP_OFFSET too
    case DRM_I915_GEM_MMAP_GTT: {
        struct drm_i915_gem_mmap_gtt *it = arg;
        it->offset = place(it->handle);
        return 0;
    }
    case DRM_I915_GEM_CONTEXT_CREATE: {
        struct drm_i915_gem_context_create *it = arg;
        it->ctx_id = 1;
        return 0;
    }
    case DRM_I915_GEM_CONTEXT_GETPARAM: {
        struct drm_i915_gem_context_param *it = arg;
        it->value = it->param == I915_CONTEXT_PARAM_GTT_SIZE ? 1ull << 48 : 0;
        return 0;
    }
    case DRM_I915_GEM_GET_APERTURE: {
        struct drm_i915_gem_get_aperture *it = arg;
        it->aper_size = it->aper_available_size = 1ull << 48;
        return 0;
    }
    case DRM_I915_GEM_VM_CREATE: {
        struct drm_i915_gem_vm_control *it = arg;
        it->vm_id = 1;
        return 0;
    }
    case DRM_I915_PERF_OPEN: return -EINVAL;
    default: return 0;
    }
}
