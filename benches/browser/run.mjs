// Drives the peers, each in a page of its own of one headless Chromium, in turn; see run.sh and benches/README.md.
import { createReadStream, existsSync, mkdirSync, readFileSync, renameSync, statSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { chromium } from 'playwright-core';

const here = import.meta.dirname;
const root = path.resolve(here, '../..');
const results = path.join(root, 'benches/results/browser.json');

const { values: args } = parseArgs({
    options: {
        shapes: { type: 'string', default: 'small,B' },
        rounds: { type: 'string', default: '10' },
        peers: { type: 'string', default: '' },
        pause: { type: 'string', default: '0.3' },
        most: { type: 'string', default: '20' },
        tiles: { type: 'boolean', default: false },
        quick: { type: 'boolean', default: false },
        help: { type: 'boolean', default: false },
    },
});
if (args.help) {
    console.log(`benches/browser/run.sh [options]
  --shapes small,B    small (64x1000x128), B (256x5994x192), or any NxCxD
  --rounds 10         alternating rounds
  --most 20           seconds of steps after which a peer has no more rounds; two at least
  --pause 0.3         seconds before each step
  --peers jax,wasm    parts of names, with commas between; all if absent
  --tiles             this crate's WebGPU presets and tiles too
  --quick             the small shape, three rounds, no file`);
    process.exit();
}
if (args.quick) Object.assign(args, { shapes: 'small', rounds: '3' });
const named = { small: [64, 1000, 128], B: [256, 5994, 192] };
const shapes = args.shapes.split(',').map((name) => {
    if (named[name]) return named[name];
    if (/^\d+x\d+x\d+$/.test(name)) return name.split('x').map(Number);
    console.error(`no shape is called ${name}: small, B, or NxCxD`);
    process.exit(2);
});

/** No time counts above this: of the largest element, from a plain f64 computation. */
const ALIKE = 1e-4;

const version = (name) => {
    const file = path.join(here, 'node_modules', name, 'package.json');
    return JSON.parse(readFileSync(file, 'utf8')).version;
};
const crate = `margin-softmax ${/^version = "(.*)"/m.exec(readFileSync(path.join(root, 'Cargo.toml'), 'utf8'))[1]}`;
const jax = `jax-js ${version('@jax-js/jax')}`;
const tfjs = `TensorFlow.js ${version('@tensorflow/tfjs-core')}`;

/** Paths below the repository's root, as the pages load them. */
const module = '/web/margin-softmax.js';
const wasm = (name) => `/target/browser/${name}.wasm`;
const peers = [
    { name: 'crate WebGPU', side: 'gpu', version: crate, module: 'crate-webgpu', options: { module }, needs: [module, '/web/dist/planner.js'] },
    ...(args.tiles
        ? [{ preset: 'portable' }, { tile: 'direct' }, { tile: 'direct_64' }, { tile: 'tile_32' }, { tile: 'tile_64' }, { tile: 'tile_64_short' }, { tile: 'tile_128' }].map((choice) => ({
              name: `crate WebGPU ${Object.values(choice)[0]}`,
              side: 'gpu',
              version: crate,
              module: 'crate-webgpu',
              options: { module, ...choice },
              needs: [module, '/web/dist/planner.js'],
          }))
        : []),
    { name: 'jax-js WebGPU', side: 'gpu', version: jax, module: 'jax', options: { device: 'webgpu' } },
    { name: 'TensorFlow.js WebGPU', side: 'gpu', version: tfjs, module: 'tfjs', options: { device: 'webgpu' } },
    ...['simd128', 'relaxed'].map((flags) => ({
        name: `crate wasm ${flags}`,
        side: 'cpu',
        version: crate,
        module: 'crate-wasm',
        options: { file: wasm(flags) },
        needs: [wasm(flags)],
    })),
    // the same module with one thread and with as many as jax-js takes
    ...[1, os.cpus().length].map((threads) => ({
        name: `crate wasm threads, ${threads}`,
        side: 'cpu',
        version: crate,
        module: 'crate-threads',
        options: { module: '/target/browser/threads/browser_head.js', threads },
        needs: ['/target/browser/threads/browser_head.js'],
    })),
    { name: 'jax-js wasm', side: 'cpu', version: jax, module: 'jax', options: { device: 'wasm' } },
    {
        name: 'TensorFlow.js wasm',
        side: 'cpu',
        version: tfjs,
        module: 'tfjs',
        options: { device: 'wasm', wasm: '/benches/browser/node_modules/@tensorflow/tfjs-backend-wasm/dist/' },
    },
].filter((peer) => !args.peers || args.peers.split(',').some((part) => peer.name.includes(part)));

// ---- the pages' files

const types = { '.html': 'text/html', '.js': 'text/javascript', '.mjs': 'text/javascript', '.wasm': 'application/wasm', '.json': 'application/json' };
const server = createServer((request, response) => {
    const file = path.join(root, path.normalize(new URL(request.url, 'http://localhost').pathname));
    if (!file.startsWith(root + path.sep) || !existsSync(file) || !statSync(file).isFile()) {
        response.writeHead(404).end();
        return;
    }
    response.writeHead(200, {
        'content-type': types[path.extname(file)] ?? 'application/octet-stream',
        // shared memory, so threads, for the peers that use them
        'cross-origin-opener-policy': 'same-origin',
        'cross-origin-embedder-policy': 'require-corp',
        'cache-control': 'no-store',
    });
    createReadStream(file).pipe(response);
});
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
const url = `http://127.0.0.1:${server.address().port}/benches/browser/page.html`;

const executablePath = process.env.CHROMIUM ?? ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find(existsSync);
if (!executablePath) {
    console.error('no Chromium found: apt install chromium, or set CHROMIUM');
    process.exit(1);
}
const browser = await chromium.launch({
    executablePath,
    args: [
        '--headless=new',
        '--no-sandbox',
        '--enable-unsafe-webgpu',
        ...(process.env.WEBGPU_ADAPTER === 'hardware' ? [] : ['--use-webgpu-adapter=swiftshader']),
    ],
});

// ---- one shape

const say = (line) => process.stderr.write(`${line}\n`);
const number = (x) => (x >= 100 ? x.toFixed(0) : x.toPrecision(3));
const median = (all) => {
    const sorted = all.toSorted((a, b) => a - b);
    return (sorted[(sorted.length - 1) >> 1] + sorted[sorted.length >> 1]) / 2;
};
let failed = false;

async function begin(peer, shape) {
    const missing = (peer.needs ?? []).find((file) => !existsSync(path.join(root, file)));
    if (missing) throw new Error(`${missing.slice(1)} is not built`);
    const page = await browser.newPage();
    page.setDefaultTimeout(0);
    const problems = [];
    page.on('pageerror', (error) => problems.push(error.message));
    page.on('console', (message) => message.type() === 'error' && problems.push(message.text()));
    try {
        await page.goto(url);
        await page.waitForFunction(() => window.peer);
        const about = await page.evaluate(([m, o, s]) => window.peer.start(m, o, s), [peer.module, peer.options, shape]);
        // the first step compiles; the second is checked
        await page.evaluate(() => window.peer.step());
        const off = await page.evaluate(() => window.peer.check());
        return { ...peer, page, about, off, times: [] };
    } catch (error) {
        await page.close();
        throw new Error([error.message.split('\n')[0], ...problems].join('; '));
    }
}

async function measure(shape) {
    const text = shape.join('x');
    const [running, without] = [[], []];
    for (const peer of peers) {
        say(`${text}: starting and checking ${peer.name}`);
        try {
            const started = await begin(peer, shape);
            const { loss, dx, dw } = started.off;
            // a NaN differs too
            if (Math.max(loss, dx, dw) <= ALIKE) {
                running.push(started);
                continue;
            }
            await started.page.close();
            failed = true;
            without.push(`${peer.name}: differs by ${loss} in the loss, ${dx} in dX, ${dw} in dW; not timed`);
        } catch (error) {
            failed = true;
            without.push(`${peer.name}: ${error.message}`);
        }
    }
    for (let round = 1; round <= Number(args.rounds); round++) {
        say(`${text}: round ${round} of ${args.rounds}`);
        for (const peer of running) {
            const spent = peer.times.reduce((sum, ms) => sum + ms, 0) / 1000;
            if (peer.times.length >= 2 && spent > Number(args.most)) continue;
            await new Promise((resolve) => setTimeout(resolve, 1000 * Number(args.pause)));
            peer.times.push((await peer.page.evaluate(() => window.peer.step())).ms);
        }
    }
    for (const peer of running) await peer.page.close();
    const rows = running.map(({ name, side, version, about, off, times }) => ({
        shape: text,
        peer: name,
        side,
        version,
        device: about.device,
        threads: about.threads,
        rounds: times.length,
        best_ms: Number(Math.min(...times).toFixed(3)),
        median_ms: Number(median(times).toFixed(3)),
        gflops: Number(((6 * shape.reduce((a, b) => a * b)) / Math.min(...times) / 1e6).toFixed(2)),
        max_difference: Math.max(off.loss, off.dx, off.dw),
        browser: `Chromium ${browser.version()}`,
        cpu: os.cpus()[0].model,
        cores: os.cpus().length,
        date: new Date().toISOString().slice(0, 10),
    }));
    console.log(`\n${text} (N x C x D), ms of alternating rounds`);
    console.log(`  ${'side  peer'.padEnd(32)}${['threads', 'rounds', 'best', 'median', 'ratio', 'GFLOP/s', 'differs'].map((s) => s.padStart(9)).join('')}`);
    for (const side of ['gpu', 'cpu']) {
        const all = rows.filter((row) => row.side === side);
        const own = Math.min(...all.filter((row) => row.peer.startsWith('crate')).map((row) => row.best_ms));
        for (const row of all) {
            row.ratio = Number.isFinite(own) ? Number((row.best_ms / own).toFixed(3)) : null;
            const cells = [row.threads, row.rounds, number(row.best_ms), number(row.median_ms), row.ratio ?? '', row.gflops, row.max_difference.toExponential(0)];
            console.log(`  ${side}   ${row.peer.padEnd(26)}${cells.map((s) => String(s).padStart(9)).join('')}`);
        }
    }
    for (const line of without) console.log(`  without ${line}`);
    return rows;
}

/** New rows take the place of older ones of the same measurement; the file is written whole or not at all. */
function keep(rows) {
    const key = (row) => [row.shape, row.peer, row.device, row.cpu, row.cores].join();
    const old = existsSync(results) ? JSON.parse(readFileSync(results, 'utf8')) : [];
    const all = new Map([...old, ...rows].map((row) => [key(row), row]));
    mkdirSync(path.dirname(results), { recursive: true });
    writeFileSync(`${results}.new`, `[\n${[...all.values()].map((row) => JSON.stringify(row)).join(',\n')}\n]\n`);
    renameSync(`${results}.new`, results);
}

try {
    for (const shape of shapes) {
        const rows = await measure(shape);
        if (!args.quick) keep(rows);
    }
} finally {
    await browser.close();
    server.close();
}
process.exit(failed ? 1 : 0);
