// A device: what it allows, whether it is lost, creation under error scopes, and compiled kernels.

import { MarginSoftmaxError, fail } from './errors.js';

export const COMPUTE = 4; // GPUShaderStage.COMPUTE
export const [MAP_READ, COPY_SRC, COPY_DST, UNIFORM, STORAGE] = [1, 4, 8, 64, 128]; // GPUBufferUsage
export const READ = 1; // GPUMapMode.READ

/**
 * A device with all that its adapter can hold, for pages without an engine. An engine gives its own device to
 * `Head.create`: WebGPU's default limits are enough.
 */
export async function requestDevice({ adapter: options, f16 = false, timestamps = false, label = 'margin-softmax' } = {}) {
    const gpu = globalThis.navigator?.gpu;
    if (!gpu) {
        const secure = globalThis.isSecureContext !== false;
        fail(
            'NoAdapter',
            secure
                ? 'this browser has no WebGPU: take a current Chrome, Edge, Firefox or Safari, and switch hardware acceleration on'
                : 'WebGPU is off on pages from an insecure address: serve this page over https or from localhost',
        );
    }
    const adapter = await gpu.requestAdapter(options);
    if (!adapter) {
        fail('NoAdapter', 'WebGPU is there, but no adapter answered: switch hardware acceleration on, or update the graphics driver');
    }
    const optional = [f16 && 'shader-f16', timestamps && 'timestamp-query'];
    const raised = ['maxBufferSize', 'maxStorageBufferBindingSize', 'maxComputeWorkgroupStorageSize'];
    const device = await adapter.requestDevice({
        label,
        requiredFeatures: optional.filter((feature) => feature && adapter.features.has(feature)),
        requiredLimits: Object.fromEntries(raised.map((limit) => [limit, adapter.limits[limit]])),
    });
    return { adapter, device };
}

/** The makers that the planner's presets know. */
const VENDORS = ['amd', 'apple', 'intel', 'nvidia', 'qualcomm'];

/** What a device allows, as the planner reads it. */
export function limitsOf(device) {
    const { limits, features } = known(device);
    const info = device.adapterInfo;
    const names = `${info?.vendor} ${info?.architecture} ${info?.device} ${info?.description}`;
    return {
        max_buffer: limits.maxBufferSize,
        max_binding: limits.maxStorageBufferBindingSize,
        max_groups: limits.maxComputeWorkgroupsPerDimension,
        storage_buffers: limits.maxStorageBuffersPerShaderStage,
        invocations: limits.maxComputeInvocationsPerWorkgroup,
        size_x: limits.maxComputeWorkgroupSizeX,
        workgroup_bytes: limits.maxComputeWorkgroupStorageSize,
        alignment: limits.minStorageBufferOffsetAlignment,
        f16: features.has('shader-f16'),
        vendor: VENDORS.find((vendor) => vendor === info?.vendor) ?? 'unknown',
        software: info?.isFallbackAdapter === true || /swiftshader|llvmpipe|lavapipe|basic render/i.test(names),
    };
}

export const known = (device) => {
    if (typeof device?.createComputePipelineAsync !== 'function') {
        fail('Missing', '`device` is no GPUDevice: take your engine\'s, or that of requestDevice()');
    }
    return device;
};

/** Per device: its pipelines by source, shared by all heads, and whether it was lost. */
const devices = new WeakMap();

export const sharedOf = (device) => {
    let shared = devices.get(device);
    if (!shared) {
        shared = { pipelines: new Map(), lost: undefined };
        devices.set(device, shared);
        device.lost.then(({ reason, message }) => {
            shared.lost = message || reason || 'unknown';
        });
    }
    return shared;
};

export const alive = (shared) => {
    if (shared.lost !== undefined) {
        fail('DeviceLost', `the device is lost (${shared.lost}): request a new one and make new heads`);
    }
};

/** Creates under error scopes: what the device refuses rejects, and reaches no handler of the page. */
export const guarded = async (device, create) => {
    const shared = sharedOf(device);
    alive(shared);
    const filters = ['out-of-memory', 'internal', 'validation'];
    filters.forEach((filter) => device.pushErrorScope(filter));
    let made, thrown;
    try {
        made = create();
    } catch (error) {
        thrown = error;
    }
    // popped before anything is awaited: the caller's scopes keep their order
    const scopes = filters.map(() => device.popErrorScope());
    const pending = Promise.resolve(made);
    pending.catch(() => {}); // told by its scope where that says more
    try {
        const [validation, internal, memory] = await Promise.all(scopes);
        if (memory) fail('OutOfMemory', `the device is out of memory: ${memory.message}`);
        const error = validation ?? internal ?? thrown;
        if (error) throw new MarginSoftmaxError('Device', `the device refused: ${error.message}`, { cause: error });
        return await pending;
    } catch (error) {
        // a loss may be told a little later than what it broke
        await Promise.race([device.lost, new Promise((resolve) => setTimeout(resolve, 50))]);
        alive(shared);
        if (error instanceof MarginSoftmaxError) throw error;
        throw new MarginSoftmaxError('Device', `the device refused: ${error.message}`, { cause: error });
    }
};

/** A compiled kernel with its explicit layout, from the device's cache. */
export const pipelineOf = (device, kernel, uniforms) => {
    const { pipelines } = sharedOf(device);
    const found = pipelines.get(kernel.source);
    if (found) return found;
    const made = guarded(device, () => {
        const label = kernel.name;
        const entry = (binding, type, more) => ({ binding, visibility: COMPUTE, buffer: { type, ...more } });
        const entries = [
            entry(0, 'uniform', { minBindingSize: uniforms[0] }),
            entry(1, 'uniform', { minBindingSize: uniforms[1], hasDynamicOffset: true }),
            ...kernel.written.map((written, i) => entry(i + 2, written ? 'storage' : 'read-only-storage')),
        ];
        const layout = device.createBindGroupLayout({ label, entries });
        const module = device.createShaderModule({ label, code: kernel.source });
        const descriptor = {
            label,
            layout: device.createPipelineLayout({ label, bindGroupLayouts: [layout] }),
            compute: { module, entryPoint: kernel.name },
        };
        return device.createComputePipelineAsync(descriptor).then((pipeline) => ({ pipeline, layout }));
    });
    pipelines.set(kernel.source, made);
    // a later head may try again
    made.catch(() => pipelines.delete(kernel.source));
    return made;
};
