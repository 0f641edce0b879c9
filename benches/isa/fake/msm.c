// Qualcomm's Adreno GPUs for Mesa's Turnip. FAKE_CHIP: a660 or a740.
#define DRIVER "msm"
#define VERSION {1, 12, 0}
#include "node.h"
#include <drm/msm_drm.h>

struct chip {
    const char *name;
    int id;             // 0 where the chip's number says it
    uint64_t number;
    uint32_t memory;    // on the chip, for graphics
};
static const struct chip chips[] = {{"a660", 660, 0x06060001, 3 << 19}, {"a740", 0, 0x43050a01, 3 << 20}};
static const struct chip *chip = &chips[0];

static const uint64_t FIRST_ADDRESS = 1ull << 32, LAST_ADDRESS = 1ull << 36;

static drmPlatformBusInfo bus = {"/soc/gpu@3d00000"};
static char *compatible[] = {"qcom,adreno", NULL};
static drmPlatformDeviceInfo identity = {compatible};

static void describe(drmDevicePtr device) {
    const char *name = getenv("FAKE_CHIP");
    for (unsigned i = 0; name && i < sizeof chips / sizeof *chips; i++)
        if (!strcmp(name, chips[i].name)) chip = &chips[i];
    device->bustype = DRM_BUS_PLATFORM;
    device->businfo.platform = &bus;
    device->deviceinfo.platform = &identity;
}

static int parameter(struct drm_msm_param *it) {
    switch (it->param) {
    case MSM_PARAM_GPU_ID: it->value = chip->id; return 0;
    case MSM_PARAM_CHIP_ID: it->value = chip->number; return 0;
    case MSM_PARAM_GMEM_SIZE: it->value = chip->memory; return 0;
    case MSM_PARAM_GMEM_BASE: it->value = 0x100000; return 0;
    case MSM_PARAM_MAX_FREQ: it->value = 700000000; return 0;
    case MSM_PARAM_PRIORITIES: it->value = 3; return 0;
    case MSM_PARAM_PP_PGTABLE: it->value = 1; return 0;
    case MSM_PARAM_VA_START: it->value = FIRST_ADDRESS; return 0;
    case MSM_PARAM_VA_SIZE: it->value = LAST_ADDRESS - FIRST_ADDRESS; return 0;
    case MSM_PARAM_HIGHEST_BANK_BIT: it->value = 15; return 0;
    case MSM_PARAM_UBWC_SWIZZLE: it->value = 6; return 0;
    case MSM_PARAM_MACROTILE_MODE: it->value = 1; return 0;
    case MSM_PARAM_UCHE_TRAP_BASE: it->value = 0x1fffffffff000ull; return 0;
    case MSM_PARAM_RAYTRACING:
    case MSM_PARAM_TIMESTAMP:
    case MSM_PARAM_FAULTS:
    case MSM_PARAM_SUSPENDS: it->value = 0; return 0;
    default: return -EINVAL;
    }
}

static int answer(int nr, void *arg) {
    switch (nr) {
    case DRM_MSM_GET_PARAM: return parameter(arg);
    case DRM_MSM_SET_PARAM: return ((struct drm_msm_param *)arg)->param == MSM_PARAM_EN_VM_BIND ? -EINVAL : 0;
    case DRM_MSM_GEM_NEW: {
        struct drm_msm_gem_new *it = arg;
        it->handle = buffer(it->size);
        return 0;
    }
    case DRM_MSM_GEM_INFO: {
        struct drm_msm_gem_info *it = arg;
        if (it->info == MSM_INFO_GET_OFFSET) it->value = place(it->handle);
        if (it->info == MSM_INFO_GET_IOVA) it->value = FIRST_ADDRESS + place(it->handle);
        return 0;
    }
    case DRM_MSM_GEM_MADVISE: ((struct drm_msm_gem_madvise *)arg)->retained = 1; return 0;
    case DRM_MSM_SUBMITQUEUE_NEW: ((struct drm_msm_submitqueue *)arg)->id = 1; return 0;
    default: return 0;
    }
}
