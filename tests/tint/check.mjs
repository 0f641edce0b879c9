// Every kernel through Tint, the WGSL compiler of Chromium: module, explicit layouts, pipeline. No driver is needed.
//
//   npm ci && cargo run --release --example kernels | node check.mjs

import { createInterface } from 'node:readline';
import { create, globals } from 'webgpu';

const { GPUShaderStage } = globals;
const gpu = create(['backend=null']);
const device = async (descriptor) => (await gpu.requestAdapter()).requestDevice(descriptor);
let plain, half;

/** New devices: Dawn for Node aborts after about two thousand pipelines on one. */
async function renew() {
    plain?.destroy();
    half?.destroy();
    // WebGPU's default limits and no feature: what every browser has
    plain = await device();
    // for the kernels that say so
    half = await device({ requiredFeatures: ['shader-f16'] });
}
await renew();

function layout(device, { uniforms, storage }) {
    const buffers = [
        { type: 'uniform', minBindingSize: uniforms[0] },
        { type: 'uniform', minBindingSize: uniforms[1], hasDynamicOffset: true },
        ...storage.map((type) => ({ type })),
    ];
    const entries = buffers.map((buffer, binding) => ({ binding, visibility: GPUShaderStage.COMPUTE, buffer }));
    return device.createPipelineLayout({ bindGroupLayouts: [device.createBindGroupLayout({ entries })] });
}

/** What Tint and Dawn say against a kernel, warnings included; nothing if they accept it. */
async function complaints(kernel) {
    const device = kernel.source.startsWith('enable f16;') ? half : plain;
    device.pushErrorScope('validation');
    const module = device.createShaderModule({ label: kernel.variant, code: kernel.source });
    const { messages } = await module.getCompilationInfo();
    const found = messages.map((m) => `${m.type} in line ${m.lineNum}: ${m.message}`);
    const refused = messages.some((m) => m.type === 'error');
    // oversized workgroups and layouts that do not fit pass the module and fail only here
    if (!refused) {
        device.createComputePipeline({ layout: layout(device, kernel), compute: { module, entryPoint: kernel.name } });
    }
    const error = await device.popErrorScope();
    return error && !refused ? [...found, error.message] : found;
}

// The null backend computes nothing; these show that it still refuses.
const bad = (name, source, storage = []) => ({ variant: name, name, uniforms: [16, 16], storage, source });
const broken = [
    [
        'must only be called from uniform control flow',
        bad('barrier', `@compute @workgroup_size(8) fn barrier(@builtin(local_invocation_index) i: u32) {
            if i < 4 { workgroupBarrier(); }
        }`),
    ],
    ['exceeds the maximum allowed', bad('invocations', '@compute @workgroup_size(257) fn invocations() {}')],
    [
        'is not compatible with the type in the layout',
        bad(
            'access',
            `@group(0) @binding(2) var<storage, read_write> a: array<f32>;
            @compute @workgroup_size(1) fn access() { a[0] = 1; }`,
            ['read-only-storage'],
        ),
    ],
];
for (const [expected, kernel] of broken) {
    const found = (await complaints(kernel)).join('\n');
    if (!found.includes(expected)) {
        throw new Error(`a broken shader (${kernel.name}) was not refused with "${expected}": ${found || 'accepted'}`);
    }
}

const failures = [];
let passed = 0;
for await (const line of createInterface({ input: process.stdin })) {
    if ((passed + failures.length) % 500 === 499) await renew();
    const kernel = JSON.parse(line);
    const found = await complaints(kernel);
    if (found.length === 0) passed += 1;
    else failures.push(`${kernel.variant}\n  ${found.join('\n  ')}`);
}
plain.destroy();
half.destroy();

const SHOWN = 10;
for (const failure of failures.slice(0, SHOWN)) console.log(failure);
if (failures.length > SHOWN) console.log(`and ${failures.length - SHOWN} more`);
if (passed + failures.length === 0) throw new Error('no kernel on standard input');
console.log(`${passed} passed, ${failures.length} failed`);
process.exitCode = failures.length ? 1 : 0;
